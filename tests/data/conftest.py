"""Small trees of the three datasets, written once, and indexes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.sample import write_dfc2020, write_mts12, write_whu_ohs


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with all three datasets in chips of 32 pixels. Not to be changed."""
    root = tmp_path_factory.mktemp("trees")
    write_whu_ohs(root / "WHU-OHS", chip=32, chips_per_city=4)
    write_whu_ohs(root / "WHU-OHS", layout="official", chip=32, chips_per_city=2)
    write_dfc2020(root / "DFC2020", chip=32, chips_per_city=8)
    write_mts12(root / "MTS12", chip=32, north=16, south=12)
    return root


@pytest.fixture(scope="session")
def indexed(trees: Path, private_folders: Path) -> Callable[[str], tuple[Benchmark, ChipIndex]]:
    """A benchmark and the index of its chips in the small trees, by id."""

    def get(name: str) -> tuple[Benchmark, ChipIndex]:
        benchmark = builtin_benchmarks()[name]
        return benchmark, build_index(benchmark, trees)

    return get
