"""An entry is found, or made once and published as a whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from spectral_tl_bench.console import complain
from spectral_tl_bench.errors import StorageError, UserError
from spectral_tl_bench.files import fsync_folder
from spectral_tl_bench.storage.place import CACHE_VARIABLE, Kind, touch
from spectral_tl_bench.storage.room import NO_ROOM, make_room
from spectral_tl_bench.storage.signs import Claim, sweep, unfinished

T = TypeVar("T")


def obtain(
    kind: Kind,
    key: str,
    read: Callable[[Path], T],
    make: Callable[[Path], object],
    *,
    damaged: tuple[type[Exception], ...] = (),
    size: int = 0,
    say: Callable[[str], None] = complain,
) -> tuple[T, bool]:
    """The entry of a key: read if it is there, else made and published, so that it is there as a whole or not at all.

    Processes and machines that want the same entry share it without locks: who makes it says so, and the others wait
    as long as that process shows signs of life. Where two make it all the same, the first to finish is taken.

    Args:
        kind: What it is.
        key: What it depends on, as a name.
        read: Opens the entry at its path.
        make: Writes it: a new folder is given to be filled, or the path of a file to be written.
        damaged: What ``read`` raises on an entry that is to be made again; all else that it raises ends the attempt.
        size: About how many bytes it will take, as far as that is known.

    Returns:
        What ``read`` gives, and whether it was there before.

    Raises:
        StorageError: If it cannot be stored.
    """
    path, label = kind.path(key), f"{kind.noun} {key[:16]}"
    claim = Claim(path)
    broken: tuple[int, int] | None = None

    def finished() -> bool:
        return _identity(path) not in (None, broken)

    with contextlib.suppress(OSError):  # without it, there is an answer as soon as something is to be written
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        while True:
            if finished():
                there = _identity(path)
                try:
                    value = read(path)
                except damaged as error:
                    say(f"what is stored as {label} cannot be used and is made again: {_reason(error)} ({path})")
                    broken = there
                else:
                    touch(path)
                    return value, True
            if _claimed(claim, finished, lambda: say(f"another process is making {label}, waiting")):
                break
        sweep(path.parent)
        make_room(kind, size)
        _make(kind, path, make, broken)
        value = read(path)
        touch(path)
    finally:
        claim.release()
    with contextlib.suppress(StorageError):  # what has been made is kept, whatever its size; old entries give way
        make_room(kind, 0)
    return value, False


def _claimed(claim: Claim, finished: Callable[[], bool], waiting: Callable[[], None]) -> bool:
    """Wait until an entry is claimed, or finished by another process; whether it is to be made now."""
    announced = False
    while not claim.take():
        if not announced:
            waiting()
        announced = True
        claim.wait(finished)
        if finished():
            return False
    return not finished()


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells an entry from one that takes its place; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make(kind: Kind, path: Path, make: Callable[[Path], object], broken: tuple[int, int] | None) -> None:
    """Make an entry beside its place and put it there."""
    with contextlib.ExitStack() as stack:
        try:
            beside = stack.enter_context(unfinished(path))
        except OSError as error:
            raise _unwritable(kind, path, error) from error
        new = beside / path.name
        try:
            if not kind.suffix:
                new.mkdir()
            make(new)
            _sync(new)
            _put(new, path, broken, beside / "damaged")
        except OSError as error:
            if error.errno in NO_ROOM:
                raise _unwritable(kind, path, error) from error
            raise


def _put(new: Path, path: Path, broken: tuple[int, int] | None, old: Path) -> None:
    """Rename what is new into its place; what another process has put there meanwhile stays."""
    if broken is not None and _identity(path) == broken:
        with contextlib.suppress(FileNotFoundError):  # another process has just done the same
            path.rename(old)
    if path.exists():
        return
    try:
        new.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    fsync_folder(path.parent)


def _sync(path: Path) -> None:
    """Have a file, or a folder with all that is in it, written to the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
        fsync_folder(path)
        return
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _unwritable(kind: Kind, path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{kind.noun} cannot be stored: {error.strerror or error}",
        where=path.parent,
        expected="a folder that may be written to, on a disk with room to spare",
        fix=f"make room (`stbench cache` lists what is kept), or set {CACHE_VARIABLE} to another folder",
    )
