"""Chips that are kept in memory between windows, and which are not."""

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
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

CACHE_BYTES = 2 * 1024**3
"""Of all processes of a run together. Chips that are more than this are read by windows."""
RECENT_BYTES = 256 * 1024**2
"""Of one process, for the chips whose windows follow each other, where not all chips can be kept."""


def chip_bytes(row: Mapping[Any, Any], bands: int) -> int:
    """About as many bytes as a chip takes in memory: of 16 bits, unless its file says that it is of more."""
    pixels = row["height"] * row["width"]
    sizes = [size for _, size, *_ in row.get("image_files", ())]
    holes = bands * pixels if row.get("nodata_pixels") else 0
    return max(2 * bands * pixels, *sizes[:1], 0) + pixels + holes


class ChipCache:
    """Whole chips in memory in their own integer type, up to a number of bytes; oldest out first.

    If all chips that are expected fit, all are kept, by reader processes in memory that they share. If not, a chip is
    kept only once two windows in a row were of it, as in evaluation, and others are better read by windows.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.used = limit, 0
        self._expected: dict[str, int] = {}
        self._total, self._last = 0, ""
        self._shared: SharedChips | None = None
        self._begin()

    def _begin(self) -> None:
        self.used, self._process = 0, os.getpid()
        self._kept: OrderedDict[str, tuple[np.ndarray[Any, Any], ...]] = OrderedDict()
        self._lock = threading.Lock()

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Say which chips will be asked for, and about how many bytes each takes."""
        self._expected.update(sizes)
        self._total = sum(self._expected.values())

    def share(self) -> None:
        """Keep chips in memory that processes share which are started from now on, if all of them fit."""
        if self._shared is None and 0 < self._total <= self.limit:
            with contextlib.suppress(OSError):
                self._shared = SharedChips(self._expected)

    @property
    def _room(self) -> int:
        reader = get_worker_info()
        room = self.limit if reader is None else self.limit // reader.num_workers
        return room if self._total <= room else min(room, RECENT_BYTES)

    def wants(self, chip: str) -> bool:
        """Whether a chip should be loaded as a whole, and not only the window that is asked for now."""
        again, self._last = self._last == chip, chip
        if self._shared is not None:
            return self._shared.has_room(chip)
        room = self._room
        return self._total <= room or chip in self._kept or (again and self._expected.get(chip, 0) <= room)

    def get(self, key: str, load: Callable[[], tuple[np.ndarray[Any, Any], ...]]) -> tuple[np.ndarray[Any, Any], ...]:
        """The arrays of ``key``, loaded when they are not kept; to be read, never written."""
        if self._shared is not None and self._shared.has_room(key):
            return self._shared.get(key, load)
        if self._process != os.getpid():  # a copy of a process, one of whose threads may have been in here
            self._begin()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        arrays = load()
        size, room = sum(array.nbytes for array in arrays), self._room
        with self._lock:
            if size <= room and key not in self._kept:
                self._kept[key] = arrays
                self.used += size
                while self.used > room:
                    _, old = self._kept.popitem(last=False)
                    self.used -= sum(array.nbytes for array in old)
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        """A worker process starts with an empty cache, and with what is shared."""
        shared = self._shared if get_spawning_popen() is not None else None
        return {"limit": self.limit, "expected": self._expected, "shared": shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["limit"])  # type: ignore[misc]
        self.expect(state["expected"])
        self._shared = state["shared"]


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
