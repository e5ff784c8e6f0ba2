"""Windows for training and evaluation: whole pixels, inside chips, and the same again under a seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torchgeo.samplers import GeoSampler

from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.rasters import ChipCollection, SpectralChips, open_datasets
from spectral_tl_bench.data.samplers import GridCollectionWindows, GridWindows, RandomCollectionWindows, RandomWindows
from spectral_tl_bench.errors import DataError

SIDE = 16


@pytest.fixture
def collection(own) -> ChipCollection:
    """Six chips in one CRS, four in another."""
    benchmark = own.benchmark()
    return ChipCollection(open_datasets(benchmark, build_index(benchmark, own.root)))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def place(dataset: SpectralChips, query: tuple) -> tuple[str, int, int]:
    sample = dataset[query]
    return sample["chip"], sample["line"], sample["column"]


# ------------------------------------------------------------------------------------------------------------ grid


@pytest.mark.parametrize(("size", "stride"), [(16, 16), (8, 8), (8, 4), (8, 3), (7, 5), (5, 5), (15, 1)])
def test_the_grid_covers_every_pixel_and_pads_nothing(collection, size, stride):
    for dataset in collection.datasets:
        sampler = GridWindows(dataset, size, stride)
        assert isinstance(sampler, GeoSampler)
        covered = {row["chip"]: np.zeros((SIDE, SIDE), dtype=int) for row in dataset.chip_rows()}
        seen = []
        for query in sampler:
            chip, line, column = place(dataset, query)
            assert dataset[query]["image"].shape == (3, size, size)
            assert 0 <= line <= SIDE - size and 0 <= column <= SIDE - size
            covered[chip][line : line + size, column : column + size] += 1
            seen.append((chip, line, column))
        assert len(seen) == len(set(seen)) == len(sampler)
        assert all(count.min() >= 1 for count in covered.values())
        if SIDE % stride == 0 and size == stride:
            assert all(count.max() == 1 for count in covered.values())


def test_the_grid_goes_chip_by_chip_and_line_by_line(collection):
    dataset = collection.datasets[0]
    places = [place(dataset, query) for query in GridWindows(dataset, 8, 8)]
    assert places == sorted(places)


def test_the_grid_over_a_collection_takes_every_dataset(collection):
    sampler = GridCollectionWindows(collection, 8, 4)
    places = [(number, *place(collection.datasets[number], query)) for number, query in sampler]
    assert len(places) == len(set(places)) == len(sampler) == 10 * 9
    assert Counter(number for number, *_ in places) == {0: 6 * 9, 1: 4 * 9}
    assert len({collection[key]["chip"] for key in sampler}) == 10


# ------------------------------------------------------------------------------------------------------------ random


def test_random_windows_lie_inside_chips_on_whole_pixels(collection, own):
    dataset = collection.datasets[0]
    for query in RandomWindows(dataset, 7, 100, generator(0)):
        sample = dataset[query]
        line, column = sample["line"], sample["column"]
        assert 0 <= line <= SIDE - 7 and 0 <= column <= SIDE - 7
        pixels = own.pixels(sample["chip"])[:, line : line + 7, column : column + 7]
        np.testing.assert_array_equal(sample["image"].numpy(), pixels)


def test_every_position_of_every_chip_is_reached_equally_often(collection):
    dataset = collection.datasets[0]
    counts = Counter(place(dataset, query) for query in RandomWindows(dataset, 14, 2_700, generator(1)))
    assert set(counts) == {(row["chip"], y, x) for row in dataset.chip_rows() for y in range(3) for x in range(3)}
    # 54 places with 50 windows each on average, standard deviation 7
    assert min(counts.values()) > 15 and max(counts.values()) < 85


def test_a_window_as_large_as_the_chip_is_the_chip(collection):
    dataset = collection.datasets[1]
    assert {place(dataset, query)[1:] for query in RandomWindows(dataset, SIDE, 20, generator(0))} == {(0, 0)}


@pytest.mark.parametrize("kind", ["dataset", "collection"])
def test_a_seed_decides_and_the_global_generator_does_not(collection, kind):
    def draw(seed: int, other: int) -> list:
        torch.manual_seed(other)
        if kind == "dataset":
            return list(RandomWindows(collection.datasets[0], 8, 30, generator(seed)))
        return list(RandomCollectionWindows(collection, 8, 30, seed))

    assert draw(3, 0) == draw(3, 99)
    assert draw(3, 0) != draw(4, 0)
    assert draw(0, 0) != draw(1, 0), "a seed of 0 is a seed"


def test_a_collection_gives_the_same_windows_each_time_it_is_gone_through(collection):
    sampler = RandomCollectionWindows(collection, 8, 40, 5)
    assert list(sampler) == list(sampler) and len(sampler) == 40
    shorter = RandomCollectionWindows(collection, 8, 10, 5)
    assert list(shorter) == list(sampler)[:10], "a longer run begins like a shorter one"


def test_datasets_of_a_collection_are_drawn_in_proportion_to_their_chips(collection):
    counts = Counter(number for number, _ in RandomCollectionWindows(collection, 16, 3_000, 0))
    assert abs(counts[0] / 3_000 - 0.6) < 0.05 and counts[0] + counts[1] == 3_000


@pytest.mark.parametrize("sampler", [lambda d: GridWindows(d, 17, 8), lambda d: RandomWindows(d, 17, 8)])
def test_a_window_larger_than_the_chip_is_refused(collection, sampler):
    with pytest.raises(DataError, match="a window of 17 px does not fit into chips of 16x16 px"):
        sampler(collection.datasets[0])
