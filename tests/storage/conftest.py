"""For every test of the storage: an empty cache of its own, without a limit, and little patience."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectral_tl_bench.storage import signs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STBENCH_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(signs, "POLL", 0.02)
    return tmp_path / "cache"
