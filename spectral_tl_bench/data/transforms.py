"""Augmentation on the device that holds the batch (kornia): symmetries exact to the pixel, or rotations."""

from __future__ import annotations

from typing import ClassVar

import torch
from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip, RandomRotation, RandomVerticalFlip
from torch import Tensor, nn

from spectral_tl_bench.benchmarks import VOID


class FlipsAndTurns(nn.Module):
    """One of the eight symmetries of the square for each window, labels moved with the pixels.

    kornia flips; the diagonal is mirrored by exchanging axes, because kornia's quarter turn goes through an
    interpolation that changes pixel values by about 1e-7 of their size and takes four times as long. Both
    flips and the diagonal together make every quarter turn.

    Randomness comes from a generator of its own, seeded per step, so that two methods which consume different
    amounts of random numbers still see the same windows.
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


class FlipsAndRotations(nn.Module):
    """Flips, and rotations by any angle up to 90 degrees either way, each of the three for half of the windows.

    Pixels are interpolated bilinearly; labels are those of the nearest pixel. What turns in from outside is 0 in the
    image and void in the label. Randomness is that of ``FlipsAndTurns``: a generator of its own, seeded per step.
    """

    name: ClassVar[str] = "flips-and-rotations"
    numerics_version: ClassVar[int] = 1

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.moves = AugmentationSequential(
            RandomHorizontalFlip(p=0.5), RandomVerticalFlip(p=0.5), RandomRotation(90.0, p=0.5),
            data_keys=["input", "mask"], same_on_batch=False,
        )  # fmt: skip

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor | None, step: int) -> tuple[Tensor, Tensor | None]:
        """Augment a batch.

        Args:
            image: (B, C, H, W) with H = W.
            mask: (B, H, W) or None.
            step: Number of the step; the same step always gets the same moves.
        """
        devices = [image.device] if image.is_cuda else []
        # kornia fills with 0, which is a class: void takes its place, and classes begin at 1 on the way.
        classes = torch.zeros_like(image[:, 0]) if mask is None else torch.where(mask == VOID, 0, mask + 1)
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((self.seed + step) % 2**63)
            image, labels = self.moves(image, classes[:, None].to(image.dtype))
        if mask is None:
            return image, None
        found = labels[:, 0].round().to(mask.dtype)
        return image, torch.where(found == 0, VOID, found - 1)
