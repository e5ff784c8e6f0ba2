"""Augmentation on the device that holds the batch: flips (kornia) and quarter turns, exact to the pixel."""

from __future__ import annotations

from typing import ClassVar

import torch
from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip, RandomVerticalFlip
from torch import Tensor, nn


class FlipsAndTurns(nn.Module):
    """One of the eight symmetries of the square for each window, labels moved with the pixels.

    kornia flips; the diagonal is mirrored by exchanging axes, because kornia's quarter turn goes through an
    interpolation that changes pixel values by about 1e-7 of their size and takes four times as long. Both
    flips and the diagonal together make every quarter turn.

    Randomness comes from a generator of its own, seeded per step, so that two methods which consume different
    amounts of random numbers still see the same windows.

    Args:
        seed: Seed of the sequence.
    """

    name: ClassVar[str] = "flips-and-turns"
    numerics_version: ClassVar[int] = 1

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.flips = AugmentationSequential(
            RandomHorizontalFlip(p=0.5), RandomVerticalFlip(p=0.5), data_keys=["input", "mask"], same_on_batch=False
        )

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor | None, step: int) -> tuple[Tensor, Tensor | None]:
        """Augment a batch.

        Args:
            image: (B, C, H, W) with H = W.
            mask: (B, H, W) or None.
            step: Number of the step; the same step always gets the same symmetries.

        Returns:
            Image and mask of the same shapes.
        """
        devices = [image.device] if image.is_cuda else []
        labels = torch.zeros_like(image[:, :1]) if mask is None else mask[:, None].to(image.dtype)
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((self.seed + step) % 2**63)
            turned = (torch.rand(len(image)) < 0.5).to(image.device)[:, None, None, None]
            image, labels = self.flips(image, labels)
        image = torch.where(turned, image.transpose(-1, -2), image)
        labels = torch.where(turned, labels.transpose(-1, -2), labels)
        return image, None if mask is None else labels[:, 0].to(mask.dtype)
