"""Packed chips: what datasets read of a chip's files, kept in a few large files that are mapped into memory.

A pack is a folder of safetensors files (shards): of each chip the pixels (C, H, W) in the files' own type, the classes
(H, W), and what is unmeasured, if anything. A chip is found by what is known of its content, not by name or path: a
file that has changed is another chip, which is read from its file until it is packed as well.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import re
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.console import complain, user_path
from spectral_tl_bench.data.chip import ReadingRules
from spectral_tl_bench.data.chip_files import Arrays
from spectral_tl_bench.data.stamps import check_unchanged
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import digest
from spectral_tl_bench.storage import PACKS, hold, touch

VARIABLE = "STBENCH_PACKED"
OFF = "off"
PACK_VERSION = 1
READING_VERSION = 1
"""That of ``rasters.NUMERICS_VERSION``, which cannot be imported here; a test holds them together."""

SUFFIX = ".safetensors"
DTYPES = {"I8": "<i1", "U8": "<u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
          "F16": "<f2", "F32": "<f4", "F64": "<f8"}  # fmt: skip
"""Types of pixels, as safetensors calls them."""

MOST_HEADER = 2**26
MOST_MAPS = 256
"""Shards that a process has open: each takes a file descriptor, of which there are often 1,024."""
CHECK_EVERY = 10.0
"""Seconds after which the files of a chip that is read again are asked again whether they have changed."""

_maps: dict[Shard, mmap.mmap] = {}
_said: dict[str, object] = {}
"""Folders of which a user was told that they are not read any more."""
_NO_HOLES = np.zeros(0, dtype=bool)


class Shard(NamedTuple):
    """A file of a pack, told from one that takes its place: path, size in bytes, number and time of change (ns)."""

    path: str
    size: int
    number: int
    changed: int

    @classmethod
    def of(cls, path: Path | str, descriptor: int | None = None) -> Shard:
        """The one that is open, or the one that is there."""
        status = os.stat(path if descriptor is None else descriptor)  # noqa: PTH116, once per window
        return cls(str(path), status.st_size, status.st_ino, status.st_mtime_ns)


class Place(NamedTuple):
    """Where a chip lies in a pack.

    Attributes:
        shard: The file.
        dtype: Type of the pixels.
        shape: (C, H, W).
        pixels: Byte at which they begin.
        classes: Likewise; -1 for whoever is not to see labels.
        holes: Likewise; -1 where all is measured.
        hole_bands: 1, or C where bands differ.
    """

    shard: Shard
    dtype: str
    shape: tuple[int, int, int]
    pixels: int
    classes: int
    holes: int
    hole_bands: int


@dataclass
class PackedChips:
    """Some chips of a pack, by name.

    Attributes:
        places: Where they are; chips that are not in it are read from their files.
        line: What a user is told of it.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    line: str = ""
    _checked: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def of(self, chips: Iterable[str], labels: bool = True) -> PackedChips:
        """Some of them; without ``labels`` it is not even known where these are."""
        places = {chip: self.places[chip] for chip in chips if chip in self.places}
        return PackedChips(places if labels else {chip: one._replace(classes=-1) for chip, one in places.items()})

    def window(self, row: Mapping[Any, Any], window: tuple[slice, slice]) -> Arrays | None:
        """What the files say of a window; see ``chip_files.Arrays``.

        Args:
            row: The chip's row of the index.
            window: Lines and columns.

        Returns:
            Pixels (C, h, w), classes (h, w) and holes, not to be written to; None if the chip is not packed, or cannot
            be read from there.

        Raises:
            DataError: If a file of the chip has changed since it was indexed, or the pack was written to meanwhile.
        """
        chip = row["chip"]
        place = self.places.get(chip)
        if place is None:
            return None
        now = time.monotonic()
        if now - self._checked.get(chip, -CHECK_EVERY) >= CHECK_EVERY:
            check_unchanged(row)
            self._checked[chip] = now
        try:
            shard = _mapped(place.shard)
        except OSError as error:
            folder, us = os.path.split(place.shard.path)[0], object()
            if _said.setdefault(folder, us) is us:  # of several threads, and of several shards, one says so
                reason = error.strerror or error
                complain(f"packed chips cannot be read, and their files are: {reason} ({place.shard.path})")
            self.places = {name: one for name, one in self.places.items() if one.shard != place.shard}
            return None
        pixels: np.ndarray[Any, Any] = np.ndarray(place.shape, place.dtype, shard, place.pixels)[:, *window]
        if place.classes < 0:
            classes = np.full(pixels.shape[1:], VOID, dtype=np.uint8)
        else:
            classes = np.ndarray(place.shape[1:], np.uint8, shard, place.classes)[window]
        if place.holes < 0:
            return pixels, classes, _NO_HOLES
        holes = np.ndarray((place.hole_bands, *place.shape[1:]), np.uint8, shard, place.holes)[:, *window]
        return pixels, classes, holes != 0  # whatever bytes are there


def _mapped(shard: Shard) -> mmap.mmap:
    """The content of a shard, which is still where it was and as it was.

    Beyond the end of a file that was cut short, memory that is mapped is zeros or ends the process (SIGBUS), as it may
    where a server no longer has the file; so this is looked at before each window.

    Raises:
        OSError: If it is gone, or another one is in its place.
        DataError: If it was written to. Windows that were read a moment ago may hold something of that.
    """
    content, now = _maps.get(shard), Shard.of(shard.path)
    if now != shard:
        if content is not None and now.number == shard.number:
            raise DataError(
                "packed chips have been written to while they were read", where=shard.path,
                fix="run again; `stbench data pack --verify` holds packed chips against their files",
            )  # fmt: skip
        raise OSError("the file is another one than before")
    if content is not None:
        return content
    with Path(shard.path).open("rb") as stream:
        if Shard.of(shard.path, stream.fileno()) != shard:
            raise OSError("the file is another one than before")
        content = mmap.mmap(stream.fileno(), shard.size, access=mmap.ACCESS_READ)
    if len(_maps) >= MOST_MAPS:
        _maps.clear()  # windows that are still held keep theirs
    _maps[shard] = content
    return content


def reading_of(benchmark: Benchmark) -> dict[str, Any]:
    """What decides how files become the pixels, classes and holes of a chip, apart from the files."""
    rules = asdict(ReadingRules.of(benchmark))
    labels = benchmark.labels
    return {name: rules[name] for name in ("bands", "nodata", "nodata_in", "align", "label_nodata")} | {
        "classes": [sorted(cover.raw) for cover in labels.classes], "void": sorted(labels.void), "other": labels.other,
    }  # fmt: skip


def reading_key(benchmark: Benchmark) -> str:
    """Names it; benchmarks that read the same files in the same way share it."""
    return digest(PACK_VERSION, READING_VERSION, reading_of(benchmark))[:16]


def pack_name(benchmark: Benchmark) -> str:
    """Name of the folder of a benchmark's pack."""
    name = re.sub(r"[^a-z0-9]+", "-", benchmark.dataset.lower()).strip("-")[:40]
    return f"{name or 'chips'}-{reading_key(benchmark)}"


def pack_folder(benchmark: Benchmark, where: Path | None) -> Path:
    """The folder of a benchmark's pack: below one that the user names, or in the cache."""
    name = pack_name(benchmark)
    if where is None:
        return PACKS.path(name)
    return where if where.name == name else where / name


_FACTS = ("content", "height", "width", "valid_pixels", "nodata_pixels", "nodata", "label_hidden")
_LISTS = ("labels", "label_counts", "label_nodata", "band_count", "band_sum", "band_square_sum", "gain", "bias")


def chip_key(row: Mapping[Any, Any]) -> str:
    """What a chip's files hold, as far as the index knows it (32 hex digits): its pixels' hash, sizes, sums and counts.

    Sums count to nine digits: machines add up in other orders.
    """
    lists = [[f"{value:.9g}" for value in row[name]] for name in _LISTS]
    return digest([str(row[name]) for name in _FACTS], lists)[:32]


def find_packed(benchmark: Benchmark, frame: pd.DataFrame, where: str | Path | None = None) -> PackedChips:
    """The chips of an index that are packed.

    Args:
        benchmark: The benchmark.
        frame: Of the index, by chip name.
        where: Folder that packs were put into, or ``off``; by default ``STBENCH_PACKED``, or else the cache.

    Raises:
        DataError: If a folder is named that is not there.
    """
    wanted = str(where or os.environ.get(VARIABLE) or "")
    if wanted == OFF:
        return PackedChips()
    try:
        if where and not user_path(wanted).is_dir():
            fix = "`stbench data pack --out` makes one"
            raise DataError("no folder of packed chips is there", where=wanted, fix=fix)
        folder = pack_folder(benchmark, user_path(wanted) if wanted else None)
        there = folder.is_dir()
    except PermissionError as error:
        complain(f"packed chips may not be read, and their files are: {error.strerror} ({error.filename})")
        return PackedChips()
    if not there:
        line = f"no packed chips for it in {wanted}: the files are read (`stbench data pack --out` packs them)"
        return PackedChips(line=line if wanted else "")
    packed, broken = read_pack(folder, reading_key(benchmark))
    for path, reason in broken.items():
        complain(f"packed chips cannot be used and are read from their files: {reason} ({path})")
    bands, places = len(benchmark.sensor.bands), {}
    for row in frame.reset_index(names="chip").to_dict("records"):
        place = packed.get(chip_key(row))
        if place is not None and place.shape == (bands, row["height"], row["width"]):
            places[str(row["chip"])] = place
    if not wanted:
        touch(folder)
        hold(folder)
    line = f"reads packed chips in {folder}"
    if len(places) < len(frame):
        line = f"{len(places)} of {len(frame)} chips are packed in {folder}; the others are read from their files"
    return PackedChips(places, line)


def read_pack(folder: Path, reading: str) -> tuple[dict[str, Place], dict[Path, str]]:
    """The chips of a pack by their keys, and the shards that cannot be used, with the reason.

    Args:
        folder: The pack.
        reading: What its shards have to be made with.
    """
    places: dict[str, Place] = {}
    broken: dict[Path, str] = {}
    for path in shards_in(folder):
        try:
            places |= read_shard(path, reading)
        except FileNotFoundError:  # another process has just removed it
            continue
        except OSError as error:
            broken[path] = error.strerror or str(error)
        except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
            broken[path] = str(error) if type(error) is ValueError else "no shard of packed chips"
    return places, broken


def shards_in(folder: Path) -> list[Path]:
    """The shards of a pack; none where the folder cannot be listed."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")
    return []


def read_shard(path: Path, reading: str) -> dict[str, Place]:
    """Where the chips of a shard are, by their keys. Nothing that its header says is taken on trust.

    Raises:
        ValueError: If it is cut short, or made by another way of reading; also KeyError, TypeError and struct.error
            where it is none at all.
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        shard = Shard.of(path, stream.fileno())
        size = shard.size
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(MOST_HEADER, size - 8):
            raise ValueError("the file is cut short, or no shard of packed chips")
        header = json.loads(stream.read(length))
    facts = json.loads(header.pop("__metadata__")["stbench"])
    if (facts["version"], facts["reading"]) != (PACK_VERSION, reading):
        raise ValueError("made by another version, or for another way of reading")
    tensors = {name: _tensor(name, said, 8 + length, size) for name, said in header.items()}
    if size != max((end for *_, end in tensors.values()), default=0):
        raise ValueError(f"the file has {size} bytes, and says that it has another size")
    places = {}
    for key in {name.partition(".")[0] for name in tensors}:
        dtype, shape, start, _ = tensors[f"{key}.pixels"]
        if len(shape) != 3 or tensors[f"{key}.classes"][:2] != ("<u1", shape[1:]):
            raise ValueError("pixels and classes of a chip differ in size")
        kind, hidden, holes, _ = tensors.get(f"{key}.holes", ("<u1", (0, *shape[1:]), -1, 0))
        if kind != "<u1" or hidden[1:] != shape[1:] or hidden[0] not in {0, 1, shape[0]}:
            raise ValueError("pixels and holes of a chip differ in size")
        places[key] = Place(shard, dtype, (shape[0], shape[1], shape[2]), start,
                            tensors[f"{key}.classes"][2], holes, hidden[0])  # fmt: skip
    return places


def _tensor(name: str, said: Mapping[str, Any], begin: int, size: int) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, first byte and end of a tensor that lies within its file."""
    shape, (start, end) = tuple(said["shape"]), said["data_offsets"]
    numbers = [*shape, start, end]
    if not all(type(number) is int and number >= 0 for number in numbers) or 0 in shape:
        raise ValueError(f"{name[:60]!r} has no place")
    dtype = DTYPES[said["dtype"]]
    if end - start != math.prod(shape) * np.dtype(dtype).itemsize or begin + end > size:
        raise ValueError("the file is cut short, or says of its chips what cannot be")
    return dtype, shape, begin + start, begin + end
