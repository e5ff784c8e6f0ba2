"""What the tests of kept features share: a small tree, and runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_request, make_tree

from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("features"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kept_run(tree: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a method on kept features, with a cache folder in ``out``; gives the record, the outcome, what was said."""

    def run(out: Path, method: str = "linear-probe", limit: float = 1.0, options: Any = None, **more: Any):
        monkeypatch.setenv("STBENCH_CACHE", str(out / "cache"))
        said: list[str] = []
        options = {"cache": True, **({"train_patch_embed": False} if method == "frozen" else {}), **(options or {})}
        cells, broken = plan(make_request(tree, method, options=options, **more), said.append)
        assert broken == []
        (outcome,) = execute(cells, out, Hardware("cpu", feature_limit=limit), 0, said.append, True)
        record = read_record(outcome.record) if outcome.record is not None else None
        return record, outcome, said

    return run
