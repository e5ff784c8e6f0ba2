"""Unpacking an archive that somebody else has made: nothing outside the folder, no links, no surprise in size."""

from __future__ import annotations

import contextlib
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from spectral_tl_bench.data.sources.names import folded, path_problem
from spectral_tl_bench.data.sources.progress import Progress, Say
from spectral_tl_bench.errors import DataError, StorageError
from spectral_tl_bench.files import fsync_folder
from spectral_tl_bench.storage import in_words
from spectral_tl_bench.storage.place import size_of
from spectral_tl_bench.storage.room import NO_ROOM

CHUNK = 1 << 20
SYNCING, WAITING = 8, 64
"""Threads that wait for the disk to have what is written, and files that may be before them."""
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
"""What the libraries raise for archives that are damaged, encrypted or packed in an unknown way."""
NOT_WANTED = "__MACOSX"
"""A folder that macOS adds to archives: it repeats all names."""


@dataclass(frozen=True)
class Limits:
    """What an archive may become.

    Attributes:
        files: Members at most.
        size: Bytes at most.
        ratio: Bytes of content for each byte of the archive, at most; rasters of one value are packed to a thousandth.
        spared: Bytes up to which the ratio does not matter.
    """

    files: int = 1_000_000
    size: int = 2 << 40
    ratio: int = 300
    spared: int = 1 << 30


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        files: Number of files.
        size: Their bytes.
        links: Number of links within the archive, which were left out.
    """

    files: int
    size: int
    links: int


@dataclass(frozen=True)
class _Member:
    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int
    open: Callable[[], IO[bytes] | None]
    link: str = ""


def unpack(
    archive: Path, folder: Path, *, resume: bool, say: Say = lambda _: None, limits: Limits = Limits()
) -> Unpacked:  # fmt: skip
    """Unpack a zip or tar archive, each member beside its place and then renamed.

    Args:
        archive: The archive; what it is is told by its content.
        folder: Where to; made if it is not there.
        resume: Whether files that are there in the right size came out of this same archive, and may stay.
        say: Prints one line.
        limits: What it may become.

    Raises:
        DataError: If it is damaged, or has a member that may not be unpacked.
        StorageError: If there is no room.
    """
    with _readable(archive):
        return _Unpacking(archive, folder, resume, limits).run(say)


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        reason = "it is encrypted" if "encrypted" in str(error) else str(error)[:200] or type(error).__name__
        raise DataError(
            f"the archive cannot be unpacked: {reason}", where=archive,
            fix="get it again, or unpack it by hand and give the folder to --data-root",
        ) from None  # fmt: skip
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageError(
                f"{error.strerror}: {archive.name} could not be unpacked", where=archive.parent,
                fix="make room and start again: what is unpacked is kept",
            ) from None  # fmt: skip
        raise DataError(f"the archive cannot be unpacked: {error.strerror or error}", where=archive) from None


def _members(archive: Path, stream: IO[bytes]) -> Iterator[_Member]:
    """The members of an open archive, as they come; those of a zip are known before any of them is unpacked.

    Raises:
        DataError: If it is neither zip nor tar.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(stream) as file:
            yield from [_from_zip(file, info) for info in file.infolist()]
    elif tarfile.is_tarfile(archive):
        with tarfile.open(fileobj=stream) as pack:
            for info in pack:
                yield _from_tar(pack, info)
    elif stream.read(4) == b"PK\x03\x04":
        raise DataError(
            f"{archive.name} is a zip archive that is cut off: the list of its files, at its end, is missing",
            where=archive, expected=f"more than the {archive.stat().st_size} bytes that are here",
            fix="copy or download it again; where it comes in pieces, the last may be missing",
        )  # fmt: skip
    else:
        raise DataError(
            f"{archive.name} is neither a zip nor a tar archive", where=archive,
            fix="look at it: a server may have sent a page that asks for a login",
        )  # fmt: skip


def _from_zip(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    name = info.filename.replace("\\", "/")  # as some Windows programs write it
    if info.is_dir() or name.endswith("/"):
        return _Member(name, "folder", 0, lambda: None)
    if kind == stat.S_IFLNK:
        target = file.read(info)[:4096].decode(errors="replace") if info.file_size <= 4096 else "/"
        return _Member(name, "link", 0, lambda: None, posixpath.join(posixpath.dirname(name), target))
    return _Member(name, "file" if kind in (0, stat.S_IFREG) else "other", info.file_size, lambda: file.open(info))


def _from_tar(pack: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    kind: Literal["file", "folder", "link", "other"] = (
        "folder" if info.isdir() else "link" if info.issym() or info.islnk() else "file" if info.isfile() else "other"
    )
    base = posixpath.dirname(info.name) if info.issym() else ""
    link = posixpath.join(base, info.linkname) if kind == "link" else ""
    return _Member(info.name, kind, info.size, lambda: pack.extractfile(info), link)


class _Unpacking:
    """One archive on its way into a folder."""

    def __init__(self, archive: Path, folder: Path, resume: bool, limits: Limits) -> None:
        self.archive, self.folder, self.resume, self.limits = archive, folder, resume, limits
        self.packed = archive.stat().st_size
        self.names: dict[str, str] = {}  # by what they are on a disk without capitals; folders end in a slash
        self.folders: set[Path] = set()
        self.seen = self.files = self.links = self.size = 0
        self.waiting: deque[Future[None]] = deque()

    def run(self, say: Say) -> Unpacked:
        """Check and unpack all members."""
        with self.archive.open("rb") as stream, ThreadPoolExecutor(SYNCING) as self.pool:
            return self.run_through(stream, say)

    def run_through(self, stream: IO[bytes], say: Say) -> Unpacked:
        """Likewise, of the open archive."""
        progress = Progress(f"{self.archive.name}, unpacked", self.packed, 0, say)
        if listed := zipfile.is_zipfile(self.archive):  # its list is at the end: nothing of a bad one is unpacked
            for member in _members(self.archive, stream):
                self.accept(member)
            self.check_room(self.archive.name, self.size - (size_of(self.folder) if self.folder.exists() else 0))
            progress = Progress(f"{self.archive.name}, unpacked", self.size, 0, say)
            self.names, self.seen, self.size, self.links = {}, 0, 0, 0
        for member in _members(self.archive, stream):
            if self.accept(member):
                self.write(member)
                progress.at(self.size if listed else stream.tell())  # of a tar, only its own size is known
        while self.waiting:
            self.waiting.popleft().result()
        for folder in self.folders:
            fsync_folder(folder)
        return Unpacked(self.files, self.size, self.links)

    def accept(self, member: _Member) -> bool:
        """Whether a member is to be written; folders come with their files.

        Raises:
            DataError: If the archive must not be unpacked.
        """
        self.seen += 1
        if self.seen > self.limits.files:
            self.refuse(f"it has more than {self.limits.files} members")
        path = PurePosixPath(member.name)
        if member.kind == "folder" and str(path) == ".":
            return False
        if problem := path_problem(member.name):
            self.refuse(f"{problem}: {member.name[:80]!r}")
        if path.parts[0] == NOT_WANTED:
            return False
        if member.kind == "other":
            self.refuse(f"a device, a pipe or the like: {member.name[:80]!r}")
        if member.kind == "link":
            if path_problem(posixpath.normpath(member.link)):
                self.refuse(f"a link that leads out of the folder: {member.name[:80]!r}")
            self.links += 1
            return False
        if member.kind == "folder":
            self.enter(path, "/")
            return False
        for parent in list(path.parents)[:-1]:
            self.enter(parent, "/")
        self.enter(path, "")
        self.grow(member.size)
        return True

    def enter(self, path: PurePosixPath, end: str) -> None:
        """Take note of a name; folders may come again, files may not."""
        name = f"{path}{end}"
        other = self.names.setdefault(folded(str(path)), name)
        if other != name:
            self.refuse(f"two names that are one on some disks: {other[:80]!r} and {name[:80]!r}")
        if not end and self.names.get(marker := f"{folded(str(path))}\0") is not None:
            self.refuse(f"a name that comes twice: {name[:80]!r}")
        elif not end:
            self.names[marker] = name

    def grow(self, size: int) -> None:
        """Count bytes of content."""
        self.size += size
        if self.size > self.limits.size:
            self.refuse(f"it would become more than {in_words(self.limits.size)}")
        if self.size > self.limits.spared and self.size > self.limits.ratio * self.packed:
            self.refuse(f"it would become more than {self.limits.ratio} times as large as it is")

    def refuse(self, reason: str) -> None:
        """End it.

        Raises:
            DataError: Always.
        """
        raise DataError(
            f"the archive is not safe to unpack: {reason}", where=self.archive,
            expected="plain files below one folder, as the published archives have them",
            fix="get it from its own source, or look at it by hand",
        )  # fmt: skip

    def check_room(self, name: str, size: int) -> None:
        """Look whether there is room.

        Raises:
            StorageError: If there is too little.
        """
        free = shutil.disk_usage(next(path for path in (self.folder, *self.folder.parents) if path.exists())).free
        if size > free:
            raise StorageError(
                f"the disk is full: {name} takes {in_words(size)}, {in_words(free)} are free", where=self.folder,
                fix="make room and start again: what is unpacked is kept",
            )  # fmt: skip

    def write(self, member: _Member) -> None:
        """Write one file beside its place; it is renamed when the disk has it, while the next ones are written.

        A disk takes many files at once in little more time than one.
        """
        target = self.folder / member.name
        self.files += 1
        if self.resume and target.is_file() and target.stat().st_size == member.size:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        self.check_room(member.name, member.size)
        beside = target.with_name(f".{folded(target.name)[:60]}.{self.files}.part")
        try:
            self.copy(member, beside)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self.folders.add(target.parent)
        self.waiting.append(self.pool.submit(_put, beside, target))
        if len(self.waiting) > WAITING:
            self.waiting.popleft().result()

    def copy(self, member: _Member, path: Path) -> None:
        """Write the content of a member, which may not be longer than it says."""
        written = 0
        content = member.open()
        if content is None:
            self.refuse(f"a member without content: {member.name[:80]!r}")
            return
        with content, path.open("wb") as stream:
            while chunk := content.read(CHUNK):
                written += len(chunk)
                if written > member.size:
                    self.refuse(f"a member is longer than it says: {member.name[:80]!r}")
                stream.write(chunk)
        if written != member.size:
            raise EOFError(f"{member.name[:80]} ends early")


def _put(beside: Path, target: Path) -> None:
    """Rename a file that is written, once the disk has it."""
    try:
        with beside.open("rb+") as stream:
            os.fsync(stream.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
