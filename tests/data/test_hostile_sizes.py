"""Files that would fill the memory: small on disk, huge when they are read; refused before anything is allocated."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from struct import pack

import pytest
import rasterio
from reading import read_raw
from vrts import three, vrt

from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.errors import DataError

CHIP = "e0_0"


def refusal(own) -> str:
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    return str(caught.value)


def sparse(path: Path, height: int, width: int, **profile: object) -> None:
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, dtype="uint16",
                       **{"count": 3, "SPARSE_OK": True, "BIGTIFF": "YES", **profile}):  # fmt: skip
        pass


def test_a_huge_raster_is_refused_before_anything_is_allocated(own):
    sparse(own.image(CHIP), 400_000, 400_000, tiled=True, blockxsize=4096, blockysize=4096)
    assert own.image(CHIP).stat().st_size < 10 * 1024**2
    message = refusal(own)
    assert "the raster is 400000 x 400000 px of 3 bands" in message


@pytest.mark.parametrize(("height", "width", "count"), [(20_001, 1, 1), (1, 20_001, 3), (10_000, 10_000, 3)])
def test_the_bounds_of_a_chip(tmp_path, height, width, count):
    path = tmp_path / "x.tif"
    path.write_text(vrt(*[""] * count).replace('"16" rasterYSize="16"', f'"{width}" rasterYSize="{height}"'))
    with pytest.raises(DataError, match=f"{height} x {width} px of {count} bands"), open_raster(path):
        pass


@pytest.mark.parametrize("where", ["image", "source of a vrt"])
def test_a_small_raster_of_one_huge_tile(own, where):
    path = own.image(CHIP) if where == "image" else own.root / "copy.tif"
    sparse(path, 16, 16, count=1, tiled=True, blockxsize=16, blockysize=16)
    content = bytearray(path.read_bytes())
    for tag in (322, 323):  # width and length of tiles, shorts in a directory of 20 bytes an entry
        place = content.index(pack("<HH", tag, 3))
        content[place + 12 : place + 16] = pack("<I", 65_520)
    path.write_bytes(content)
    if where != "image":
        own.image(CHIP).write_text(three("../copy.tif", 1))
    assert "blocks are 65520 x 65520 px" in refusal(own)


def test_raw_pixels_that_are_said_to_be_many(own):
    own.image(CHIP).write_bytes(bytes(512))
    own.image(CHIP).with_suffix(".hdr").write_text(
        "ENVI\nsamples = 90000\nlines = 90000\nbands = 3\ndata type = 12\ninterleave = bil\nbyte order = 0\n"
    )
    assert "1 of 10 chips cannot be used" in refusal(own)  # in the words of GDAL, which change
    os.truncate(own.image(CHIP), 90_000 * 90_000 * 6)  # a file of holes
    assert "the raster is 90000 x 90000 px" in refusal(own)


def matlab(dimensions: tuple[int, int], content: bytes, compressed: bool) -> bytes:
    """A MATLAB 5 file with one uint8 matrix ``label`` of claimed dimensions."""

    def element(kind: int, data: bytes) -> bytes:
        return pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    matrix = element(6, pack("<II", 9, 0)) + element(5, pack("<ii", *dimensions)) + element(1, b"label")
    matrix = element(14, matrix + element(2, content))
    if compressed:
        matrix = zlib.compress(matrix, 1)
        matrix = pack("<II", 15, len(matrix)) + matrix
    return b"MATLAB 5.0 MAT-file".ljust(124) + pack("<H", 0x0100) + b"IM" + matrix


@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_label_of_huge_dimensions(tmp_path, compressed):
    path = tmp_path / "label.mat"
    path.write_bytes(matlab((2, 3), bytes(6), compressed))
    assert read_raw(path, (2, 3)).shape == (2, 3), "the file is right but for the dimensions"
    path.write_bytes(matlab((100_000, 100_000), bytes(6), compressed))
    with pytest.raises(DataError, match=r"shape \(100000, 100000\)"):
        read_raw(path)


def test_a_matlab_label_that_unpacks_to_more_than_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr("spectral_tl_bench.data.labels.MOST_MATLAB_BYTES", 2**20)
    path = tmp_path / "label.mat"
    path.write_bytes(matlab((1000, 1000), bytes(10**6), True))
    assert read_raw(path, (1000, 1000)).shape == (1000, 1000), "a million bytes are allowed here"
    path.write_bytes(matlab((10, 10), bytes(2**21), True))
    with pytest.raises(DataError, match="unpacks to more than any label"):
        read_raw(path)
