"""Golden cases of methods: the start, a few steps of every stage, and everything with noise on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench import SIZES, WAVELENGTHS
from golden import Case, Numbers, kinds, named
from pretrained import NAMES, with_decoder
from sketches import by_kind, calmed, norms, shaken, sketch, without_dropout
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.methods.base import VOID, Batch, Budget, Method, Stage, Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import Backbone, get_backbone
from spectral_tl_bench.models.weights import with_frozen_statistics

Lines = Iterator[tuple[str, Numbers]]
CLASSES, SIDE, STEPS, LENGTH = 3, 32, 4, 0.1
"""``LENGTH`` is that of a step: its direction is the gradient's, its size does not depend on the loss."""

NORMS = {"train_norms": True}
"""Was the default when the values were written first; the numbers of the same options have not moved."""

FIRST = {"decoder": "upernet"}
"""Defaults when the values were written first, of options that a case does not name."""

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "adalora": {"": {"interval": 1, **NORMS}}, "dora": {"": NORMS}, "fourierft": {"": NORMS}, "ia3": {"": NORMS},
    "oft": {"": NORMS}, "peft": {"": NORMS}, "vera": {"": NORMS},
    "adaptformer": {"": {}, "norm of the block": {"layernorm": "block"}, "own norm": {"layernorm": "in"}},
    "earth-adapter": {"": {"early": 2}, "late": {"early": 0, "late": 2}},
    "spectralx": {
        "released": {}, "paper": {"reading": "paper"}, "released to the last": {"@": "released"},
        "without experts": {"@": "hypert"}, "full": {"@": "full"},
        "drawn start alone": {"reading": "paper", "adapter_start": "xavier"},
        "whole image alone": {"reading": "paper", "stage1_image": "whole"},
        "Scale-MAE's decoder": {"&": "scale-mae"}, "SatMAE++'s decoder": {"&": "satmae++"},
        "rotary": {"&": "dinov3-large-sat"}, "rotary, paper": {"&": "dinov3-large-sat", "reading": "paper"},
    },
    "slr": {
        "paper": {}, "released": {"reading": "released"}, "one stage": {"pretrain": False},
        "frozen norms": {"train_norms": False},
    },
    "lora-biased": {"paper": {}, "released": {"reading": "released"}},
    "unet": {"": {"@": "small"}},
    "adabn": {"": {"@": "small"}},
    "self-training": {"": {"threshold": 0.35, "temperature": 1.0}, "plain": {"classmix": False, "rare_classes": False}},
    "deeplabv3plus": {"": {"@": "small"}},
}  # fmt: skip
"""Options of a method's cases, ``@`` for a preset, ``&`` for another backbone or the weights of one with a decoder; by
default one case with the defaults."""

BESIDE = {"spectralx": ("backbone scale-mae", "backbone timm")}
"""Further backbones that a method's cases stand on."""


def task(backbone: Backbone | None = None) -> Task:
    """What methods are told."""
    backbone = replace(backbone or get_backbone("compact", "none", **SIZES), seed=7)
    return Task(
        benchmark="golden", bands=tuple(f"B{band}" for band in range(len(WAVELENGTHS))), wavelengths=WAVELENGTHS,
        gsd=10.0, classes=("a", "b", "c"), domains=("here", "there"), window=SIDE,
        budget=Budget(steps=STEPS, pretrain_steps=STEPS), backbone=backbone.for_sensor(WAVELENGTHS, 10.0),
    )  # fmt: skip


def batches() -> list[Batch]:
    """Images whose classes can be seen, some pixels without one."""
    generator = torch.Generator().manual_seed(21)
    spectra = torch.tensor([[-1.0, -0.5, 0.0, 1.5], [1.0, 0.5, 0.5, -1.0], [0.0, 0.5, 1.0, 0.0]])
    found = []
    for _ in range(STEPS):
        mask = torch.randint(CLASSES, (2, SIDE // 4, SIDE // 4), generator=generator)
        mask = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
        image = spectra[mask].movedim(-1, 1) + 0.5 * torch.randn(2, 4, SIDE, SIDE, generator=generator)
        mask[:, :3] = VOID
        found.append({"image": image, "mask": mask, "domain": torch.tensor([0, 1])})
    return found


def with_target_images(given: list[Batch]) -> list[Batch]:
    """The same with brighter images of the others' places beside."""
    pairs = zip(given, reversed(given), strict=True)
    return [{**batch, "target_image": 1.2 * other["image"] + 0.3} for batch, other in pairs]


def method(name: str) -> Lines:
    """All cases of a method."""
    for title, given in VARIANTS.get(name, {"": {}}).items():
        options = dict(given)
        preset = options.pop("@", None)
        other = options.pop("&", None)
        made = make_method(f"{name}@{preset}" if preset else name, options, FIRST)
        with tempfile.TemporaryDirectory() as folder:
            what = task(backbone_of(other, Path(folder)) if other else None)
            yield from named(title, numbers_of(made, what)) if title else numbers_of(made, what)


def backbone_of(name: str, folder: Path) -> Backbone:
    """A small backbone by name, or with weights of a kind, which are written into a folder."""
    if name in NAMES:
        return with_decoder(name, folder / "weights.pth")
    return get_backbone(name, "none", None, "none", width=48, depth=4, heads=2)


def numbers_of(made: Method, what: Task) -> Lines:
    """What a method builds and how its stages train."""
    torch.manual_seed(13)
    module, given = made.build(what), with_target_images(batches()) if made.target_images else batches()
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    yield "parameters", [sum(sizes[name] for name in declared), sum(sizes.values())]
    yield "dropout", without_dropout(module.train())
    calmed(module)
    yield "start", logits_of(module, given)
    for stage in made.stages(what):
        if stage.fit is not None:
            with torch.no_grad():
                stage.fit(module.eval(), given)
        elif stage.steps:
            yield from named(stage.name, trained(module, stage, declared, given))
        yield f"{stage.name}: logits", logits_of(module, given)
    shaken(module)
    yield "shaken", logits_of(module, given)
    if declared:
        module.zero_grad(set_to_none=True)
        cross_entropy(module, given[0]).backward()
        yield "shaken: gradients", norms(by_kind(gradients_of(module).items()))


def trained(module: nn.Module, stage: Stage, declared: set[str], given: list[Batch]) -> Lines:
    """Losses of a few steps, and the first and the last gradient by kind of parameter."""
    choose = stage.trainable or declared.__contains__
    names = {name for name, _ in module.named_parameters() if choose(name)}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)
    module.train()
    for _, layer in with_frozen_statistics(module):
        layer.eval()
    losses = []
    for step, batch in enumerate(given):
        torch.manual_seed(100 + step)
        module.zero_grad(set_to_none=True)
        shown = batch if stage.labelled else {key: value for key, value in batch.items() if key != "mask"}
        loss = (stage.loss or cross_entropy)(module, shown)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients = gradients_of(module)
        if step in (0, len(given) - 1):
            yield f"gradients of step {step + 1}", norms(by_kind(gradients.items()))
        move(module, gradients)
        if stage.after_step is not None:
            stage.after_step(module, step + 1, stage.steps)
    yield "losses", losses


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by name of the parameter."""
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def cross_entropy(module: nn.Module, batch: Batch) -> Tensor:
    """That of the suite is a component of training, and not of a method."""
    return functional.cross_entropy(module(batch["image"]), batch["mask"], ignore_index=VOID)


def move(module: nn.Module, gradients: dict[str, Tensor]) -> None:
    """A step of a given length against the gradient."""
    length = torch.stack([one.norm() for one in gradients.values()]).norm()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in gradients:
                parameter.sub_(LENGTH / length * gradients[name])


def logits_of(module: nn.Module, given: list[Batch]) -> list[float]:
    """A sketch of the logits of a batch that the module was not trained on last."""
    with torch.no_grad():
        return sketch(module.eval()(given[0]["image"]))


CASES = [
    Case(
        f"method {name}", lambda name=name: method(name),
        (
            f"method {name}",
            *(("backbone vit", "decoder") if kind.uses_backbone else ()),  # type: ignore[attr-defined]
            *BESIDE.get(name, ()),
        ),
    )
    for name, kind in kinds("method").items()
]  # fmt: skip
