"""A change planted in each component moves its numbers, and raising its version asks for new values instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES
from golden import complaint, kinds, owner_of
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from spectral_tl_bench.data import (
    chip,
    chip_files,
    loaders,
    placement,
    samplers,
    splits,
    transforms,
    unmeasured,
    whole_chips,
    windows,
)
from spectral_tl_bench.data.loaders import BandStatistics, EvaluationData, Normalise, SourceData
from spectral_tl_bench.data.transforms import FlipsAndRotations, FlipsAndTurns
from spectral_tl_bench.data.whole_chips import ShuffledChips, WholeChips
from spectral_tl_bench.evaluation import evaluate, metrics
from spectral_tl_bench.evaluation.evaluate import ChipEvaluator
from spectral_tl_bench.features import data as feature_data
from spectral_tl_bench.features import kept
from spectral_tl_bench.files import digest, seed_from
from spectral_tl_bench.methods import losses
from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models import decoders, patch_embedding, segmenter
from spectral_tl_bench.models.backbones import (
    galileo,
    hypersigma,
    input_norm,
    input_scale,
    load_backbone,
    networks,
    spec,
    spectral,
    spectral_gpt,
)
from spectral_tl_bench.models.decoders import WithPixels, levels
from spectral_tl_bench.models.decoders.head import Head
from spectral_tl_bench.models.decoders.neck import PyramidNeck
from spectral_tl_bench.objectives import coral, mixstyle, risks
from spectral_tl_bench.objectives import spectral as spectral_augmentation
from spectral_tl_bench.objectives.swad import ValleyAverager
from spectral_tl_bench.protocol.numerics import numerics_of, stage_versions
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.runner import seeds
from spectral_tl_bench.training import gradient, plateau
from spectral_tl_bench.training.selection import BestOnSource, LastOnTarget
from spectral_tl_bench.training.stage_store import StageIdentity

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


def put(owner: Any, name: str, value: Any) -> Plant:
    """A plant: another value in the place of an attribute."""
    return lambda patch: patch.setattr(owner, name, value)


def after(owner: Any, name: str, change: Callable[[Any], Any]) -> Plant:
    """A plant: what a function returns is changed."""
    original = getattr(owner, name)
    return put(owner, name, lambda *given, **more: change(original(*given, **more)))


def before(owner: Any, name: str, **changes: Any) -> Plant:
    """A plant: a function is called with other options."""
    original = getattr(owner, name)
    return put(owner, name, lambda *given, **more: original(*given, **(more | changes)))


def scaled(owner: Any, name: str) -> Plant:
    """A plant: what a function returns is twice as large."""
    return after(owner, name, lambda value: 2 * value)


def shifted(owner: Any) -> Plant:
    """A plant: a module's seeds are those after the right ones."""
    return after(owner, "seed_from", lambda seed: seed + 1)


def touched(owner: Any, name: str) -> Plant:
    """A plant: in what a function builds, the largest weight is a tenth larger."""

    def change(network: nn.Module) -> nn.Module:
        with torch.no_grad():
            max(network.parameters(), key=lambda one: float(one.norm()) * (one.ndim > 1)).mul_(1.1)
        return network

    return after(owner, name, change)


# ---------------------------------------------------------------------------------------------- the changes


def holes_count(patch: Patch) -> None:
    original = whole_chips.scale_chip
    patch.setattr(whole_chips, "scale_chip", lambda image, invalid: original(image, torch.zeros_like(invalid)))


def in_another_order(patch: Patch) -> None:
    original = ShuffledChips.__init__

    def begin(self: ShuffledChips, collection: Any, length: int, seed: int, balanced: bool = False) -> None:
        original(self, collection, length, seed + 1, balanced)

    patch.setattr(ShuffledChips, "__init__", begin)


def resized_before_it_is_scaled(patch: Patch) -> None:
    original = WholeChips.prepare

    def prepare(self: WholeChips, sample: dict[str, Any]) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(whole_chips, "scale_chip", lambda image, _: image)
            resized = original(self, sample)
        return {**resized, "image": whole_chips.scale_chip(resized["image"], resized["invalid"])}

    patch.setattr(WholeChips, "prepare", prepare)


def smaller_angles(patch: Patch) -> None:
    original = transforms.RandomRotation
    patch.setattr(transforms, "RandomRotation", lambda degrees, p: original(degrees / 2, p=p))


def outside_is_the_first_class(patch: Patch) -> None:
    original = FlipsAndRotations.forward

    def forward(self: FlipsAndRotations, image: Tensor, mask: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        image, labels = original(self, image, mask, step)
        return image, None if labels is None else torch.where(labels == transforms.VOID, 0, labels)

    patch.setattr(FlipsAndRotations, "forward", forward)


def mean_of_all_but_the_first(values: Any) -> float:
    return float(values[1:][~(values[1:] != values[1:])].mean())


def always_in_the_first_step(patch: Patch) -> None:
    original = FlipsAndTurns.forward
    patch.setattr(FlipsAndTurns, "forward", lambda self, image, mask, step: original(self, image, mask, 0))


def labels_stay(patch: Patch) -> None:
    original = FlipsAndTurns.forward
    patch.setattr(
        FlipsAndTurns, "forward", lambda self, image, mask, step: (original(self, image, mask, step)[0], mask)
    )


def flips_exchanged(patch: Patch) -> None:
    one, other = transforms.RandomHorizontalFlip, transforms.RandomVerticalFlip
    patch.setattr(transforms, "RandomHorizontalFlip", other)
    patch.setattr(transforms, "RandomVerticalFlip", one)


def a_pixel_less(patch: Patch) -> None:
    original = samplers.grid
    patch.setattr(samplers, "grid", lambda size, window, stride: original(size, window, stride - 1))


def the_last_is_selected(patch: Patch) -> None:
    patch.setattr(ModelCheckpoint, "check_monitor_top_k", lambda *_: True)


def the_last_of_equal_ones(patch: Patch) -> None:
    def check(self: ModelCheckpoint, _trainer: Any, current: Tensor | None = None) -> bool:
        return not self.best_k_models or bool(current >= max(self.best_k_models.values()))  # type: ignore[operator]

    patch.setattr(ModelCheckpoint, "check_monitor_top_k", check)


def no_warm_up(patch: Patch) -> None:
    original = LambdaLR.__init__

    def begin(self: LambdaLR, optimiser: Any, factor: Callable[[int], float]) -> None:
        original(self, optimiser, lambda step: 1.0 if step < 3 else factor(step))

    patch.setattr(LambdaLR, "__init__", begin)


def another_chance(patch: Patch) -> None:
    original = torch.manual_seed
    patch.setattr(torch, "manual_seed", lambda seed: original(seed + 1))


def no_dropout(patch: Patch) -> None:
    original = Head.__init__

    def begin(self: Head, *given: Any, **more: Any) -> None:
        original(self, *given, **more)
        self.dropout.p = 0.0

    patch.setattr(Head, "__init__", begin)


def without_rescaling(bands: int, pretrained: int) -> Tensor:
    return (torch.arange(bands)[:, None] % pretrained == torch.arange(pretrained)[None]).float()


def seed_with_versions(self: StageIdentity) -> int:
    return seed_from("stage weights", digest(self.model_dump(mode="json")))


def sweep_without_the_end(patch: Patch) -> None:
    original = SourceData.sweep_loader
    patch.setattr(SourceData, "sweep_loader", lambda self, labelled: list(original(self, labelled))[:-1])


def transposed_alone(self: placement.Turn, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(-1, -2)) if self.transpose else array


def without_pixels(self, features, size):
    return self.maps(features[:-1], size)


identity = put(SourceData, "normaliser", lambda _: nn.Identity())

PLANTS: list[tuple[str, str, Plant]] = [
    ("data", "holes are pixels", after(chip, "unmeasured", lambda holes: holes._replace(values=None))),
    ("data", "labels upside down", after(chip_files, "read_label", lambda label: label._replace(raw=label.raw[::-1]))),
    ("data", "wider deviations", after(BandStatistics, "of", lambda s: BandStatistics(s.mean, s.std * 1.01))),
    ("reading", "masks are not looked at", put(unmeasured, "_hidden", lambda *_: None)),
    ("reading", "turned by transposing alone", put(placement.Turn, "__call__", transposed_alone)),
    ("reading", "offsets are not applied", after(chip, "unit_of", lambda unit: unit._replace(bias=(0.0,) * 3))),
    ("splits", "fewer trials", put(splits, "TRIALS", 2)),
    ("splits", "another seed", shifted(splits)),
    ("windows", "another order", shifted(loaders)),
    ("windows", "a stride of one pixel less", a_pixel_less),
    ("windows", "no weights in blending", after(windows, "blend_weights", torch.ones_like)),
    ("windows", "domains as they come", put(windows, "BalancedDomainWindows", samplers.RandomCollectionWindows)),
    ("normalisation", "left out", put(Normalise, "forward", lambda _, image: image)),
    ("normalisation", "scaled", scaled(Normalise, "forward")),
    ("augmentation", "flips exchanged", flips_exchanged),
    ("augmentation", "every step the same", always_in_the_first_step),
    ("augmentation", "labels stay", labels_stay),
    ("published normalisation", "constant bands are 0",
     after(whole_chips, "scale_chip", lambda image: image * (image <= 1))),
    ("published normalisation", "holes count", holes_count),
    ("published augmentation", "smaller angles", smaller_angles),
    ("published augmentation", "what turns in is a class", outside_is_the_first_class),
    ("published windows", "resized before scaled", resized_before_it_is_scaled),
    ("published windows", "another order", in_another_order),
    ("published windows", "not antialiased", before(whole_chips.functional, "interpolate", antialias=False)),
    ("as-published selection", "reset", put(LastOnTarget, "never_resets", False)),
    ("as-published selection", "the best", put(LastOnTarget, "takes_last", False)),
    ("as-published selection", "not looked at before", put(gradient, "LOOKED_AT", 0)),
    ("metric", "a class is dropped", put(metrics, "_mean", mean_of_all_but_the_first)),
    ("metric", "truth and prediction exchanged", after(metrics, "_checked", lambda matrix: matrix.T)),
    ("selection", "the last", the_last_is_selected),
    ("selection", "the last of equal ones", the_last_of_equal_ones),
    ("selection", "another value", scaled(BestOnSource, "value")),
    ("evaluation", "truth and prediction exchanged", after(evaluate, "confusion", lambda matrix: matrix.T)),
    ("evaluation", "labels one pixel off", after(EvaluationData, "truth", lambda truth: truth[:, ::-1].copy())),
    ("evaluation", "loss by windows", put(ChipEvaluator, "loss", lambda self: self._loss / 1_000)),
    ("evaluation", "normalisation left out in the cell", identity),
    ("training", "normalisation left out in the cell", identity),
    ("training", "the loss scaled", scaled(losses, "segmentation_loss")),
    ("training", "another beta", before(torch.optim, "AdamW", betas=(0.9, 0.999))),
    ("training", "no weight decay", before(torch.optim, "AdamW", weight_decay=0.0)),
    ("training", "no warm-up", no_warm_up),
    ("training", "another chance", another_chance),
    ("training", "no augmentation", put(SourceData, "augmentation", lambda *_: None)),
    ("training", "pixels left out in closed form", sweep_without_the_end),
    ("first stages", "a seed with versions", put(StageIdentity, "weight_seed", property(seed_with_versions))),
    ("plateau", "another fall", put(plateau, "FALL", 0.5)),
    ("plateau", "the first is the end", put(plateau, "PLATEAUS", 1)),
    ("kept features", "features scaled", after(kept, "compute_features", lambda maps: [1.1 * one for one in maps])),
    ("kept features", "another order", shifted(feature_data)),
    ("kept features", "labels not turned", put(feature_data, "symmetry", lambda values, _: values)),
    ("decoder", "no dropout", no_dropout),
    ("decoder", "scaled logits", scaled(Head, "classify")),
    ("decoder", "levels exchanged", after(PyramidNeck, "forward", lambda levels: [2 * levels[0], *levels[1:]])),
    ("light decoders", "scaled logits", scaled(Head, "classify")),
    ("light decoders", "levels exchanged", after(levels, "joined", lambda one: one.flip(1))),
    ("light decoders", "no pixel path", put(WithPixels, "forward", without_pixels)),
    ("patch embedding", "not rescaled", put(patch_embedding, "repeat", without_rescaling)),
    ("patch embedding", "twice the filters", scaled(patch_embedding, "wavelength")),
    ("patch embedding", "colours exchanged", after(patch_embedding, "rgb", lambda matrix: matrix.flip(1))),
    ("backbone reading", "larger by another rule", scaled(input_scale, "enlarged")),
    ("backbone reading", "levels not normalised", put(segmenter, "plain_norm", lambda maps: maps)),
    ("backbone reading", "darker pictures", put(input_norm, "BRIGHTEST", 0.5)),
    ("backbone reading", "windows as they come", put(input_norm.WindowNorm, "forward", lambda _, images: images)),
    ("backbone reading", "another order", after(spec, "in_composites", lambda groups: groups[::-1])),
    ("backbone vit", "another start", touched(networks, "vit")),
    ("backbone scale-mae", "another start", touched(networks, "scale_mae")),
    ("backbone timm", "another start", touched(networks, "by_name")),
    ("backbone dinov2", "another start", touched(networks, "vit")),
    ("backbone galileo", "other positions", scaled(galileo, "waves")),
    ("backbone galileo", "another month", put(galileo, "MONTH", 0)),
    ("backbone dofa", "another start", touched(spectral, "dofa")),
    ("backbone panopticon", "another unit", put(spectral, "NANOMETRES", 900.0)),
    ("backbone hypersigma", "fewer points", put(hypersigma, "POINTS", 4)),
    ("backbone hypersigma", "another start", touched(hypersigma, "hypersigma_global")),
    ("backbone hypersigma", "another width of the fusion", put(hypersigma, "INNER", 64)),
    ("backbone spectral-gpt", "another start", touched(spectral_gpt, "spectral_gpt")),
    ("backbone spectral-gpt", "bands by rank", put(spectral_gpt, "bands_in_groups", lambda *_: [0, 1, 2])),
    ("backbone copernicus-fm", "wider bands", scaled(spectral, "bandwidths")),
    ("objective coral", "the distance scaled", scaled(coral, "coral_distance")),
    ("objective erm", "balanced", put(risks.Erm, "wants_balance", lambda _: True)),
    ("objective groupdro", "the risk scaled", scaled(risks.GroupDro, "risk")),
    ("objective vrex", "the risk scaled", scaled(risks.Vrex, "risk")),
    ("objective mixstyle", "statistics not mixed", put(mixstyle, "mix_statistics", lambda features, *_: features)),
    ("objective spectralaug", "other haze", put(spectral_augmentation, "HAZE_EXPONENTS", (0.0, 1.0))),
    ("objective swad", "no valley", put(ValleyAverager, "_valley", lambda _: None)),
]  # fmt: skip


def plants() -> Iterator[Any]:
    for component, what, plant in PLANTS:
        yield pytest.param(component, plant, id=f"{component}: {what}")
    for name, kind in kinds("method").items():
        for what, change in (("scale", scale), ("start", start), ("share", share)):
            if kind.family != "floor" or name == "pixel-mlp" or what == "scale":  # type: ignore[attr-defined]
                twin = what != "scale" and name not in ("full", "spectralx")
                yield pytest.param(
                    f"method {name}", rebuilt(kind, change), id=f"method {name}: another {what}",
                    marks=pytest.mark.slow if twin else (),
                )  # fmt: skip


@pytest.mark.parametrize(("component", "plant"), plants())
def test_a_planted_change_is_caught(component, plant, monkeypatch):
    plant(monkeypatch)
    found = complaint(CASES[component])
    assert found is not None, "nobody would have noticed"
    assert found.splitlines()[0] == (
        f"the numbers of {component} moved: raise its numerics version, or take the change back"
    )
    speaker = CASES[component].speaks[0]
    version = getattr(*owner_of(speaker))
    monkeypatch.setattr(*owner_of(speaker), version + 1)
    found = complaint(CASES[component])
    assert found is not None and found.startswith(
        f"the numerics version of {speaker} was raised ({version} -> {version + 1}): write the golden values of "
        f"{component} anew"
    )


@pytest.mark.parametrize(
    "plant", [shifted(seeds), put(StageIdentity, "weight_seed", property(seed_with_versions))], ids=["names", "stage"]
)
def test_a_seed_that_moves_can_only_be_taken_back(plant, monkeypatch):
    plant(monkeypatch)
    found = complaint(CASES["seeds"])
    assert found is not None and found.startswith("the numbers of seeds moved: they must never, take the change back")


def test_a_first_stage_depends_on_the_draws_of_the_decoder(monkeypatch):
    after(decoders, "build_decoder", lambda module: (module, torch.rand(1))[0])(monkeypatch)
    found = complaint(CASES["first stages"])
    assert found is not None and found.startswith("the numbers of first stages moved")
    versions = numerics_of(get_protocol(), "spectralx", make_method("spectralx"), {}, load_backbone("compact"))
    assert "decoder" in stage_versions(versions)


def test_every_component_is_planted_in():
    planted = {parameter.values[0] for parameter in plants()}
    assert planted | {"seeds"} == CASES.keys()


# ---------------------------------------------------------------------------------------------- in every method


def rebuilt(kind: Any, change: Callable[[nn.Module], None]) -> Plant:
    """A plant: something is changed in what a method builds."""

    def plant(patch: Patch) -> None:
        original = kind.build

        def build(self: Method, task: Task) -> nn.Module:
            module = original(self, task)
            change(module)
            return module

        patch.setattr(kind, "build", build)

    return plant


FAINT = 0.01
"""A class token starts at a millionth, which no number shows."""


def own_part(module: nn.Module) -> tuple[str, nn.Parameter]:
    """The first trained weight that is the method's own: not of the decoder, the norms or the patch embedding."""
    trains = [
        (name, one)
        for name, one in module.named_parameters()
        if one.requires_grad and float(one.detach().norm()) > FAINT
    ]
    others = ("decoder.", "backbone.patch_embed.")
    own = [(name, one) for name, one in trains if not name.startswith(others) and ".norm" not in name]
    return (own or trains)[0]


def start(module: nn.Module) -> None:
    """Another scale of a weight at the start."""
    with torch.no_grad():
        own_part(module)[1].mul_(1.1)


def scale(module: nn.Module) -> None:
    """What the first trained layer gives is a tenth larger; what trains nothing gives other logits."""
    owner = module
    if any(parameter.requires_grad for parameter in module.parameters()):
        path = own_part(module)[0].split(".")[:-1]
        layers = [module.get_submodule(".".join(path[:end])) for end in range(len(path), 0, -1)]
        owner = next((one for one in layers if type(one).forward is not nn.Module.forward and called(one)), module)
    owner.register_forward_hook(lambda _module, _inputs, output: output * 1.1 if isinstance(output, Tensor) else output)


def called(layer: nn.Module) -> bool:
    """Whether a layer computes when it is called: no container of weights, and no backbone, which is asked for maps."""
    containers = (nn.ParameterDict, nn.ParameterList, nn.ModuleDict, nn.ModuleList)
    return not isinstance(layer, containers) and not hasattr(layer, "forward_intermediates")


def share(module: nn.Module) -> None:
    """A frozen weight trains; where all train, one is frozen."""
    parameters = list(module.parameters())
    frozen = [one for one in parameters if not one.requires_grad]
    (frozen or parameters)[0].requires_grad_(bool(frozen))
