"""Folders and files in which results cannot be stored: said before anything is computed, and nothing is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.storage import output
from spectral_tl_bench.storage.output import check_cache, check_file, check_folder, check_temporary

Usage = namedtuple("Usage", "total used free")
as_user = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")


def below_a_file(root: Path) -> Path:
    (root / "file").write_text("")
    return root / "file" / "runs" / "deep"


def a_file(root: Path) -> Path:
    return below_a_file(root).parents[1]


def dangling(root: Path) -> Path:
    (root / "link").symlink_to(root / "nowhere")
    return root / "link"


def below_a_dangling_link(root: Path) -> Path:
    return dangling(root) / "runs"


def link_to_a_file(root: Path) -> Path:
    a_file(root)
    (root / "link").symlink_to("file")
    return root / "link"


def circle(root: Path) -> Path:
    (root / "link").symlink_to("link")
    return root / "link"


def too_long(root: Path) -> Path:
    return root / ("x" * 300) / "runs"


def read_only(root: Path) -> Path:
    (root / "kept").mkdir(mode=0o500)
    return root / "kept" / "runs"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (below_a_file, r"file is a file, not a folder"),
        (a_file, r"is a file, not a folder"),
        (dangling, r"is a link to '.*nowhere', which is not there"),
        (below_a_dangling_link, r"is a link to '.*nowhere', which is not there"),
        (link_to_a_file, r"is a file, not a folder"),
        (circle, r"link"),
        (too_long, r"File name too long"),
        pytest.param(read_only, r"Permission denied", marks=as_user),
    ],
)
def test_a_folder_that_cannot_be_one(tmp_path, make, said):
    folder = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match=said) as caught:
        check_folder(folder, "--out")
    assert str(caught.value).startswith(f"--out {str(folder)!r} cannot be written")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_can_be_one_is_not_made(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "a" / "b", Path("runs"), Path(), tmp_path / "link", tmp_path / "link" / "new"):
        check_folder(folder, "--out", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"} and not any((tmp_path / "real").iterdir())


@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_folder_is_tried_and_not_only_asked(tmp_path, monkeypatch, reason):
    """Root may write anywhere by its permissions, but not on a file system that is mounted read-only."""

    def refuse(**_):
        raise reason

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match=reason.strerror):
        check_folder(tmp_path / "runs", "--out")


def test_room_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 0, 3 * 2**20))
    check_folder(tmp_path / "runs", "--out", 3 * 2**20)
    with pytest.raises(StorageError, match=r"4.0 MiB are needed and 3.0 MiB free[\s\S]*another disk"):
        check_folder(tmp_path / "runs", "--out", 4 * 2**20)


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageError, match="--out 'runs' cannot be written: No such file"):
        check_folder(Path("runs"), "--out")
    monkeypatch.chdir(tmp_path)


def test_files(tmp_path):
    check_file(tmp_path / "new" / "a.json", "--json")
    with pytest.raises(StorageError, match="is a folder"):
        check_file(tmp_path, "--json")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        check_file(below_a_file(tmp_path), "--json")


def test_a_cache_that_cannot_be_one(tmp_path, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE", str(below_a_file(tmp_path)))
    with pytest.raises(StorageError, match=r"STBENCH_CACHE .* is a file, not a folder"):
        check_cache()
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path))
    check_cache()  # one that can only be read is a cache all the same


def test_temporary_folders(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(output, "say", said.append)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    check_temporary()
    assert said == [] and tempfile.gettempdir() == str(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    check_temporary()
    assert len(said) == 1 and said[0].startswith(f"TMPDIR is '{tmp_path / 'gone'}', which cannot be written")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    with pytest.raises(StorageError, match=r"no temporary folder[\s\S]*set TMPDIR"):
        check_temporary()
