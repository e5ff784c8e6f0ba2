"""Stages without an optimiser: the method computes its module from the source training pixels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from spectral_tl_bench.console import in_percent
from spectral_tl_bench.data.batches import IMAGES, WithTargetImages, on_device
from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.methods.base import Batch, Stage
from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.pulse import beat
from spectral_tl_bench.training.gradient import Validation
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.task import trained_parameters, trained_state


class Sweep:
    """The batches of a stage in closed form: every source training pixel, normalised, as often as they are asked for.

    Args:
        labelled: Whether batches carry ``mask``.
        order: Name of the order of target windows, which batches hold for methods that say that they need them.
    """

    def __init__(self, source: SourceData, labelled: bool, device: torch.device, order: str = "") -> None:
        self._loader = source.sweep_loader(labelled)
        self._target = source.target_loader(len(self._loader), order)
        self._normalise = source.normaliser().to(device)
        self._device = device

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches in the order of the chips."""
        loader = self._loader if self._target is None else WithTargetImages(self._loader, self._target)
        for batch in loader:
            beat()
            moved = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
            yield {name: self._normalise(on_device(value, self._device)) if name in IMAGES else value
                   for name, value in moved.items()}  # fmt: skip

    def __len__(self) -> int:
        return len(self._loader)


@dataclass(frozen=True)
class Solved:
    """What a stage in closed form did.

    Attributes:
        state: What it may have changed: buffers and chosen parameters.
        trainable: Number of the parameters that it was to set.
        seconds: How long it took, with the validation.
        miou: Value of the validation; None without one.
    """

    state: dict[str, Tensor]
    trainable: int
    seconds: float
    miou: float | None


def solve_stage(
    module: nn.Module,
    stage: Stage,
    source: SourceData,
    declared: set[str],
    *,
    seed: int,
    device: torch.device,
    say: Say,
    title: str,
    validation: Validation | None = None,
) -> Solved:
    """Let a stage set ``module`` in closed form, in float32.

    Args:
        module: What the method built, as earlier stages left it.
        stage: A stage with ``fit``.
        source: Training pixels.
        declared: Parameters that required a gradient when the module was built.
        seed: Seed of whatever is random in the stage.
        title: What is running, for progress.
        validation: How it is validated, once; None for not at all.

    Raises:
        MethodError: If the stage changed a parameter that it does not name.
        ValueError: If the stage is not in closed form.
    """
    if stage.fit is None:
        raise ValueError(f"stage {stage.name!r} is not in closed form")
    started = time.monotonic()
    torch.manual_seed(seed)
    module.to(device).eval()
    names = trained_parameters(module, stage, declared)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)
    others = {name for name, _ in module.named_parameters()} - names
    before = weights_digest(module, lambda name: name in others)
    batches = Sweep(source, stage.labelled, device, stage.name)
    say(f"{title} | {stage.name}: in closed form, from {len(batches)} batches of source training pixels")
    with torch.no_grad():
        stage.fit(module, batches)
    if weights_digest(module, lambda name: name in others) != before:
        raise MethodError(
            f"stage {stage.name!r} changed parameters that it does not name",
            where=title,
            expected="`trainable` chooses every parameter that `fit` sets; what no gradient reaches may be a buffer",
        )
    miou = None
    if validation is not None:
        table = evaluate(module, source.normaliser(), validation.chips, validation.num_classes, device)
        miou = validation.selection.value(np.sum(list(table["matrix"]), axis=0))
        say(f"{title} | {stage.name} 1/1 | {validation.selection.name} {in_percent(miou)}")
    trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    state = {name: value.detach().cpu().clone() for name, value in trained_state(module).items()}
    return Solved(state, trainable, time.monotonic() - started, miou)
