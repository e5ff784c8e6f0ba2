"""``log.txt`` in a cell's folder: every line that the cell says, with the time. No run ends because of its log."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

LOG_FILE = "log.txt"
EARLIER_LOG_FILE = "log.1.txt"
"""The log of the run before."""
LIMIT = 5 * 2**20
"""Bytes of a log; where it would be longer, its middle is left out."""
LONGEST = 2**14  # of a line, in characters

Say = Callable[[str], None]
_open: list[Path] = []


def add_to_log(folder: Path, text: str) -> None:
    """Add lines to the log of a cell's folder, which is there already; where that is not possible, leave it out."""
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    lines = "".join(f"{time} {line[:LONGEST]}\n" for line in text.splitlines() or [""])
    path = folder / LOG_FILE
    with contextlib.suppress(OSError):
        with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(lines)
            size = stream.tell()
        if size > LIMIT:
            _leave_out_the_middle(path)


@contextlib.contextmanager
def logged(folder: Path, say: Say) -> Iterator[Say]:
    """Begin a new log in a cell's folder, and keep the one before.

    Args:
        folder: The cell's folder, which is made.

    Yields:
        Prints one line and adds it to the log.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / LOG_FILE).exists():
            (folder / LOG_FILE).replace(folder / EARLIER_LOG_FILE)

    def say_and_log(line: str) -> None:
        add_to_log(folder, line)
        say(line)

    _open.append(folder)
    try:
        yield say_and_log
    except BaseException as error:
        add_to_log(folder, f"ended by {type(error).__name__}")
        raise
    finally:
        _open.remove(folder)


class Echo:
    """An output of this process that also adds its lines to the log of the cell that runs, if one does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._rest = stream, ""

    def write(self, text: str) -> int:
        """Write, and log the lines that are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[-LONGEST:]
        for line in lines if _open else ():
            add_to_log(_open[-1], line)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def log_outputs() -> None:
    """Have what this process prints end up in the log of its cell, for the rest of its life."""
    sys.stdout, sys.stderr = Echo(sys.stdout), Echo(sys.stderr)


def _leave_out_the_middle(path: Path) -> None:
    content = path.read_bytes()
    head, tail = content[: LIMIT // 4], content[-LIMIT // 4 :]
    head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
    new = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        new.write_bytes(head + b"[... lines are left out here: the log was too long ...]\n" + tail)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
