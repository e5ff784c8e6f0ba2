"""What self-training remembers beside the network that it trains: a teacher, and how often classes were seen."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from spectral_tl_bench.models.segmenter import ViTSegmenter


class Teacher:
    """A slow copy of a segmenter, its first encoder, and counts of classes.

    It is no part of the segmenter: nothing of it is trained by gradients, counted, or kept with selected weights.

    Args:
        student: As it was built.
        keep_encoder: Whether to keep the encoder as it is now.
        num_classes: Number of classes K.
    """

    def __init__(self, student: ViTSegmenter, keep_encoder: bool, num_classes: int) -> None:
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        self.encoder: ViTSegmenter | None = None
        if keep_encoder:
            encoder = copy.deepcopy(self.network.backbone)
            before = student.composites, copy.deepcopy(student.reading)
            self.encoder = ViTSegmenter(encoder, nn.Identity(), student.levels, *before).eval()
        for layer in self.network.modules():  # as the authors' code has it: no dropout, but statistics of the batch
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train()
        self.pixels = torch.zeros(num_classes, dtype=torch.float64)
        self.windows = torch.zeros(num_classes, dtype=torch.float64)
        self.seen = 0

    @torch.no_grad()
    def pseudo_labels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest classes (B, H, W) of images (B, C, H, W), and how likely they are."""
        confidence, labels = self.network.to(images.device)(images).float().softmax(dim=1).max(dim=1)
        return labels, confidence

    @torch.no_grad()
    def first_features(self, images: Tensor) -> Tensor | None:
        """The last map (B, D, h, w) that the encoder gave before training; None where it was not kept."""
        return None if self.encoder is None else self.encoder.to(images.device).features(images)[-1]

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int, decay: float) -> None:
        """Go a little towards the student; more in the first steps, as in the authors' code.

        Args:
            student: As it is after the step.
            step: Steps that are done.
            decay: Share of the teacher that stays, at most.
        """
        stays = min(1 - 1 / (step + 1), decay)
        parameters = list(student.parameters())
        self.network.to(parameters[0].device)
        for own, other in zip(self.network.parameters(), parameters, strict=True):
            own.mul_(stays).add_(other, alpha=1 - stays)

    def weights(self, present: Tensor, pixels: Tensor, temperature: float) -> Tensor:
        """How much each window counts so that windows with rare classes count as if they were drawn more often.

        Rare-class sampling draws a class c with probability P(c) = softmax((1 - f_c) / T), f_c its share of all
        labelled pixels, then a window that has it. The weight of a window is the ratio of its probability to that in a
        uniform draw: the sum over its classes of P(c), each divided by the share of windows that have it. Shares are
        those of the windows so far.

        Args:
            present: (B, K) bool, which classes each window has.
            pixels: (B, K), how many pixels of each.
            temperature: T.

        Returns:
            (B,) with a largest value of 1; ones where no window has a label.
        """
        self.pixels += pixels.sum(dim=0).to(self.pixels)
        self.windows += present.sum(dim=0).to(self.windows)
        self.seen += len(present)
        share = self.pixels / self.pixels.sum().clamp(min=1)
        chance = ((1 - share) / temperature).masked_fill(self.pixels == 0, -torch.inf)
        chance = chance.softmax(dim=0).nan_to_num()  # nothing seen so far
        ratio = chance * self.seen / self.windows.clamp(min=1)
        found = (present.to(ratio) * ratio).sum(dim=1)
        found = torch.where(found.max() > 0, found / found.max(), 1.0)
        return found.to(present.device, torch.float32)

    def state(self) -> dict[str, Any]:
        """All that changes."""
        counts = {"pixels": self.pixels, "windows": self.windows, "seen": self.seen}
        return {"network": dict(self.network.state_dict()), **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """The other way."""
        self.network.load_state_dict(state["network"])
        self.pixels, self.windows, self.seen = state["pixels"], state["windows"], int(state["seen"])
