"""How much may be kept, what gives way, and what is cleared."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import ByteSize, TypeAdapter, ValidationError

from spectral_tl_bench.console import complain
from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.storage.place import KINDS, Entry, Kind, cache_folder, size_of
from spectral_tl_bench.storage.signs import is_busy, sweep, unfinished

LIMIT_VARIABLE = "STBENCH_CACHE_LIMIT"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}
"""What the system says where nothing (more) can be stored."""
SPARED = timedelta(hours=1)
"""What was used within this time does not give way to something new."""


@dataclass(frozen=True)
class Limit:
    """The most that some kinds may take together.

    Attributes:
        kinds: These kinds.
        size: Bytes.
        name: What sets it.
    """

    kinds: tuple[Kind, ...]
    size: int
    name: str


def in_words(size: int) -> str:
    """A size for people, such as ``1.5 GiB``."""
    return ByteSize(size).human_readable(separator=" ")


def cache_limit() -> Limit | None:
    """The limit of all that is kept, from ``STBENCH_CACHE_LIMIT``; None where none is set.

    Raises:
        StorageError: If it is no size.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return None
    try:
        return Limit(tuple(KINDS.values()), TypeAdapter(ByteSize).validate_python(text), LIMIT_VARIABLE)
    except ValidationError:
        raise StorageError(f"{LIMIT_VARIABLE} is {text!r}", expected="a size such as 200GiB or 500MB") from None


def make_room(
    kind: Kind, size: int, *, limit: Limit | None = None, what: str = "", fix: str = "",
    say: Callable[[str], None] = complain,
) -> None:  # fmt: skip
    """See to it that something new fits below the limits and on the disk; what was not used for longest gives way.

    Args:
        kind: What will be stored.
        size: Its size in bytes.
        limit: A limit beside that of all that is kept.
        what: What will be stored, in words.
        fix: How to need less room.

    Raises:
        StorageError: If it does not fit, even without all that may be removed; nothing is removed then.
    """
    what = what or f"there is no room for another {kind.noun} ({in_words(size)})"
    for bound in (limit, cache_limit()):
        if bound is None:
            continue
        used = sum(size_of(member.folder) for member in bound.kinds if member.folder.exists())
        leaving = _leaving(bound.kinds, used + size - bound.size)
        if leaving is None:
            advice = f"raise {bound.name}, or remove what is not needed with `stbench cache clear`"
            raise StorageError(
                f"{what}, beside {in_words(used)} that are there; the limit is {in_words(bound.size)} ({bound.name})",
                where=cache_folder(), fix="; or ".join(filter(None, (advice, fix))),
            )  # fmt: skip
        for entry in leaving:
            if remove(entry):
                say(f"removed {entry.path} ({in_words(entry.size)}) to stay below {bound.name}")
    existing = next(path for path in (kind.folder, *kind.folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > 0.95 * free:
        raise StorageError(
            f"{what}; the disk has {in_words(free)}", where=kind.folder,
            fix="; or ".join(filter(None, ("make room on the disk, or set STBENCH_CACHE to a folder on another", fix))),
        )  # fmt: skip


def _leaving(kinds: Collection[Kind], surplus: int) -> list[Entry] | None:
    """The entries that are to go so that others have room; None where those that may go do not suffice."""
    leaving: list[Entry] = []
    if surplus <= 0:
        return leaving
    old = time.time() - SPARED.total_seconds()
    entries = [entry for kind in kinds if kind.evicted for entry in kind.entries()]
    for entry in sorted(entries, key=lambda entry: entry.used):
        if entry.used < old and may_go(entry):
            leaving.append(entry)
            surplus -= entry.size
            if surplus <= 0:
                return leaving
    return None


def may_go(entry: Entry) -> bool:
    """Whether an entry can be removed: nobody makes or uses it, and its kind's folder is no link to somewhere else."""
    return not entry.kind.folder.is_symlink() and not is_busy(entry.path)


def remove(entry: Entry) -> bool:
    """Remove an entry as a whole, unless it may not go; whether it is gone now."""
    if not may_go(entry):
        return False
    try:
        with unfinished(entry.path) as bin_folder:
            entry.path.rename(bin_folder / entry.path.name)
    except FileNotFoundError:
        return True
    except OSError:  # another user's, or a cache that cannot be written
        return False
    return True


def to_clear(kinds: Collection[Kind], unused_for: timedelta = timedelta()) -> tuple[list[Entry], list[Entry]]:
    """The entries that a user wants to get rid of.

    Args:
        kinds: Of these kinds.
        unused_for: Not used for at least this long.

    Returns:
        Those that may go, and those that may not.
    """
    before = time.time() - unused_for.total_seconds()
    going: list[Entry] = []
    staying: list[Entry] = []
    for entry in (entry for kind in kinds for entry in kind.entries()):
        if entry.used <= before or not unused_for:
            (going if may_go(entry) else staying).append(entry)
    return going, staying


def clear(entries: Collection[Entry]) -> list[Path]:
    """Remove entries, and what killed processes have left beside them.

    Returns:
        The paths of those that could not be removed.
    """
    left = [entry.path for entry in entries if not remove(entry)]
    for folder in {entry.kind.folder for entry in entries}:
        sweep(folder)
    return left
