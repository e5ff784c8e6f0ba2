"""A fixed set of windows: which they are, in which of the eight symmetries, and in which order training takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.rasters import ChipCollection
from spectral_tl_bench.files import seed_from


@dataclass(frozen=True)
class Window:
    """One window.

    Attributes:
        dataset: Number of the dataset in its collection.
        number: Number of the chip in the dataset.
        chip: Name of the chip.
        line: Upper edge in pixels.
        column: Left edge in pixels.
    """

    dataset: int
    number: int
    chip: str
    domain: str
    line: int
    column: int


def grid_windows(collection: ChipCollection, size: int, stride: int) -> list[Window]:
    """Windows that cover every chip, in the order of ``GridCollectionWindows``.

    Args:
        size: Side of a window in pixels.
        stride: Step between windows in pixels.
    """
    return [
        Window(dataset, number, row["chip"], row["domain"], line, column)
        for dataset, number, row in collection.chips()
        for line in grid(row["height"], size, stride)
        for column in grid(row["width"], size, stride)
    ]


def symmetry(values: Tensor, copy: int) -> Tensor:
    """One of the eight symmetries of the square; 0 leaves everything as it is.

    Args:
        values: (..., H, W) with H = W.
        copy: 0 to 7: 1 mirrors left and right, 2 up and down, 4 exchanges lines and columns after that.
    """
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if copy & bit]
    flipped = values.flip(axes) if axes else values
    return flipped.transpose(-1, -2) if copy & 4 else flipped


class WindowImages(Dataset[Tensor]):
    """The pixels of windows, in the files' unit; a batch is read by ``rows``.

    Args:
        size: Side of a window in pixels.
        copies: Symmetries of each window; row ``w * copies + c`` is symmetry ``c`` of window ``w``.
    """

    def __init__(self, collection: ChipCollection, windows: list[Window], size: int, copies: int = 1) -> None:
        self.collection, self.windows, self.size, self.copies = collection, windows, size, copies

    def __len__(self) -> int:
        return len(self.windows) * self.copies

    def __getitem__(self, row: int) -> Tensor:
        """One window (C, H, W) float32."""
        number, copy = divmod(row, self.copies)
        window = self.windows[number]
        dataset = self.collection.datasets[window.dataset]
        return symmetry(
            dataset.read_window(window.number, window.line, window.column, self.size, self.size)["image"], copy
        )

    def rows(self, rows: list[int]) -> Tensor:
        """Several windows (B, C, H, W)."""
        return torch.stack([self[row] for row in rows])


class ChipLabels:
    """Labels of whole chips, read without their images."""

    def __init__(self, collection: ChipCollection) -> None:
        self.collection, self._cache = collection, ChipCache()

    def __call__(self, dataset: int, number: int) -> np.ndarray[Any, Any]:
        """The classes of one chip (H, W), with void."""
        chips = self.collection.datasets[dataset]
        row = chips.chip_rows()[number]

        def load() -> tuple[np.ndarray[Any, Any], ...]:
            return (chips.classes(number),)

        return self._cache.get(row["chip"], load)[0]


class Rounds(Sampler[int]):
    """Rows in random order, each as often as the others: one permutation after the other, up to a length."""

    def __init__(self, count: int, length: int, seed: int) -> None:
        self.count, self.length, self.seed = count, length, seed

    def __iter__(self) -> Iterator[int]:
        """Yield row numbers."""
        left, number = self.length, 0
        while left > 0:
            generator = torch.Generator().manual_seed(seed_from("round", self.seed, number))
            order = torch.randperm(self.count, generator=generator)[:left].tolist()
            yield from order
            left, number = left - len(order), number + 1

    def __len__(self) -> int:
        return self.length
