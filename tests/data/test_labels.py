"""Label files of every kind, and the map from their values to classes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from reading import read_raw
from scipy.io import savemat

from spectral_tl_bench.benchmarks import VOID, Labels
from spectral_tl_bench.data.labels import LabelMap
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


ENDS = [-(2**63), -(2**31), -1, 0, 1, 255, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i2", ">u4", ">i8", "bool"])
def test_the_map_takes_every_type_of_whole_numbers_to_its_ends(dtype):
    classes = [{"name": f"class {k}", "colour": "#123456", "raw": [value]} for k, value in enumerate(ENDS)]
    label_map = LabelMap(Labels.model_validate({"classes": classes, "void": [7], "other": "void"}))
    limits = np.iinfo("u1" if dtype == "bool" else dtype)
    top = 1 if dtype == "bool" else limits.max
    values = sorted({value for value in [*ENDS, 2, 7, limits.min, top, top - 1] if limits.min <= value <= top})
    raw = np.array([values, values[::-1]], dtype=dtype)
    expected = [ENDS.index(value) if value in ENDS else VOID for value in values]
    np.testing.assert_array_equal(label_map(raw), [expected, expected[::-1]])
    np.testing.assert_array_equal(label_map(np.asfortranarray(raw).T), np.array([expected, expected[::-1]]).T)


def test_a_map_without_a_value_of_the_labels_type_gives_void():
    classes = [{"name": name, "colour": "#123456", "raw": [value]} for name, value in (("a", 1000), ("b", -5))]
    label_map = LabelMap(Labels.model_validate({"classes": classes, "other": "void"}))
    np.testing.assert_array_equal(label_map(np.array([[3, 200]], dtype=np.uint8)), [[VOID, VOID]])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint64"])
def test_memory_is_that_of_the_labels_whatever_their_values(dtype):
    classes = [{"name": f"class {k}", "colour": "#123456", "raw": [k]} for k in range(2)]
    void = [-(2**31), -(2**63), 2**64 - 1]
    raw = np.ones((4000, 4000), dtype=dtype)
    raw[0] = np.iinfo(dtype).max
    tracemalloc.start()
    mapped = LabelMap(Labels.model_validate({"classes": classes, "void": void}))(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (mapped[0] == VOID).all() and (mapped[1:] == 1).all()
    assert peak < raw.nbytes + 48 * 2**20


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


def test_numbers_of_64_bits_without_a_sign(tmp_path):
    write(tmp_path / "a.tif", GOOD, "uint64")
    np.testing.assert_array_equal(read_raw(tmp_path / "a.tif"), GOOD)
    huge = GOOD.astype("uint64")
    huge[0, 0] = 2**64 - 1
    write(tmp_path / "a.tif", huge)
    assert "18446744073709551615" in refusal(tmp_path / "a.tif")


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
