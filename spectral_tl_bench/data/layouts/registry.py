"""Layouts by name, found through entry points: ours and anybody's in the same way."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from spectral_tl_bench.benchmarks import LAYOUTS, Benchmark
from spectral_tl_bench.data.layouts.base import Layout
from spectral_tl_bench.errors import BenchmarkError
from spectral_tl_bench.plugins import imported_class, installed, offered, with_options


def layout_entries() -> dict[str, EntryPoint]:
    """All installed layouts by name; nothing is imported."""
    return installed(LAYOUTS)


def load_layout(name: str) -> type[Layout]:
    """The class of a layout.

    Raises:
        BenchmarkError: If the name is unknown, or its package cannot be imported or holds no layout.
    """
    entry = offered(name, LAYOUTS, "layout", BenchmarkError)
    return imported_class(entry, f"layout {name!r}", Layout, BenchmarkError)


def layout_of(benchmark: Benchmark) -> Layout:
    """The layout of a benchmark with its options.

    Raises:
        BenchmarkError: If there is none of that name, or it does not have these options.
    """
    choice = benchmark.layout
    return with_options(load_layout(choice.kind), f"layout {choice.kind!r}", choice.options, BenchmarkError)
