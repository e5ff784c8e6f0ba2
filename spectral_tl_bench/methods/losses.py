"""The loss of a stage that brings none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from spectral_tl_bench.methods.base import VOID, Batch

if TYPE_CHECKING:
    from torch import Tensor, nn


def segmentation_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy over labelled pixels; zero, with gradients, where a batch has none."""
    logits = module(batch["image"])
    total = functional.cross_entropy(logits, batch["mask"], ignore_index=VOID, reduction="sum")
    return total / (batch["mask"] != VOID).sum().clamp(min=1)
