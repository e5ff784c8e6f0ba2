"""Splits that were cut before, kept on disk: thousands of chips take seconds to cut, for every seed."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data import distances, ground, splits
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.splits import SplitTable, make_split
from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.files import digest, write_json
from spectral_tl_bench.provenance import versions_of
from spectral_tl_bench.storage import SPLITS, obtain

LIBRARIES = ("numpy", "pandas", "pyproj", "scipy", "shapely")


def kept_split(benchmark: Benchmark, index: ChipIndex, seed: int) -> SplitTable:
    """As ``make_split``, found again where the same chips were cut by the same code before."""
    made: list[SplitTable] = []

    def make(path: Path) -> None:
        made.append(make_split(benchmark, index, seed))
        split = made[0]
        write_json(path, {"roles": split.role.tolist(), "notes": split.notes, "distances": split.distances,
                          "hash": split.hash})  # fmt: skip

    def read(path: Path) -> SplitTable:
        return made[0] if made else _read(path, index.frame.index)

    about = {name: getattr(benchmark, name) for name in ("id", "source", "target", "in_domain")}
    key = digest(_cut_with(), about, benchmark.split.model_dump(mode="json"), index.places, seed)
    try:
        return obtain(SPLITS, key[:32], read, make, damaged=(ValueError, KeyError, TypeError, OSError))[0]
    except StorageError:  # it only takes longer the next time, too
        return made[0] if made else make_split(benchmark, index, seed)


def _read(path: Path, chips: pd.Index) -> SplitTable:
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    split = SplitTable(
        pd.Series(kept["roles"], index=chips, dtype=object), tuple(kept["notes"]), str(kept["distances"])
    )
    if split.hash != kept["hash"]:
        raise ValueError("it is another split than was stored")
    return split


@functools.cache
def _cut_with() -> str:
    """A hash of the code and the libraries that cut."""
    code = [
        hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in (splits, ground, distances)
    ]
    return digest(code, versions_of(LIBRARIES))
