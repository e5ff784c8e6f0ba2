"""The loss on source validation between the protocol's validations, for whoever needs it more often."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from spectral_tl_bench.data.batches import on_device
from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.shares import spread
from spectral_tl_bench.evaluation.evaluate import ChipEvaluator


@torch.no_grad()
def source_loss(
    module: nn.Module,
    normalise: nn.Module,
    chips: EvaluationData,
    num_classes: int,
    device: torch.device,
    precision: AbstractContextManager[Any],
) -> float:
    """Mean cross-entropy over the windows of chips, as a validation would give it; training goes on as if unseen.

    Modes of layers and random states are afterwards what they were. Where several processes train together, all of
    them come here, each with its share of the chips.

    Args:
        module: Maps normalised images (B, C, H, W) to logits (B, K, H, W).
        normalise: Maps file units to normalised images.
        chips: Source chips for validation, or this process's share of them.
        num_classes: Number of classes K.
        device: Where the module is.
        precision: Context of the forward passes.
    """
    modes = [(child, child.training) for child in module.modules()]
    spread(list(module.buffers()))
    evaluator = ChipEvaluator(chips, num_classes, with_loss=True)
    module.eval()
    # A loader draws a seed for its workers.
    with torch.random.fork_rng(devices=[]), precision:
        for batch in chips.loader() if chips.rows else ():
            evaluator.add(module(normalise(on_device(batch["image"], device))), batch)
    for child, mode in modes:
        child.training = mode
    return evaluator.loss()
