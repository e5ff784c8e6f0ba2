"""Packs chips for fast reading, and holds a pack against the files.

A shard is written beside its place, read back from the disk, and only then put there: a pack that was cut off has whole
shards, and the next call packs the other chips. Threads read, since GDAL and hashing let others work meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.data.packed import (
    DTYPES,
    PACK_VERSION,
    SUFFIX,
    PackedChips,
    chip_key,
    pack_folder,
    read_pack,
    read_shard,
    reading_key,
)
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets
from spectral_tl_bench.data.sources.progress import Progress, Say
from spectral_tl_bench.data.stamps import check_unchanged
from spectral_tl_bench.errors import DataError, StorageError
from spectral_tl_bench.files import digest, fsync_folder
from spectral_tl_bench.storage import CACHE_VARIABLE, PACKS, in_words, make_room
from spectral_tl_bench.storage.output import check_folder
from spectral_tl_bench.storage.room import NO_ROOM
from spectral_tl_bench.storage.signs import Claim, sweep, unfinished

SHARD_BYTES = 512 * 2**20
"""Size of a shard, about: few enough files for an inode quota, small enough to be lost when a pack is cut off."""
_TYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


class _Chip(NamedTuple):
    key: str
    dataset: SpectralChips
    number: int
    row: dict[Any, Any]
    size: int


@dataclass(frozen=True)
class Packing:
    """What was done.

    Attributes:
        folder: The pack.
        before: Chips that were in it before.
        packed: Chips that were put into it.
        size: Bytes that these took.
    """

    folder: Path
    before: int
    packed: int
    size: int


def pack(benchmark: Benchmark, index: ChipIndex, where: Path | None, workers: int, say: Say) -> Packing:
    """Pack the chips of an index that are not packed yet.

    Args:
        benchmark: The benchmark.
        index: Its chips.
        where: Folder that the pack's own is put into; by default the cache.
        workers: Threads.
        say: Prints one line.

    Raises:
        StorageError: If there is no room, or nothing can be written there; what was packed before stays.
        DataError: If a chip cannot be read, or has changed since it was indexed.
    """
    folder, reading = pack_folder(benchmark, where), reading_key(benchmark)
    chips = _chips(benchmark, index)
    missing = _missing(chips, folder, reading)
    if not missing:
        return Packing(folder, len(chips), 0, 0)
    need = sum(chip.size for chip in missing.values())
    say(f"{len(missing)} of {len(index.frame)} chips are to be packed, {in_words(need)}, into {folder}")
    if where is None:
        what = f"there is no room for the packed chips of {benchmark.id} ({in_words(need)})"
        make_room(PACKS, need, what=what, fix="name a folder on another disk with --out")
    check_folder(folder, CACHE_VARIABLE if where is None else "--out", int(1.02 * need) + 2**20)
    try:
        with _alone(folder, say):
            for path, reason in read_pack(folder, reading)[1].items():
                say(f"removed, since it cannot be used: {path} ({reason})")
                path.unlink(missing_ok=True)
            missing = _missing(chips, folder, reading)  # another process may just have packed
            _write(folder, reading, _shards(list(missing.values())), workers, say)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageError(
            f"chips cannot be packed: {error.strerror}", where=folder, expected=f"room for {in_words(need)}",
            fix="make room and give the same command again, which goes on from here; or name another folder with --out",
        ) from None  # fmt: skip
    return Packing(folder, len(chips) - len(missing), len(missing), sum(chip.size for chip in missing.values()))


def compare(benchmark: Benchmark, index: ChipIndex, where: Path | None, workers: int, say: Say) -> list[str]:
    """Hold what is packed against the files, bit for bit; shards that differ are removed.

    Args:
        benchmark: The benchmark.
        index: Its chips.
        where: As for ``pack``.
        workers: Threads.
        say: Prints one line.

    Returns:
        A line for each shard that differed.
    """
    places, broken = read_pack(pack_folder(benchmark, where), reading_key(benchmark))
    chips = _chips(benchmark, index)
    progress = Progress("compared", sum(chip.size for chip in chips), 0, say)
    done, found, lock = 0, dict(broken), threading.Lock()

    def look(chip: _Chip) -> None:
        nonlocal done
        if chip.key in places:
            packed = PackedChips({chip.row["chip"]: places[chip.key]})
            whole = (slice(0, chip.row["height"]), slice(0, chip.row["width"]))
            if not _same(packed.window(chip.row, whole), chip.dataset.stored(chip.number)):
                found[Path(places[chip.key].shard.path)] = f"chip {chip.row['chip']} differs from its files"
        with lock:
            done += chip.size
            progress.at(done)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(look, chips))
    for path in found:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return [f"{path}: {reason}; {'not removed' if path.exists() else 'removed'}" for path, reason in found.items()]


def _same(packed: tuple[np.ndarray[Any, Any], ...] | None, stored: tuple[np.ndarray[Any, Any], ...]) -> bool:
    return packed is not None and all(
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
        for one, other in zip(packed, stored, strict=True)
    )


def _chips(benchmark: Benchmark, index: ChipIndex) -> list[_Chip]:
    """The chips of an index in the order in which they are packed, each read from its files."""
    datasets = open_datasets(benchmark, replace(index, packed=PackedChips()), cache=ChipCache(0))
    rows = [(dataset, number, row) for dataset in datasets for number, row in enumerate(dataset.chip_rows())]
    sizes: dict[str, int] = {}
    chips: dict[str, _Chip] = {}
    for dataset, number, row in sorted(rows, key=lambda entry: (entry[2]["domain"], entry[2]["chip"])):
        if row["domain"] not in sizes:  # one file tells it for all of its domain
            with open_raster(index.root / row["image"]) as source:
                sizes[row["domain"]] = np.result_type(*source.dtypes).itemsize
        size = row["height"] * row["width"] * (len(dataset.all_bands) * sizes[row["domain"]] + 1)
        chips.setdefault(key := chip_key(row), _Chip(key, dataset, number, row, int(size)))
    return list(chips.values())


def _missing(chips: Sequence[_Chip], folder: Path, reading: str) -> dict[str, _Chip]:
    there = read_pack(folder, reading)[0]
    return {chip.key: chip for chip in chips if chip.key not in there}


@contextlib.contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Wait while another process packs the same; where both do all the same, they write the same."""
    folder.mkdir(parents=True, exist_ok=True)
    claim, announced = Claim(folder), False
    try:
        while not claim.take():
            if not announced:
                say("another process is packing these chips, waiting")
            announced = True
            claim.wait(lambda: False)
        sweep(folder)
        yield
    finally:
        claim.release()


def _shards(chips: list[_Chip]) -> list[list[_Chip]]:
    """Chips by shard: of one domain each, so that what is open of the source holds nothing of the target."""
    shards: list[list[_Chip]] = []
    room = 0
    for chip in chips:
        if not shards or chip.size > room or chip.row["domain"] != shards[-1][0].row["domain"]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(chip)
        room -= chip.size
    return shards


def _write(folder: Path, reading: str, shards: list[list[_Chip]], workers: int, say: Say) -> None:
    progress = Progress("packed", sum(chip.size for shard in shards for chip in shard), 0, say)
    stop, done = threading.Event(), 0
    with ThreadPoolExecutor(workers) as pool:
        futures: dict[Future[None], list[_Chip]] = {
            pool.submit(_write_shard, folder, reading, shard, stop): shard for shard in shards
        }
        try:
            for future in as_completed(futures):
                future.result()
                done += sum(chip.size for chip in futures[future])
                progress.at(done)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _write_shard(folder: Path, reading: str, chips: list[_Chip], stop: threading.Event) -> None:
    target = folder / f"{digest([chip.key for chip in chips])[:16]}{SUFFIX}"
    with unfinished(target) as beside:
        new = beside / target.name
        facts = [{name: str(chip.row[name]) for name in ("chip", "domain", "image", "label", "content")} |
                 {"key": chip.key, "sha256": "0" * 64} for chip in chips]  # fmt: skip
        room = -(-(len(_header(reading, facts, {})) + 500 * len(chips)) // 4096) * 4096
        tensors: dict[str, Any] = {}
        with new.open("wb") as stream:
            stream.seek(8 + room)
            for chip, fact in zip(chips, facts, strict=True):
                if stop.is_set():
                    return
                fact["sha256"] = _write_chip(stream, chip, 8 + room, tensors)
            header = _header(reading, facts, tensors)
            stream.seek(0)
            stream.write(room.to_bytes(8, "little") + header.ljust(room))  # one that is too long fails the check
            stream.flush()
            os.fsync(stream.fileno())
        _check(new, reading, facts)
        new.replace(target)
        fsync_folder(folder)


def _header(reading: str, facts: list[dict[str, str]], tensors: dict[str, Any]) -> bytes:
    manifest = json.dumps({"version": PACK_VERSION, "reading": reading, "chips": facts})
    return json.dumps({"__metadata__": {"stbench": manifest}, **tensors}).encode()


def _write_chip(stream: Any, chip: _Chip, begin: int, tensors: dict[str, Any]) -> str:
    """Write one chip and note where it is; a hash of its bytes."""
    found = hashlib.sha256()
    pixels, classes, holes = chip.dataset.stored(chip.number)
    check_unchanged(chip.row)  # nor while it was read
    named = {"pixels": pixels, "classes": classes} | ({"holes": holes.astype(np.uint8)} if holes.size else {})
    for name, array in named.items():
        kind = _TYPES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise DataError(f"{array.dtype} pixels cannot be packed", where=chip.dataset.root / chip.row["image"])
        content = np.ascontiguousarray(array, dtype=DTYPES[kind])
        start = stream.tell() - begin
        stream.write(content.data)
        found.update(content.data)
        tensors[f"{chip.key}.{name}"] = {
            "dtype": kind, "shape": list(map(int, array.shape)), "data_offsets": [start, start + content.nbytes],
        }  # fmt: skip
    return found.hexdigest()


def _check(path: Path, reading: str, facts: list[dict[str, str]]) -> None:
    """Read a shard back, from the disk as far as the system allows that, and compare."""
    places = read_shard(path, reading)
    with path.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for fact in facts:
            place = places[fact["key"]]
            count = int(np.prod(place.shape)) * np.dtype(place.dtype).itemsize + (1 + max(place.hole_bands, 0)) * int(
                np.prod(place.shape[1:])
            )
            stream.seek(place.pixels)
            if hashlib.sha256(stream.read(count)).hexdigest() != fact["sha256"]:
                raise StorageError(
                    f"chip {fact['chip']} was written, and is read back as another one", where=path.parent.parent,
                    expected="a disk that gives back what was written", fix="name a folder on another disk with --out",
                )  # fmt: skip
