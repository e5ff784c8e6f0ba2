"""Every chip read once: a hash, what it looks like in coarse pixels, a few of its pixels, and sums by class."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets
from spectral_tl_bench.data.reading_processes import look_at_each
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import seed_from

CELLS, PLANES = 16, 4
"""A signature has this many cells a side, and this many groups of bands."""
MOST_PIXELS, MOST_PER_CHIP, LEAST_PER_CHIP = 400_000, 4_096, 16
"""Pixels that are taken of all chips together, at most, but no fewer than the last of a chip."""
PER_TASK = 4

Array = NDArray[Any]


class Look(NamedTuple):
    """What was read of a chip.

    Attributes:
        chip: Its name.
        problem: Why it could not be read; everything else is None then.
        pixel_hash: SHA-256 of its pixels; empty for a chip of one value, since blank ones are alike.
        signature: (PLANES * CELLS * CELLS,) of length 1, or 0 where the chip is of one value.
        pixels: (N, C) in the benchmark's unit; NaN where nothing is measured.
        counts: (K, C) measured pixels by class.
        sums: (K, C) of their values.
        squares: (K, C) of their squares.
    """

    chip: str
    problem: str = ""
    pixel_hash: str = ""
    signature: Array | None = None
    pixels: Array | None = None
    counts: Array | None = None
    sums: Array | None = None
    squares: Array | None = None


def pixels_per_chip(chips: int) -> int:
    """How many pixels are taken of each chip."""
    return int(np.clip(MOST_PIXELS // max(1, chips), LEAST_PER_CHIP, MOST_PER_CHIP))


def look_at_chips(
    benchmark: Benchmark, index: ChipIndex, chips: Sequence[str], workers: int | None, say: Callable[[int], None]
) -> Iterator[Look]:
    """Read chips, in order, by several readers; a chip that cannot be read stops nothing.

    Args:
        benchmark: The benchmark.
        index: Of its chips.
        chips: Which.
        workers: Readers; by default one per core.
        say: Told after each chip how many are read.

    Raises:
        DataError: If a process that reads was killed.
    """
    reader = _Reader(benchmark, index, pixels_per_chip(len(chips)))
    for number, look in enumerate(look_at_each(reader.look, chips, workers, PER_TASK), 1):
        yield look
        say(number)


class _Reader:
    """Opens chips one by one, as a run would."""

    def __init__(self, benchmark: Benchmark, index: ChipIndex, count: int) -> None:
        self.benchmark, self.count = benchmark, count
        unmeasured = np.full(len(benchmark.sensor.bands), np.nan)
        datasets = open_datasets(benchmark, index, cache=ChipCache(0), fill=unmeasured)
        self.place: dict[str, tuple[SpectralChips, int]] = {
            row["chip"]: (dataset, number) for dataset in datasets for number, row in enumerate(dataset.chip_rows())
        }

    def look(self, chip: str) -> Look:
        dataset, number = self.place[chip]
        row = dataset.chip_rows()[number]
        try:
            sample = dataset.read_window(number, 0, 0, row["height"], row["width"])
        except DataError as error:
            return Look(chip, f"{error.what}" + (f" ({error.where})" if error.where else ""))
        return look_at(chip, sample["image"].numpy(), sample["mask"].numpy(), self._numbers(), self.count)

    def _numbers(self) -> tuple[str, int]:
        return self.benchmark.id, len(self.benchmark.labels.classes)


def look_at(chip: str, image: Array, mask: Array, about: tuple[str, int], count: int) -> Look:
    """Sum one chip up.

    Args:
        chip: Its name, from which the choice of pixels follows.
        image: (C, H, W), NaN where nothing is measured.
        mask: (H, W), classes and void.
        about: Id of the benchmark, number of classes.
        count: Pixels to take.
    """
    name, classes = about
    flat, labels = image.reshape(len(image), -1), mask.reshape(-1)
    shape = signature(image)
    known = np.flatnonzero(np.isfinite(flat).any(axis=0))
    rng = np.random.default_rng(seed_from("audit", name, chip))
    chosen = np.sort(rng.choice(known, min(count, len(known)), replace=False))
    counts, sums, squares = _by_class(flat, labels, classes)
    digest = hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
    return Look(chip, "", digest if shape.any() else "", shape, flat[:, chosen].T.copy(), counts, sums, squares)


def _by_class(flat: Array, labels: Array, classes: int) -> tuple[Array, Array, Array]:
    counts, sums, squares = (np.zeros((classes, len(flat))) for _ in range(3))
    for number in np.unique(labels[labels != VOID]):
        values = flat[:, labels == number].astype(np.float64)
        measured = np.isfinite(values)
        values[~measured] = 0.0
        counts[number], sums[number] = measured.sum(axis=1), values.sum(axis=1)
        squares[number] = np.einsum("bp,bp->b", values, values)
    return counts, sums, squares


def signature(image: Array) -> Array:
    """What a chip looks like in coarse pixels, whatever the brightness and contrast of its bands.

    Means over cells, standardised in each band, so that neither a factor nor an offset of a band changes anything; then
    the mean over groups of neighbouring bands, standardised again. The product of two signatures is their correlation.

    Args:
        image: (C, H, W), NaN where nothing is measured.

    Returns:
        (PLANES * CELLS * CELLS,) float32 of length 1, or of zeros for a chip of one value.
    """
    lines, columns = (np.arange(CELLS) * size // CELLS for size in image.shape[1:])
    measured = np.isfinite(image)
    sums = [
        np.add.reduceat(np.add.reduceat(part, lines, axis=1), columns, axis=2)
        for part in (np.where(measured, image, 0.0).astype(np.float64), measured.astype(np.float64))
    ]
    cells = np.divide(sums[0], sums[1], out=np.full(sums[0].shape, np.nan), where=sums[1] > 0)
    planes = _standard(cells.reshape(len(image), -1))
    parts = np.array_split(np.arange(len(planes)), min(PLANES, len(planes)))
    groups = np.stack([planes[part].mean(axis=0) for part in parts])
    flat = np.resize(_standard(groups), (PLANES, CELLS * CELLS)).reshape(-1)
    length = float(np.linalg.norm(flat))
    return (flat / length if length else flat).astype(np.float32)


def _standard(planes: Array) -> Array:
    """Each line less its mean, divided by its deviation; 0 where it has none, or nothing is known."""
    known = np.isfinite(planes)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, planes, 0.0).sum(axis=1, keepdims=True) / count
    moved = np.where(known, planes - mean, 0.0)
    std = np.sqrt((moved**2).sum(axis=1, keepdims=True) / count)
    return np.divide(moved, std, out=np.zeros_like(moved), where=std > 1e-6 * np.maximum(np.abs(mean), 1e-12))
