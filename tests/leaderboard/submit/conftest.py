"""Records that are right in everything, for the tests to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from submitting import TREES, World, cells_of, write_cell

from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.sample import build


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch):
    """The sample is a few chips of MTS12."""
    monkeypatch.setattr(build, "PARAMETERS", TREES)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, private_folders: Path) -> Path:
    """One right record of ``pixel-mlp``, with pictures."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PARAMETERS", TREES)
        (cell,) = cells_of("pixel-mlp")
        write_cell(root / "runs", cell, pictures=True)
    return root


@pytest.fixture
def world(tmp_path: Path, template: Path) -> World:
    """A checkout without results, and a folder of runs with one right record."""
    shutil.copytree(template / "runs", tmp_path / "runs")
    made = World(tmp_path)
    made.results.mkdir(parents=True)
    made.examples.mkdir(parents=True)
    return made


@pytest.fixture
def record(world: World) -> Record:
    """The right record."""
    (path,) = world.runs.rglob("record.json")
    return read_record(path)
