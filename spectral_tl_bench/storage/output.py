"""Whether results can be written where a user wants them: asked before anything is computed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from spectral_tl_bench.console import say
from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.storage.place import CACHE_VARIABLE, cache_folder
from spectral_tl_bench.storage.room import in_words

LEAST_ROOM = 16 * 2**20
"""Bytes without which nothing is begun: those of a few records with small weights."""


def check_folder(folder: Path, option: str, room: int = 0) -> None:
    """Refuse a folder in which no results can be stored. It is not made, and nothing is left in it.

    Args:
        folder: The folder, which need not be there.
        option: What names it, such as ``--out``.
        room: Bytes that will be needed.

    Raises:
        StorageError: If it, or what is there above it, is no folder, cannot be written or has no room.
    """
    _check_written(_what_is_there(folder, option), folder, option, room)


def check_run_folders(out: Path) -> None:
    """Refuse a run whose records, temporary files or cache could not be written.

    Raises:
        StorageError: If one of them cannot, or has no room.
    """
    check_folder(out, "--out", LEAST_ROOM)
    check_temporary()
    check_cache()


def check_folders(folders: Iterable[Path], option: str) -> None:
    """As ``check_folder``, for many folders of which most are not there: each that is there is tried once.

    Raises:
        StorageError: As ``check_folder``.
    """
    tried: dict[Path, Path] = {}
    for folder in folders:
        tried.setdefault(_what_is_there(folder, option), folder)
    for there, folder in tried.items():
        _check_written(there, folder, option, 0)


def _check_written(there: Path, folder: Path, option: str, room: int) -> None:
    """Refuse a folder that is there, for one that will be in it."""
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise _refused(folder, option, error.strerror or str(error), there) from None
    if free < room:
        raise StorageError(
            f"{option} {str(folder)!r}: there is no room, {in_words(room)} are needed and {in_words(free)} free",
            where=there,
            fix=f"make room, or name a folder on another disk with {option}",
        )


def check_file(path: Path, option: str) -> None:
    """Refuse a file that cannot be written.

    Args:
        path: The file, which need not be there.
        option: What names it.

    Raises:
        StorageError: If it is a folder, or its folder as ``check_folder`` says.
    """
    if path.is_dir():
        raise StorageError(f"{option} {str(path)!r} is a folder", expected="the name of a file", where=path)
    check_folder(path.parent, option)


def check_temporary() -> None:
    """Refuse to begin without a temporary folder, which training needs; say so where another one is taken.

    Raises:
        StorageError: If there is none that can be written.
    """
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        raise StorageError(
            f"there is no temporary folder that can be written: {error.strerror or error}",
            fix="set TMPDIR to a folder that can be written, on a disk with room",
        ) from None
    wanted = os.environ.get("TMPDIR")
    if wanted and Path(wanted).absolute() != Path(folder):
        say(f"TMPDIR is {wanted!r}, which cannot be written; temporary files go to {folder}")


def check_cache() -> None:
    """Refuse a cache folder that cannot be one. One that can only be read is used as it is.

    Raises:
        StorageError: If it is named and lies below a file, is a file, or a link to nothing.
    """
    if os.environ.get(CACHE_VARIABLE):
        _what_is_there(cache_folder(), CACHE_VARIABLE)


def _what_is_there(folder: Path, option: str) -> Path:
    """The folder, or the nearest one above it that is there."""
    try:
        os.lstat(folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):  # such as a name that is too long
            raise _refused(folder, option, error.strerror or str(error), folder.parent) from None
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), Path())
    if there.is_symlink() and not os.path.exists(there):  # noqa: PTH110 - there may be no permission to look
        raise _refused(folder, option, f"{there} is a link to {str(there.readlink())!r}, which is not there", there)
    if not os.path.isdir(there):  # noqa: PTH112
        raise _refused(folder, option, f"{there} is a file, not a folder", there)
    return there


def _refused(folder: Path, option: str, reason: str, where: Path) -> StorageError:
    return StorageError(
        f"{option} {str(folder)!r} cannot be written: {reason}",
        where=where,
        expected="a folder that can be written, or one that can be made",
        fix=f"name another folder with {option}",
    )
