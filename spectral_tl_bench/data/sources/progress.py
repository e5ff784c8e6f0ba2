"""How far a long download or unpacking is, as lines that survive in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable

from spectral_tl_bench.console import clock
from spectral_tl_bench.storage import in_words

Say = Callable[[str], None]
"""Prints one line."""

INTERVAL = 10.0
"""Seconds between lines about progress."""


class Progress:
    """Says how much is here, how fast it comes and how long it will take.

    Args:
        name: The file.
        total: Bytes of the whole, if known.
        have: Bytes that were here before.
        say: Prints one line.
    """

    def __init__(self, name: str, total: int | None, have: int, say: Say) -> None:
        self.name, self.total, self.before, self.say = name, total, have, say
        self.started = self.last = time.monotonic()

    def at(self, have: int) -> None:
        """Say a line, when the last one is long ago."""
        now = time.monotonic()
        if now - self.last < INTERVAL:
            return
        self.last = now
        speed = max(1.0, (have - self.before) / (now - self.started))
        line = f"{self.name}: {in_words(have)}"
        if self.total:
            line += f" of {in_words(self.total)} ({100 * have // self.total}%)"
        line += f", {in_words(int(speed))}/s"
        self.say(line + (f", {clock((self.total - have) / speed)} left" if self.total else ""))
