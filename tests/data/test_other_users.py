"""Data and packs of somebody else, which this user may not read: said in words, and read from elsewhere if possible."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.layouts import find_chips
from spectral_tl_bench.data.packed import PackedChips, find_packed, pack_folder
from spectral_tl_bench.errors import DataError

MTS12 = builtin_benchmarks()["mts12-n2s"]


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Of another user, where this one is root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(54321)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared(trees) -> Iterator[Path]:
    """A folder that everybody may enter, with a data set; those of pytest are its user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="test-"))
    shutil.copytree(trees / "MTS12", folder / "data" / "MTS12")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    yield folder
    for path in (folder, folder / "data", folder / "data/MTS12/image/train", *folder.glob("packs/*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("part", [".", "data", "data/MTS12/image/train"])
def test_folders_of_data_that_may_not_be_read(shared, part):
    assert find_chips(MTS12, shared / "data")[1]  # another user may not import what this one has installed
    (shared / part).chmod(0o000)
    with somebody_else(), pytest.raises(DataError, match="the data may not be read") as refused:
        find_chips(MTS12, shared / "data")
    assert "chmod" in str(refused.value.fix) and "authors" not in str(refused.value)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("part", [".", "packs"])
def test_a_pack_that_may_not_be_looked_at(shared, part, named, monkeypatch, capsys):
    frame = build_index(MTS12, shared / "data").frame
    pack_folder(MTS12, shared / "packs").mkdir(parents=True)
    (shared / part).chmod(0o000)
    monkeypatch.setenv("STBENCH_PACKED", str(shared / "packs"))
    with somebody_else():
        assert find_packed(MTS12, frame, shared / "packs" if named else None) == PackedChips()
    assert "packed chips may not be read, and their files are: Permission denied" in capsys.readouterr().err
