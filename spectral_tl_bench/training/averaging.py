"""Puts averaged weights into a module, with batch statistics that belong to them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from spectral_tl_bench.data.batches import on_device
from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.objectives.base import Average
from spectral_tl_bench.training.gradient import Validation
from spectral_tl_bench.training.task import StageTask

STATISTICS_BATCHES = 100
"""Source training batches, at most, from which batch statistics are computed again."""


def take_average(
    task: StageTask, average: Average, source: SourceData, validation: Validation, device: torch.device
) -> float:
    """Put averaged weights into the module that a task has trained.

    The mean of weights has no batch statistics of its own: those of layers that track them in training are computed
    again, as plain means over source training windows without augmentation.

    Args:
        validation: How the average is validated.

    Returns:
        The mIoU on source validation.
    """
    module = task.module
    module.load_state_dict(average.state, strict=False)
    module.to(device)
    task.train()
    tracking = [
        child for child in module.modules() if child.training and getattr(child, "running_mean", None) is not None
    ]
    if tracking:
        normalise = source.normaliser().to(device)
        _track_again(module, tracking, normalise, source, min(task.stage.steps, STATISTICS_BATCHES))
    table = evaluate(module, source.normaliser(), validation.chips, validation.num_classes, device)
    return validation.selection.value(np.sum(list(table["matrix"]), axis=0))


@torch.no_grad()
def _track_again(
    module: nn.Module, layers: list[nn.Module], normalise: nn.Module, source: SourceData, batches: int
) -> None:
    momenta = [layer.momentum for layer in layers]
    device = next(module.parameters()).device
    for layer in layers:
        layer.reset_running_stats()  # type: ignore[operator]
        layer.momentum = None  # type: ignore[assignment]
    try:
        for batch in source.train_loader(batches, False, "batch statistics of an average"):
            module(normalise(on_device(batch["image"], device)))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
