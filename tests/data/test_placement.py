"""A label lies on its image wherever the two files say they lie, or is refused: every flip, shift, size and CRS."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from spectral_tl_bench.data.chip import ReadingRules, read_grid, read_image, read_label
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings
from spectral_tl_bench.data.normalisation import BandStatistics
from spectral_tl_bench.data.placement import PlacementError, Turn
from spectral_tl_bench.errors import DataError

HIGH, WIDE = 5, 7
UTM = "EPSG:32633"
PLACE = Affine(10, 0, 500_000, 0, -10, 5_000_000)
NUMBERS = np.arange(HIGH * WIDE, dtype=np.int16).reshape(HIGH, WIDE)
RULES = ReadingRules(1, 1.0, {}, "refuse", None, "georeference", "void", ())
TURNS = [Turn(*flags) for flags in itertools.product((False, True), repeat=3)]


def write(
    path: Path, values: np.ndarray, transform: Affine | None = PLACE, crs: Any = UTM, **options: Any
) -> Path:  # fmt: skip
    values = values[None] if values.ndim == 2 else values
    place = {"transform": transform} if transform is not None else {}
    place |= {"crs": crs} if crs is not None else {}
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **place, **options
    ) as file:
        file.write(values)
    return path


def stored(turn: Turn, values: np.ndarray, place: Affine) -> tuple[np.ndarray, Affine]:
    """The same ground in another order of lines and columns, with the geotransform that says so."""
    if turn.transpose:
        values, place = values.T, Affine(place.b, place.a, place.c, place.e, place.d, place.f)
    high, wide = values.shape
    a, b, c, d, e, f = place.a, place.b, place.c, place.d, place.e, place.f
    if turn.columns:
        values, a, d, c, f = values[:, ::-1], -a, -d, c + wide * a, f + wide * d
    if turn.lines:
        values, b, e, c, f = values[::-1], -b, -e, c + high * b, f + high * e
    return np.ascontiguousarray(values), Affine(a, b, c, d, e, f)


def read(folder: Path, rules: ReadingRules = RULES) -> tuple[np.ndarray, np.ndarray, Affine | None]:
    image = read_image(folder / "image.tif", "a", rules)
    assert read_grid(folder / "image.tif") == (image.grid, image.turn)
    return image.pixels[0], read_label(folder / "label.tif", image.grid, image.turn, rules).raw, image.transform


def refusal(folder: Path) -> str:
    with pytest.raises(PlacementError) as caught:
        read(folder)
    return str(caught.value)


@pytest.mark.parametrize("of_image", TURNS)
def test_all_eight_orders_of_lines_and_columns_are_read_north_up(tmp_path, of_image):
    write(tmp_path / "image.tif", *stored(of_image, NUMBERS, PLACE))
    for of_label in TURNS:
        write(tmp_path / "label.tif", *stored(of_label, NUMBERS + 100, PLACE))
        pixels, label, transform = read(tmp_path)
        np.testing.assert_array_equal(pixels, NUMBERS)
        np.testing.assert_array_equal(label, NUMBERS + 100)
        assert transform == PLACE


@pytest.mark.parametrize("turn", TURNS)
def test_a_label_that_reaches_further_is_cut_to_its_image(tmp_path, turn):
    around = np.pad(NUMBERS, ((2, 3), (4, 1)), constant_values=-7)
    start = Affine(10, 0, 500_000 - 40, 0, -10, 5_000_000 + 20)
    write(tmp_path / "label.tif", *stored(turn, around, start))
    for of_image in (Turn(), Turn(True, True, False)):
        write(tmp_path / "image.tif", *stored(of_image, NUMBERS, PLACE))
        np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS)


@pytest.mark.parametrize(
    ("east", "south", "found"),
    [
        (0.04, -0.03, None),
        (0.3, 0.0, "0.30 pixels beside"),
        (0.0, 0.5, "0.50 pixels beside"),
        (1.0, 0.0, "+1 columns and +0 lines from its image's transform and covers 86%"),
        (-3.0, 2.0, "-3 columns and +2 lines"),
        (700.0, 0.0, "covers 0%"),
    ],
)
def test_shifts(tmp_path, east, south, found):
    write(tmp_path / "image.tif", NUMBERS)
    write(tmp_path / "label.tif", NUMBERS, Affine(10, 0, 500_000 + 10 * east, 0, -10, 5_000_000 - 10 * south))
    if found is None:
        np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS)
    else:
        message = refusal(tmp_path)
        assert found in message and str(tmp_path / "label.tif") in message


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (Affine(30, 0, 500_000, 0, -30, 5_000_000), "pixels of 30 x 30, its image of 10 x 10"),
        (Affine(10, 0, 500_000, 0, -20, 5_000_000), "pixels of 10 x 20"),
        (Affine(10.2, 0, 500_000, 0, -10.2, 5_000_000), "pixels of 10.2 x 10.2"),
        (Affine(9.8, 1.989974874, 500_000, 1.989974874, -9.8, 5_000_000), "rotated by"),
        (Affine(10, 3, 500_000, 0, -9.539392014, 5_000_000), "rotated by"),
    ],
)
def test_other_resolutions_rotations_and_shears(tmp_path, change, found):
    write(tmp_path / "image.tif", NUMBERS)
    write(tmp_path / "label.tif", NUMBERS, change)
    assert found in refusal(tmp_path)


def custom(crs: str) -> str:
    """The same system without its number."""
    return rasterio.crs.CRS.from_string(crs).to_proj4()


COMPOUND = "EPSG:32633+5773"


@pytest.mark.parametrize("crs", [UTM, custom(UTM), "EPSG:25833", COMPOUND])
def test_another_name_for_the_same_ground_is_no_other_ground(tmp_path, crs):
    write(tmp_path / "image.tif", NUMBERS)
    write(tmp_path / "label.tif", *stored(Turn(False, True, False), NUMBERS, PLACE), crs=crs)
    np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS)


@pytest.mark.parametrize("crs", ["EPSG:32634", "EPSG:4326", "EPSG:3857", "EPSG:2263"])
def test_another_crs_is_refused_even_where_its_numbers_are_the_same(tmp_path, crs):
    write(tmp_path / "image.tif", NUMBERS)
    write(tmp_path / "label.tif", NUMBERS, crs=crs)
    message = refusal(tmp_path)
    assert "the label's CRS is EPSG:" in message and f"its image's {UTM}" in message


def test_a_label_warped_into_the_neighbouring_zone_is_refused(tmp_path):
    """It lies in the right place, turned by meridian convergence: only resampling could align it."""
    from rasterio.warp import calculate_default_transform

    big = np.zeros((400, 400), dtype=np.int16)
    write(tmp_path / "image.tif", big)
    transform, width, height = calculate_default_transform(
        UTM, "EPSG:32634", 400, 400, 500_000, 4_996_000, 504_000, 5_000_000
    )
    write(tmp_path / "label.tif", np.zeros((height, width), dtype=np.int16), transform, "EPSG:32634")
    assert "the label's CRS is EPSG:32634" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_that_say_nothing_lie_pixel_for_pixel(tmp_path):
    bare = {"transform": None, "crs": None}
    write(tmp_path / "image.tif", NUMBERS, **bare)
    write(tmp_path / "label.tif", NUMBERS, **bare)
    assert read(tmp_path)[2] is None
    np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS)
    write(tmp_path / "label.tif", NUMBERS[:, :-1], **bare)
    assert "image is 5x7 px, its label 5x6" in refusal(tmp_path)
    write(tmp_path / "image.tif", *stored(Turn(False, True, True), NUMBERS, PLACE))
    write(tmp_path / "label.tif", stored(Turn(False, True, True), NUMBERS, PLACE)[0], **bare)
    np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS, "a bare label turns with its image")
    write(tmp_path / "image.tif", NUMBERS, **bare)
    write(tmp_path / "label.tif", NUMBERS)
    np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS)
    write(tmp_path / "label.tif", *stored(Turn(False, True, False), NUMBERS, PLACE))
    assert "does not stand north up, and its image does not say where it lies" in refusal(tmp_path)


def test_transforms_without_a_crs_are_compared_as_well(tmp_path):
    write(tmp_path / "image.tif", NUMBERS, crs=None)
    write(tmp_path / "label.tif", *stored(Turn(False, True, False), NUMBERS, PLACE), crs=None)
    np.testing.assert_array_equal(read(tmp_path)[1], NUMBERS)
    write(tmp_path / "label.tif", NUMBERS, Affine(10, 0, 500_010, 0, -10, 5_000_000), crs=None)
    assert "+1 columns" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_that_lie_nowhere_or_askew(tmp_path):
    write(tmp_path / "label.tif", NUMBERS)
    write(tmp_path / "image.tif", NUMBERS, Affine(9.8, 1.989974874, 500_000, 1.989974874, -9.8, 5_000_000))
    assert "rotated or sheared: its lines run 11.5 degrees off east" in refusal(tmp_path)
    write(tmp_path / "image.tif", NUMBERS, None)
    assert "a CRS and no geotransform" in refusal(tmp_path)
    points = [GroundControlPoint(*where) for where in ((0, 0, 5e5, 5e6), (5, 7, 5e5 + 70, 5e6 - 50), (0, 7, 5e5, 5e6))]
    with rasterio.open(
        tmp_path / "image.tif", "w", driver="GTiff", count=1, height=HIGH, width=WIDE, dtype="int16", gcps=points,
        crs=UTM,
    ) as file:  # fmt: skip
        file.write(NUMBERS[None])
    pixels = read_image(tmp_path / "image.tif", "a", RULES)
    assert pixels.transform is None, "ground control points alone say nothing that counts"


def test_pixel_for_pixel_when_the_benchmark_says_so(tmp_path):
    rules = ReadingRules(1, 1.0, {}, "refuse", None, "pixels", "void", ())
    write(tmp_path / "image.tif", NUMBERS)
    write(tmp_path / "label.tif", NUMBERS, Affine(30, 0, 0, 0, 30, 0), crs="EPSG:3857")
    np.testing.assert_array_equal(read(tmp_path, rules)[1], NUMBERS)


# ------------------------------------------------------------------------------------------------- whole benchmarks


def rewrite(path: Path, turn: Turn) -> None:
    """The same ground in a file whose lines and columns run otherwise."""
    with rasterio.open(path) as file:
        values, place, crs = file.read(), file.transform, file.crs
    turned = [stored(turn, layer, place) for layer in values]
    write(path, np.stack([layer for layer, _ in turned]), turned[0][1], crs)


def test_turned_files_are_the_same_benchmark_and_the_record_says_so(own):
    before = build_index(own.benchmark(), own.root)
    for number, row in enumerate(own.rows):
        rewrite(own.image(row["name"]), TURNS[number % 8])
        rewrite(own.label(row["name"]), TURNS[(3 * number + 1) % 8])
    after = build_index(own.benchmark(), own.root)
    assert after.manifest == before.manifest
    for column in ("crs", "xmin", "ymin", "xmax", "ymax"):
        assert list(after.frame[column]) == list(before.frame[column])
    assert "8 images do not stand north up and were turned, with their labels, without resampling" in after.notes
    chips = list(after.frame.index)
    statistics = BandStatistics.of(after, chips)
    data = EvaluationData(own.benchmark(), after, chips, LoaderSettings(8, 8, 1), statistics)
    for chip in chips:
        with rasterio.open(own.label(chip)) as file:
            values, place = file.read(1), file.transform
        assert (data.truth(chip) != 255).sum() == (values > 0).sum() and place is not None


def test_the_message_names_files_and_how_many_more(own):
    for row in own.rows:
        if row["region"] == "west":
            continue
        with rasterio.open(own.label(row["name"]), "r+") as file:
            t = file.transform
            file.transform = Affine(t.a, t.b, t.c + 30, t.d, t.e, t.f)
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    message = str(caught.value)
    assert "6 of 10 chips have an image or a label that does not lie where it should" in message
    assert "e0_0: the label starts +3 columns" in message and str(own.label("e0_0")) in message
    assert "and 1 more" in message and "labels: {align: pixels}" in message
    index = build_index(own.benchmark(labels={**own.definition["labels"], "align": "pixels"}), own.root)
    assert any("pixel for pixel, whatever their georeferences say" in note for note in index.notes)


def test_labels_without_a_georeference_are_counted(own):
    for name in ("e0_0", "w1_1"):
        write(own.label(name), own.labels(name), None, None)
    notes = build_index(own.benchmark(), own.root).notes
    assert "2 labels do not say where they lie and are taken pixel for pixel" in notes
