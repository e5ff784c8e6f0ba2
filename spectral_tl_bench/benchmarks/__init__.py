"""Benchmarks as data: read a YAML file, check it, list what there is."""

from __future__ import annotations

from spectral_tl_bench.benchmarks.catalogue import builtin_benchmarks, groups, resolve, splits_folder
from spectral_tl_bench.benchmarks.definition import VOID, Benchmark, Domain, Labels, LandCover, LayoutChoice, Split
from spectral_tl_bench.benchmarks.reading import LAYOUTS, read_benchmark

__all__ = [
    "LAYOUTS", "VOID", "Benchmark", "Domain", "Labels", "LandCover", "LayoutChoice", "Split", "builtin_benchmarks",
    "groups", "read_benchmark", "resolve", "splits_folder",
]  # fmt: skip
