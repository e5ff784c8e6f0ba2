"""One policy for everything kept on disk that can be made again: place, key, sharing, size, listing, clearing.

`obtain` finds or makes an entry of a `Kind`. Entries are written beside their place, synced and renamed as a whole; no
result depends on a lock. An entry's time of change is that of its last use.
"""

from spectral_tl_bench.storage.entries import obtain
from spectral_tl_bench.storage.place import (
    BOARDS,
    CACHE_VARIABLE,
    FEATURES,
    INDEX,
    KINDS,
    PACKS,
    SAMPLE,
    SPLITS,
    STAGES,
    WEIGHTS,
    Entry,
    Kind,
    cache_folder,
    touch,
)
from spectral_tl_bench.storage.room import LIMIT_VARIABLE, Limit, cache_limit, clear, in_words, make_room, to_clear
from spectral_tl_bench.storage.scratch import make_room_for_sockets, scratch, sweep_scratch
from spectral_tl_bench.storage.signs import hold

__all__ = [
    "BOARDS", "CACHE_VARIABLE", "FEATURES", "INDEX", "KINDS", "LIMIT_VARIABLE", "PACKS", "SAMPLE", "SPLITS", "STAGES",
    "WEIGHTS", "Entry", "Kind", "Limit", "cache_folder", "cache_limit", "clear", "hold", "in_words", "make_room",
    "make_room_for_sockets", "obtain", "scratch", "sweep_scratch", "to_clear", "touch",
]  # fmt: skip
