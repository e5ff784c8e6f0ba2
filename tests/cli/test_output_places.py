"""Every verb that writes says at once that it cannot, in a line, and leaves nothing."""

from __future__ import annotations

import errno
import os

import pytest
from tiny import run_main


@pytest.fixture
def stbench(monkeypatch, capsys, tmp_path):
    """Runs a command beside a file, a folder and a link to nothing; gives its exit code and what it complains of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link").symlink_to("nowhere")

    def run(*arguments: object) -> tuple[int, str]:
        code = run_main(monkeypatch, arguments)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.json", "link"}
        return code, error

    return run


RUN = ("run", "-m", "lora", "-b", "mts12-n2s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*RUN, "--out", "file/runs"), "--out 'file/runs' cannot be written: file is a file"),
        ((*RUN, "--out", "file"), "file is a file"),
        ((*RUN, "--out", "link/runs"), "link is a link to 'nowhere'"),
        ((*RUN, "--out", "link"), "link is a link to 'nowhere'"),
        (("report", "--records", ".", "--out", "file/board"), "file is a file"),
        (("report", "--records", ".", "--out", "link"), "link is a link to"),
        (("plot", "gap", "--records", ".", "--out", "file/a.png"), "file is a file"),
        (("check-method", "lora", "--json", "file/a.json"), "file is a file"),
        (("check-method", "lora", "--json", "folder.json"), "is a folder"),
        (("submit", "folder.json", "--results", "file/results"), "cannot be written"),
        (("submit", "folder.json", "--results", "link"), "cannot be written"),
        (("init-method", "mine", "--folder", "file"), "does not exist"),
    ],
)
def test_what_cannot_be_written(stbench, arguments, said):
    code, error = stbench(*arguments)
    assert code == 2 and said in error


@pytest.mark.parametrize("cache", ["file", "file/cache", "link"])
def test_a_cache_that_cannot_be_one(stbench, monkeypatch, cache):
    monkeypatch.setenv("STBENCH_CACHE", cache)
    code, error = stbench(*RUN)
    assert code == 2 and error.startswith(f"error: STBENCH_CACHE '{cache}' cannot be written")


def test_nothing_is_read_before(stbench, monkeypatch):
    monkeypatch.setattr("spectral_tl_bench.data.index.build_index", None)
    assert stbench(*RUN, "--data-root", "folder.json", "--out", "file/runs")[0] == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_is_full_in_the_middle(stbench, monkeypatch, number):
    def full(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number), "tables/board.md")

    monkeypatch.setattr("spectral_tl_bench.results.store.read_records", full)
    code, error = stbench("report", "--records", ".")
    assert code == 2 and os.strerror(number) in error and "tables/board.md" in error


@pytest.mark.parametrize(
    "raised",
    [OSError(errno.ENOMEM, "Cannot allocate memory"), BlockingIOError(errno.EAGAIN, "Resource"), MemoryError()],
)
def test_memory_or_processes_run_out(stbench, monkeypatch, raised):
    """As fork and mmap say it in a batch job with a limit."""

    def at_its_limit(*_arguments: object) -> None:
        raise raised

    monkeypatch.setattr("spectral_tl_bench.results.store.read_records", at_its_limit)
    code, error = stbench("report", "--records", ".")
    assert code == 2 and "is at its limit" in error and "fewer --workers" in error
