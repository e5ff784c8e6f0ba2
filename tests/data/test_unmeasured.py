"""An unmeasured number is never used as one: nodata, NaN, masks and alpha bands, of images and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.chip import ReadingRules, read_image
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.rasters import open_datasets
from spectral_tl_bench.errors import DataError

PLACE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
BANDS = 3


def rules(bands: int = BANDS, nodata_in: Any = None) -> ReadingRules:
    return ReadingRules(bands, 1.0, {}, "fill", nodata_in, "georeference", "void", (1, 2, 3))


def write(path: Path, values: np.ndarray, mask: np.ndarray | None = None, inside: bool = False, **profile: Any) -> Path:
    count, height, width = values.shape
    colours = profile.pop("colours", None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **PLACE, **profile
        ) as file,
    ):
        if colours:
            file.colorinterp = colours
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
    return path


def pixels(dtype: str, bands: int = BANDS) -> np.ndarray:
    """(bands, 4, 5) from 1 on, all different."""
    return np.arange(1, bands * 20 + 1).reshape(bands, 4, 5).astype(dtype)


def found(path: Path, bands: int = BANDS, nodata_in: Any = None) -> set[tuple[int, int, int]]:
    """(band, line, column) of what is unmeasured."""
    values = read_image(path, "a", rules(bands, nodata_in)).holes.values
    return set() if values is None else {tuple(map(int, place)) for place in np.argwhere(values)}


def everywhere(*places: tuple[int, int]) -> set[tuple[int, int, int]]:
    return {(band, *place) for band in range(BANDS) for place in places}


# ---------------------------------------------------------------------------------------------------------- one rule


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -9999), ("uint16", 65535), ("uint8", 255), ("int32", -(2**31)), ("float32", -9999.0),
     ("float32", -3.4028234663852886e38), ("float64", -1e30), ("float32", 1e-30)],
)  # fmt: skip
def test_a_nodata_value_counts_in_the_band_that_has_it(tmp_path, dtype, nodata):
    values = pixels(dtype)
    values[1, 2, 3] = values[0, 0, 0] = nodata
    assert found(write(tmp_path / "a.tif", values, nodata=nodata)) == {(1, 2, 3), (0, 0, 0)}
    assert found(write(tmp_path / "b.tif", values)) == set(), "without the tag it is a number"


@pytest.mark.parametrize(("nodata_in", "some"), [(None, False), ("any", True), ("all", False)])
def test_zero_is_data_in_some_bands_and_nodata_in_all_unless_told_otherwise(tmp_path, nodata_in, some):
    values = pixels("uint16")
    values[:, 1, 1] = 0
    values[2, 3, 4] = 0
    path = write(tmp_path / "a.tif", values, nodata=0)
    assert found(path, nodata_in=nodata_in) == everywhere((1, 1)) | ({(2, 3, 4)} if some else set())
    zeros = read_image(path, "a", rules(nodata_in=nodata_in)).holes.zeros
    assert zeros == (1 if nodata_in is None else 0), "what is taken for data by default is counted"


def test_all_bands_if_the_benchmark_says_so(tmp_path):
    values = pixels("int16")
    values[0, 0, 0] = -1
    values[:, 3, 3] = -1
    assert found(write(tmp_path / "a.tif", values, nodata=-1), nodata_in="all") == everywhere((3, 3))


def test_a_nodata_value_that_the_type_cannot_hold_is_nowhere(tmp_path):
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="5" rasterYSize="4"><SRS>EPSG:32633</SRS><GeoTransform>5e5,10,0,5e6,0,-10'
        '</GeoTransform>'
        + "".join(
            f'<VRTRasterBand dataType="UInt16" band="{band}"><NoDataValue>{value}</NoDataValue><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>'
            "</VRTRasterBand>"
            for band, value in ((1, 7), (2, 30), (3, 0.5))
        )
        + "</VRTDataset>"
    )  # fmt: skip
    write(tmp_path / "a.tif", pixels("uint16"))
    assert found(tmp_path / "a.vrt") == {(0, 1, 1), (1, 1, 4)}, "each band has its own value"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("nodata", [None, np.nan, -1.0])
def test_what_is_not_finite_is_no_measurement(tmp_path, value, nodata):
    values = pixels("float32")
    values[2, 0, 1] = value
    assert found(write(tmp_path / "a.tif", values, nodata=nodata)) == {(2, 0, 1)}


def test_what_float32_cannot_hold_is_no_measurement(tmp_path):
    values = pixels("float64")
    values[0, 2, 2] = 1e300
    assert found(write(tmp_path / "a.tif", values)) == {(0, 2, 2)}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("nodata", [None, 9])
def test_a_mask_hides_pixels_whatever_their_values(tmp_path, inside, nodata):
    mask = np.full((4, 5), 255, dtype=np.uint8)
    mask[0, 2] = mask[3] = 0
    path = write(tmp_path / "a.tif", pixels("int16"), mask, inside, nodata=nodata)
    assert (tmp_path / "a.tif.msk").exists() is not inside
    hidden = everywhere((0, 2), *((3, column) for column in range(5)))
    assert found(path) == hidden | ({(0, 1, 3)} if nodata else set()), "a mask does not make nodata a number"


@pytest.mark.parametrize("opacity", [255, 1])
def test_an_alpha_band_beside_the_bands_is_a_mask(tmp_path, opacity):
    values = pixels("uint8", 4)
    values[3] = opacity
    values[3, 1, 0] = 0
    colours = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.undefined, ColorInterp.alpha]
    path = write(tmp_path / "a.tif", values, colours=colours)
    image = read_image(path, "a", rules())
    assert len(image.pixels) == 3 and found(path) == everywhere((1, 0))


def test_a_band_that_the_benchmark_names_is_no_alpha_band(tmp_path):
    values = pixels("uint8", 4)
    values[3, 2, 2] = 0  # near infrared over water
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write(tmp_path / "a.tif", values, colours=colours)
    np.testing.assert_array_equal(read_image(path, "a", rules(4)).pixels, values)
    assert found(path, 4) == set()


def test_masks_turn_with_their_image(tmp_path):
    mask = np.full((4, 5), 255, dtype=np.uint8)
    mask[0, 1] = 0
    place = PLACE | {"transform": Affine(10, 0, 500_000, 0, 10, 4_999_960)}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=BANDS, height=4, width=5, dtype="int16", **place
    ) as file:
        file.write(pixels("int16"))
        file.write_mask(mask)
    assert found(tmp_path / "a.tif") == everywhere((3, 1))


# ------------------------------------------------------------------------------------------- what a benchmark does


def spoil(own) -> np.ndarray:
    """A hole in one band of a source chip and one of a target chip; the first chip's pixels."""
    for name in ("e0_0", "w0_0"):
        values = own.pixels(name).astype("int16")
        values[1, 2, 3] = -9999
        own.write_raster(own.image(name), values, name, nodata=-9999)
    return own.pixels("e0_0")


def sample_of(own, name: str, **changes: Any) -> dict[str, Any]:
    benchmark = own.benchmark(**changes)
    index = build_index(benchmark, own.root)
    for dataset in open_datasets(benchmark, index, fill=np.array([10.0, 20.0, 30.0])):
        for number, row in enumerate(dataset.chip_rows()):
            if row["chip"] == name:
                return dataset.read_window(number, 0, 0, 16, 16)
    raise AssertionError(name)


@pytest.mark.parametrize("word", ["refuse", "error"])
def test_refused_by_default_with_band_reason_and_number(own, word):
    spoil(own)
    for changes in ({}, {"nodata": word}):
        with pytest.raises(DataError) as caught:
            build_index(own.benchmark(**changes), own.root)
        message = str(caught.value)
        assert "2 of 10 images" in message and "e0_0: 1 px in bands 2: nodata 1" in message
        assert "nodata: fill" in message and "nodata: void" in message


def test_filled_in_the_band_alone_and_the_label_stays(own):
    values = spoil(own)
    sample = sample_of(own, "e0_0", nodata="fill")
    expected = values.astype("float32")
    expected[1, 2, 3] = 20
    np.testing.assert_array_equal(sample["image"].numpy(), expected)
    assert sample["invalid"].sum() == 1 and sample["invalid"][2, 3]
    np.testing.assert_array_equal(sample["mask"].numpy() == VOID, own.labels("e0_0") == 0)


def test_void_pixels_count_neither_in_training_nor_in_testing(own):
    spoil(own)
    for name in ("e0_0", "w0_0"):
        label = own.labels(name)
        label[2, 3] = 1
        own.write_raster(own.label(name), label[None], name)
        index = build_index(own.benchmark(nodata="void"), own.root)
        assert index.frame.loc[name, "class_counts"][0] == (label == 1).sum() - 1
        sample = sample_of(own, name, nodata="void")
        assert sample["mask"][2, 3] == VOID and (sample["mask"] != VOID).sum() == (label > 0).sum() - 1
    assert any("2 px, void, and filled" in note for note in index.notes)


def test_labels_without_their_images_know_void_pixels_too(own):
    spoil(own)
    benchmark = own.benchmark(nodata="void")
    for dataset in open_datasets(benchmark, build_index(benchmark, own.root)):
        for number in range(len(dataset)):
            whole = dataset.read_window(number, 0, 0, 16, 16)["mask"].numpy()
            np.testing.assert_array_equal(dataset.classes(number), whole)


def test_a_band_without_a_measurement_is_named_and_says_nothing(own):
    from spectral_tl_bench.data.normalisation import BandStatistics, Normalise

    for row in own.rows:
        values = own.pixels(row["name"]).astype("float32")
        values[2] = np.nan
        own.write_raster(own.image(row["name"]), values, row["name"])
    index = build_index(own.benchmark(nodata="fill"), own.root)
    assert {"no chip of the source has a measurement in nir", "no chip of the target has a measurement in nir"} <= set(
        index.notes
    )
    statistics = BandStatistics.of(index, ["e0_0", "e0_1"])
    sample = sample_of(own, "w0_0", nodata="fill")["image"][None]
    assert (Normalise(statistics)(sample)[:, 2] * 0 == 0).all() and statistics.constant.tolist() == [False, False, True]
    with pytest.raises(DataError, match="no pixel has all bands"):
        build_index(own.benchmark(nodata="void"), own.root)


@pytest.mark.parametrize("change", ["mask", "band", "tag"])
def test_the_manifest_knows_what_is_unmeasured(own, change):
    benchmark = own.benchmark(nodata="fill")
    values = own.pixels("e0_0").astype("int16")
    values[:, 5, 5] = -1
    own.write_raster(own.image("e0_0"), values, "e0_0")
    before = build_index(benchmark, own.root).manifest
    if change == "mask":
        mask = np.full((16, 16), 255, dtype=np.uint8)
        mask[0, 0] = 0
        with rasterio.open(own.image("e0_0"), "r+") as file:
            file.write_mask(mask)
    else:
        own.write_raster(own.image("e0_0"), values, "e0_0", nodata=-1 if change == "tag" else int(values[1, 3, 3]))
    assert build_index(benchmark, own.root).manifest != before


# ---------------------------------------------------------------------------------------------------------- labels


def classes_of(own, name: str = "e0_0", **changes: Any) -> np.ndarray:
    return sample_of(own, name, **changes)["mask"].numpy()


@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_of_a_label_makes_its_pixels_void(own, inside):
    label = np.ones((1, 16, 16), dtype=np.uint8)
    mask = np.full((16, 16), 255, dtype=np.uint8)
    mask[4:6] = 0
    x, y = own.corner("e0_0")
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, x, 0, -10, y)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside),
        rasterio.open(
            own.label("e0_0"), "w", driver="GTiff", count=1, height=16, width=16, dtype="uint8", **place
        ) as file,
    ):
        file.write(label)
        file.write_mask(mask)
    assert (classes_of(own) == VOID).sum() == 32 and (classes_of(own)[4:6] == VOID).all()
    index = build_index(own.benchmark(), own.root)
    assert list(index.frame.loc["e0_0", "class_counts"]) == [256 - 32, 0]
    assert any("32 px of 1 chips have a class value where the label's mask" in note for note in index.notes)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 255), ("int16", -1), ("float32", np.nan), ("float32", -1)])
def test_a_label_value_that_the_file_calls_nodata_is_void_though_the_map_does_not_know_it(own, dtype, nodata):
    label = np.ones((1, 16, 16), dtype=dtype)
    label[0, :3] = nodata
    own.write_raster(own.label("e0_0"), label, "e0_0", nodata=nodata)
    assert (classes_of(own) == VOID).sum() == 48


def test_a_class_that_the_file_calls_nodata_is_a_contradiction(own):
    for name in ("e0_0", "w0_0"):
        own.write_raster(own.label(name), own.labels(name)[None], name, nodata=2)
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    message = str(caught.value)
    assert "2 of 10 labels call a class nodata" in message and "e0_0: nodata value 2 is class 'Water'" in message
    ignored = classes_of(own, labels={**own.definition["labels"], "nodata": "ignore"})
    np.testing.assert_array_equal(ignored == VOID, own.labels("e0_0") == 0)


def test_a_void_value_that_the_file_calls_nodata_changes_nothing(own):
    before = build_index(own.benchmark(), own.root)
    for row in own.rows:
        own.write_raster(own.label(row["name"]), own.labels(row["name"])[None], row["name"], nodata=0)
    after = build_index(own.benchmark(), own.root)
    assert after.manifest == before.manifest and after.notes == before.notes
