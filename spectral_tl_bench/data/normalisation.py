"""What comes before a module: bands standardised by the statistics of the source training chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from spectral_tl_bench.data.index import ChipIndex

SMALLEST = 1e-37
"""A deviation below it has no inverse in float32."""


@dataclass(frozen=True)
class BandStatistics:
    """Mean and standard deviation per band (C,), float64, in the files' unit."""

    mean: np.ndarray[Any, Any]
    std: np.ndarray[Any, Any]

    @classmethod
    def of(cls, index: ChipIndex, chips: Sequence[str]) -> BandStatistics:
        """The statistics of all measured values of the given chips, from the sums in the index.

        A band without one is constant: it says nothing.
        """
        frame = index.frame.loc[list(chips)]
        pixels = np.maximum(np.sum(frame["band_count"].tolist(), axis=0), 1).astype(np.float64)
        mean = np.sum(frame["band_sum"].tolist(), axis=0) / pixels
        variance = np.sum(frame["band_square_sum"].tolist(), axis=0) / pixels - mean**2
        return cls(mean, np.sqrt(np.maximum(variance, 0.0)))

    @property
    def constant(self) -> np.ndarray[Any, Any]:
        """Bands (C,), bool, whose values differ by rounding alone, on their own scale: radiances of 1e-7 may vary."""
        return (self.std <= 1e-6 * np.abs(self.mean)) | (self.std < SMALLEST)

    def reflectances(self, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation in reflectance, for a backbone that is given pictures of it.

        Args:
            scale: Reflectance = value * scale.
        """
        std = np.where(self.constant, 0.0, self.std)  # standardised, a constant band is 0
        return tuple((self.mean * scale).tolist()), tuple((std * scale).tolist())

    @property
    def tiny(self) -> bool:
        """Whether a band varies by so little that it was once taken for constant, whatever its scale."""
        once = self.std < 1e-6 * np.maximum(1.0, np.abs(self.mean))
        return bool((once != self.constant).any())


def scale_chip(image: Tensor, invalid: Tensor) -> Tensor:
    """Each band of a chip from its minimum to its maximum, as the authors' release does it.

    A constant band stays at its digital numbers, which is what the release does, too. Values that were filled in for
    what is unmeasured do not count, and are brought into the range of those that do.

    Args:
        image: A whole chip (C, H, W) in any unit.
        invalid: Pixels (H, W), bool, of which a band is unmeasured; where that are all, all count.

    Returns:
        (C, H, W): (x - min) / (max - min + 1e-8).
    """
    some = bool(invalid.any()) and not bool(invalid.all())
    values = image[:, ~invalid] if some else image.flatten(1)
    low, high = values.amin(1)[:, None, None], values.amax(1)[:, None, None]
    image = image.clamp(low, high)
    return torch.where(high > low, (image - low) / (high - low + 1e-8), image)


class ScaledByChip(nn.Module):
    """Images that ``scale_chip`` has scaled, as ``WholeChips`` does before it resizes them: nothing is left to do.

    Args:
        statistics: Of the source training chips; not looked at.
    """

    name: ClassVar[str] = "each chip and band, minimum to maximum"
    numerics_version: ClassVar[int] = 1

    def __init__(self, statistics: BandStatistics) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) as it comes."""
        return image


class Normalise(nn.Module):
    """Standardises bands; a constant band becomes 0 rather than staying at its digital numbers.

    Args:
        statistics: Of the source training chips, never of anything else.
    """

    name: ClassVar[str] = "training chips, mean and standard deviation"
    numerics_version: ClassVar[int] = 1

    mean: Tensor
    scale: Tensor

    def __init__(self, statistics: BandStatistics) -> None:
        super().__init__()
        constant = statistics.constant
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, statistics.std))
        self.register_buffer(
            "mean", torch.tensor(statistics.mean, dtype=torch.float32)[:, None, None], persistent=False
        )
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in the files' unit to (B, C, H, W) standardised."""
        return (image - self.mean) * self.scale

    def undo(self, image: Tensor) -> Tensor:
        """Back from standardised (B, C, H, W) to the files' unit; a constant band gets its mean."""
        return image / torch.where(self.scale > 0, self.scale, 1.0) + self.mean
