"""Windows at native resolution: which are trained on, which cover a chip, and how their logits become one map."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.rasters import ChipCollection, GeoQuery
from spectral_tl_bench.data.samplers import BalancedDomainWindows, GridCollectionWindows, RandomCollectionWindows

_FLOOR = 0.05  # of the peak, per axis: a chip's border pixels lie in one window's rim only, and must count


def blend_weights(window: int) -> Tensor:
    """Weights that trust a window's middle more than its rim: a raised cosine per axis, with a floor.

    Args:
        window: Side of the window in pixels.

    Returns:
        float32 (window, window), symmetric, between 0.0025 and 1, positive everywhere.
    """
    centres = (torch.arange(window, dtype=torch.float64) + 0.5) / window
    axis = (0.5 - 0.5 * torch.cos(2 * torch.pi * centres)).clamp(min=_FLOOR)
    return torch.outer(axis, axis).float()


class ChipStitcher:
    """Gathers the logits of a chip's windows, blends them, and gives the class map when all have come.

    Args:
        num_classes: K.
        height: Height of the chip in pixels.
        width: Width of the chip in pixels.
        window: Side of the windows in pixels.
        device: Where logits are gathered, in float32.

    Raises:
        ValueError: If the window is larger than the chip.
    """

    def __init__(
        self, num_classes: int, height: int, width: int, window: int, *, device: torch.device | str = "cpu"
    ) -> None:
        if not 1 <= window <= min(height, width):
            raise ValueError(f"a window of {window} pixels does not fit a chip of {height} x {width}")
        self.window = window
        self._seen: set[tuple[int, int]] = set()
        self._weights = blend_weights(window).to(device)
        self._sum = torch.zeros(num_classes, height, width, dtype=torch.float32, device=device)
        self._covered = torch.zeros(height, width, dtype=torch.bool)

    def add(self, logits: Tensor, row: int, column: int) -> None:
        """Take one window.

        Args:
            logits: (K, window, window), of any floating type, on any device.

        Raises:
            ValueError: If it came before (a window counts once), lies outside the chip, or has the wrong shape.
        """
        row, column = int(row), int(column)
        expected = (self._sum.shape[0], self.window, self.window)
        if tuple(logits.shape) != expected:
            raise ValueError(f"logits of a window must have shape {expected}, got {tuple(logits.shape)}")
        area = (slice(row, row + self.window), slice(column, column + self.window))
        if min(row, column) < 0 or self._covered[area].shape != expected[1:]:
            raise ValueError(f"the window at row {row}, column {column} lies outside the chip")
        if (row, column) in self._seen:
            raise ValueError(f"the window at row {row}, column {column} has come already")
        self._seen.add((row, column))
        self._covered[area] = True
        self._sum[:, area[0], area[1]] += logits.detach().to(self._sum) * self._weights

    def finish(self) -> Tensor:
        """The class of every pixel, int64 (height, width).

        Raises:
            ValueError: If a pixel lies in no window that came, or the logits are not numbers.
        """
        if not bool(self._covered.all()):
            raise ValueError(f"{int((~self._covered).sum())} pixels lie in none of the {len(self._seen)} windows")
        if bool(self._sum.isnan().any()):
            raise ValueError("the model's logits hold NaN: the training has diverged or an input is broken")
        # The weights of a pixel are the same for all classes, so dividing by their sum would change no argmax.
        return self._sum.argmax(dim=0)


class SlidingWindows:
    """Random windows for training and overlapping ones for evaluation, as they are in the file."""

    name: ClassVar[str] = "sliding"
    numerics_version: ClassVar[int] = 1
    overlaps: ClassVar[bool] = True
    """Whether evaluation windows have a stride."""
    keeps_unit: ClassVar[bool] = True
    """Whether pixels are in the files' unit after ``prepare``; objectives that change pixels need that."""

    def at(self, window: int) -> SlidingWindows:  # noqa: ARG002
        """The same rules, knowing the side of the windows in pixels, which ``prepare`` is not told."""
        return self

    def training(
        self, collection: ChipCollection, window: int, length: int, seed: int, balanced: bool
    ) -> Sampler[tuple[int, GeoQuery]]:
        """The windows of a stage, in order.

        Args:
            window: Side in pixels.
            seed: Of the order.
            balanced: Whether each domain comes equally often, and not in proportion to its chips.
        """
        return (BalancedDomainWindows if balanced else RandomCollectionWindows)(collection, window, length, seed)

    def evaluation(self, collection: ChipCollection, window: int, stride: int) -> Sampler[tuple[int, GeoQuery]]:
        """The windows that cover every chip, chip by chip."""
        return GridCollectionWindows(collection, window, stride)

    def sweep(self, collection: ChipCollection, window: int) -> Sampler[tuple[int, GeoQuery]]:
        """Windows side by side over every chip; what two of them hold counts once."""
        return GridCollectionWindows(collection, window, window)

    def largest(self, chip_size: int) -> int:
        """The largest window that chips of a size allow, in pixels."""
        return chip_size

    def count(self, height: int, width: int, window: int, stride: int) -> int:
        """How many of these cover a chip of some height and width in pixels."""
        return len(grid(height, window, stride)) * len(grid(width, window, stride))

    def prepare(self, sample: dict[str, Any]) -> dict[str, Any]:
        """What a window, or a whole chip with its label, becomes before a batch is made of it: here it stays."""
        return sample

    def stitcher(
        self, num_classes: int, height: int, width: int, window: int, device: torch.device | str
    ) -> ChipStitcher:
        """What gathers the logits of one chip's windows."""
        return ChipStitcher(num_classes, height, width, window, device=device)
