"""Several processes write into one store while another one reads: no record is lost, none is ever seen half."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from random_records import _fields, _frame

from spectral_tl_bench.results.store import read_record, read_records, verify, write_record


def tidy(folder: Path) -> None:
    """What a run leaves and takes away again where it cannot store a result, as ``clear_unfinished`` does."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True)
        for empty in (folder, *folder.parents[:2]):
            empty.rmdir()


def write_many(root: Path, writer: int, count: int, barrier) -> None:
    """In a process: write records, each in a method's folder that the other writers make and tidy at that time."""
    frames = [_frame(seed) for seed in range(5)]
    barrier.wait(300)
    for number in range(count):
        tidy(root / f"bench{number % 7}" / f"method{number}" / f"unfinished-{writer}")
        fields = _fields(benchmark=f"bench{number % 7}", method=f"method{number}", seed=writer)
        write_record(root, fields, frames[number % 5])


def read_all(root: Path, over, seen, barrier) -> None:
    """In a process: read what is there, again and again; ``seen`` gets the number of records, or -1 for a torn one."""
    barrier.wait(300)
    known: set[Path] = set()
    while not over.is_set():
        # Folders come and go meanwhile, on which `rglob` would raise.
        for path in [Path(folder, name) for folder, _, names in os.walk(root) for name in names]:
            if path.name != "record.json":
                continue
            if path not in known:
                try:
                    verify(read_record(path))
                except Exception as error:
                    sys.stderr.write(f"torn: {path}: {error}\n")
                    seen.value = -1
                    return
                known.add(path)
                seen.value = len(known)
        time.sleep(0.01)


def check_writers(root: Path, writers: int, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, over, seen = context.Barrier(writers + 1), context.Event(), context.Value("i", 0)
    reader = context.Process(target=read_all, args=(root, over, seen, barrier))
    processes = [context.Process(target=write_many, args=(root, number, count, barrier)) for number in range(writers)]
    for process in (reader, *processes):
        process.start()
    for process in processes:
        process.join(900)
    last = time.monotonic() + 60
    while 0 <= seen.value < writers * count and time.monotonic() < last:
        time.sleep(0.05)
    over.set()
    reader.join(60)
    assert [process.exitcode for process in processes] == [0] * writers
    assert seen.value == writers * count, "none was lost, and none torn"
    records = read_records([root])
    names = {(record.method, record.seed) for record in records}
    assert len(records) == len(names) == writers * count
    left = [path for path in root.rglob("*") if path.is_file() and path.name != "record.json"]
    assert {path.suffix for path in left} == {".parquet"} and len(left) == len(records), "no temporary file is left"


def test_three_writers(tmp_path):
    check_writers(tmp_path / "runs", 3, 40)


@pytest.mark.slow
def test_eight_writers_of_five_hundred_records(tmp_path):
    check_writers(tmp_path / "runs", 8, 500)


def test_writers_of_the_same_cell_leave_one_of_their_records_whole(tmp_path):
    """They would need to be two runs without a lease; what they write is the same."""
    fields = _fields(method="lora")
    errors: list[Exception] = []

    def write() -> None:
        try:
            for _ in range(15):
                verify(read_record(write_record(tmp_path, fields, _frame(1))))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(read_records([tmp_path])) == 1


def test_a_folder_that_another_process_tidies_away_at_that_moment_is_made_again(tmp_path, monkeypatch):
    make, times = tempfile.mkstemp, []

    def late(dir: Path, **more):
        times.append(dir)
        if len(times) == 1:
            for empty in (dir, dir.parent, dir.parent.parent):
                empty.rmdir()
        return make(dir=dir, **more)

    monkeypatch.setattr(tempfile, "mkstemp", late)
    path = write_record(tmp_path, _fields(method="lora"), _frame(1))
    verify(read_record(path))
    assert len(times) == 3
