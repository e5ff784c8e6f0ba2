"""Label files of every kind, and the map from their values to classes."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.io import savemat

from spectral_tl_bench.benchmarks import VOID, Labels
from spectral_tl_bench.data.chip import ReadingRules, read_label
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.data.placement import Grid, Turn
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.sample.rasters import write_mat

RAW = {0: (-3, 1), 1: (7,), 2: (2, 300)}
VOIDS = (0, 5)


def labels(other: str = "error") -> Labels:
    classes = [{"name": f"class {k}", "colour": "#123456", "raw": raw} for k, raw in RAW.items()]
    return Labels.model_validate({"classes": classes, "void": VOIDS, "other": other})


def write(path, array, dtype=None) -> None:
    array = np.asarray(array, dtype=dtype)
    array = array[None] if array.ndim == 2 else array
    with rasterio.open(
        path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype
    ) as file:
        file.write(array)


# ------------------------------------------------------------------------------------------------------------ the map


@given(
    arrays.arrays(
        np.int64, (4, 5), elements=st.sampled_from([-(2**40), -4, -3, 0, 1, 2, 3, 5, 7, 299, 300, 301, 2**40])
    )
)
def test_the_map_agrees_with_a_dictionary(raw):
    class_of = {value: k for k, values in RAW.items() for value in values}
    label_map = LabelMap(labels("void"))
    expected = np.vectorize(lambda value: class_of.get(value, VOID))(raw)
    mapped = label_map(raw)
    assert mapped.dtype == np.uint8 and mapped.shape == raw.shape
    np.testing.assert_array_equal(mapped, expected)
    counts = label_map.counts(*np.unique(raw, return_counts=True))
    np.testing.assert_array_equal(counts, [(expected == k).sum() for k in RAW])


def test_the_map_takes_unsigned_bytes():
    np.testing.assert_array_equal(LabelMap(labels())(np.array([[0, 1, 255]], dtype=np.uint8)), [[VOID, 0, VOID]])


def test_values_that_the_map_does_not_name_are_reported_unless_they_are_void():
    values = np.array([-4, -3, 0, 3, 5, 301])
    assert LabelMap(labels("error")).unknown(values) == [-4, 3, 301]
    assert LabelMap(labels("void")).unknown(values) == []


def test_255_classes_fit_and_do_not_meet_void():
    classes = [{"name": str(k), "colour": "#000000", "raw": [k]} for k in range(VOID)]
    label_map = LabelMap(Labels.model_validate({"classes": classes, "void": [1000]}))
    assert label_map(np.array([[0, 254, 1000]])).tolist() == [[0, 254, VOID]]


# ------------------------------------------------------------------------------------------------------------ files

GOOD = np.arange(12).reshape(3, 4)
RULES = ReadingRules(1, 1.0, {}, "refuse", None, "georeference", "void", ())


def read_raw(path, size: tuple[int, int] = GOOD.shape) -> np.ndarray:
    """The values of a label whose image has a size and says no more."""
    return read_label(path, Grid(None, None, *size), Turn(), RULES).raw


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_rasters_and_matlab_files_give_the_same_values(tmp_path, dtype):
    write(tmp_path / "a.tif", GOOD, dtype)
    savemat(tmp_path / "a.mat", {"label": GOOD.astype(dtype)})
    for name in ("a.tif", "a.mat"):
        raw = read_raw(tmp_path / name)
        assert raw.dtype.kind in "iu"
        np.testing.assert_array_equal(raw, GOOD)


def refusal(path, size: tuple[int, int] = GOOD.shape) -> str:
    with pytest.raises(DataError) as caught:
        read_raw(path, size)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_fractions_and_nan_are_no_labels(tmp_path):
    for number, value in enumerate((0.5, np.nan, np.inf)):
        array = GOOD.astype("float32")
        array[1, 1] = value
        write(tmp_path / f"{number}.tif", array)
        assert "fractions or NaN" in refusal(tmp_path / f"{number}.tif")


def test_a_label_has_one_band_and_two_axes(tmp_path):
    write(tmp_path / "two.tif", np.zeros((2, 3, 4), dtype="uint8"))
    assert "2 bands" in refusal(tmp_path / "two.tif")
    savemat(tmp_path / "cube.mat", {"label": np.zeros((2, 3, 4))})
    assert "(2, 3, 4)" in refusal(tmp_path / "cube.mat")


def test_other_contents_of_matlab_files(tmp_path):
    savemat(tmp_path / "named.mat", {"labels": GOOD})
    assert "no variable 'label'" in refusal(tmp_path / "named.mat")
    savemat(tmp_path / "text.mat", {"label": np.array([["a", "b"]], dtype=object)})
    assert "whole class numbers" in refusal(tmp_path / "text.mat")
    header = b"MATLAB 7.3 MAT-file".ljust(116) + b"\0" * 8 + b"\x00\x02IM"
    (tmp_path / "new.mat").write_bytes(header + b"\0" * 400)
    assert "version 7.3" in refusal(tmp_path / "new.mat")


def test_missing_files(tmp_path):
    for name in ("gone.tif", "gone.mat"):
        assert "missing" in refusal(tmp_path / name)


@pytest.mark.parametrize("suffix", ["tif", "mat"])
def test_a_file_that_ends_early_anywhere_is_refused_in_plain_words(tmp_path, suffix):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    array = np.random.default_rng(0).integers(0, 9, (32, 32)).astype("uint8")
    write(whole, array) if suffix == "tif" else write_mat(whole, array)
    content = whole.read_bytes()
    for length in np.linspace(0, len(content) - 64, 40).astype(int):
        path.write_bytes(content[:length])
        refusal(path, array.shape)


def test_damaged_matlab_files_never_raise_anything_else(tmp_path):
    path, rng = tmp_path / "a.mat", np.random.default_rng(1)
    write_mat(path, rng.integers(0, 9, (32, 32)).astype("uint8"))
    content, refused = path.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            read_raw(path, (32, 32))
        except DataError:
            refused += 1
    assert refused > 50
