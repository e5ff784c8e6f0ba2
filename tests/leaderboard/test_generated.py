"""Folders of generated files: what a report made is replaced and removed, and nothing else is touched."""

from __future__ import annotations

import json

import pytest

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.generated import LIST, Generated, replace_generated


def files(**contents):
    """Files ``<name>.<format>``, named as ``name_format=text``."""
    return {name.replace("_", "."): Generated(name.rsplit("_", 1)[1], text.encode()) for name, text in contents.items()}


def found(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*")
            if path.is_file() and path.name != LIST}  # fmt: skip


def test_stale_files_go_and_other_files_stay(tmp_path):
    replace_generated(tmp_path, {**files(a_md="1", b_md="2"), "deep/er/c.md": Generated("md", b"3")}, ["md"])
    (tmp_path / "mine.md").write_text("mine")
    paths = replace_generated(tmp_path, files(a_md="4"), ["md"])
    assert paths == [tmp_path / "a.md"]
    assert found(tmp_path) == {"a.md": "4", "mine.md": "mine"}
    assert not (tmp_path / "deep").exists()


def test_other_formats_stay(tmp_path):
    replace_generated(tmp_path, files(a_md="1", a_csv="2"), ["md", "csv"])
    replace_generated(tmp_path, files(b_md="3"), ["md"])
    assert found(tmp_path) == {"b.md": "3", "a.csv": "2"}
    replace_generated(tmp_path, {}, ["md", "csv"])
    assert not tmp_path.exists()


def test_a_generated_file_that_somebody_changed_is_not_deleted(tmp_path):
    replace_generated(tmp_path, files(a_md="1", b_md="2"), ["md"])
    (tmp_path / "b.md").write_text("my own words")
    replace_generated(tmp_path, files(a_md="1"), ["md"])
    assert found(tmp_path) == {"a.md": "1", "b.md": "my own words"}


def test_a_file_that_no_report_made_is_not_overwritten(tmp_path):
    (tmp_path / "b.md").write_text("mine")
    with pytest.raises(UserError, match="in the way") as caught:
        replace_generated(tmp_path, files(a_md="1", b_md="2"), ["md"])
    assert str(tmp_path / "b.md") in str(caught.value) and found(tmp_path) == {"b.md": "mine"}
    (tmp_path / "b.md").write_text("2")  # the same bytes: adopted
    replace_generated(tmp_path, files(a_md="1", b_md="2"), ["md"])
    replace_generated(tmp_path, {}, ["md"])
    assert not tmp_path.exists()


def test_unchanged_files_are_not_written_again(tmp_path, monkeypatch):
    replace_generated(tmp_path, files(a_md="1"), ["md"])
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *a: pytest.fail("written again"))
    monkeypatch.setattr("pathlib.Path.write_text", lambda *a, **k: pytest.fail("written again"))
    replace_generated(tmp_path, files(a_md="1"), ["md"])


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "a/../../victim", "..\\victim", "link/victim"])
def test_a_list_from_somewhere_else_reaches_nothing_outside(tmp_path, name):
    folder, victim = tmp_path / "tables", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("precious")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    sha256 = Generated("md", b"precious").sha256
    (folder / LIST).write_text(json.dumps({"files": {name: {"format": "md", "sha256": sha256}}}))
    with pytest.raises(UserError, match="list of generated files names"):
        replace_generated(folder, files(a_md="1"), ["md"])
    assert victim.read_text() == "precious"


def test_a_broken_list_is_named(tmp_path):
    (tmp_path / LIST).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        replace_generated(tmp_path, files(a_md="1"), ["md"])
