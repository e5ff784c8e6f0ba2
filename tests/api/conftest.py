"""A small tree, and results of a run on it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from small_runs import SMALL
from tiny import make_tree, quiet

from spectral_tl_bench import run


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def ran(tree: Path, out: Path) -> pd.DataFrame:
    """What ``run`` gave of four cells in this process."""
    return run(
        method=["majority", "nearest-mean"], benchmark="mts12-n2s", seed=[0, 1], data_root=tree, out=out, jobs=1,
        say=quiet, **SMALL,
    )  # fmt: skip
