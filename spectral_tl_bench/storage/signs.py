"""Signs of life beside entries: who is making one, who is using one. They are advice, and no result depends on them.

An entry ``name`` may have beside it ``.name.claim`` (a process is making it, the others wait), ``.name~OWNER.part`` (a
folder with what is being made) and ``.name~OWNER.use`` (a process reads it and will go on to). Each is touched every
`BEAT` seconds; without that it counts for nothing, so that no process that was killed holds up another one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from spectral_tl_bench.pulse import beat
from spectral_tl_bench.storage.place import paths_in, remove_whole

BEAT = 10.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without a touch, as seen by one who waits, after which a sign counts for nothing."""
LOST = 600.0
"""The same by the clock: longer, since the clocks of two machines differ."""
POLL = 0.3

_HELD: set[Path] = set()


@functools.cache
def host() -> str:
    """This machine, and in it the space in which process ids mean something."""
    name = re.sub(r"[^\w-]", "-", socket.gethostname())
    with contextlib.suppress(OSError):
        name += f"-{Path('/proc/self/ns/pid').stat().st_ino}"
    return name


def _owner() -> str:
    return f"{host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}"


class Sign:
    """A file or folder that is touched as long as this process lives and it is not removed."""

    def __init__(self, path: Path) -> None:
        self.path, self._process, self._over = path, os.getpid(), threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="stbench sign of life").start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def end(self) -> None:
        """Touch it no more."""
        self._over.set()

    def remove(self) -> None:
        """Take it away; a process that was forked off leaves its parent's alone."""
        self.end()
        if os.getpid() == self._process:
            remove_whole(self.path)


def _look(path: Path) -> tuple[str, float] | None:
    """Who has left a sign, and when it was last touched; None where there is none."""
    try:
        if path.suffix != ".claim":
            return path.name.partition("~")[2], path.lstat().st_mtime
        with path.open(encoding="utf-8") as stream:  # opening makes a network file system ask its server
            return stream.read(), os.fstat(stream.fileno()).st_mtime
    except (OSError, UnicodeDecodeError):
        return None


def _lives(owner: str, touched: float) -> bool:
    """Whether the process that has left a sign may still be at it."""
    if time.time() - touched > LOST:
        return False
    machine, _, rest = owner.partition("~")
    process = rest.partition("~")[0]
    if machine != host() or not process.isdigit():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _signs_in(folder: Path) -> Iterator[tuple[Path, bool]]:
    """All signs of a folder, and whether their processes live."""
    for path in paths_in(folder):
        if path.name.startswith(".") and path.suffix in (".claim", ".part", ".use"):
            seen = _look(path)
            if seen is not None:
                yield path, _lives(*seen)


def is_busy(entry: Path) -> bool:
    """Whether a process is making or using an entry."""
    names = (f".{entry.name}.claim", f".{entry.name}~")
    return any(alive and path.name.startswith(names) for path, alive in _signs_in(entry.parent))


def sweep(folder: Path) -> None:
    """Remove what processes have left that were killed."""
    for path, alive in _signs_in(folder):
        if not alive:
            remove_whole(path)


@contextlib.contextmanager
def unfinished(entry: Path) -> Iterator[Path]:
    """An empty folder beside an entry, on the same file system, that is gone afterwards with all that is left in it.

    Raises:
        OSError: If it cannot be made.
    """
    path = entry.parent / f".{entry.name}~{_owner()}.part"
    path.mkdir(parents=True)
    sign = Sign(path)
    try:
        yield path
    finally:
        sign.remove()


def hold(entry: Path, user: object | None = None) -> None:
    """Say that an entry is in use, so that it is neither evicted nor cleared.

    Args:
        entry: The entry.
        user: What uses it, as long as it exists; None for the rest of this process.
    """
    if user is None:
        if entry in _HELD:
            return
        _HELD.add(entry)
    path = entry.parent / f".{entry.name}~{_owner()}.use"
    try:
        path.touch()
    except OSError:  # whoever cannot write here is not the one who clears
        return
    weakref.finalize(sys.modules[__name__] if user is None else user, Sign(path).remove)


class Claim:
    """The wish to make an entry, made known to others.

    Args:
        entry: What will be made.
    """

    def __init__(self, entry: Path) -> None:
        self.path, self._owner = entry.parent / f".{entry.name}.claim", _owner()
        self._sign: Sign | None = None

    def take(self) -> bool:
        """Take it, unless a living process has it; true as well where nothing can be written."""
        for _ in range(2):
            if self._sign is not None:
                return True
            made = False
            try:
                with self.path.open("x", encoding="utf-8") as stream:
                    made = True
                    stream.write(self._owner)
                self._sign = Sign(self.path)
            except FileExistsError:
                seen = _look(self.path)
                if seen is not None and _lives(*seen):
                    return False
                remove_whole(self.path)
            except OSError:
                if made:  # on a full disk: a claim that says nothing would hold up everybody
                    remove_whole(self.path)
                return True
        return True

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait while another process has it, shows signs of life and is not done."""
        last, since = None, time.monotonic()
        while not done():
            seen = _look(self.path)
            if seen is None or not _lives(*seen):
                return
            if seen != last:
                last, since = seen, time.monotonic()
            elif time.monotonic() - since > STALE:
                remove_whole(self.path)
                return
            beat()
            time.sleep(POLL)

    def release(self) -> None:
        """Give it back; one that others have taken over meanwhile stays theirs."""
        if self._sign is None:
            return
        seen = _look(self.path)
        if seen is not None and seen[0] == self._owner:
            self._sign.remove()
        else:
            self._sign.end()
