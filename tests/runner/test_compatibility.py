"""Every method on every kind of backbone: each pair works, or is refused for a reason that stands here.

A new method or backbone of the suite fails here until the tables below say where it belongs. The table in
``docs/backbones.md`` is made of them; ``PYTHONPATH=tests python tests/methods/test_pairs.py`` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny import make_task
from torch import nn

from spectral_tl_bench.authoring.watching import batch_of, contradictions, declared_in, train_a_little
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import load_method, method_entries
from spectral_tl_bench.models.backbones import Backbone, backbone_entries, get_backbone, load_backbone
from spectral_tl_bench.models.backbones.pyramid import Pyramid
from spectral_tl_bench.models.patch_embedding import SENTINEL2
from spectral_tl_bench.runner.able import ANYWHERE, check_pair

DOCUMENT = Path(__file__).parents[2] / "docs" / "backbones.md"

OURS = ("spectral_tl_bench.", "spectralx.")
"""How the entry points of this project begin; other installed plugins take no stand here."""


@dataclass(frozen=True)
class Kind:
    """Backbones that methods can tell apart by their sizes alone.

    Attributes:
        names: The backbones; the first one is shrunk and trained.
        sizes: Those of a small one.
        standin: timm's options for a small one, where a backbone has no sizes.
        stages: Channels of its four maps.
    """

    names: tuple[str, ...]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    standin: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[int, ...] = ()


SMALL = {"width": 32, "depth": 2, "heads": 4, "patch": 8}

KINDS = {
    "plain ViT": Kind(
        ("vit-base", "compact", "vit-tiny", "vit-small", "vit-large", "satmaepp-large", "ssl4eo-small"), SMALL
    ),
    "rgb-mini": Kind(("rgb-mini",)),
    "Scale-MAE": Kind(("scalemae-large",), SMALL),
    "DINOv2": Kind(("dinov2-small", "dinov2-base", "dinov2-large"), SMALL),
    "DINOv3": Kind(("dinov3-large-sat",), SMALL),
    "DOFA": Kind(("dofa-base", "dofa-large"), SMALL),
    # Its attention over channels has 16 heads, and oft rotates 32 channels at a time.
    "Panopticon": Kind(("panopticon",), {"width": 96, "depth": 2, "heads": 4}),
    "Copernicus-FM": Kind(("copernicus-fm",), SMALL),
    "SpectralGPT": Kind(("spectralgpt", "spectralgpt-plus"), SMALL),
    "Galileo": Kind(("galileo-nano", "galileo-tiny", "galileo-base"), SMALL),
    "HyperSIGMA": Kind(("hypersigma-base", "hypersigma-large", "hypersigma-huge"), SMALL | {"depth": 8}),
    "HyperSIGMA global": Kind(("hypersigma-base-global", "hypersigma-large-global", "hypersigma-huge-global"), SMALL),
    "HyperSIGMA fused": Kind(
        ("hypersigma-base-fused", "hypersigma-large-fused", "hypersigma-huge-fused"), SMALL | {"depth": 8}
    ),
    "ResNet": Kind(
        ("resnet50",), standin={"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "zero_init_last": False},
        stages=(32, 64, 96, 128),
    ),
    "Swin": Kind(
        ("swin-tiny", "swin-base"),
        standin={"embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 2},
        stages=(32, 64, 128, 256),
    ),
}  # fmt: skip
"""All backbones of the suite. A small ResNet starts without branches that add nothing, as pretrained ones do."""

UNUSED = "without a backbone"

GROUPS = {
    "as they are": ANYWHERE,
    "peft": ("adalora", "dora", "fourierft", "ia3", "ln-tuning", "lora", "oft", "peft", "vera"),
    "low rank": ("lora-biased",),
    "SLR": ("slr",),
    "in blocks": ("adaptformer", "houlsby", "ssf"),
    "between blocks": ("earth-adapter", "land-moe", "rein"),
    "prompts": ("vpt-deep", "vpt-shallow"),
    "SpectralX": ("spectralx",),
    "target images": ("entropy-min", "self-training"),
    UNUSED: ("adabn", "deeplabv3plus", "majority", "nearest-mean", "pixel-mlp", "unet"),
}
"""All methods of the suite, by what they do to a backbone."""

NO_BLOCKS = "no linear layers or LayerNorms in blocks to put an adapter on"
FOUR_SIZES = "four resolutions instead of one sequence of tokens through equal blocks"

SEVERAL_TOKENS = "several tokens for every place, one for each group of bands, where the method makes or adds one"
SAMPLED_GRID = "attention that samples the grid of tokens, where the method adds tokens or leaves some out"

REFUSED = {
    ("peft", "ResNet"): NO_BLOCKS,
    **{
        (group, kind): FOUR_SIZES
        for group in ("low rank", "SLR", "in blocks", "between blocks", "prompts", "SpectralX")
        for kind in ("ResNet", "Swin")
    },
    **{
        (group, kind): SEVERAL_TOKENS
        for group in ("low rank", "SLR", "SpectralX")
        for kind in ("SpectralGPT", "Galileo")
    },
    **{
        (group, kind): SAMPLED_GRID
        for group in ("prompts", "SLR", "SpectralX")
        for kind in ("HyperSIGMA", "HyperSIGMA fused")
    },
}
"""Groups of methods and kinds of backbones that do not go together, and why. All others do."""

PAIRS = [(kind, group, name) for kind in KINDS for group, names in GROUPS.items() for name in names]
WORKING = [(kind, name) for kind, group, name in PAIRS if (group, kind) not in REFUSED and group != UNUSED]
REFUSALS = [(kind, name) for kind, group, name in PAIRS if (group, kind) in REFUSED]


def quick(pairs: Sequence[tuple[str, str]]) -> list[Any]:
    """The pairs, of which those are slow that have a twin: another method of the group on the same kind."""
    firsts = {names[0] for names in GROUPS.values()}
    return [
        pytest.param(kind, name, marks=() if name in firsts or kind == "plain ViT" else pytest.mark.slow)
        for kind, name in pairs
    ]


def small_pyramid(options: Mapping[str, Any], spec: Backbone, in_chans: int, image_size: int) -> nn.Module:
    """What ``Backbone.make`` gives, with fewer and narrower layers."""
    sized = {"img_size": image_size} if "swin" in spec.architecture else {}
    return Pyramid(timm.create_model(spec.architecture, num_classes=0, in_chans=in_chans, **sized, **options))


@cache
def small_task(kind: str) -> Task:
    """A task of 13 bands on a small backbone of a kind."""
    one = KINDS[kind]
    weights = None if load_backbone(one.names[0]).bundled else "none"
    spec = get_backbone(one.names[0], weights, **one.sizes)
    if one.standin:
        spec = replace(spec, make=partial(small_pyramid, one.standin), stages=one.stages, width=one.stages[-1])
    return on_backbone(spec, 2 if one.standin else 3)


def on_backbone(spec: Backbone, patches: int) -> Task:
    task = make_task(bands=len(SENTINEL2), window=patches * spec.patch, steps=3, pretrain_steps=3)
    return replace(task, wavelengths=SENTINEL2, backbone=replace(spec.for_sensor(SENTINEL2, 10.0), seed=0))


def method(name: str) -> Method:
    return load_method(name)()


def ours(entries: Mapping[str, Any]) -> set[str]:
    return {name for name, entry in entries.items() if entry.value.startswith(OURS)}


def stands(kind: str) -> tuple[str | None, ...]:
    """Why each group of methods does not go with a kind; None where it does."""
    return tuple(REFUSED.get((group, kind)) for group in GROUPS)


def table() -> str:
    """The table of the document; kinds that take the same stands share a column."""
    columns: dict[tuple[str | None, ...], list[str]] = {}
    for kind in KINDS:
        columns.setdefault(stands(kind), []).append(kind)
    notes = list(dict.fromkeys(REFUSED.values()))
    lines = ["| methods | " + " | ".join(", ".join(kinds) for kinds in columns.values()) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for number, (group, names) in enumerate(GROUPS.items()):
        works = "not used" if group == UNUSED else "yes"
        marks = [
            works if stand[number] is None else f"no ({notes.index(stand[number] or '') + 1})" for stand in columns
        ]
        lines.append("| " + " | ".join([", ".join(f"`{name}`" for name in names), *marks]) + " |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))])


def test_every_method_and_backbone_of_the_suite_takes_a_stand() -> None:
    methods = [name for names in GROUPS.values() for name in names]
    backbones = [name for kind in KINDS.values() for name in kind.names]
    assert sorted(methods) == sorted(ours(method_entries())), "put a new method into one of GROUPS"
    assert sorted(backbones) == sorted(ours(backbone_entries())), "put a new backbone into one of KINDS"
    unused = {name for name in methods if not load_method(name).uses_backbone}
    assert unused == set(GROUPS[UNUSED])
    assert all(group in GROUPS and kind in KINDS for group, kind in REFUSED)


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert table() in text, "PYTHONPATH=tests python tests/methods/test_pairs.py prints the table for docs/backbones.md"
    for name in (name for kind in KINDS.values() for name in kind.names):
        assert f"`{name}`" in text


@pytest.mark.parametrize(("kind", "name"), quick(WORKING))
def test_a_pair_gives_logits_and_gradients(kind: str, name: str) -> None:
    torch.manual_seed(0)
    task, one = small_task(kind), method(name)
    module = one.build(task)
    batch = batch_of(torch.randn(2, task.num_bands, task.window, task.window), task.num_classes)
    if method(name).target_images:
        batch["target_image"] = batch["image"].flip(0)
    for stage in one.stages(task):
        module.zero_grad()
        loss = (stage.loss or segmentation_loss)(module, batch)
        loss.backward()
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)
    module.eval()
    with torch.no_grad():
        logits = module(batch["image"])
    assert logits.shape == (2, task.num_classes, task.window, task.window) and logits.isfinite().all()


@pytest.mark.parametrize(("kind", "name"), quick(REFUSALS))
def test_a_pair_is_refused_in_words(kind: str, name: str) -> None:
    task = small_task(kind)
    with pytest.raises(MethodError) as caught:
        check_pair(name, method(name), task)
    said = str(caught.value)
    assert said.startswith(f"method {name!r} does not go with backbone {task.backbone.name} ")
    assert "expected: " in said and "to do: choose another --backbone, or a method that goes with all" in said
    assert "Error" not in said and "Pyramid" not in said, "words for users, not of Python"


@pytest.mark.parametrize("name", GROUPS[UNUSED])
def test_methods_without_a_backbone_do_not_build_one(name: str) -> None:
    def never(*_: object) -> nn.Module:
        raise AssertionError("a backbone was built")

    task = small_task("plain ViT")
    task = replace(task, backbone=replace(task.backbone, make=never))
    module = method(name).build(task).eval()
    with torch.no_grad():
        logits = module(torch.randn(2, task.num_bands, task.window, task.window))
    assert logits.shape == (2, task.num_classes, task.window, task.window)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), WORKING)
def test_exactly_what_is_declared_trains(kind: str, name: str) -> None:
    torch.manual_seed(0)
    task, one = small_task(kind), method(name)
    module = one.build(task)
    declared, trained = declared_in(module), set()
    for stage in one.stages(task):
        seen = train_a_little(
            module, stage, task.num_bands, task.num_classes, task.window, declared=declared,
            target_images=method(name).target_images,
        )  # fmt: skip
        assert list(contradictions(module, stage, seen, declared)) == []
        trained |= seen.chosen
    assert trained == declared


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [name for kind in KINDS.values() for name in kind.names])
@pytest.mark.parametrize("group", [group for group in GROUPS if group != UNUSED])
def test_true_sizes(group: str, backbone: str) -> None:
    """Built without numbers, as ``check_pair`` does for all but plain transformers."""
    kind = next(kind for kind, one in KINDS.items() if backbone in one.names)
    spec = get_backbone(backbone, None if load_backbone(backbone).bundled else "none")
    task = on_backbone(spec, 224 // spec.patch)
    for name in GROUPS[group]:
        if (group, kind) in REFUSED:
            with pytest.raises(MethodError, match=backbone):
                check_pair(name, method(name), task)
            continue
        check_pair(name, method(name), task)
        with torch.device("meta"):
            module = method(name).build(task)
        assert declared_in(module)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
