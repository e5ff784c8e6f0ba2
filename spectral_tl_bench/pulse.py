"""Signs of life of what takes long: whoever waits for a process can tell long work from none."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL = 2.0
"""Seconds between two signs that are passed on."""

_listeners: list[Callable[[], None]] = []
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
