"""The chip index: sums, cache, manifest, and every kind of bad chip."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import rasterio

from spectral_tl_bench.data import index as index_module
from spectral_tl_bench.data import reading_processes
from spectral_tl_bench.data.index import LOCAL_CRS, build_index
from spectral_tl_bench.data.reading_processes import look_at_each
from spectral_tl_bench.data.scan import scan_chip
from spectral_tl_bench.data.source import DataSource, open_index
from spectral_tl_bench.errors import DataError


def build(own, **changes):
    return build_index(own.benchmark(**changes), own.root)


def refusal(own, **changes) -> str:
    with pytest.raises(DataError) as caught:
        build(own, **changes)
    assert str(own.root) in str(caught.value)
    return str(caught.value)


def rewrite(own, name: str, change, **options) -> None:
    pixels = own.pixels(name)
    own.write_raster(own.image(name), change(pixels), name, **options)


# ------------------------------------------------------------------------------------------------------------ contents


def test_the_index_sums_up_every_chip(own):
    frame = build(own).frame
    assert list(frame.index) == sorted(row["name"] for row in own.rows)
    for name, row in frame.iterrows():
        pixels, labels = own.pixels(name).astype(float), own.labels(name)
        np.testing.assert_array_equal(row["band_sum"], pixels.sum(axis=(1, 2)))
        np.testing.assert_array_equal(row["band_square_sum"], (pixels**2).sum(axis=(1, 2)))
        np.testing.assert_array_equal(row["class_counts"], [(labels == 1).sum(), (labels >= 2).sum()])
        values, counts = np.unique(labels, return_counts=True)
        assert (list(row["labels"]), list(row["label_counts"])) == (values.tolist(), counts.tolist())
        x, y = own.corner(name)
        assert (row["xmin"], row["ymin"], row["xmax"], row["ymax"]) == (x, y - 160, x + 160, y)
        assert row["crs"] == ("EPSG:32633" if name[0] == "e" else "EPSG:32634")
        assert (row["height"], row["width"], row["bands"], row["valid_pixels"]) == (16, 16, 3, 256)


def test_mts12_without_georeference_takes_the_footprint_from_the_name(tmp_path):
    from spectral_tl_bench.benchmarks import builtin_benchmarks
    from spectral_tl_bench.sample.rasters import write_mat

    for fold, stem in (("train", "eopatch_id_1_col_9_row_14"), ("test", "eopatch_id_0_col_9_row_3")):
        path = tmp_path / "image" / fold / f"{stem}.tif"
        path.parent.mkdir(parents=True)
        with rasterio.open(path, "w", driver="GTiff", count=24, height=20, width=20, dtype="uint16") as file:
            file.write(np.ones((24, 20, 20), dtype="uint16"))
        write_mat(tmp_path / "label" / fold / f"{stem}_label.mat", np.ones((20, 20), dtype="uint8"))
    frame = build_index(builtin_benchmarks()["mts12-n2s"], tmp_path).frame
    row = frame.loc["eopatch_id_1_col_9_row_14"]
    assert (row["crs"], row["xmin"], row["ymax"]) == ("EPSG:32633", 415_000.0, 5_100_000.0)


def test_chips_without_crs_stand_apart_on_a_local_grid(own_without_crs):
    frame = build(own_without_crs).frame
    assert set(frame["crs"]) == {LOCAL_CRS}
    corners = frame[["xmin", "ymin"]].to_numpy()
    assert len({tuple(corner) for corner in corners}) == len(frame)
    assert (frame["xmax"] - frame["xmin"] == 16).all() and (frame["ymax"] - frame["ymin"] == 16).all()
    distance = np.abs(corners[:, None] - corners[None]).max(axis=2)
    assert distance[~np.eye(len(frame), dtype=bool)].min() >= 2 * 16, "no two chips touch"


# ------------------------------------------------------------------------------------------------------------ cache


def forbid_reading(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a chip was opened")

    monkeypatch.setattr(index_module, "scan_chip", fail)


def test_the_second_time_no_chip_is_opened_and_nothing_differs(own, monkeypatch):
    first = build(own)
    forbid_reading(monkeypatch)
    second = build(own)
    assert second.manifest == first.manifest
    assert list(second.frame.columns) == list(first.frame.columns)
    for column in first.frame:
        for one, other in zip(first.frame[column], second.frame[column], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads read")
def test_many_chips_are_read_by_processes_with_the_same_rows_and_problems(own, monkeypatch, tmp_path):
    by_threads = build(own).frame
    pids = tmp_path / "pids"
    pids.mkdir()

    def scan(*arguments):
        (pids / str(os.getpid())).touch()
        return scan_chip(*arguments)

    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(index_module, "scan_chip", scan)
    monkeypatch.setattr(reading_processes, "MANY", 2)
    monkeypatch.setattr(index_module, "PER_TASK", 1)
    pd.testing.assert_frame_equal(build_index(own.benchmark(), own.root, 2).frame, by_threads)
    assert [path for path in pids.iterdir() if path.name != str(os.getpid())] == list(pids.iterdir())
    broken = own.rows[0]["name"]
    own.image(broken).write_bytes(own.image(broken).read_bytes()[:-40])
    with pytest.raises(DataError, match=broken):
        build_index(own.benchmark(), own.root, 2)


@pytest.mark.parametrize(("size", "at_a_time"), [(2**30, 32), (1, 1)])
def test_large_chips_come_back_a_few_at_a_time_so_that_progress_is_true(own, monkeypatch, size, at_a_time):
    asked = []

    def look(each, chips, workers, per_task):
        asked.append(per_task)
        return look_at_each(each, chips, workers, per_task)

    monkeypatch.setattr(index_module, "look_at_each", look)
    monkeypatch.setattr(index_module, "TASK_BYTES", size)
    build(own)
    assert asked == [at_a_time]


@pytest.mark.parametrize("what", ["image", "label", "table"])
def test_a_changed_file_is_read_again(own, monkeypatch, what):
    build(own)
    if what == "image":
        rewrite(own, "e0_0", lambda pixels: pixels + 1)
    elif what == "label":
        own.write_raster(own.label("e0_0"), np.ones((1, 16, 16), dtype="uint8"), "e0_0")
    else:
        own.rows[0]["place"] = "elsewhere"
        own.write_table()
    with monkeypatch.context() as patch:
        forbid_reading(patch)
        with pytest.raises(AssertionError, match="a chip was opened"):
            build(own)
    frame = build(own).frame
    if what == "image":
        np.testing.assert_array_equal(frame.loc["e0_0", "band_sum"], own.pixels("e0_0").sum(axis=(1, 2)))
    elif what == "label":
        assert list(frame.loc["e0_0", "class_counts"]) == [256, 0]
    else:
        assert frame.loc["e0_0", "site"] == "elsewhere"


def test_a_newer_time_alone_is_enough_to_look_again(own, monkeypatch):
    first = build(own)
    os.utime(own.image("w1_0"), (1_000_000_000, 1_000_000_000))
    with monkeypatch.context() as patch:
        forbid_reading(patch)
        with pytest.raises(AssertionError, match="a chip was opened"):
            build(own)
    assert build(own).manifest == first.manifest


def test_a_damaged_or_impossible_cache_costs_only_time(own, tmp_path, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    first = build(own)
    (cached,) = (tmp_path / "cache" / "index").iterdir()
    cached.write_bytes(b"not parquet")
    assert build(own).manifest == first.manifest
    assert list((tmp_path / "cache" / "index").iterdir()) == [cached] and cached.read_bytes()[:4] == b"PAR1"
    (tmp_path / "file").touch()
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "file"))
    assert build(own).manifest == first.manifest


def test_chips_with_a_problem_are_not_kept_in_the_cache(own):
    content = own.image("e1_0").read_bytes()
    status = own.image("e1_0").stat()
    own.image("e1_0").write_bytes(b"x" * len(content))
    os.utime(own.image("e1_0"), ns=(status.st_atime_ns, status.st_mtime_ns))
    refusal(own)
    own.image("e1_0").write_bytes(content)
    os.utime(own.image("e1_0"), ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(build(own).frame) == 10


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the chips that are opened from now on."""
    names: list[str] = []

    def scan(base, chip, *more):
        names.append(chip.chip)
        return scan_chip(base, chip, *more)

    monkeypatch.setattr("spectral_tl_bench.data.index.scan_chip", scan)
    return names


def test_only_what_changed_is_opened_again(own, opened, monkeypatch, tmp_path):
    build(own)
    assert len(opened) == 10
    opened.clear()
    rewrite(own, "e0_0", lambda pixels: pixels + 1)
    again = build(own)
    assert opened == ["e0_0"]
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "empty"))
    fresh = build(own)
    assert again.manifest == fresh.manifest
    assert again.frame.columns.tolist() == fresh.frame.columns.tolist()
    for column in fresh.frame.columns:
        for one, other in zip(again.frame[column], fresh.frame[column], strict=True):
            np.testing.assert_array_equal(one, other)


def test_chips_beside_a_broken_one_are_not_opened_again(own, opened):
    content = own.image("e1_0").read_bytes()
    own.image("e1_0").write_bytes(b"x")
    refusal(own)
    opened.clear()
    own.image("e1_0").write_bytes(content)
    assert len(build(own).frame) == 10
    assert opened == ["e1_0"]


# ------------------------------------------------------------------------------------------------------------ manifest


def test_the_manifest_knows_neither_folder_nor_time(own, tmp_path):
    first = build(own).manifest
    shutil.copytree(own.root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert build_index(own.benchmark(), tmp_path / "elsewhere").manifest == first


def test_the_manifest_knows_no_compression(own):
    first = build(own).manifest
    with rasterio.open(own.image("e0_0")) as file:
        profile, pixels = file.profile, file.read()
    with rasterio.open(own.image("e0_0"), "w", **{**profile, "compress": "deflate", "interleave": "pixel"}) as file:
        file.write(pixels)
    assert build(own).manifest == first


def exchange(array: np.ndarray) -> np.ndarray:
    """Two pixels change places: no sum and no histogram changes."""
    array = array.copy()
    here, there = [tuple(place) for place in (np.argwhere(array[-1] != array[-1, 0, 0])[0], (0, 0))]
    array[(..., *here)], array[(..., *there)] = array[(..., *there)].copy(), array[(..., *here)].copy()
    return array


def one_pixel(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[-1, 5, 5] ^= 1
    return array


@pytest.mark.parametrize("change", [one_pixel, exchange])
@pytest.mark.parametrize("what", ["image", "label"])
def test_the_manifest_changes_with_one_pixel(own, what, change):
    first = build(own).manifest
    path = own.image("w0_1") if what == "image" else own.label("w0_1")
    array = own.pixels("w0_1") if what == "image" else own.labels("w0_1")[None]
    changed = change(array)
    assert (changed != array).any()
    own.write_raster(path, changed, "w0_1")
    assert build(own).manifest != first


def test_the_manifest_changes_with_site_and_number_of_chips(own):
    first = build(own).manifest
    own.rows[0]["place"] = "e9"
    own.write_table()
    second = build(own).manifest
    own.rows.pop()
    own.write_table()
    assert len({first, second, build(own).manifest}) == 3


# ------------------------------------------------------------------------------------------------------------ bad chips


def test_unreadable_chips_are_named_up_to_five(own):
    for row in own.rows[:7]:
        path = own.image(row["name"])
        path.write_bytes(path.read_bytes()[:300] if row["name"] == "e0_0" else b"<html>404</html>")
    message = refusal(own)
    assert "7 of 10 chips cannot be used" in message and "and 2 more" in message
    assert "e0_0: " in message and str(own.image("e0_1")) in message


@pytest.mark.parametrize("what", ["image", "label"])
def test_a_truncated_raster_is_named(own, what):
    path = own.image("w1_1") if what == "image" else own.label("w1_1")
    path.write_bytes(path.read_bytes()[:-100])
    message = refusal(own)
    assert "1 of 10 chips cannot be used" in message and str(path) in message and "cannot be read" in message


def test_an_image_without_label_and_the_reverse_are_named(own):
    own.label("e2_0").unlink()
    message = refusal(own)
    assert "missing" in message and str(own.label("e2_0")) in message
    own.image("e2_1").unlink()
    assert "2 of 10 chips cannot be used" in refusal(own)


def test_another_number_of_bands(own):
    rewrite(own, "e1_1", lambda pixels: pixels[:2])
    message = refusal(own)
    assert "1 of 10 images" in message and "e1_1: 2 bands" in message and "3 bands: green, red, nir" in message


def test_labels_outside_the_map(own):
    label = own.labels("w0_0")
    label[3, 3], label[4, 4] = 9, 200
    own.write_raster(own.label("w0_0"), label[None], "w0_0")
    message = refusal(own)
    assert "1 of 10 labels" in message and "w0_0: value 9, 200" in message and "one of 0, 1, 2, 3" in message
    index = build(own, labels={**own.definition["labels"], "other": "void"})
    assert list(index.frame.loc["w0_0", "class_counts"]) == [(label == 1).sum(), ((label == 2) | (label == 3)).sum()]


def test_mixed_sizes(own):
    for name in ("e0_1", "w0_1"):
        own.write_raster(own.image(name), np.ones((3, 8, 12), dtype="uint16"), name)
        own.write_raster(own.label(name), np.ones((1, 8, 12), dtype="uint8"), name)
    message = refusal(own)
    assert "mixed sizes: 2 of 10 are not 16x16 px" in message and "e0_1: 8x12 px" in message


def test_image_and_label_of_different_size(own):
    own.write_raster(own.label("e0_1"), np.ones((1, 16, 15), dtype="uint8"), "e0_1")
    assert "e0_1: image is 16x16 px, its label 16x15, 94% of it" in refusal(own)


def test_chips_smaller_than_said_are_noted(own):
    source = DataSource("files", own.root, "")
    _, track, notes = open_index(own.benchmark(chip_size=32), source, own=True)
    assert track == "demonstration" and "chips of 16x16 px, the benchmark says 32 px" in notes


def test_all_void_chips_are_an_error_or_left_out_with_a_note(own):
    for name in ("e0_0", "w1_1"):
        own.write_raster(own.label(name), np.zeros((1, 16, 16), dtype="uint8"), name)
    message = refusal(own)
    assert "2 of 10 chips have no labelled pixel" in message and "e0_0" in message and "void_chips: skip" in message
    index = build(own, void_chips="skip")
    assert index.skipped == {"e0_0": ("east", "all void"), "w1_1": ("west", "all void")}
    assert len(index.frame) == 8 and any("2 chips without a labelled pixel" in note for note in index.notes)


def test_a_side_of_void_chips_only_is_always_an_error(own):
    for name in ("w0_0", "w0_1", "w1_0", "w1_1"):
        own.write_raster(own.label(name), np.zeros((1, 16, 16), dtype="uint8"), name)
    assert "every chip of the target of mine is void" in refusal(own, void_chips="skip")


def nan_at(band: int, *places: tuple[int, int]):
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.astype("float32")
        for place in places:
            pixels[(band, *place)] = np.nan
        return pixels

    return change


def test_nan_pixels_are_an_error_or_left_out_of_the_sums(own):
    rewrite(own, "e0_0", nan_at(1, (0, 0), (3, 4)))
    message = refusal(own)
    assert "1 of 10 images have NaN or nodata pixels" in message and "e0_0: 2 px in bands 2: not finite 2" in message
    index = build(own, nodata="fill")
    row = index.frame.loc["e0_0"]
    pixels = own.pixels("e0_0").astype(float)
    assert (row["valid_pixels"], row["nodata_pixels"], list(row["band_count"])) == (254, 2, [256, 254, 256])
    np.testing.assert_allclose(row["band_sum"], np.nansum(pixels, axis=(1, 2)))
    np.testing.assert_allclose(row["band_square_sum"], np.nansum(pixels**2, axis=(1, 2)))
    assert any("1 chips have NaN, masked or nodata pixels: 2 px, filled" in note for note in index.notes)


def test_infinite_pixels_count_as_holes(own):
    rewrite(own, "e0_0", lambda pixels: np.where(pixels == pixels.max(), np.inf, pixels).astype("float32"))
    assert "NaN or nodata" in refusal(own)


def test_nodata_in_every_band_is_a_hole_and_in_one_band_is_not(own):
    def change(pixels: np.ndarray) -> np.ndarray:
        pixels[0] = 0  # a dark band is honest
        pixels[:, 2, 2:5] = 0
        return pixels

    rewrite(own, "w0_0", change, nodata=0)
    assert "w0_0: 3 px in bands all" in refusal(own)
    assert build(own, nodata="fill").frame.loc["w0_0", "nodata_pixels"] == 3


def test_a_chip_without_one_valid_pixel_is_always_an_error(own):
    rewrite(own, "w0_0", lambda pixels: np.full_like(pixels, 7), nodata=7)
    message = refusal(own, nodata="fill")
    assert "1 of 10 images hold no valid pixel" in message and "w0_0" in message


def test_rotated_images_and_complex_pixels_are_refused(own):
    turned = rasterio.Affine(9.8, 1.7, 500_000, 1.7, -9.8, 5_000_000)
    profile = {"driver": "GTiff", "count": 3, "height": 16, "width": 16, "crs": "EPSG:32633"}
    with rasterio.open(own.image("e0_0"), "w", dtype="uint16", transform=turned, **profile) as file:
        file.write(np.ones((3, 16, 16), dtype="uint16"))
    assert "rotated" in refusal(own)
    straight = rasterio.Affine(10, 0, 0, 0, -10, 0)
    with rasterio.open(own.image("e0_0"), "w", dtype="complex64", transform=straight, **profile) as file:
        file.write(np.ones((3, 16, 16), dtype="complex64"))
    assert "complex64" in refusal(own)
