"""Signs of life of what takes long: whoever waits for a process can tell long work from none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

INTERVAL = 2.0
"""Seconds between two signs that are passed on."""

_listeners: list[Callable[[], None]] = []
_watchers: list[Callable[[str, int, int], None]] = []
_last = 0.0


def beat() -> None:
    """Say that work goes on: at every step, batch or turn of waiting. It costs next to nothing."""
    global _last  # noqa: PLW0603
    if _listeners and (now := time.monotonic()) - _last > INTERVAL:
        _last = now
        for listener in _listeners:
            listener()


def listen(listener: Callable[[], None]) -> None:
    """Have ``listener`` called at signs of life, for the rest of this process."""
    _listeners.append(listener)


def at(stage: str, step: int, steps: int) -> None:
    """Say how far work is: at the beginning of a stage and at every step of it."""
    for watcher in _watchers:
        watcher(stage, step, steps)


@contextlib.contextmanager
def watched(watcher: Callable[[str, int, int], None]) -> Iterator[None]:
    """Have ``watcher`` called with stage, step and number of steps, within the block."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
