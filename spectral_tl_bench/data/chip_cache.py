"""Chips that are kept in memory between windows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

CACHE_BYTES = 2 * 1024**3


class ChipCache:
    """Whole chips in memory in their own integer type, up to a number of bytes; oldest out first."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.used = limit, 0
        self._kept: OrderedDict[str, tuple[np.ndarray[Any, Any], ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, load: Callable[[], tuple[np.ndarray[Any, Any], ...]]) -> tuple[np.ndarray[Any, Any], ...]:
        """The arrays of ``key``, loaded when they are not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        arrays = load()
        size = sum(array.nbytes for array in arrays)
        with self._lock:
            if size <= self.limit and key not in self._kept:
                self._kept[key] = arrays
                self.used += size
                while self.used > self.limit:
                    _, old = self._kept.popitem(last=False)
                    self.used -= sum(array.nbytes for array in old)
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        """A worker process starts with an empty cache."""
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["limit"])  # type: ignore[misc]
