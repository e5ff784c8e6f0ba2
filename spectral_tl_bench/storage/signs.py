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
from dataclasses import dataclass
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

    def __init__(self, path: Path, still_ours: Callable[[], bool] = lambda: True) -> None:
        self.path, self._process, self._over, self._still_ours = path, os.getpid(), threading.Event(), still_ours
        threading.Thread(target=self._beat, daemon=True, name="stbench sign of life").start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            if not self._still_ours():
                return
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


def _lives(owner: str, touched: float, now: float | None = None) -> bool:
    """Whether the process that has left a sign may still be at it; ``now`` is by the clock that marked the touch."""
    return (time.time() if now is None else now) - touched <= LOST and _may_run(owner)


def _may_run(owner: str) -> bool:
    """Whether a process may run; it is known on its own machine only."""
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


@dataclass(frozen=True)
class Holder:
    """The process that has an entry's claim.

    Attributes:
        pid: Its number there.
        touched: When it last gave a sign of life, in seconds since the epoch, by the clock of the file system.
        lives: Whether it may still be at it.
    """

    host: str
    pid: int
    touched: float
    lives: bool


def holder_of(entry: Path) -> Holder | None:
    """Who has claimed an entry; None where nobody has."""
    seen = _look(_claim_path(entry))
    if seen is None:
        return None
    machine, _, rest = seen[0].partition("~")
    process = rest.partition("~")[0]
    return Holder(re.sub(r"-\d+$", "", machine), int(process) if process.isdigit() else 0, seen[1], _lives(*seen))


def _claim_path(entry: Path) -> Path:
    return entry.parent / f".{entry.name}.claim"


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

    It is a file that only one process can create, and that its owner touches; no lock of the file system is needed.
    A claim of a dead owner is taken away by one process at a time, so that nobody removes that of a new owner.

    Args:
        entry: What will be made.
    """

    def __init__(self, entry: Path) -> None:
        self.path, self._owner = _claim_path(entry), _owner()
        self._guard = _claim_path(entry.parent / f"{entry.name}.takeover")
        self._sign: Sign | None = None
        self._seen: tuple[str, float] | None = None
        self._since = 0.0

    def take(self) -> bool:
        """Take it, unless a living process has it; true as well where nothing can be written."""
        for attempt in range(3):
            if self._sign is not None:
                return True
            made = False
            try:
                with self.path.open("x", encoding="utf-8") as stream:
                    made = True
                    stream.write(self._owner)
                self._sign = Sign(self.path, self._is_ours)
            except FileExistsError:
                seen = _look(self.path)
                if seen is not None and (_lives(*seen) or not self._take_away(seen)):
                    return False
                if seen is None and attempt:  # it cannot be read
                    remove_whole(self.path)
            except OSError:
                if made:  # on a full disk: a claim that says nothing would hold up everybody
                    remove_whole(self.path)
                return True
        return True

    def is_held(self) -> bool:
        """Whether another process has it and has shown signs of life since this was asked for the first time."""
        seen = _look(self.path)
        if seen is None or not _may_run(seen[0]):
            return False
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        elif time.monotonic() - self._since > STALE:
            return not self._take_away(seen, watched=True)
        return True

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait while another process has it, shows signs of life and is not done."""
        while not done() and self.is_held():
            beat()
            time.sleep(POLL)

    def release(self) -> None:
        """Give it back; one that others have taken over meanwhile stays theirs."""
        if self._sign is None:
            return
        if self._is_ours():
            self._sign.remove()
        else:
            self._sign.end()
        self._sign = None

    def _is_ours(self) -> bool:
        seen = _look(self.path)
        return seen is not None and seen[0] == self._owner

    def _take_away(self, seen: tuple[str, float], watched: bool = False) -> bool:
        """Remove a claim that counts for nothing.

        Args:
            seen: As it was found.
            watched: Whether it was not touched for long enough while this process watched it.

        Returns:
            Whether that is done. Not so if another process is about it, or the clock of the file system, which may not
            be that of this machine, says that it was touched not long ago.
        """
        try:
            with self._guard.open("x", encoding="utf-8") as stream:
                stream.write(self._owner)
                stream.flush()
                now = os.fstat(stream.fileno()).st_mtime
        except FileExistsError:
            other = _look(self._guard)
            if other is not None and not _lives(*other):
                remove_whole(self._guard)
            return False
        except OSError:
            remove_whole(self._guard)
            remove_whole(self.path)
            return True
        try:
            again = _look(self.path)
            dead = again == seen and (watched or not _lives(*seen, now))
            if dead:
                remove_whole(self.path)
            return dead or again is None
        finally:
            remove_whole(self._guard)
