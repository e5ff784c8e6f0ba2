"""Opens rasters that somebody else made: formats that are known, of a size that fits, and no other file than is named.

GDAL itself opens a hundred formats, files on servers and Python code within a file. What is opened here is first told
by its first bytes, and then opened as that and as nothing else. Whether files lie within the data root is asked in
``stamps``, which knows the root.
"""

from __future__ import annotations

import functools
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.session import DummySession

from spectral_tl_bench.data.vrt import MARK, vrt_sources
from spectral_tl_bench.errors import DataError

LONGEST_SIDE = 20_000
"""Pixels of a chip's longer side, at most."""
MOST_VALUES = 250_000_000
"""Pixels times bands of a chip, at most: twice as many bytes for 16 bits, and while they are summed, eight times."""
MOST_BLOCK_BYTES = 1024**3
"""Bytes of a raster's tile or strip, which GDAL reads whole for a single pixel."""
DEEPEST = 8
"""VRTs within VRTs."""
HEAD = 4096
"""Bytes of a file by which its format is told."""
MOST_CRS = 1000
"""CRSs that are kept by what GeoTIFFs say of them."""
_CRS_OF: dict[bytes, CRS | None] = {}

DRIVERS = {"GTiff": "GeoTIFF", "VRT": "VRT", "JP2OpenJPEG": "JPEG 2000", "ENVI": "ENVI", "PNG": "PNG"}
_SIGNATURES = (
    (b"II*\0", "GTiff"), (b"MM\0*", "GTiff"), (b"II+\0", "GTiff"), (b"MM\0+", "GTiff"),
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"), (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
)  # fmt: skip
_FOREIGN = (
    (b"CDF", "netCDF"), (b"\x89HDF", "HDF5"), (b"\x0e\x03\x13\x01", "HDF4"), (b"EHFA_HEADER_TAG", "ERDAS Imagine"),
    (b"GRIB", "GRIB"), (b"NITF", "NITF"), (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF"), (b"\x93NUMPY", "NumPy"),
    (b"MATLAB", "MATLAB"), (b"SQLite", "SQLite or GeoPackage"), (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"),
    (b"PAR1", "Parquet"), (b"%PDF", "PDF"),
)  # fmt: skip
_GDAL_CAN = frozenset({"netCDF", "HDF5", "HDF4", "ERDAS Imagine", "GRIB", "NITF", "JPEG", "GIF"})

# A second fence behind the first: no code from a file, no server, whatever the environment says.
_GUARDED = {
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
}

# Uncompressed pixels are taken out of the file as it is mapped, past GDAL's cache of blocks: a third of the time.
# Of what is larger than a chip, all that was read would count as this process's memory.
_FAST = "GTIFF_VIRTUAL_MEM_IO"

# Chip sets without a CRS are common and are placed on a local grid. A filter inside a call would not do: files are
# opened in several threads, which share the filters.
warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)


@contextmanager
def open_raster(path: Path, *, lossless: bool = False, any_size: bool = False, alone: bool = False) -> Iterator[Any]:
    """``rasterio.open`` for files from elsewhere, with errors for people.

    Args:
        path: A file in one of the formats of ``DRIVERS``.
        lossless: Whether pixels must be what was written, as those of labels must.
        any_size: Whether it may be larger than a chip, because it is read in parts.
        alone: Whether no other file is read with it, so that GDAL need not list the folder to look for one.

    Yields:
        The open dataset.

    Raises:
        DataError: If the file is missing, of another format, damaged or larger than any chip, or is a VRT that does
            more than to put plain files together.
    """
    head = _head(path)
    driver = _driver(path, head)
    if driver == "VRT":
        path = Path(os.path.realpath(path))
        _check_sources(path, (), set())
    keys = geo_keys(head) if alone and driver == "GTiff" else None
    with _environment(alone, mapped=not any_size), _opened(path, driver, keys) as source:
        if not any_size:
            _check_size(source, path)
        if lossless:
            _check_lossless(source, path)
        yield source


@contextmanager
def open_again(path: Path, driver: str, alone: bool) -> Iterator[Any]:
    """Open a raster that ``open_raster`` has opened and that has not changed since: nothing is checked again.

    Args:
        path: The file, no VRT.
        driver: From ``driver_of``.
        alone: As for ``open_raster``.

    Raises:
        DataError: If it cannot be opened.
    """
    with _environment(alone), _source(path, driver) as source:
        yield source


class _Raster(rasterio.io.DatasetReader):
    """A raster whose CRS is made out when it is asked for, which takes four times as long as all else of opening."""

    def __init__(self, path: Path, driver: str, keys: bytes | None) -> None:
        self._opened, self._keys = False, keys
        super().__init__(path, driver=driver)
        self._opened = True

    def read_crs(self) -> None:
        """What opening calls."""

    @property
    def crs(self) -> CRS | None:
        """The CRS; None where the file names none."""
        if not self._opened:  # opening asks, and has no need to know
            return None
        if self._keys in _CRS_OF:
            return _CRS_OF[self._keys]
        crs = super().read_crs()
        if self._keys is not None and len(_CRS_OF) < MOST_CRS:
            _CRS_OF[self._keys] = crs
        return crs


def _environment(alone: bool, mapped: bool = True) -> Any:
    # Said either way: an environment within another one has the other's options.
    listing = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if alone else "FALSE"}
    return rasterio.Env(DummySession(), **_GUARDED, **listing, **{_FAST: "YES" if mapped else "NO"})


def driver_of(path: Path) -> str:
    """GDAL's name for the format of a file, told by its first bytes.

    Raises:
        DataError: If it is missing, no plain file, or in no format that is read.
    """
    return _driver(path, _head(path))


def _head(path: Path) -> bytes:
    check_plain_file(path)
    try:
        with path.open("rb", buffering=0) as stream:
            return stream.read(HEAD)
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=path) from None


def _driver(path: Path, head: bytes) -> str:
    for signature, driver in _SIGNATURES:
        if head.startswith(signature):
            return driver
    if MARK in head:  # wherever it stands: GDAL may take it for a VRT, and then it has to be a good one
        return "VRT"
    if _envi_header(path):
        return "ENVI"
    raise _not_a_raster(path, head)


def check_plain_file(path: Path) -> None:
    """See to it that a path is that of a file, and not of a folder, a pipe or a device, at which reading would wait.

    Raises:
        DataError: If not.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("a chip's file is missing", where=path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"the file cannot be read: {getattr(error, 'strerror', error)}", where=path) from None
    if not stat.S_ISREG(mode):
        raise DataError("a chip's file is a folder" if stat.S_ISDIR(mode) else "this is no plain file", where=path)


@contextmanager
def _opened(path: Path, driver: str, keys: bytes | None = None) -> Iterator[Any]:
    with _source(path, driver, keys) as source:
        _check_blocks(source, path)
        if driver == "ENVI":
            _check_envi(source, path)
        if "OVERVIEW_FILE" in source.tags(ns="OVERVIEWS"):
            raise DataError("the raster names a file of overviews", where=path, fix="gdal_translate IN OUT.tif")
        yield source


def _source(path: Path, driver: str, keys: bytes | None = None) -> Any:
    try:
        # An absolute path is never taken for an address or a part of a file.
        return _Raster(path.absolute(), driver, keys)
    except rasterio.errors.RasterioIOError as error:
        raise DataError(f"the file cannot be read as a raster: {error}", where=path) from None


def _check_sources(vrt: Path, above: tuple[Path, ...], seen: set[Path]) -> None:
    if vrt in above or len(above) == DEEPEST:
        what = "a VRT reads itself" if vrt in above else f"VRTs lie within VRTs more than {DEEPEST} deep"
        raise DataError(what, where=vrt, fix="write it out: gdal_translate IN.vrt OUT.tif")
    if vrt in seen:
        return
    seen.add(vrt)
    for source in vrt_sources(vrt):
        driver = driver_of(source)
        if driver != "VRT":
            status = source.stat()
            _check_source(source, driver, status.st_size, status.st_mtime_ns)
        elif Path(os.path.realpath(source)) == source:
            _check_sources(source, (*above, vrt), seen)
        else:
            raise DataError("a VRT within a VRT is reached through a link", where=source, fix="name the file itself")


@functools.lru_cache(4096)
def _check_source(path: Path, driver: str, _size: int, _time: int) -> None:
    with rasterio.Env(DummySession(), **_GUARDED), _opened(path, driver):
        pass


def _check_size(source: Any, path: Path) -> None:
    if max(source.shape) > LONGEST_SIDE or math.prod(source.shape) * source.count > MOST_VALUES:
        raise DataError(
            f"the raster is {source.height} x {source.width} px of {source.count} bands", where=path,
            expected=f"chips of at most {LONGEST_SIDE} px a side, and {MOST_VALUES // 10**6} million values",
            fix="cut it into chips",
        )  # fmt: skip


def _check_blocks(source: Any, path: Path) -> None:
    """Refuse blocks that would fill the memory however few pixels are read."""
    for (height, width), dtype in zip(source.block_shapes, source.dtypes, strict=True):
        if height * width * _pixel_bytes(dtype) > MOST_BLOCK_BYTES:
            raise DataError(
                f"the raster's blocks are {height} x {width} px", where=path,
                expected=f"tiles or strips of less than {MOST_BLOCK_BYTES // 1024**3} GiB", fix="gdal_translate IN OUT",
            )  # fmt: skip


def _pixel_bytes(dtype: str) -> int:
    return {"complex_int16": 4, "complex_int32": 8}.get(dtype) or np.dtype(dtype).itemsize


def _check_lossless(source: Any, path: Path) -> None:
    facts = source.tags(ns="IMAGE_STRUCTURE")
    lossy = facts.get("COMPRESSION_REVERSIBILITY") == "LOSSY" or float(facts.get("MAX_Z_ERROR", 0)) >= 0.5
    if lossy or "JPEG" in facts.get("COMPRESSION", "").split():
        raise DataError(
            "the label is compressed with loss, which invents classes at edges", where=path,
            expected="a lossless compression, such as DEFLATE", fix="write the label anew from its origin",
        )  # fmt: skip


def _envi_header(path: Path) -> Path | None:
    """The header beside raw ENVI pixels."""
    for header in (Path(f"{path}.hdr"), path.with_suffix(".hdr"), path.with_suffix(".HDR")):
        if header != path and header.is_file():
            with header.open("rb") as stream:
                if stream.read(4) == b"ENVI":
                    return header
    return None


def _check_envi(source: Any, path: Path) -> None:
    """GDAL reads zeros where raw pixels are missing."""
    facts = source.tags(ns="ENVI")
    if facts.get("file_compression", "0") not in ("", "0"):
        raise DataError("the ENVI file is compressed", where=path, fix="unpack it, or gdal_translate IN OUT.tif")
    pixels = math.prod(source.shape) * sum(map(_pixel_bytes, source.dtypes))
    needed = int(facts.get("header_offset") or 0) + pixels
    if path.stat().st_size < needed:
        raise DataError(
            f"the pixels cannot be read: the file has {path.stat().st_size} bytes", where=path,
            expected=f"{needed} bytes, says its header", fix="a partial download is the usual cause",
        )  # fmt: skip


def _not_a_raster(path: Path, head: bytes) -> DataError:
    """What a file is instead, and what to do."""
    known = f"one of {', '.join(DRIVERS.values())}"
    text = head.lstrip().lower()
    if not head:
        return DataError("the file is empty", where=path, expected=known, fix="download it again")
    if head.startswith(b"version https://git-lfs"):
        return DataError("this is a git-lfs pointer, not the file", where=path, fix="run `git lfs pull`")
    if text.startswith((b"<!doctype html", b"<html")) or b"<html" in text[:1024]:
        return DataError(
            "this is a web page that was saved as a raster", where=path, expected=known,
            fix="download the file again: the server has answered with a page, for a login perhaps",
        )  # fmt: skip
    if not head.strip(b"\0"):
        return DataError("the file begins with zeros only", where=path, expected=known, fix="download it again")
    name = next((name for start, name in _FOREIGN if head.startswith(start)), "")
    if name == "HDF5" and path.suffix.lower() in (".nc", ".nc4", ".cdf"):
        name = "netCDF"
    if name in _GDAL_CAN:
        fix = "convert it to GeoTIFF: gdal_translate IN OUT.tif (gdalinfo IN lists the parts of a container)"
    elif name in ("zip", "gzip"):
        fix = "unpack it"
    else:
        fix = "convert it to GeoTIFF"
    if not name:
        printable = head.replace(b"\r", b"").replace(b"\n", b"").replace(b"\t", b"")
        if printable.isascii() and all(byte >= 32 for byte in printable):
            name, fix = "text", "download it again, or name the right file"
    if not name:
        return DataError("the file cannot be read as a raster: its format is unknown", where=path, expected=known)
    return DataError(f"this file is {name}", where=path, expected=known, fix=fix)


GEO_TAGS = (34735, 34736, 34737)
"""GeoKeyDirectoryTag, GeoDoubleParamsTag and GeoAsciiParamsTag (OGC GeoTIFF 1.1, 7.1.1)."""
PLACE_TAGS = (33550, 33922, 34264)
"""ModelPixelScaleTag, ModelTiepointTag and ModelTransformationTag: without them a CRS is that of control points."""
_BYTES_OF = {2: 1, 3: 2, 12: 8}
"""Of the types that these tags have: ASCII, SHORT and DOUBLE."""


def geo_keys(head: bytes) -> bytes | None:
    """What the first directory of a GeoTIFF says of its CRS.

    Args:
        head: The first bytes of the file.

    Returns:
        Bytes that are equal for files of equal CRSs; None where not all of it is among the first bytes.
    """
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return None
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count_of, entry, inline = (("Q", "HHQ8s", 8)) if big else ("H", "HHI4s", 4)
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, inline)
    if start + struct.calcsize(order + count_of) > len(head):
        return None
    (count,) = struct.unpack_from(order + count_of, head, start)
    first, size = start + struct.calcsize(order + count_of), struct.calcsize(order + entry)
    if first + count * size > len(head):
        return None
    said = [order.encode()]
    for tag, kind, number, value in struct.iter_unpack(order + entry, head[first : first + count * size]):
        if tag in PLACE_TAGS:
            said.append(struct.pack("<HQ", tag, number))
        elif tag in GEO_TAGS:
            length = number * _BYTES_OF.get(kind, len(head))
            place = struct.unpack(order + ("Q" if big else "I"), value)[0] if length > inline else 0
            values = head[place : place + length] if length > inline else value[:length]
            if len(values) < length:
                return None
            said.append(struct.pack("<HHQ", tag, kind, number) + values)
    return b"".join(said)
