"""Chips that are kept in memory between windows, and which are not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from spectral_tl_bench.data.shared_chips import SharedChips

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
