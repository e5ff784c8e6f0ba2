"""TorchGeo samplers that draw whole-pixel windows inside chips, and their union over several CRSs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Sampler
from torchgeo.samplers import GeoSampler

from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.rasters import ChipCollection, GeoQuery, SpectralChips
from spectral_tl_bench.errors import DataError


def _window(dataset: SpectralChips, number: int, line: int, column: int, size: int) -> GeoQuery:
    """The query of a square window whose upper left pixel is (line, column) of a chip."""
    row = dataset.chip_rows()[number]
    xres, yres = dataset.res
    xmin, ymax = row["xmin"] + column * xres, row["ymax"] - line * yres
    return slice(xmin, xmin + size * xres), slice(ymax - size * yres, ymax), dataset.slot(number)


def _check_fit(dataset: SpectralChips, size: int) -> None:
    row = dataset.chip_rows()[0]
    if size > min(row["height"], row["width"]):
        raise DataError(
            f"a window of {size} px does not fit into chips of {row['height']}x{row['width']} px",
            fix=f"choose --window {min(row['height'], row['width'])} or less",
        )


class RandomWindows(GeoSampler):
    """Draws windows at random, every window position of every chip equally likely, for ever the same with a seed.

    Args:
        dataset: Chips of one CRS.
        size: Side of a window in pixels.
    """

    def __init__(
        self, dataset: SpectralChips, size: int, length: int, generator: torch.Generator | None = None
    ) -> None:
        _check_fit(dataset, size)
        self.dataset, self.size, self.length, self.generator = dataset, size, length, generator

    def draw(self, number: int | None = None) -> GeoQuery:
        """One window, of any chip or of the one with a given number."""
        if number is None:
            number = int(torch.randint(len(self.dataset), (1,), generator=self.generator))
        row = self.dataset.chip_rows()[number]
        line = int(torch.randint(row["height"] - self.size + 1, (1,), generator=self.generator))
        column = int(torch.randint(row["width"] - self.size + 1, (1,), generator=self.generator))
        return _window(self.dataset, number, line, column, self.size)

    def __iter__(self) -> Iterator[GeoQuery]:
        """Yield ``length`` windows."""
        for _ in range(self.length):
            yield self.draw()

    def __len__(self) -> int:
        return self.length


class GridWindows(GeoSampler):
    """Covers every chip by overlapping windows; the last of a row is moved inwards, so nothing is padded.

    Args:
        dataset: Chips of one CRS.
        size: Side of a window in pixels.
        stride: Step between windows in pixels.
    """

    def __init__(self, dataset: SpectralChips, size: int, stride: int) -> None:
        _check_fit(dataset, size)
        self.dataset, self.size, self.stride = dataset, size, stride

    def __iter__(self) -> Iterator[GeoQuery]:
        """Yield the windows chip by chip, line by line."""
        for number, row in enumerate(self.dataset.chip_rows()):
            for line in grid(row["height"], self.size, self.stride):
                for column in grid(row["width"], self.size, self.stride):
                    yield _window(self.dataset, number, line, column, self.size)

    def __len__(self) -> int:
        return sum(
            len(grid(row["height"], self.size, self.stride)) * len(grid(row["width"], self.size, self.stride))
            for row in self.dataset.chip_rows()
        )


class RandomCollectionWindows(Sampler[tuple[int, GeoQuery]]):
    """Random windows over all datasets of a collection, each dataset in proportion to its chips.

    Args:
        size: Side of a window in pixels.
        seed: Seed of the order; the same seed gives the same windows to every method.
    """

    def __init__(self, collection: ChipCollection, size: int, length: int, seed: int) -> None:
        self.generator = torch.Generator()
        self.seed, self.length = seed, length
        self.samplers = [RandomWindows(dataset, size, length, self.generator) for dataset in collection.datasets]
        self.weights = torch.tensor([float(len(dataset)) for dataset in collection.datasets])

    def __iter__(self) -> Iterator[tuple[int, GeoQuery]]:
        """Yield (dataset number, query)."""
        self.generator.manual_seed(self.seed)
        for _ in range(self.length):
            number = int(torch.multinomial(self.weights, 1, generator=self.generator))
            yield number, self.samplers[number].draw()

    def __len__(self) -> int:
        return self.length


class BalancedDomainWindows(RandomCollectionWindows):
    """Random windows, each domain equally often: of D windows in a row, one is of each of the D domains.

    Domains come in random order; in a domain every window position of every chip is equally likely.

    Args:
        size: Side of a window in pixels.
    """

    def __init__(self, collection: ChipCollection, size: int, length: int, seed: int) -> None:
        super().__init__(collection, size, length, seed)
        self.chips: dict[str, list[tuple[int, int]]] = {}
        for dataset, number, row in collection.chips():
            self.chips.setdefault(row["domain"], []).append((dataset, number))

    def __iter__(self) -> Iterator[tuple[int, GeoQuery]]:
        """Yield (dataset number, query)."""
        self.generator.manual_seed(self.seed)
        names = sorted(self.chips)
        for window in range(self.length):
            turn = window % len(names)
            if turn == 0:
                order = torch.randperm(len(names), generator=self.generator).tolist()
            chips = self.chips[names[order[turn]]]
            dataset, number = chips[int(torch.randint(len(chips), (1,), generator=self.generator))]
            yield dataset, self.samplers[dataset].draw(number)


class Remaining(Sampler[Any]):
    """What another sampler draws after its first draws, which are drawn again and passed over.

    Its length stays that of the other one: training that goes on counts in steps of the whole.

    Args:
        sampler: The other sampler, which draws the same every time.
        skipped: How many draws are passed over.
    """

    def __init__(self, sampler: Sampler[Any], skipped: int) -> None:
        self.sampler, self.skipped = sampler, skipped

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left."""
        return islice(iter(self.sampler), self.skipped, None)

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


class GridCollectionWindows(Sampler[tuple[int, GeoQuery]]):
    """Grid windows over all datasets of a collection, one dataset after the other."""

    def __init__(self, collection: ChipCollection, size: int, stride: int) -> None:
        self.samplers = [GridWindows(dataset, size, stride) for dataset in collection.datasets]

    def __iter__(self) -> Iterator[tuple[int, GeoQuery]]:
        """Yield (dataset number, query)."""
        for number, sampler in enumerate(self.samplers):
            for query in sampler:
                yield number, query

    def __len__(self) -> int:
        return sum(len(sampler) for sampler in self.samplers)
