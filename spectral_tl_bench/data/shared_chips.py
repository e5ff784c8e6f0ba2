"""Whole chips in memory that all processes of a run share: each is loaded once, by whoever needs it first.

The memory belongs to no file with a name, so that nothing is left of it when the last process ends, however it ends. A
process that is killed while it loads a chip loses its lock, and the next one loads that chip.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mmap
import multiprocessing.reduction
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray[Any, Any], ...]

ALIGNED, HEAD = 64, 512
"""Bytes: where arrays begin, and what says of a chip which arrays it has."""
NO_ROOM = -1


class SharedChips:
    """Chips by name in memory that is shared with all processes that are started from now on.

    Args:
        sizes: Bytes of each chip, about; memory is taken when a chip is loaded.

    Raises:
        OSError: If this system has no such memory.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("no memory that processes share without a file")
        self._numbers = {chip: number for number, chip in enumerate(sizes)}
        begin = _aligned(8 * (len(sizes) + 1))
        self._size = begin + sum(_aligned(size) + HEAD + 4 * ALIGNED for size in sizes.values())
        file = os.memfd_create("stbench-chips")
        os.ftruncate(file, self._size)
        self._map(file)
        self._table[-1] = begin

    def _map(self, file: int) -> None:
        self._file, self._lock = file, threading.Lock()
        self._memory = mmap.mmap(file, self._size)
        # Per chip the place of its arrays, 0 or NO_ROOM; at last, where free memory begins.
        self._table = np.frombuffer(self._memory, dtype=np.int64, count=len(self._numbers) + 1)
        self._views: dict[str, Arrays] = {}
        weakref.finalize(self, os.close, file)

    def has_room(self, chip: str) -> bool:
        """Whether a chip is here, or may be."""
        return chip in self._numbers and int(self._table[self._numbers[chip]]) != NO_ROOM

    def get(self, chip: str, load: Callable[[], Arrays]) -> Arrays:
        """The arrays of a chip, loaded if no process has done so; to be read, never written."""
        if chip in self._views:
            return self._views[chip]
        if chip not in self._numbers:
            return load()
        number = self._numbers[chip]
        if not self._table[number]:
            with self._alone(number):
                if not self._table[number]:
                    arrays = load()
                    self._keep(number, arrays)
                    if self._table[number] == NO_ROOM:
                        return arrays
        if self._table[number] == NO_ROOM:
            return load()
        self._views[chip] = self._view(int(self._table[number]))
        return self._views[chip]

    @contextlib.contextmanager
    def _alone(self, number: int) -> Iterator[None]:
        """Without any other process at one place of the table. The system ends this for a process that is killed."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number)

    def _keep(self, number: int, arrays: Arrays) -> None:
        kinds = json.dumps([[array.dtype.str, array.shape] for array in arrays]).encode()
        size = HEAD + sum(_aligned(array.nbytes) for array in arrays)
        with self._lock, self._alone(len(self._numbers)):
            start = int(self._table[-1])
            if start + size > self._size or len(kinds) > HEAD:
                self._table[number] = NO_ROOM
                return
            self._table[-1] = start + size
        self._memory[start : start + HEAD] = kinds.ljust(HEAD)
        for array, room in zip(arrays, self._view(start), strict=True):
            room.flags.writeable = True
            room[...] = array
            room.flags.writeable = False
        self._table[number] = start  # only now does anybody look there

    def _view(self, start: int) -> Arrays:
        kinds = json.loads(self._memory[start : start + HEAD])
        start += HEAD
        views = []
        for kind, shape in kinds:
            count = math.prod(shape)
            view = np.frombuffer(self._memory, np.dtype(kind), count, start).reshape(shape)
            view.flags.writeable = False
            views.append(view)
            start += _aligned(view.nbytes)
        return tuple(views)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is being started otherwise than as a copy of this one."""
        return {"numbers": self._numbers, "size": self._size, "file": multiprocessing.reduction.DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._numbers, self._size = state["numbers"], state["size"]
        self._map(state["file"].detach())


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
