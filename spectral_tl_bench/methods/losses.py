"""The loss of a stage that brings none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from spectral_tl_bench.methods.base import VOID, Batch

if TYPE_CHECKING:
    from torch import Tensor, nn


def segmentation_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy over labelled pixels; zero, with gradients, where a batch has none."""
    return labelled_cross_entropy(module(batch["image"]), batch["mask"])


def labelled_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The same of logits (B, K, H, W) and a mask (B, H, W)."""
    total = functional.cross_entropy(logits, mask, ignore_index=VOID, reduction="sum")
    return total / (mask != VOID).sum().clamp(min=1)
