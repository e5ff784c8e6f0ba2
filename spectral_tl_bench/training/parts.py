"""One batch in parts, over several devices or several passes of one: the gradient is that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spectral_tl_bench.data.shares import WHOLE, Share, summed
from spectral_tl_bench.methods.base import VOID, Batch

if TYPE_CHECKING:
    from lightning import LightningModule


@dataclass(frozen=True)
class Parts:
    """How the batch of a step is divided.

    A mean of means is not the mean: each part counts with its labelled pixels where the loss is the mean over these,
    and with its windows where it is a method's own.

    Attributes:
        batch_size: Windows of the whole batch.
        by_pixels: Whether the loss is a mean over labelled pixels.
        share: The part of this process.
        passes: Forward and backward passes in which this process goes through its part.
    """

    batch_size: int
    by_pixels: bool
    share: Share = WHOLE
    passes: int = 1

    def widened(self, batch: Batch) -> Batch:
        """A batch as long as the whole one, with this process's windows in their places.

        What is drawn at random for a window of the whole batch is then drawn for it here, too.
        """
        if self.share.size == 1:
            return batch
        own = self.share.part(self.batch_size)
        places = torch.zeros(self.batch_size, dtype=torch.long)
        places[own] = torch.arange(own.stop - own.start)
        return {name: value[places.to(value.device)] for name, value in batch.items()}

    def narrowed(self, batch: Batch) -> Batch:
        """The windows of this process out of a widened batch."""
        if self.share.size == 1:
            return batch
        return {name: value[self.share.part(self.batch_size)] for name, value in batch.items()}

    def loss(self, task: LightningModule, batch: Batch, loss: Callable[[Batch], Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of a batch; of all passes but the last the gradients are there when this returns.

        Args:
            task: What trains; its gradients must be empty.
            batch: The windows of this process, prepared.
            loss: The loss of a part.

        Returns:
            What is left to go backward from, and the loss of the whole batch, over all processes.
        """
        length = len(batch["image"])
        ways = min(self.passes, length)
        pieces = [Share(number, ways).part(length) for number in range(ways)]
        weights = self._weights(batch, pieces)
        total = torch.zeros((), device=weights.device)
        for piece, weight in zip(pieces, weights, strict=True):
            # Lightning's DDP takes the mean of the processes' gradients, where the sum is wanted.
            last = loss({name: value[piece] for name, value in batch.items()}) * (weight * self.share.size)
            total = total + last.detach().float()
            if piece is not pieces[-1]:
                _backward(task, last)
        return last, summed(total) / self.share.size

    def _weights(self, batch: Batch, pieces: list[slice]) -> Tensor:
        """The weight of each piece in the whole batch, float32 (number of pieces,)."""
        if not (self.by_pixels and "mask" in batch):
            windows = torch.tensor([piece.stop - piece.start for piece in pieces], device=batch["image"].device)
            return windows / self.batch_size
        labelled = (batch["mask"] != VOID).flatten(1).sum(dim=1)
        pixels = torch.stack([labelled[piece].sum() for piece in pieces])
        return pixels / summed(pixels.sum()).clamp(min=1)


def _backward(task: LightningModule, loss: Tensor) -> None:
    """Add the gradients of a part, scaled as those of the last one will be."""
    plugin = task.trainer.strategy.precision_plugin
    with torch.autocast(loss.device.type, enabled=False):
        plugin.pre_backward(loss, task).backward()
    torch.clear_autocast_cache()
