"""Floors: what needs no spatial context, or no image at all. Whatever does not beat them has learned nothing more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.methods.base import VOID, Batch, Method, Part, Recipe, Stage, Task

NEVER = -1e30
"""Logit of a class that the source training pixels lack: finite, so that blending windows gives numbers."""


class PixelMLP(Method):
    """Spectral MLP: 1x1 convolutions, so that every pixel is classified by its own spectrum alone."""

    numerics_version = 1

    family: ClassVar[str] = "floor"
    recipe: ClassVar[Recipe] = Recipe(rate=1e-3)
    uses_backbone: ClassVar[bool] = False

    hidden: int = Field(64, ge=1, description="channels of the hidden layers")
    depth: int = Field(2, ge=0, description="hidden layers; 0 is a linear classifier")

    def build(self, task: Task) -> nn.Module:
        """Hidden layers with GELU, and a linear one to the classes; the backbone is not used."""
        layers: list[nn.Module] = []
        inputs = task.num_bands
        for _ in range(self.depth):
            layers += [nn.Conv2d(inputs, self.hidden, 1), nn.GELU()]
            inputs = self.hidden
        return nn.Sequential(*layers, nn.Conv2d(inputs, task.num_classes, 1))

    def parts(self) -> list[Part]:
        """One part: layers by number would say nothing."""
        return [Part("spectral MLP", lambda _: True)]


class ClosedForm(Method):
    """A floor that is computed from the source training pixels, each of them once, and trains nothing by gradients."""

    family: ClassVar[str] = "floor"
    uses_backbone: ClassVar[bool] = False

    def stages(self, task: Task) -> list[Stage]:  # noqa: ARG002
        """One stage in closed form, whatever the budget."""
        return [Stage("segment", 1, fit=solve)]


class Solvable(nn.Module):
    """A module that is set by counting."""

    def solve(self, batches: Iterable[Batch]) -> None:
        """Set the buffers from all source training pixels."""
        raise NotImplementedError


def solve(module: nn.Module, batches: Iterable[Batch]) -> None:
    """Let a module set itself."""
    cast(Solvable, module).solve(batches)


class MajorityClass(Solvable):
    """Says one class everywhere."""

    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def solve(self, batches: Iterable[Batch]) -> None:
        """Count the labelled pixels of each class."""
        self.counts.zero_()
        for batch in batches:
            self.counts += _class_counts(batch["mask"], len(self.counts))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W): 1 for the first of the most frequent classes, 0 for the others."""
        first = (self.counts == self.counts.max()).nonzero()[0, 0]  # argmax may give any of equal ones
        chosen = functional.one_hot(first, len(self.counts)).to(images.dtype)
        return chosen[None, :, None, None].repeat(len(images), 1, *images.shape[-2:])


class NearestMeanClassifier(Solvable):
    """Gives a pixel the class whose mean spectrum is the nearest, by Euclidean distance between standardised spectra.

    Args:
        num_bands: Image channels.
    """

    means: Tensor
    counts: Tensor

    def __init__(self, num_bands: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(num_classes, num_bands))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def solve(self, batches: Iterable[Batch]) -> None:
        """Sum spectra by class, in double precision."""
        classes, bands = self.means.shape
        sums = torch.zeros(classes, bands, dtype=torch.float64)
        self.counts.zero_()
        for batch in batches:
            mask = batch["mask"]
            labelled = mask != VOID
            spectra = batch["image"].movedim(1, -1)[labelled].double().cpu()
            sums.index_add_(0, mask[labelled].cpu(), spectra)
            self.counts += _class_counts(mask, classes)
        self.means.copy_(sums / self.counts.cpu().clamp(min=1)[:, None])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W): minus half the squared distance, less what is the same for all classes."""
        offset = -0.5 * self.means.square().sum(dim=1)
        # Not a convolution, which a GPU would compute in TF32.
        logits = torch.einsum("bchw,kc->bkhw", images, self.means) + offset[:, None, None]
        return logits.masked_fill((self.counts == 0)[:, None, None], NEVER)


class Majority(ClosedForm):
    """Majority class: says the source's most frequent training class everywhere."""

    numerics_version = 1

    def build(self, task: Task) -> nn.Module:
        """No parameters; one count per class."""
        return MajorityClass(task.num_classes)


class NearestMean(ClosedForm):
    """Nearest class mean: minimum distance to the source's mean spectrum of each class, in standardised bands."""

    numerics_version = 1

    reference: ClassVar[str] = (
        "minimum-distance-to-means classifier of the textbooks; the same as scikit-learn's NearestCentroid"
    )

    def build(self, task: Task) -> nn.Module:
        """No parameters; one mean spectrum per class."""
        return NearestMeanClassifier(task.num_bands, task.num_classes)


def _class_counts(mask: Tensor, classes: int) -> Tensor:
    return torch.bincount(mask[mask != VOID], minlength=classes)
