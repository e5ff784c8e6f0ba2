"""Which files the pixels of a chip come from, and whether one of them lies outside or has changed.

A stamp is what the system says of a file: size, and when content and status were last changed. The status's time
(ctime) tells of files that were replaced by others of the same size and time, as ``cp -p`` and ``rsync`` do; it also
changes where nothing was lost but access rights, and then chips are scanned again for nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_tl_bench.data.layouts import ChipFiles
from spectral_tl_bench.data.opening import driver_of
from spectral_tl_bench.data.vrt import vrt_sources
from spectral_tl_bench.errors import DataError

FileStamp = tuple[str, int, int, int]
"""Path, size, and the times (ns) of the last change of content and of status; zeros for a missing file."""

SIDECARS = (".aux.xml", ".msk", ".ovr", ".hdr", ".wld", ".tfw", ".tifw", ".tiffw", ".jpw", ".j2w", ".jp2w", ".pgw",
            ".pngw", ".tab", ".aux", ".imd", ".rpb", ".prj", ".sta", ".msk.aux.xml", ".msk.ovr",
            ".ovr.aux.xml")  # fmt: skip
"""Endings of the files that GDAL looks for beside a raster, after its name or in place of its ending."""

AT_ONCE, SLOW = 64, 2e-3
"""Of so many chips each look is timed: if it takes more than these seconds, as on a network disk, others are looked at
by several threads. On a local disk these would wait for each other."""

_FINE_TICK, _COARSE_TICK = 0.05, 2.1  # seconds; whole ones are a sign of FAT and of some network disks


@dataclass(frozen=True)
class ChipStamps:
    """What one chip is read from.

    Attributes:
        image: Every file that its pixels may depend on, the image itself first.
        label: Likewise for the label.
        problem: What must not be read, if anything.
    """

    image: tuple[FileStamp, ...]
    label: tuple[FileStamp, ...]
    problem: str = ""


class Walk:
    """Finds the files behind rasters below a folder. It lists each folder once, and so is for one walk only.

    Args:
        roots: Folders from which nothing may lead out; they may be links themselves.
        trusted: Whether links and VRTs may lead out all the same, to files of this machine.
    """

    def __init__(self, roots: Iterable[Path], trusted: bool = False) -> None:
        self._roots = tuple({os.path.realpath(root).rstrip(os.sep) + os.sep for root in roots})
        self._trusted = trusted
        self._names: dict[str, dict[str, Path] | None] = {}
        self._real: dict[str, str] = {}

    def chip(self, base: Path, chip: ChipFiles) -> ChipStamps:
        """The stamps of a chip's files."""
        try:
            image, label = (tuple(map(stamp, self.files(base / name))) for name in (chip.image, chip.label))
        except DataError as error:
            return ChipStamps((), (), f"{error.what} ({error.where})" + (f"; {error.fix}" if error.fix else ""))
        return ChipStamps(image, label)

    def files(self, path: Path) -> list[Path]:
        """A raster and all files that are read with it; those that are missing are left to whoever opens it.

        Raises:
            DataError: If one of them lies outside, or is a VRT that must not be read.
        """
        found: dict[Path, None] = {}
        waiting = [path]
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found[path] = None
            self._check(path)
            try:
                driver = "" if path.suffix == ".mat" else driver_of(path)
            except DataError:  # said when it is opened, with its chip
                continue
            if driver == "VRT":
                path = Path(os.path.realpath(path))
                waiting += reversed(vrt_sources(path))
            if driver:
                found |= dict.fromkeys(self._sidecars(path))
        return list(found)

    def _sidecars(self, path: Path) -> list[Path]:
        names = self._names_in(path.parent)
        if names == {}:
            return []
        wanted = dict.fromkeys(f"{start}{end}" for start in (path.name, path.stem) for end in SIDECARS)
        if names is None:  # a folder that may be entered, and not listed
            found = [other for name in wanted if (other := path.parent / name).exists()]
        else:
            found = [names[name.lower()] for name in wanted if name.lower() in names]
        found = [other for other in found if other != path]
        for other in found:
            self._check(other)
            # GDAL would open these as whatever they are: a VRT, or the address of a server.
            if other.suffix.lower() in (".msk", ".ovr") and driver_of(other) != "GTiff":
                raise DataError("a mask or overview beside a raster is no GeoTIFF", where=other, fix="remove it")
        return found

    def _names_in(self, folder: Path) -> dict[str, Path] | None:
        """What may be a sidecar in a folder, by its name in small letters; None where that cannot be listed."""
        if str(folder) not in self._names:
            try:
                names = {
                    other.name.lower(): other for other in folder.iterdir() if other.name.lower().endswith(SIDECARS)
                }
            except OSError:
                names = None
            self._names[str(folder)] = names
        return self._names[str(folder)]

    def _check(self, path: Path) -> None:
        if self._trusted:
            return
        real = self._resolved(path)
        if not real.startswith(self._roots):
            raise DataError(
                f"a file leads outside the data root, to {real}", where=path,
                fix="copy it below the data root; if you trust who made these data, add --trust-data",
            )  # fmt: skip

    def _resolved(self, path: Path) -> str:
        if os.path.islink(path):  # noqa: PTH114, which raises for what is too long a name
            return os.path.realpath(path)
        folder = str(path.parent)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return f"{self._real[folder]}{os.sep}{path.name}"


def stamp(path: Path) -> FileStamp:
    """What the system says of a file now."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return str(path), 0, 0, 0
    return str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stamp_chips(
    base: Path, chips: list[ChipFiles], roots: Iterable[Path], trusted: bool, workers: int
) -> list[ChipStamps]:
    """The stamps of all chips, in their order, taken when no file can change again without another time."""
    base = base.resolve()  # however the folder is called, its files are the same
    walk = Walk(roots, trusted)
    begun = time.monotonic()
    stamps = [walk.chip(base, chip) for chip in chips[:AT_ONCE]]
    slow = time.monotonic() - begun > SLOW * len(stamps)
    with ThreadPoolExecutor(workers) as pool:
        stamps += (pool.map if slow else map)(lambda chip: walk.chip(base, chip), chips[AT_ONCE:])
    _let_the_clock_move(file for one in stamps for file in (*one.image, *one.label))
    return stamps


def _let_the_clock_move(files: Iterable[FileStamp]) -> None:
    """Wait until a file that is changed from now on gets a later time than it has."""
    newest = max((file[3] for file in files), default=0)
    tick = _COARSE_TICK if newest % 10**9 == 0 else _FINE_TICK
    age = time.time() - newest / 1e9
    if age < tick:
        time.sleep(min(tick - age, tick))  # a server's clock may be ahead of ours


def check_unchanged(row: Mapping[Any, Any]) -> tuple[tuple[int, ...], ...]:
    """See to it that the files of a chip are those that were indexed, by size and time; for use before each reading.

    The status's time is left out here: what makes a backup by hard links must not end a training run.

    Args:
        row: The chip's row of the index; only files that it names are looked at.

    Returns:
        Size, times and inode of each of them now. Checks of a file hold as long as these are the same.

    Raises:
        DataError: If one has changed.
    """
    found = []
    for column in ("image_files", "label_files"):
        for path, size, content_time, _ in row.get(column, ()):
            now = _status(path)
            if now[:2] != (size, content_time):
                raise DataError("a file has changed since it was indexed", where=path, fix="run again")
            found.append(now)
    return tuple(found)


def _status(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)  # noqa: PTH116, once per window and file
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
