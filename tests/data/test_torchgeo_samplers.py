"""TorchGeo's own samplers on the suite's datasets: any size, any stride, chips with rims, any unit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
import torchgeo.samplers
from shared import slow_but
from torch.utils.data import DataLoader
from torchgeo.samplers import Units

from spectral_tl_bench.benchmarks import VOID, builtin_benchmarks
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets
from spectral_tl_bench.data.samplers import GridWindows
from spectral_tl_bench.errors import DataError

SIDE = 16
FOOT = 0.3048

# CRS, pixel and left upper corner of the first chip, in units in which nothing comes out even.
GRIDS: dict[str, tuple[str, tuple[float, float], tuple[float, float]]] = {
    "odd metres": ("EPSG:32633", (2.4, 2.4), (512_345.7, 5_123_456.1)),
    "feet": ("EPSG:2263", (10 / FOOT, 10 / FOOT), (900_000.1, 200_000.3)),
    "degrees": ("EPSG:4326", (8.9831528412e-05 / 0.5, 8.9831528412e-05), (24.123456789, 60.987654321)),
    "small degrees": ("EPSG:4326", (1.3e-06, 2.7e-06), (-123.456789012, -37.123456789)),
}
METRES = "EPSG:32633", (10.0, 10.0), (500_000.0, 5_000_000.0)


@pytest.fixture(params=slow_but({"odd metres", "degrees"}.__contains__, GRIDS))
def grid(request: pytest.FixtureRequest) -> tuple[str, tuple[float, float], tuple[float, float]]:
    return GRIDS[request.param]


@pytest.fixture
def dataset(own: Any, grid: tuple) -> SpectralChips:
    """Six chips of 16 px in three places; the two of a place stand side by side and touch."""
    return placed(own, grid, columns=SIDE)


def placed(own: Any, grid: tuple, columns: int) -> SpectralChips:
    """The chips of the east, those of one place ``columns`` pixels apart."""
    crs, (width, height), (left, top) = grid
    for folder in ("image", "label"):
        for path in sorted((own.root / folder).glob("*.tif")):
            site, number = int(path.stem[1]) + 5 * (path.stem[0] == "w"), int(path.stem[3])
            with rasterio.open(path, "r+") as file:
                file.crs = rasterio.crs.CRS.from_user_input(crs)
                file.transform = rasterio.Affine(
                    width, 0, left + (100 * site + columns * number) * width, 0, -height, top - 7 * site * height
                )
    benchmark = own.benchmark()
    index = build_index(benchmark, own.root)
    chips = [chip for chip in index.frame.index if chip.startswith("e")]
    (opened,) = open_datasets(benchmark, index, chips, fill=np.array([11.0, 22.0, 33.0], np.float32))
    return opened


def sampler(name: str, dataset: SpectralChips, **options: Any) -> Any:
    """One of TorchGeo's samplers; those of before 0.10 are deprecated there."""
    kind = getattr(torchgeo.samplers, name, None)
    if kind is None:
        pytest.skip("patch samplers came with TorchGeo 0.10")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(dataset, **options)


def queries(windows: Any) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for query in windows:
            yield from query if isinstance(query, list) else [query]


def check(own: Any, dataset: SpectralChips, sample: dict[str, Any], height: int, width: int) -> int:
    """A window has the size asked for, holds what the file holds, and nothing outside it. Returns pixels inside."""
    line, column, raw = sample["line"], sample["column"], own.labels(sample["chip"])
    image = np.tile(dataset.fill[:, None, None], (1, height, width))
    mask, invalid = np.full((height, width), VOID), np.ones((height, width), dtype=bool)
    lines, columns = np.arange(line, line + height), np.arange(column, column + width)
    here = np.ix_((lines >= 0) & (lines < SIDE), (columns >= 0) & (columns < SIDE))
    there = np.ix_(lines[(lines >= 0) & (lines < SIDE)], columns[(columns >= 0) & (columns < SIDE)])
    for band, pixels in zip(image, own.pixels(sample["chip"]), strict=True):
        band[here] = pixels[there]
    mask[here], invalid[here] = np.select([raw == 1, raw >= 2], [0, 1], VOID)[there], False
    for key, expected, kind in (
        ("image", image, torch.float32), ("mask", mask, torch.int64), ("invalid", invalid, torch.bool),
    ):  # fmt: skip
        assert sample[key].dtype == kind and sample[key].is_contiguous()
        np.testing.assert_array_equal(sample[key].numpy(), expected)
    return int((~invalid).sum())


# ------------------------------------------------------------------------------------------- samplers up to 0.8


@pytest.mark.parametrize(
    ("size", "stride", "per_chip"),
    [(8, 8, 4), (7, 3, 16), (16, 16, 1), (6, 11, 4), ((5, 8), (4, 8), 8)],
)
def test_the_grid_covers_every_chip_with_windows_of_the_size_asked_for(own, dataset, size, stride, per_chip):
    windows = sampler("GridGeoSampler", dataset, size=size, stride=stride)
    height, width = size if isinstance(size, tuple) else (size, size)
    seen: dict[str, set[tuple[int, int]]] = {}
    for query in queries(windows):
        sample = dataset[query]
        assert check(own, dataset, sample, height, width) > 0
        seen.setdefault(sample["chip"], set()).add((sample["line"], sample["column"]))
    assert len(windows) == 6 * per_chip, "no chip is passed over, and no window added, because of a rounding error"
    assert {chip: len(places) for chip, places in seen.items()} == dict.fromkeys(dataset.index["chip"], per_chip)
    if stride in (3, 8, 16):
        covered = {(line + a, column + b) for line, column in seen["e1_1"] for a in range(height) for b in range(width)}
        assert {(line, column) for line in range(SIDE) for column in range(SIDE)} <= covered


@pytest.mark.parametrize("name", ["RandomGeoSampler", "RandomBatchGeoSampler"])
def test_random_windows_have_the_size_asked_for(own, dataset, name):
    for size in (7, 16, (3, 10)):
        more = {"batch_size": 5} if "Batch" in name else {}
        windows = sampler(name, dataset, size=size, length=20, generator=torch.Generator().manual_seed(1), **more)
        height, width = size if isinstance(size, tuple) else (size, size)
        drawn = [dataset[query] for query in queries(windows)]
        assert len(drawn) == 20
        for sample in drawn:
            assert check(own, dataset, sample, height, width) == height * width


def test_whole_chips(own, dataset):
    samples = [dataset[query] for query in queries(sampler("PreChippedGeoSampler", dataset))]
    assert [sample["chip"] for sample in samples] == list(dataset.index["chip"])
    assert all(check(own, dataset, sample, SIDE, SIDE) == SIDE * SIDE for sample in samples)


def test_sizes_in_units_of_the_crs(own, dataset):
    xres, yres = dataset.res
    for size, stride in ((8, 5), (16, 16), (4, 4)):
        options = {"size": (size * yres, size * xres), "stride": (stride * yres, stride * xres), "units": Units.CRS}
        found = [dataset[query] for query in queries(sampler("GridGeoSampler", dataset, **options))]
        usual = [dataset[query] for query in queries(sampler("GridGeoSampler", dataset, size=size, stride=stride))]
        assert [(s["chip"], s["line"], s["column"]) for s in found] == [
            (s["chip"], s["line"], s["column"]) for s in usual
        ]
        assert all(check(own, dataset, sample, size, size) for sample in found)


def test_larger_than_a_chip(own, dataset):
    """TorchGeo's grid passes over chips that are smaller than a window; a query of one is padded all around."""
    assert len(sampler("GridGeoSampler", dataset, size=17, stride=17)) == 0
    row, (xres, yres) = dataset.chip_rows()[3], dataset.res
    around = slice(row["xmin"] - 3 * xres, row["xmax"] + 5 * xres), slice(row["ymin"] - 2 * yres, row["ymax"] + yres)
    sample = dataset[(*around, dataset.slot(3))]
    assert (sample["chip"], sample["line"], sample["column"]) == (row["chip"], -1, -3)
    assert check(own, dataset, sample, SIDE + 3, SIDE + 8) == SIDE * SIDE


def test_overlapping_chips_each_get_their_own_windows(own, grid):
    dataset = placed(own, grid, columns=8)
    chips = []
    for query in queries(sampler("GridGeoSampler", dataset, size=10, stride=7)):
        sample = dataset[query]
        assert check(own, dataset, sample, 10, 10) > 0
        chips.append(sample["chip"])
    assert {chip: chips.count(chip) for chip in chips} == dict.fromkeys(dataset.index["chip"], 4)


def test_a_region_that_cuts_through_pixels(own, dataset):
    row, (xres, yres) = dataset.chip_rows()[2], dataset.res
    region = shapely.box(row["xmin"] + 2.4 * xres, row["ymin"] + 1.3 * yres, row["xmax"] - 0.7 * xres, row["ymax"])
    for name, options in (("GridGeoSampler", {"stride": 4}), ("RandomGeoSampler", {"length": 12})):
        windows = sampler(name, dataset, size=6, roi=region, **options)
        found = [dataset[query] for query in queries(windows)]
        assert found and {sample["chip"] for sample in found} == {row["chip"]}
        assert all(check(own, dataset, sample, 6, 6) for sample in found)


# ------------------------------------------------------------------------------------------- queries beside samplers


@pytest.mark.parametrize("away", [0.3, 0.5, -0.5, -2.2])
def test_positions_between_pixels_are_moved_to_the_nearest_and_the_size_stays(own, dataset, away):
    row, (xres, yres) = dataset.chip_rows()[1], dataset.res
    x, y = row["xmin"] + (4 + away) * xres, row["ymax"] - (5 + away) * yres
    sample = dataset[slice(x, x + 7 * xres), slice(y - 9 * yres, y), dataset.slot(1)]
    assert abs(sample["column"] - (4 + away)) <= 0.5 + 1e-6 and abs(sample["line"] - (5 + away)) <= 0.5 + 1e-6
    assert check(own, dataset, sample, 9, 7) == 63


def test_windows_at_a_rim_share_what_they_share_and_beside_it_nothing(own, dataset):
    row, (xres, yres) = dataset.chip_rows()[4], dataset.res
    y = slice(row["ymax"] - 8 * yres, row["ymax"])
    for columns, shared in ((-7, 1), (-7.6, 0), (-8, 0), (15, 1), (15.7, 0), (16, 0), (-400, 0), (17, 0), (400.0, 0)):
        x = row["xmin"] + columns * xres
        sample = dataset[slice(x, x + 8 * xres), y, dataset.slot(4)]
        assert sample["chip"] == row["chip"] and check(own, dataset, sample, 8, 8) == 8 * shared


@pytest.mark.parametrize(("size", "stride"), [(6, 16), (6, 17), (1, 40), ((5, 3), (500, 7)), (15, 1000)])
def test_a_stride_that_leads_past_a_chip_gives_windows_without_a_measurement(own, dataset, size, stride):
    """TorchGeo's grid begins a window beside the chip where a stride is longer than it; no chip is read there."""
    height, width = size if isinstance(size, tuple) else (size, size)
    shared = [check(own, dataset, dataset[query], height, width)
              for query in queries(sampler("GridGeoSampler", dataset, size=size, stride=stride))]  # fmt: skip
    assert shared.count(height * width) >= 6, "the first window of each chip is inside"
    assert 0 in shared and len(shared) == len(sampler("GridGeoSampler", dataset, size=size, stride=stride))


def test_a_place_over_a_rim_is_that_of_the_chip_that_has_most_of_it(own, dataset):
    row, (xres, yres) = dataset.chip_rows()[0], dataset.res
    y = slice(row["ymax"] - 8 * yres, row["ymax"])
    for columns, chip in ((-3, "e0_0"), (10, "e0_0"), (12, "e0_0"), (14, "e0_1"), (29, "e0_1")):
        x = row["xmin"] + columns * xres
        sample = dataset[slice(x, x + 8 * xres), y]
        assert sample["chip"] == chip and check(own, dataset, sample, 8, 8) > 0
    with pytest.raises(IndexError, match="lies in 0 chips"):
        dataset[slice(row["xmin"] + 40 * xres, row["xmin"] + 48 * xres), y]


@pytest.mark.parametrize("query", [slice(None), (slice(None), slice(None)), (slice(0.0, None), slice(None, 1e9))])
def test_a_window_without_ends_is_not_padded(dataset, query):
    with pytest.raises(IndexError):
        dataset[query]


def test_without_labels_and_with_transforms(own):
    dataset = placed(own, METRES, SIDE)
    index = build_index(dataset.benchmark, own.root)
    bare = SpectralChips(dataset.benchmark, index, ["e0_0"], labels=False, transforms=lambda one: {**one, "seen": True})
    row = bare.chip_rows()[0]
    sample = bare[slice(row["xmin"] - 50.0, row["xmin"] + 50.0), slice(row["ymax"] - 50.0, row["ymax"] + 50.0)]
    assert sample["seen"] and (sample["mask"] == VOID).all() and sample["image"].shape == (3, 10, 10)
    assert int((~sample["invalid"]).sum()) == 25 and not sample["image"][:, :5].any()


def test_padded_windows_go_into_batches_and_leave_the_cache_alone(own, dataset):
    windows = list(queries(sampler("GridGeoSampler", dataset, size=12, stride=9)))
    keys = ("image", "mask", "invalid")

    def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {key: torch.stack([sample[key] for sample in samples]) for key in keys}

    batches = list(DataLoader(dataset, batch_size=4, sampler=windows, collate_fn=collate))
    assert sum(len(batch["image"]) for batch in batches) == 24 and batches[0]["image"].shape == (4, 3, 12, 12)
    assert any(batch["invalid"].any() for batch in batches)
    samples = [dataset[query] for query in queries(sampler("PreChippedGeoSampler", dataset))]
    assert all(check(own, dataset, sample, SIDE, SIDE) == SIDE * SIDE for sample in samples)


def test_the_suites_own_windows_come_out_as_they_are_asked_for(own, dataset):
    places = [(s["chip"], s["line"], s["column"]) for s in (dataset[query] for query in GridWindows(dataset, 7, 4))]
    steps = (0, 4, 8, 9)
    assert places == [(chip, line, column) for chip in dataset.index["chip"] for line in steps for column in steps]


def test_pixel_sizes_that_differ_by_rounding_are_one_and_others_are_not(own):
    dataset = placed(own, GRIDS["small degrees"], SIDE)
    assert dataset.res == pytest.approx((1.3e-06, 2.7e-06), rel=1e-6)
    for path in (own.image("e1_0"), own.label("e1_0")):
        with rasterio.open(path, "r+") as file:
            file.transform = rasterio.Affine(2.6e-06, 0, -123.4, 0, -2.7e-06, -37.1)
    benchmark = own.benchmark()
    with pytest.raises(DataError, match="different pixel sizes"):
        open_datasets(benchmark, build_index(benchmark, own.root), ["e0_0", "e1_0"])


# ------------------------------------------------------------------------------------------- samplers from 0.10 on


@pytest.mark.parametrize(("size", "stride"), [(8, 8), (16, 16), (20, 17), ((5, 9), (4, 7)), (40, 40)])
def test_patches_of_places(own, dataset, size, stride):
    height, width = size if isinstance(size, tuple) else (size, size)
    found = [dataset[query] for query in queries(sampler("GriddedPatchSampler", dataset, size=size, stride=stride))]
    assert found
    for sample in found:
        check(own, dataset, sample, height, width)


def test_random_patches_of_places(own, dataset):
    windows = sampler("RandomPatchSampler", dataset, size=5, length=15, generator=1)
    found = [dataset[query] for query in queries(windows)]
    assert len(found) == 15 and all(check(own, dataset, sample, 5, 5) > 0 for sample in found)


@pytest.mark.parametrize("columns", [SIDE, 8])
def test_patches_of_places_and_times_name_each_chip(own, grid, columns):
    dataset = placed(own, grid, columns)
    for size, stride in ((8, 5), (16, 16), (20, 17)):
        places = sampler("GriddedPatchSampler", dataset, size=size, stride=stride)
        times = torchgeo.samplers.SequentialTimestampSampler(dataset)
        found = [dataset[query] for query in queries(places @ times)]
        shared = [check(own, dataset, sample, size, size) for sample in found]
        assert {sample["chip"] for sample, inside in zip(found, shared, strict=True) if inside} == set(
            dataset.index["chip"]
        )
        if size == stride == 16 and columns == SIDE:
            covered: dict[str, int] = {}
            for sample, inside in zip(found, shared, strict=True):
                covered[sample["chip"]] = covered.get(sample["chip"], 0) + inside
            assert set(covered.values()) == {SIDE * SIDE}, "side by side, each pixel once"


# ------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("side", [48, 30, 100])
def test_windows_are_counted_exactly_in_every_unit(grid, side):
    """What is left of a chip after so many windows is 0, and no hair, which would be a window more or a chip less."""
    crs, (width, height), (left, top) = grid
    away = np.random.default_rng(3).uniform(0, 5_000, (60, 2))
    frame = pd.DataFrame({"xmin": left + away[:, 0] * width, "ymax": top - away[:, 1] * height})
    frame = frame.assign(
        chip=[f"c{number}" for number in range(60)], domain="east", crs=crs, image="image.tif", width=side, height=side,
        xmax=frame["xmin"] + side * width, ymin=frame["ymax"] - side * height,
    ).set_index("chip")  # fmt: skip
    dataset = SpectralChips(builtin_benchmarks()["mts12-n2s"], ChipIndex(Path(), frame, {}, ()))
    for size, stride in ((side, side), (side // 2, side // 2), (side // 4, 3), (side - 1, 1), (9, 7)):
        windows = sampler("GridGeoSampler", dataset, size=size, stride=stride)
        assert len(windows) == 60 * (-(-(side - size) // stride) + 1) ** 2, (size, stride)
