"""A disk that is full when a result is finished: it is waited for, kept elsewhere and brought home, never lost."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import make_request

from spectral_tl_bench.files import write_text
from spectral_tl_bench.models.weights import save_tensors
from spectral_tl_bench.results.store import read_records, verify
from spectral_tl_bench.runner import cell as cell_module
from spectral_tl_bench.runner import rescue
from spectral_tl_bench.runner.room import bytes_of_result, check_places
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

CPU = Hardware("cpu")
Usage = namedtuple("Usage", "total used free")
OTHERS = (errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
NUMBERS = [errno.ENOSPC, *(pytest.param(number, marks=pytest.mark.slow) for number in OTHERS)]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Folders of this test's own for what is kept, and no patience between two tries."""
    for name in ("cache", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(rescue, "PAUSE", 0.01)
    return tmp_path


@pytest.fixture
def full(monkeypatch):
    """Says which folders are on full disks, and what the system says of them."""
    disks: dict[Path, int] = {}
    plain = tempfile.mkstemp

    def mkstemp(*arguments, **more):
        where = Path(more.get("dir") or tempfile.gettempdir())
        number = next((number for disk, number in disks.items() if where.is_relative_to(disk)), None)
        if number is not None:
            raise OSError(number, os.strerror(number), str(where))
        return plain(*arguments, **more)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    return disks


@pytest.fixture
def cells(tree):
    def make(*methods: str, **more):
        return plan(make_request(tree, *(methods or ("nearest-mean",)), **more), lambda _: None)[0]

    return make


def only(root: Path):
    (record,) = read_records([root])
    verify(record)
    return record


@pytest.mark.parametrize("number", NUMBERS)
def test_a_result_is_kept_elsewhere_and_brought_home(cells, places, full, monkeypatch, number):
    out, said = places / "runs", []
    full[out] = number
    wanted = cells("nearest-mean", "majority")
    first, second = execute(wanted, out, CPU, 0, said.append)
    assert (first.state, second.state) == ("failed", "failed") and not list(out.rglob("*.safetensors"))
    kept = sorted((places / "cache").glob("stbench-rescued-*"))
    assert len(kept) == 2 and kept[0].stat().st_mode & 0o077 == 0
    assert os.strerror(number) in first.message and str(places / "cache" / "stbench-rescued-") in first.message
    assert "run the same command again" in first.message and "Traceback" not in "\n".join(said)

    full.clear()
    monkeypatch.setattr(cell_module, "_measure", None)  # nothing is trained again
    said.clear()
    outcomes = execute(wanted, out, CPU, 0, said.append)
    assert [outcome.state for outcome in outcomes] == ["found", "found"] and "its result was kept in" in said[0]
    assert {record.method for record in read_records([out])} == {"nearest-mean", "majority"}
    for record in read_records([out]):
        verify(record)
        assert (record.path.parent / record.pictures.file).is_file() and record.path.stat().st_mode & 0o044
        assert (record.path.parent / "selected.safetensors").is_file()
    assert (next(out.glob("*/pictures-*")) / "chips.json").is_file()
    assert not list((places / "cache").glob("stbench-rescued-*"))


def test_the_first_place_with_room_is_taken(cells, places, full):
    full |= {places / "runs": errno.ENOSPC, places / "cache": errno.ENOSPC}
    (outcome,) = execute(cells(), places / "runs", CPU, 0, lambda _: None)
    (kept,) = (places / "tmp").glob("stbench-rescued-*")
    assert str(kept) in outcome.message and only(kept).method == "nearest-mean"
    assert not list((places / "cache").glob("stbench-rescued-*"))
    full.clear()
    assert [one.state for one in execute(cells(), places / "runs", CPU, 0, lambda _: None)] == ["found"]


def test_where_nothing_has_room_the_cell_fails_and_others_go_on(cells, places, full, monkeypatch):
    full |= {places / name: errno.ENOSPC for name in ("cache", "tmp")}
    full[places / "runs" / "mts12-n2s" / "nearest-mean"] = errno.ENOSPC
    outcomes = execute(cells("nearest-mean", "majority"), places / "runs", CPU, 0, lambda _: None)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "It is lost" in outcomes[0].message and "make room" in outcomes[0].message
    assert only(places / "runs").method == "majority" and not list(places.rglob("stbench-rescued-*"))


def test_room_that_is_made_in_time(cells, places, full):
    full[places / "runs"] = errno.ENOSPC
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "Waiting" in line:
            full.clear()

    (outcome,) = execute(cells(), places / "runs", replace(CPU, wait_for_room=2), 0, say)
    waiting = [line for line in said if "Waiting" in line]
    assert outcome.state == "done" and len(waiting) == 1
    assert "No space left" in waiting[0] and "MiB are needed" in waiting[0] and "Waiting 2 minutes" in waiting[0]
    assert only(places / "runs").path == outcome.record


def test_an_interruption_while_it_waits_loses_nothing(cells, places, full, monkeypatch):
    full[places / "runs"] = errno.ENOSPC

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rescue.time, "sleep", interrupt)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        execute(cells(), places / "runs", replace(CPU, wait_for_room=2), 0, said.append)
    (kept,) = (places / "cache").glob("stbench-rescued-*")
    assert only(kept).status == "completed" and str(kept) in said[-1]


def test_what_cannot_be_brought_home_stays_where_it_is(cells, places, full):
    full[places / "runs"] = errno.ENOSPC
    execute(cells(), places / "runs", CPU, 0, lambda _: None)
    (again,) = execute(cells(), places / "runs", CPU, 0, lambda _: None)
    (kept,) = (places / "cache").glob("stbench-rescued-*")
    assert again.state == "failed" and str(kept) in again.message and only(kept).status == "completed"


def test_a_fresh_run_replaces_what_is_kept(cells, places, full):
    full[places / "runs"] = errno.ENOSPC
    execute(cells(), places / "runs", CPU, 0, lambda _: None)
    full.clear()
    (outcome,) = execute(cells(), places / "runs", CPU, 0, lambda _: None, fresh=True)
    assert outcome.state == "done" and not list((places / "cache").glob("stbench-rescued-*"))


def test_a_folder_of_somebody_else_is_not_read(cells, places, full, monkeypatch):
    full[places / "runs"] = errno.ENOSPC
    execute(cells(), places / "runs", CPU, 0, lambda _: None)
    full.clear()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (outcome,) = execute(cells(), places / "runs", CPU, 0, lambda _: None)
    assert outcome.state == "done" and list((places / "cache").glob("stbench-rescued-*"))


@pytest.mark.parametrize("what", ["gone", "a file"])
def test_an_output_folder_that_changes_while_it_trains(cells, places, monkeypatch, what):
    out, plain = places / "runs", cell_module.test
    out.mkdir()

    def test_and_change(*arguments):
        tested = plain(*arguments)
        shutil.rmtree(out)
        if what == "a file":
            out.write_text("")
        return tested

    monkeypatch.setattr(cell_module, "test", test_and_change)
    (outcome,) = execute(cells(), out, CPU, 0, lambda _: None)
    assert outcome.state == ("done" if what == "gone" else "failed")
    assert only(out if what == "gone" else next((places / "cache").glob("stbench-rescued-*"))).status == "completed"


def test_a_failure_that_cannot_be_recorded(cells, places, full, order):
    order.write_text("raise")
    full[places / "runs"] = errno.ENOSPC
    wanted = [*cells("breaks", options={"order": str(order)}), *cells()]
    first, second = execute(wanted, places / "runs", CPU, 0, lambda _: None)
    assert first.state == "failed" and first.record is None and "the method's own mistake" in first.message
    assert "no room" in first.message and second.state == "failed" and "It is kept in" in second.message


def test_the_command_says_it_and_ends_with_1(tree, places, full, stbench, small, capsys):
    full[places / "runs"] = errno.ENOSPC
    arguments = ("run", "-m", "nearest-mean", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial", "--jobs", 1)
    assert stbench(*arguments, "--out", places / "runs", *small) == 1
    printed = capsys.readouterr()
    assert "It is kept in" in printed.out and "Waiting" not in printed.out, "no terminal, no waiting"
    assert "Traceback" not in printed.out + printed.err
    full.clear()
    assert stbench(*arguments, "--out", places / "runs", *small) == 0
    assert "found" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- before it begins


@pytest.mark.parametrize("free", [0, 2**20])
def test_no_room_is_said_before_any_data_are_read(tree, places, monkeypatch, stbench, small, capsys, free):
    monkeypatch.setattr("spectral_tl_bench.data.index.build_index", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 0, free))
    arguments = ("run", "-m", "full", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial")
    assert stbench(*arguments, "--out", places / "runs", *small) == 2
    printed = capsys.readouterr()
    assert "16.0 MiB are needed" in printed.err and printed.out == "" and not (places / "runs").exists()


def test_weights_that_would_not_fit_are_refused_before_the_first_step(cells, places, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 0, 1_100_000))
    monkeypatch.setattr(cell_module, "train", None)
    outcomes = execute(cells("full"), places / "runs", CPU, 0, lambda _: None)
    assert [outcome.state for outcome in outcomes] == ["refused"] and "are needed" in outcomes[0].message


def test_cells_that_have_run_need_no_room(cells, places, monkeypatch):
    execute(cells(), places / "runs", CPU, 0, lambda _: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 0, 0))
    check_places(cells(), places / "runs")
    (cell,) = cells("majority")
    assert bytes_of_result(cell, cell.split()) > 2**20
    with pytest.raises(Exception, match="are needed"):
        check_places([cell], places / "runs")


def test_a_folder_inside_that_is_a_file(cells, places):
    (places / "runs" / "mts12-n2s").mkdir(parents=True)
    (places / "runs" / "mts12-n2s" / "nearest-mean").write_text("")
    with pytest.raises(Exception, match="is a file, not a folder"):
        check_places(cells(), places / "runs")


# ---------------------------------------------------------------------------------------------- real limits


@contextlib.contextmanager
def no_file_above(size: int):
    """No file of this process may grow beyond a size, as on a full disk; the system itself says no."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_real_limit_is_an_error_of_the_system_and_leaves_nothing(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    with no_file_above(10_000), pytest.raises(OSError, match="File too large"):
        write_text(folder / "a.txt", "x" * 100_000)
    with no_file_above(10_000), pytest.raises(OSError) as caught:
        save_tensors({"a": torch.zeros(100_000)}, folder / "b.safetensors")
    assert caught.value.errno == errno.EFBIG
    assert not (folder / "a.txt").exists() and not list(folder.glob(".a*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB, where this machine lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_real_full_disk(cells, places, small_disk, monkeypatch):
    plain = cell_module.test

    def test_and_fill(*arguments):
        tested = plain(*arguments)
        with contextlib.suppress(OSError):
            (small_disk / "fill").write_bytes(b"x" * 3 * 2**20)
        return tested

    monkeypatch.setattr(cell_module, "test", test_and_fill)
    (first,) = execute(cells("lora"), small_disk / "runs", CPU, 0, lambda _: None)
    assert first.state == "failed" and "No space left on device" in first.message
    (small_disk / "fill").unlink()
    monkeypatch.setattr(cell_module, "_measure", None)
    (second,) = execute(cells("lora"), small_disk / "runs", CPU, 0, lambda _: None)
    assert second.state == "found" and only(small_disk).method == "lora"
