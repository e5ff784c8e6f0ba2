"""A window that is read from the files is what the whole chip has there, whatever the files are like."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window
from test_placement import TURNS, stored
from vrts import three

from spectral_tl_bench.data import chip as chip_module
from spectral_tl_bench.data import chip_windows as module
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets
from spectral_tl_bench.errors import DataError

SIDE, CHIP = 16, "e0_0"
WINDOWS = [(slice(0, 16), slice(0, 16)), (slice(3, 9), slice(5, 16)), (slice(15, 16), slice(0, 1)),
           (slice(0, 11), slice(2, 4))]  # fmt: skip

OF_FLAT = [(slice(0, 8), slice(0, 16)), (slice(1, 4), slice(3, 15)), (slice(7, 8), slice(15, 16))]


def both(dataset: SpectralChips, chips: int = 2) -> int:
    """Compare windows of the first chips, read and cut; gives how many were read."""
    found = 0
    for number, row in enumerate(dataset.chip_rows()[:chips]):
        dataset.chip_cache = ChipCache()
        whole = dataset._files.read(row)
        for lines, columns in WINDOWS:
            read = dataset._windows.read(row, (lines, columns))
            again = dataset._windows.read(row, (lines, columns))  # without the checks
            if read is None:
                continue
            found += 1
            holes = whole[2][:, lines, columns] if whole[2].size else whole[2]
            for image, mask, missing in (read, again):
                assert image.dtype == whole[0].dtype and mask.dtype == whole[1].dtype
                np.testing.assert_array_equal(image, whole[0][:, lines, columns])
                np.testing.assert_array_equal(mask, whole[1][lines, columns])
                assert bool(missing.any()) == bool(holes.any())
                if holes.any():
                    one, other = (np.broadcast_to(part, image.shape) for part in (missing, holes))
                    np.testing.assert_array_equal(one, other)
            size = (lines.stop - lines.start, columns.stop - columns.start)
            sample = samples(dataset, number, lines.start, columns.start, *size)
            for key in ("image", "mask", "invalid"):
                assert sample[0][key].equal(sample[1][key]), key
    return found


def samples(dataset: SpectralChips, *window: int) -> list[dict]:
    """The same window by a cache that is too small for anything, and by one that keeps all."""
    given = []
    for limit in (0, 2**30):
        dataset.chip_cache = ChipCache(limit)
        dataset.chip_cache.expect({"all": 1000})
        given.append(dataset.read_window(*window))
        assert bool(dataset.chip_cache._kept) == bool(limit)
    return given


@pytest.mark.parametrize(
    "name", ["mts12-n2s", *(pytest.param(name, marks=pytest.mark.slow) for name in ("whuohs-s2t", "dfc2020-winter"))]
)
def test_published_layouts(indexed, name):
    benchmark, index = indexed(name)
    for dataset in open_datasets(benchmark, index, list(index.frame.index[::15])):
        assert both(dataset, 1) == len(WINDOWS)


def write(path: Path, values: np.ndarray, place: Affine, mask: np.ndarray | None = None, **profile: object) -> None:
    colours = profile.pop("colours", None)
    inside = bool(profile.pop("inside", False))
    count, height, width = values.shape
    profile = {"crs": "EPSG:32633", "transform": place, **profile}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **profile
        ) as file,
    ):
        if colours:
            file.colorinterp = colours
        file.write(values)
        if mask is not None:
            file.write_mask(mask)


def place_of(own, chip: str = CHIP) -> Affine:
    return Affine(10, 0, own.corner(chip)[0], 0, -10, own.corner(chip)[1])


def opened(own, **changes: object) -> list[SpectralChips]:
    benchmark = own.benchmark(**changes)
    return open_datasets(benchmark, build_index(benchmark, own.root))


def east(own, **changes: object) -> SpectralChips:
    return next(one for one in opened(own, **changes) if any(row["chip"] == CHIP for row in one.chip_rows()))


@pytest.mark.parametrize("nodata", ["fill", "void"])
@pytest.mark.parametrize(
    "kind", ["value", "zero", "all zero", "float nan", "mask", "inner mask", "alpha", "some bands"]
)
def test_what_is_not_measured(own, kind, nodata):
    rng = np.random.default_rng(3)
    dtype = {"float nan": "float32", "alpha": "uint8"}.get(kind, "int16")
    values, hole = rng.integers(1, 200, (3, SIDE, SIDE)).astype(dtype), rng.random((SIDE, SIDE)) < 0.2
    more: dict = {}
    if kind in ("value", "some bands"):
        values[(slice(None) if kind == "value" else 1), hole], more = -9, {"nodata": -9}
    elif "zero" in kind:
        values[(1 if kind == "zero" else slice(None)), hole], more = 0, {"nodata": 0}
    elif kind == "float nan":
        values[0, hole] = np.nan
    elif "mask" in kind:
        more = {"mask": np.where(hole, 0, 255).astype("uint8"), "inside": kind == "inner mask"}
    else:
        values = np.concatenate([values, np.where(hole, 0, 255)[None].astype(dtype)])
        more = {"colours": [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined, ColorInterp.alpha]}
    write(own.image(CHIP), values, place_of(own), **more)
    dataset = east(own, nodata=nodata)
    row = next(row for row in dataset.chip_rows() if row["chip"] == CHIP)
    assert (row["nodata_pixels"] > 0) == (kind != "zero")
    assert both(dataset) == 2 * len(WINDOWS)


@pytest.mark.parametrize(("tag", "as_float"), itertools.product(["nodata", "nan", "mask", "ignored"], [False, True]))
def test_what_labels_hide(own, tag, as_float):
    if tag == "nan" and not as_float:
        pytest.skip("whole numbers have no NaN")
    rng = np.random.default_rng(4)
    values = rng.integers(0, 4, (1, SIDE, SIDE)).astype("float32" if as_float else "uint8")
    hole, more = rng.random((SIDE, SIDE)) < 0.3, {}
    if tag == "nan":
        values[0, hole], more = np.nan, {"nodata": np.nan}
    elif tag == "mask":
        more = {"mask": np.where(hole, 0, 255).astype("uint8")}
    else:
        values[0, hole], more = 9, {"nodata": 9}
    write(own.label(CHIP), values, place_of(own), **more)
    labels = {**own.definition["labels"], "void": [0, 9]} | ({"nodata": "ignore"} if tag == "ignored" else {})
    assert both(east(own, labels=labels)) > 0


@pytest.mark.parametrize("of_image", TURNS)
def test_turned_images_under_turned_and_larger_labels(own, of_image):
    values, here = own.pixels(CHIP), place_of(own)
    number = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    order, place = stored(of_image, number, here)
    write(own.image(CHIP), values.reshape(3, -1)[:, order.ravel()].reshape(3, SIDE, SIDE), place)
    label = np.pad(own.labels(CHIP), ((2, 3), (4, 1)))
    start = Affine(10, 0, here.c - 40, 0, -10, here.f + 20)
    turned, place = stored(TURNS[7 - TURNS.index(of_image) // 2], label, start)
    write(own.label(CHIP), turned[None], place)
    dataset = east(own)
    assert both(dataset, 1) == len(WINDOWS)
    sample = dataset.read_window(0, 0, 0, SIDE, SIDE)
    np.testing.assert_array_equal(sample["image"].numpy(), values)


def test_chips_that_are_no_squares_and_lie_turned(own, monkeypatch):
    rng = np.random.default_rng(5)
    for row in own.rows:
        chip, numbers = row["name"], np.arange(8 * 16).reshape(8, 16)
        values, label = rng.integers(1, 99, (3, 8, 16)).astype("int16"), rng.integers(0, 4, (8, 16)).astype("uint8")
        order, place = stored(TURNS[5], numbers, place_of(own, chip))
        crs = own.crs["east" if chip[0] == "e" else "west"]
        write(own.image(chip), values.reshape(3, -1)[:, order.ravel()].reshape(3, *order.shape), place, crs=crs)
        write(own.label(chip), label[None], place_of(own, chip), crs=crs)
    monkeypatch.setattr(sys.modules[__name__], "WINDOWS", OF_FLAT)
    for dataset in opened(own):
        assert both(dataset) == 2 * len(OF_FLAT)


@pytest.mark.parametrize(
    "profile",
    [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"interleave": "pixel"}, {"interleave": "band"},
     {"compress": "deflate", "predictor": 2}, {"compress": "lzw"}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}],
    ids=str,
)  # fmt: skip
def test_ways_of_writing_a_geotiff(own, profile):
    write(own.image(CHIP), own.pixels(CHIP), place_of(own), **profile)
    write(own.label(CHIP), own.labels(CHIP)[None], place_of(own), **profile)
    dataset = east(own)
    assert both(dataset) == 2 * len(WINDOWS)


class Counting:
    """An open raster, and what was read of it."""

    def __init__(self, source):
        self.source, self.windows = source, []

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read(self, *arguments, window, **more):
        self.windows.append(window)
        return self.source.read(*arguments, window=window, **more)


@pytest.mark.parametrize("bands", [[1, 2, 3], [3, 1]], ids=["all", "some"])
@pytest.mark.parametrize(("dtype", "lines"), [("uint16", 1), ("int16", 5), ("float32", 16), ("complex64", 16)])
@pytest.mark.parametrize(
    ("profile", "pieces"),
    [({"interleave": "pixel"}, True), ({"interleave": "pixel", "ENDIANNESS": "BIG"}, True),
     ({"interleave": "pixel", "compress": "lzw"}, False), ({"interleave": "band"}, False)],
    ids=str,
)  # fmt: skip
def test_pixels_with_their_bands_beside_them_are_read_in_pieces(own, monkeypatch, profile, pieces, dtype, lines, bands):
    monkeypatch.setattr(chip_module, "PIECE", lines * SIDE * 3 * np.dtype(dtype).itemsize)
    values = own.pixels(CHIP).astype(dtype)
    write(own.image(CHIP), values, place_of(own), **profile)
    for window in (None, Window(2, 3, 16 - 2, 11)):
        with rasterio.open(own.image(CHIP)) as file:
            source = Counting(file)
            read = chip_module.image_pixels(source, own.image(CHIP), bands, window)
        part = values if window is None else values[:, 3:14, 2:]
        assert read.dtype == values.dtype and np.array_equal(read, part[[band - 1 for band in bands]])
        height, at_a_time = read.shape[1], lines * SIDE // read.shape[2]
        assert len(source.windows) == (math.ceil(height / at_a_time) if pieces and lines < SIDE else 1)


def test_units_and_several_crs(own):
    with rasterio.open(own.image(CHIP), "r+") as file:
        file.scales, file.offsets = (0.5, 0.25, 2.0), (1.0, 0.0, -3.0)
    domains = [{"id": "east", "scale": 0.5, "offset": 0.1}, {"id": "west"}]
    sensor = {**own.definition["sensor"], "scale": 0.25}
    datasets = opened(own, domains=domains, sensor=sensor)
    assert len(datasets) == 2 and {len(row["gain"]) for one in datasets for row in one.chip_rows()} == {0, 3}
    assert [both(dataset) for dataset in datasets] == [2 * len(WINDOWS) for dataset in datasets]


def test_chips_without_a_crs(own_without_crs):
    for dataset in opened(own_without_crs):
        assert both(dataset) == 2 * len(WINDOWS)


def test_a_vrt_is_read_whole(own):
    own.image(CHIP).rename(own.root / "source.tif")
    own.image(CHIP).write_text(three("../source.tif", 1))
    dataset = east(own)
    assert both(dataset) == len(WINDOWS)
    one, other = samples(dataset, 0, 2, 3, 8, 8)
    assert one["image"].equal(other["image"]) and one["mask"].equal(other["mask"])


@pytest.mark.parametrize("turn", [TURNS[0], TURNS[5]])
def test_matlab_labels(own, turn):
    from scipy.io import savemat

    number = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    for row in own.rows:
        order, place = stored(turn, number, place_of(own, row["name"]))
        crs = own.crs["east" if row["name"][0] == "e" else "west"]
        values = own.pixels(row["name"]).reshape(3, -1)[:, order.ravel()].reshape(3, SIDE, SIDE)
        values[:, 3, 4] = 0
        write(own.image(row["name"]), values, place, crs=crs, nodata=0)
        savemat(own.root / "label" / f"{row['name']}.mat", {"label": own.labels(row["name"])})
    dataset = east(own, nodata="void", layout={**own.definition["layout"], "label": "label/{name}.mat"})
    assert both(dataset) == 2 * len(WINDOWS)


def test_without_labels_no_label_is_opened(own):
    benchmark = own.benchmark()
    dataset = open_datasets(benchmark, build_index(benchmark, own.root), labels=False)[0]
    shutil.rmtree(own.root / "label")
    assert both(dataset) == 2 * len(WINDOWS)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_file_that_is_replaced_between_two_windows_is_noticed(own, kind):
    dataset = east(own)
    row, window = dataset.chip_rows()[0], WINDOWS[1]
    assert dataset._windows.read(row, window) is not None
    path = own.root / row[kind]
    (path.parent / "new").write_bytes(path.read_bytes() + b"\0")
    (path.parent / "new").replace(path)
    with pytest.raises(DataError, match="has changed since it was indexed"):
        dataset._windows.read(row, window)


def test_checks_are_made_once_and_again_after_a_change_of_the_inode(own, monkeypatch):
    dataset, seen = east(own), []
    real = module.open_raster
    monkeypatch.setattr(module, "open_raster", lambda path, **more: seen.append(path.name) or real(path, **more))
    row, path = dataset.chip_rows()[0], own.image(CHIP)
    for window in WINDOWS:
        dataset._windows.read(row, window)
    assert len(seen) == 2, "image and label"
    status = path.stat()
    shutil.copyfile(path, path.with_name("same"))
    os.utime(path.with_name("same"), ns=(status.st_atime_ns, status.st_mtime_ns))
    path.with_name("same").replace(path)  # the same size and time
    dataset._windows.read(row, WINDOWS[0])
    assert len(seen) == 4
    path.write_bytes(b"II*\0" + b"\0" * (status.st_size - 4))  # neither: no content of a file is trusted
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError):
        dataset._windows.read(row, WINDOWS[0])


def test_an_image_beside_which_a_mask_appears_later_is_read_as_it_was_indexed(own):
    dataset = east(own)
    row = dataset.chip_rows()[0]
    before = dataset._windows.read(row, WINDOWS[0])
    with rasterio.open(own.image(CHIP).with_name("x.tif"), "w", driver="GTiff", count=1, height=SIDE, width=SIDE,
                       dtype="uint8") as file:  # fmt: skip
        file.write(np.zeros((1, SIDE, SIDE), dtype="uint8"))
    own.image(CHIP).with_name("x.tif").rename(f"{own.image(CHIP)}.msk")
    after = dataset._windows.read(row, WINDOWS[0])
    assert not after[2].size and np.array_equal(before[0], after[0])


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="no /proc here")
@pytest.mark.parametrize("any_size", [False, True])
def test_files_of_chips_are_mapped_and_those_of_scenes_are_not(tmp_path, any_size):
    path = tmp_path / "raster.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 2, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", **profile, transform=rasterio.Affine(10, 0, 0, 0, -10, 0)) as file:
        file.write(np.ones((2, 64, 64), "uint16"))
    with open_raster(path, any_size=any_size) as source:
        assert source.read(window=Window(0, 0, 32, 32)).all()
        assert (str(path) in Path("/proc/self/maps").read_text()) is not any_size
