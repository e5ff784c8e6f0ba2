"""Benchmarks as data: read a YAML file, check it, list what there is."""

from __future__ import annotations

from spectral_tl_bench.benchmarks.catalogue import (
    builtin_benchmarks,
    further_benchmarks,
    groups,
    resolve,
    splits_folder,
    tracks,
)
from spectral_tl_bench.benchmarks.definition import VOID, Benchmark, Domain, Labels, LandCover, LayoutChoice, Split
from spectral_tl_bench.benchmarks.reading import LAYOUTS, read_benchmark
from spectral_tl_bench.benchmarks.scenes import Scenes

__all__ = [
    "LAYOUTS", "VOID", "Benchmark", "Domain", "Labels", "LandCover", "LayoutChoice", "Scenes", "Split",
    "builtin_benchmarks", "further_benchmarks", "groups", "read_benchmark", "resolve", "splits_folder", "tracks",
]  # fmt: skip
