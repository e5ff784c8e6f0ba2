"""Chips that are looked at one by one, each by one of several readers: what comes of it, in order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.endings import end_with_parent, how_ended
from spectral_tl_bench.errors import DataError

MANY = 256
"""Chips from which on processes read them."""

Chip = TypeVar("Chip")
Seen = TypeVar("Seen")

_look: Callable[[Any], Any]
"""Of this process, where it is one of several."""


def look_at_each(
    look: Callable[[Chip], Seen], chips: Sequence[Chip], workers: int | None = None, per_task: int = 1
) -> Generator[Seen, None, None]:
    """What ``look`` makes of each chip, in order; an error of its own is raised as it is.

    Args:
        look: Called with each chip, by several readers at a time.
        chips: What is looked at.
        workers: Readers; by default one per core.
        per_task: How many chips a reader gets at a time.

    Raises:
        DataError: If a process that reads was killed.
    """
    workers = workers or available_cores()
    pool, processes = _readers(look, workers, len(chips)), set(active_children())
    try:
        if isinstance(pool, ThreadPoolExecutor):
            yield from pool.map(look, chips)
            return
        seen = pool.map(_one, chips, chunksize=per_task)
        processes = set(active_children()) - processes
        try:
            yield from seen
        except BrokenProcessPool:
            pool.shutdown()  # which ends the others
            codes = [process.exitcode for process in processes if process.exitcode not in (0, -signal.SIGTERM)]
            how = f"was {how_ended(codes[0])}" if codes else "has ended"
            raise DataError(
                f"a process that reads chips {how}: {workers} of them read {len(chips)} chips",
                fix="give it more memory, or fewer readers: --workers where a command has it, else as many as cores "
                "(`taskset -c 0 stbench ...` leaves one, which needs no further process)",
            ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _readers(look: Callable[[Any], Any], workers: int, chips: int) -> Executor:
    """Threads; processes for many chips, of which small ones are mostly Python's work, where they can be forked.

    A copy of this process starts at once, has what ``look`` needs without any pickling, and asks for no guard in a
    script. GDAL minds being copied while one of its calls is going on; here no thread is in one.
    """
    if workers == 1 or chips < MANY or sys.platform != "linux":
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, get_context("fork"), _begin, (look,))


def _begin(look: Callable[[Any], Any]) -> None:
    global _look  # noqa: PLW0603 - what a pool's processes have in common
    _look = look
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted is the command; it ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def _one(chip: Any) -> Any:
    return _look(chip)
