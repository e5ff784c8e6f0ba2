"""Where everything is kept: the variable, the platform's place, and users without a home."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from storing import get, names

from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.storage import INDEX, STAGES, cache_folder, place


def test_the_variable_moves_it_and_the_platform_has_a_place(monkeypatch, tmp_path, cache):
    assert cache_folder() == cache
    assert STAGES.path("k") == cache / "stages" / "k" and INDEX.path("k") == cache / "index" / "k.parquet"
    monkeypatch.setenv("STBENCH_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("STBENCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / ".cache" / "stbench"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "stbench"
    assert names(tmp_path) == set(), "asking makes nothing"


def without_home(monkeypatch, tmp_path):
    for name in ("STBENCH_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()


def test_a_user_without_a_home_has_a_private_folder(monkeypatch, tmp_path):
    without_home(monkeypatch, tmp_path)
    folder = cache_folder()
    assert folder == tmp_path / "tmp" / f"stbench-{os.getuid()}" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert get() == ("made", False) and get() == ("made", True)
    folder.chmod(0o777)
    with pytest.raises(StorageError, match=r"not private[\s\S]*set STBENCH_CACHE"):
        cache_folder()
    monkeypatch.setenv("STBENCH_CACHE", "~/mine")
    with pytest.raises(StorageError, match="no home folder"):
        cache_folder()


def test_a_home_that_cannot_be_written_counts_as_none(monkeypatch, tmp_path):
    without_home(monkeypatch, tmp_path)
    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr(place.os, "access", lambda *_: False)
    assert cache_folder().parent == tmp_path / "tmp"
    (tmp_path / ".cache" / "stbench").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / ".cache" / "stbench", "what is there may be read"
