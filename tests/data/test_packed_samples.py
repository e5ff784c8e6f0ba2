"""Samples and batches from packed chips are those from the files, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import torch
from packs import alike, assert_same_samples, both, holes_in_a_band, holes_in_all_bands, make_pack
from safetensors.numpy import load_file
from test_domains import shipped  # noqa: F401 - a fixture
from test_placement import TURNS, rewrite
from test_units import tag
from vrts import three

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.data.splits import make_split

LAYOUTS = ("whuohs-s2t", "whuohs-id", "dfc2020-autumn", "dfc2020-id")


@pytest.mark.parametrize("name", ["mts12-n2s", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS)])
def test_samples_of_every_layout(name, trees, tmp_path):
    benchmark = builtin_benchmarks()[name]
    plain, packed = both(benchmark, trees, tmp_path)
    assert assert_same_samples(benchmark, plain, packed) == len(packed.frame)
    assert packed.manifest == plain.manifest and packed.places == plain.places and packed.notes == plain.notes


@pytest.mark.slow
def test_samples_of_the_layout_that_copernicus_bench_ships(shipped, tmp_path):  # noqa: F811
    benchmark = builtin_benchmarks()["dfc2020-spring"]
    assert assert_same_samples(benchmark, *both(benchmark, shipped[0], tmp_path / "out")) == len(shipped[1])


def masks(own):
    for name in ("e0_1", "w1_0"):
        with rasterio.open(own.image(name), "r+") as file:
            file.write_mask(np.arange(256).reshape(16, 16) % 7 > 0)


def not_finite(own):
    for row in own.rows:
        values = own.pixels(row["name"]).astype("float32") / 3
        values[2, 1, 1:4] = np.nan, np.inf, -np.inf
        own.write_raster(own.image(row["name"]), values, row["name"])


def turned(own):
    for number, row in enumerate(own.rows):
        rewrite(own.image(row["name"]), TURNS[number % 8])


def hidden_labels(own):
    for name in ("e0_0", "w0_1"):
        with rasterio.open(own.label(name), "r+") as file:
            file.write_mask(np.arange(256).reshape(16, 16) % 5 > 0)


def a_vrt(own):
    own.image("e0_0").rename(own.root / "pixels.tif")
    own.image("e0_0").write_text(three("../pixels.tif", relative=1))


def typed(dtype):
    def change(own):
        for row in own.rows:
            own.write_raster(own.image(row["name"]), (own.pixels(row["name"]) % 120).astype(dtype), row["name"])

    return change


KINDS = {
    "as they are": (lambda own: None, {}),
    "holes in a band": (holes_in_a_band, {"nodata": "fill"}),
    "holes in a band, void": (holes_in_a_band, {"nodata": "void"}),
    "holes in all bands": (holes_in_all_bands, {"nodata": "void"}),
    "holes wherever a band has one": (holes_in_all_bands, {"nodata": "fill", "nodata_in": "any"}),
    "masks": (masks, {"nodata": "fill"}),
    "not finite": (not_finite, {"nodata": "fill"}),
    "turned": (turned, {}),
    "hidden labels": (hidden_labels, {}),
    "a VRT": (a_vrt, {}),
    "scaled": (lambda own: tag(own, "ew", (2.0, 0.5, 1.0), (0.0, 3.0, -1.0)), {}),
    **{dtype: (typed(dtype), {}) for dtype in ("uint8", "int8", "uint32", "float64")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_kind_of_file(own, kind, tmp_path):
    change, rules = KINDS[kind]
    change(own)
    benchmark = own.benchmark(**rules)
    plain, packed = both(benchmark, own.root, tmp_path / "out")
    assert len(packed.frame["crs"].unique()) == 2
    assert assert_same_samples(benchmark, plain, packed) == 10


def test_samples_without_labels(own, tmp_path):
    holes_in_a_band(own)
    benchmark = own.benchmark(nodata="void")
    assert assert_same_samples(benchmark, *both(benchmark, own.root, tmp_path / "out"), labels=False) == 10


def test_samples_without_a_crs(own_without_crs, tmp_path):
    benchmark = own_without_crs.benchmark()
    assert assert_same_samples(benchmark, *both(benchmark, own_without_crs.root, tmp_path / "out")) == 10


def test_pixels_are_kept_in_the_type_of_the_files(own, tmp_path):
    tensors = [load_file(shard) for shard in make_pack(own.benchmark(), own.root, tmp_path)]
    pixels = [value for shard in tensors for name, value in shard.items() if name.endswith(".pixels")]
    assert len(tensors) == 2, "one for each domain: what is open of the source holds nothing of the target"
    assert {value.dtype for value in pixels} == {np.dtype("uint16")} and len(pixels) == 10
    assert {value.tobytes() for value in pixels} == {own.pixels(row["name"]).tobytes() for row in own.rows}


def test_splits_statistics_and_batches(own, tmp_path):
    benchmark = own.benchmark()
    sources = []
    for index in both(benchmark, own.root, tmp_path / "out"):
        split = make_split(benchmark, index, 0)
        source = SourceData(benchmark, index, split, LoaderSettings(8, 4, 2), 3)
        assert source.validation.only([]).rows == {}
        part = source.validation.only(list(source.validation.rows)[:1])
        batches = list(source.train_loader(6, labelled=True, stage="one")) + list(source.sweep_loader(labelled=True))
        sources.append((split.hash, source.statistics, batches, list(part.loader()), part))
    (hash_0, one, first, windows, _), (hash_1, other, second, packed_windows, part) = sources
    assert part.collection.datasets[0].packed.places, "some of the chips are read from there as well"
    assert hash_0 == hash_1 and np.array_equal(one.mean, other.mean) and np.array_equal(one.std, other.std)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(windows, packed_windows, strict=True))


@pytest.mark.parametrize("name", ["mts12-n2s", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS)])
def test_readers_have_the_same(name, trees, tmp_path):
    """Any number of threads, and processes over files; and they draw the same random numbers."""
    benchmark = builtin_benchmarks()[name]
    plain, packed = both(benchmark, trees, tmp_path / "out")
    assert_same_from(benchmark, (plain, 0), (packed, 0), (packed, 1), (packed, 3), (plain, 1))


def assert_same_from(benchmark, *ways):
    found = []
    for index, workers in ways:
        settings = LoaderSettings(16, 8, 2, workers=workers)
        source = SourceData(benchmark, index, make_split(benchmark, index, 0), settings, 3)
        torch.manual_seed(5)
        validation = source.validation.loader()
        batches = [*source.train_loader(9, True, "one"), *source.sweep_loader(True), *validation, *validation]
        found.append((batches, torch.rand(3)))
    (first, drawn), *others = found
    for batches, numbers in others:
        assert torch.equal(numbers, drawn)
        for one, other in zip(first, batches, strict=True):
            assert list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
