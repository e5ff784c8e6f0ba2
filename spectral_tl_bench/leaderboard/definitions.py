"""Definitions of users' benchmarks that lie beside records: their colours, titles and notes, for pages and figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spectral_tl_bench.benchmarks import Benchmark, read_benchmark

FOLDER, RESULTS = "benchmarks", "results"


def read_definitions(roots: Iterable[Path]) -> list[Benchmark]:
    """The definitions in ``benchmarks/`` of folders of records, or beside one that is called ``results``.

    Which records they are of, the records' own hash of their definition says.

    Raises:
        BenchmarkError: If a file is no definition.
    """
    paths: dict[Path, None] = {}
    for root in roots:
        folders = [root / FOLDER, *([root.parent / FOLDER] if root.name == RESULTS else [])]
        paths |= dict.fromkeys(path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.yaml")))
    return [read_benchmark(path) for path in paths]
