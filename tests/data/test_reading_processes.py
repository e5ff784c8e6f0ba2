"""Chips that several readers look at: order, errors, and readers that are killed."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tiny import make_source

from spectral_tl_bench.data import index as index_module
from spectral_tl_bench.data import reading_processes
from spectral_tl_bench.data.audit import chips as audit_chips
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.rasters import ChipCollection
from spectral_tl_bench.data.reading_processes import look_at_each
from spectral_tl_bench.data.scan import scan_chip
from spectral_tl_bench.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads read")


def killed_at(chip: str, look: Callable) -> Callable:
    """``look``, but its process is killed when it comes to a chip, as when memory runs out."""
    test = os.getpid()

    def die(*arguments):
        if chip in map(str, arguments) or any(getattr(one, "chip", "") == chip for one in arguments):
            assert os.getpid() != test
            os.kill(os.getpid(), signal.SIGKILL)
        return look(*arguments)

    return die


@pytest.fixture
def few_are_many(monkeypatch):
    monkeypatch.setattr(reading_processes, "MANY", 2)
    monkeypatch.setattr(index_module, "PER_TASK", 1)
    monkeypatch.setattr(audit_chips, "PER_TASK", 1)


def assert_explained(error: DataError, readers: int, chips: int) -> None:
    assert "killed by signal 9 (SIGKILL), as it happens when memory runs out" in error.what
    assert f"{readers} of them read {chips} chips" in error.what
    assert "--workers" in str(error.fix)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("many", [2, 256], ids=["processes", "threads"])
def test_what_is_seen_comes_in_order_and_errors_as_they_are(monkeypatch, many):
    monkeypatch.setattr(reading_processes, "MANY", many)

    def look(number: int) -> tuple[int, bool]:
        if number == 30:
            raise DataError("gone bad", where="a disk")
        time.sleep(0.002 * (number % 3))
        return number, os.getpid() == test

    test = os.getpid()
    seen = list(look_at_each(look, range(30), 3, 2))
    assert seen == [(number, many == 256) for number in range(30)]
    with pytest.raises(DataError, match="gone bad"):
        list(look_at_each(look, range(31), 3))
    some = look_at_each(look, range(30), 3)
    assert next(some)[0] == 0
    some.close()
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("few_are_many")
def test_a_reader_that_is_killed_while_the_index_is_built(own, monkeypatch, tmp_path):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "scan_chip", killed_at("w0_0", scan_chip))
        with pytest.raises(DataError) as caught:
            build_index(own.benchmark(), own.root, 2)
    assert_explained(caught.value, 2, 10)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".parquet" or "tmp" in path.name]
    read = {*pd.read_parquet(files[0])["chip"]} if files else set()
    assert len(files) <= 1 and "w0_0" not in read, "what was read before is kept as a whole, and nothing beside it"
    assert len(build_index(own.benchmark(), own.root, 2).frame) == 10, "the same command goes on"


@pytest.mark.usefixtures("few_are_many")
def test_a_reader_that_is_killed_during_an_audit(own, monkeypatch):
    index = build_index(own.benchmark(), own.root, 1)
    monkeypatch.setattr(audit_chips, "look_at", killed_at("e1_1", audit_chips.look_at))
    with pytest.raises(DataError) as caught:
        list(audit_chips.look_at_chips(own.benchmark(), index, list(index.frame.index), 3, lambda _: None))
    assert_explained(caught.value, 3, 10)


COMMAND = """
import os, signal, sys, time
from spectral_tl_bench.data import index, reading_processes
reading_processes.MANY, index.PER_TASK, index.available_cores = 2, 1, lambda: 2
scan = index.scan_chip
def look(base, chip, *more):
    if chip.chip == "w0_0":
        KILLED
    return scan(base, chip, *more)
index.scan_chip = look
sys.argv = ["stbench", "data", "audit", sys.argv[1], "--out", sys.argv[2], "--workers", "2"]
from spectral_tl_bench.cli.main import main
main()
"""


def started(own, out: Path, at_the_chip: str, **more) -> subprocess.Popen:
    text = COMMAND.replace("KILLED", at_the_chip)
    command = [sys.executable, "-c", text, str(own.root / "mine.yaml"), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def test_the_command_ends_with_an_error_for_people(own, tmp_path):
    own.benchmark()
    process = started(own, tmp_path / "out", "os.kill(os.getpid(), signal.SIGKILL)")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert said.startswith("error: a process that reads chips was killed by signal 9") and "Traceback" not in said
    assert not list((tmp_path / "out").glob("*"))


def test_readers_end_with_a_command_that_is_killed(own, tmp_path):
    own.benchmark()
    process = started(own, tmp_path / "out", f"open({str(tmp_path / 'here')!r}, 'w'); time.sleep(600)")
    wait_until((tmp_path / "here").exists, 120)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    try:
        process.communicate(timeout=60)
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20)
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("train", [False, True])
def test_a_killed_reader_of_batches_is_explained(trees, monkeypatch, train):
    """PyTorch says that a connection was reset, or that a worker is killed by signal."""
    source = make_source(trees)
    test, get = os.getpid(), ChipCollection.__getitem__

    def die(collection, key):
        if os.getpid() != test and next(numbers) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return get(collection, key)

    monkeypatch.setattr(ChipCollection, "__getitem__", die)
    numbers = itertools.count()
    source.settings = replace(source.settings, workers=2)
    with pytest.raises(DataError) as caught:
        list(source.train_loader(20, True, "segment") if train else source.sweep_loader(labelled=True))
    assert "killed by signal 9 (SIGKILL), as it happens when memory runs out: there were 2" in caught.value.what
    assert "--workers" in str(caught.value.fix)
