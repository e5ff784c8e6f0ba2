"""Files that are not what their name says, are damaged, or hold what no label holds; each has its line."""

from __future__ import annotations

import gzip
import io
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from reading import read_raw
from scipy.io import savemat
from scipy.sparse import csr_matrix

from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.errors import DataError

CHIP = "e0_0"
PIXELS = np.random.default_rng(3).integers(1, 200, (3, 64, 64)).astype("uint8")
CLASSES = np.random.default_rng(4).integers(0, 4, (1, 64, 64)).astype("uint8")


def written(folder: Path, driver: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    """The bytes of a raster in some format."""
    path = folder / f"written.{driver}"
    bands, height, width = pixels.shape
    with rasterio.open(path, "w", driver=driver, count=bands, height=height, width=width, dtype=pixels.dtype,
                       **options) as file:  # fmt: skip
        file.write(pixels)
    return path.read_bytes()


def numpy_file(_: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, PIXELS)
    return stream.getvalue()


def zip_file(_: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("chip.tif", "x")
    return stream.getvalue()


def matlab_file(folder: Path) -> bytes:
    savemat(folder / "written.mat", {"image": PIXELS})
    return (folder / "written.mat").read_bytes()


def geopackage(folder: Path) -> bytes:
    with sqlite3.connect(folder / "written.gpkg") as connection:
        connection.execute("create table chips (name)")
    return (folder / "written.gpkg").read_bytes()


def parquet(folder: Path) -> bytes:
    pd.DataFrame({"a": [1]}).to_parquet(folder / "written.parquet")
    return (folder / "written.parquet").read_bytes()


def constant(content: bytes) -> Callable[[Path], bytes]:
    return lambda _: content


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "nothing": (constant(b""), "the file is empty"),
    "git-lfs": (constant(LFS), "this is a git-lfs pointer, not the file"),
    "page": (constant(b"<!DOCTYPE html><title>404</title>"), "this is a web page that was saved as a raster"),
    "login": (constant(b"\n <html lang=en><form>Sign in</form></html>"), "this is a web page that was saved"),
    "xhtml": (constant(b'<?xml version="1.0"?><html xmlns="x"/>'), "this is a web page that was saved as a raster"),
    "error of a bucket": (constant(b'<?xml version="1.0"?><Error><Code>Denied</Code></Error>'), "this file is text"),
    "json": (constant(b'{"message": "rate limit exceeded"}'), "this file is text"),
    "grid of text": (constant(b"ncols 2\nnrows 2\n1 2\n3 4\n"), "this file is text"),
    "zeros": (constant(bytes(5000)), "the file begins with zeros only"),
    "netCDF 3": (constant(b"CDF\x01" + bytes(100)), "this file is netCDF"),
    "netCDF 3, large": (constant(b"CDF\x02" + bytes(100)), "this file is netCDF"),
    "HDF5": (constant(b"\x89HDF\r\n\x1a\n" + bytes(100)), "this file is HDF5"),
    "HDF4": (constant(b"\x0e\x03\x13\x01" + bytes(100)), "this file is HDF4"),
    "GRIB": (constant(b"GRIB" + bytes(100)), "this file is GRIB"),
    "NITF": (constant(b"NITF02.10" + bytes(100)), "this file is NITF"),
    "Imagine": (lambda folder: written(folder, "HFA"), "this file is ERDAS Imagine"),
    "JPEG": (lambda folder: written(folder, "JPEG"), "this file is JPEG"),
    "GIF": (lambda folder: written(folder, "GIF", CLASSES), "this file is GIF"),
    "NumPy": (numpy_file, "this file is NumPy"),
    "zip": (zip_file, "this file is zip"),
    "gzip": (constant(gzip.compress(b"II*\0")), "this file is gzip"),
    "MATLAB": (matlab_file, "this file is MATLAB"),
    "GeoPackage": (geopackage, "this file is SQLite or GeoPackage"),
    "Parquet": (parquet, "this file is Parquet"),
    "PDF": (constant(b"%PDF-1.7\n\xe2\xe3"), "this file is PDF"),
    "noise": (constant(bytes(range(128, 256))), "its format is unknown"),
    "eight bytes": (constant(b"II*\0\x08\0\0\0"), "the file cannot be read as a raster"),
    "a directory beyond the end": (constant(b"II*\0\xff\xff\xff\x7f" + bytes(20)), "cannot be read as a raster"),
    "a directory of nothing": (constant(b"II*\0\x08\0\0\0" + bytes(20)), "cannot be read as a raster"),
    "half a TIFF": (lambda folder: (data := written(folder, "GTiff"))[: len(data) // 2], "cannot be read"),
    "a TIFF less 100 bytes": (lambda folder: written(folder, "GTiff", compress="deflate")[:-100], "cannot be read"),
    "half a BigTIFF": (lambda folder: written(folder, "GTiff", BIGTIFF="YES")[:5000], "cannot be read"),
    "half a JPEG 2000": (lambda folder: written(folder, "JP2OpenJPEG")[:60], "cannot be read"),
    "the head of a PNG": (lambda folder: written(folder, "PNG")[:20], "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_an_image_that_is_none(own, tmp_path, what):
    make, line = FILES[what]
    own.image(CHIP).write_bytes(make(tmp_path))
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    message = str(caught.value)
    assert "1 of 10 chips cannot be used" in message and line in message and str(own.image(CHIP)) in message


@pytest.mark.parametrize("what", ["nothing", "git-lfs", "login", "netCDF 3", "NumPy", "eight bytes", "noise"])
def test_a_label_that_is_none(own, tmp_path, what):
    make, line = FILES[what]
    own.label(CHIP).write_bytes(make(tmp_path))
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    assert line in str(caught.value) and str(own.label(CHIP)) in str(caught.value)


@pytest.mark.parametrize(
    ("what", "todo"),
    [("git-lfs", "git lfs pull"), ("netCDF 3", "gdal_translate"), ("zip", "unpack it"), ("login", "download the file")],
)
def test_the_line_says_what_to_do(tmp_path, what, todo):
    path = tmp_path / "chip.tif"
    path.write_bytes(FILES[what][0](tmp_path))
    with pytest.raises(DataError, match=todo), open_raster(path):
        pass


def test_netcdf_4_goes_by_its_name(tmp_path):
    path = tmp_path / "chip.nc"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match="this file is netCDF") as caught, open_raster(path):
        pass
    assert "one of GeoTIFF, VRT, JPEG 2000, ENVI, PNG" in str(caught.value)


def test_pixels_that_are_damaged_in_the_middle(own, tmp_path):
    content = bytearray(written(tmp_path, "GTiff", np.sort(PIXELS, axis=2), compress="deflate"))
    middle = len(content) // 2
    content[middle : middle + 50] = b"\xff" * 50
    own.image(CHIP).write_bytes(content)
    with pytest.raises(DataError, match="the pixels cannot be read"):
        build_index(own.benchmark(), own.root)


@pytest.mark.parametrize("where", ["image", "label"])
@pytest.mark.parametrize("what", ["folder", "link to nothing", "gone"])
def test_a_path_without_a_file(own, where, what):
    path = getattr(own, where)(CHIP)
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "link to nothing":
        path.symlink_to(own.root / "nothing.tif")
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    line = "a chip's file is a folder" if what == "folder" else "a chip's file is missing"
    assert line in str(caught.value) and str(path) in str(caught.value)


ENVI = (
    "ENVI\nsamples = 64\nlines = 64\nbands = 3\ndata type = 1\ninterleave = bsq\nbyte order = 0\nheader offset = {}\n"
)


def test_raw_pixels_with_their_header_are_read_and_half_of_them_are_not_zeros(tmp_path):
    path = tmp_path / "chip.dat"
    path.write_bytes(PIXELS.tobytes())
    with pytest.raises(DataError, match="its format is unknown"), open_raster(path):
        pass
    (tmp_path / "chip.hdr").write_text(ENVI.format(0))
    with open_raster(path) as source:
        np.testing.assert_array_equal(source.read(), PIXELS)
    path.write_bytes(PIXELS.tobytes()[:-64])
    with pytest.raises(DataError, match="the file has 12224 bytes"), open_raster(path):
        pass
    path.write_bytes(PIXELS.tobytes())
    (tmp_path / "chip.hdr").write_text(ENVI.format(64))
    with pytest.raises(DataError, match="12352 bytes, says its header"), open_raster(path):
        pass
    (tmp_path / "chip.hdr").write_text(ENVI.format(0) + "file compression = 1\n")
    with pytest.raises(DataError), open_raster(path):
        pass


GOOD = {
    "BigTIFF": ("GTiff", {"BIGTIFF": "YES"}), "big-endian": ("GTiff", {"ENDIANNESS": "BIG"}), "COG": ("COG", {}),
    "tiles": ("GTiff", {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "zstd"}), "PNG": ("PNG", {}),
    "JPEG 2000": ("JP2OpenJPEG", {"QUALITY": "100", "REVERSIBLE": "YES"}), "LERC": ("GTiff", {"compress": "lerc"}),
}  # fmt: skip


@pytest.mark.parametrize("what", GOOD)
def test_the_formats_that_are_read(tmp_path, what):
    driver, options = GOOD[what]
    path = tmp_path / "chip"
    path.write_bytes(written(tmp_path, driver, **options))
    with open_raster(path, lossless=True) as source:
        np.testing.assert_array_equal(source.read(), PIXELS)


LOSSY = {
    "JPEG": ("GTiff", CLASSES, {"compress": "jpeg"}),
    "JPEG 2000": ("JP2OpenJPEG", CLASSES, {"QUALITY": "10", "REVERSIBLE": "NO"}),
    "LERC": ("GTiff", CLASSES, {"compress": "lerc", "MAX_Z_ERROR": "2"}),
}


@pytest.mark.parametrize("what", LOSSY)
def test_a_label_that_was_compressed_with_loss(tmp_path, what):
    driver, pixels, options = LOSSY[what]
    path = tmp_path / "label.tif"
    path.write_bytes(written(tmp_path, driver, pixels, **options))
    with pytest.raises(DataError, match="compressed with loss") as caught:
        read_raw(path)
    assert str(path) in str(caught.value)
    with open_raster(path) as source:
        assert source.shape == (64, 64), "as an image it may be"


MATLAB = {
    "another variable": ({"gt": CLASSES[0]}, "no variable 'label'"),
    "cells": ({"label": np.array([["a"]], dtype=object)}, "is a cell"),
    "text": ({"label": "abc"}, "is a char"),
    "structure": ({"label": {"a": 1}}, "is a struct"),
    "complex": ({"label": CLASSES[0] * 1j}, "complex"),
    "fractions": ({"label": CLASSES[0] + 0.5}, "fractions"),
    "three layers": ({"label": np.repeat(CLASSES, 3, axis=0)}, "has shape"),
    "sparse": ({"label": csr_matrix(CLASSES[0].astype(float))}, "is a sparse"),
}  # fmt: skip


@pytest.mark.parametrize("what", MATLAB)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_label_of_another_kind(tmp_path, what, compressed):
    content, line = MATLAB[what]
    savemat(tmp_path / "label.mat", content, do_compression=compressed)
    with pytest.raises(DataError, match=line):
        read_raw(tmp_path / "label.mat")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "cannot be read"),
        (LFS, "cannot be read"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "cannot be read"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM", "no variable"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM\x0e\0\0\0\xff\xff\xff\xff", "cannot be read"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\x02IM" + bytes(500), "version 7.3"),
    ],
)
def test_a_matlab_file_that_is_none(tmp_path, content, line):
    (tmp_path / "label.mat").write_bytes(content)
    with pytest.raises(DataError, match=line) as caught:
        read_raw(tmp_path / "label.mat")
    assert "label.mat" in str(caught.value)
