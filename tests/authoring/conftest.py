"""The wrong methods, installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from installing import SOURCE, entry
from tiny import install


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All classes of ``faulty.py`` as methods of an installed package."""
    code = SOURCE.read_text(encoding="utf-8")
    names = [line.split("(")[0].removeprefix("class ") for line in code.splitlines() if line.startswith("class ")]
    entries = {entry(name): f"faulty_methods:{name}" for name in names if name != "Net"}
    install(tmp_path / "site", "faulty_methods", code, entries, monkeypatch)
