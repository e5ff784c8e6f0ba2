"""What is kept of chips between windows, and what reader processes share of it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_source
from torch.utils.data import DataLoader

from spectral_tl_bench.data import chip_cache as module
from spectral_tl_bench.data.chip_cache import ChipCache, SharedChips
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets

FORK = multiprocessing.get_context("fork")
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a file")


def chip(number: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(number)
    return (
        rng.integers(0, 9999, (3, 7, 5)).astype(">i2"), rng.integers(0, 9, (7, 5)).astype("uint8"),
        np.zeros(0, dtype=bool),
    )  # fmt: skip


def same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def loader(number: int, log: Path):
    def load() -> tuple[np.ndarray, ...]:
        with log.open("a") as stream:
            stream.write(f"{number}\n")
        return chip(number)

    return load


def in_processes(count: int, work) -> list[int]:
    processes = [FORK.Process(target=work, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    return [process.exitcode for process in processes]


def test_two_processes_get_the_same_bytes_of_one_load(tmp_path):
    shared, log = SharedChips({str(number): 200 for number in range(6)}), tmp_path / "loads"

    def work(start: int) -> None:
        for step in range(12):
            number = (start * 3 + step) % 6
            arrays = shared.get(str(number), loader(number, log))
            time.sleep(0.001)
            if not same(arrays, chip(number)) or arrays[0].flags.writeable:
                os._exit(3)
        os._exit(0)

    assert in_processes(4, work) == [0] * 4
    assert sorted(log.read_text().split()) == [str(number) for number in range(6)], "each was loaded once"
    assert same(shared.get("5", lambda: pytest.fail("it is there")), chip(5))


def test_a_process_that_is_killed_while_it_loads_keeps_nobody_waiting_and_leaves_nothing(tmp_path):
    shared, log = SharedChips({"0": 200}), tmp_path / "loads"

    def die(_number: int) -> None:
        shared.get("0", lambda: os.kill(os.getpid(), signal.SIGKILL))

    assert in_processes(1, die) == [-signal.SIGKILL]
    assert same(shared.get("0", loader(0, log)), chip(0)) and log.read_text() == "0\n"
    target = str(Path(f"/proc/{os.getpid()}/fd/{shared._file}").readlink())
    assert "memfd" in target and "deleted" in target, "it has no name in any folder"


def test_an_error_in_loading_goes_to_who_has_asked_and_the_next_one_loads(tmp_path):
    shared = SharedChips({"0": 200})
    with pytest.raises(ZeroDivisionError):
        shared.get("0", lambda: 1 / 0)
    assert same(shared.get("0", lambda: chip(0)), chip(0))


def test_threads_of_several_processes(tmp_path):
    shared, log = SharedChips({str(number): 200 for number in range(20)}), tmp_path / "loads"

    def work(_number: int) -> None:
        wrong = []

        def read(start: int) -> None:
            for step in range(40):
                number = (start + step) % 20
                if not same(shared.get(str(number), loader(number, log)), chip(number)):
                    wrong.append(number)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(len(wrong))

    assert in_processes(3, work) == [0] * 3
    assert set(log.read_text().split()) == {str(number) for number in range(20)}


def test_what_is_larger_than_was_said_is_not_kept_and_no_room_is_known():
    shared = SharedChips({"a": 10, "b": 10})
    large = (np.zeros(100_000, dtype=np.uint8),)
    assert shared.has_room("a") and not shared.has_room("c")
    assert same(shared.get("a", lambda: large), large) and not shared.has_room("a")
    small = (np.arange(3, dtype=np.uint8),)
    assert same(shared.get("b", lambda: small), small) and shared.has_room("b")


def test_all_is_kept_or_read_by_windows_by_size():
    cache = ChipCache(limit=100)
    cache.expect({"a": 60, "b": 30})
    assert cache.wants("a") and cache.wants("b")
    cache.expect({"b": 30, "c": 30})  # b counts once
    assert not cache.wants("a") and not cache.wants("b")
    assert cache.wants("b"), "the second window in a row"
    cache.share()
    assert cache._shared is None
    cache.expect({"huge": 1000})
    assert [cache.wants("huge"), cache.wants("huge")] == [False, False]


def test_a_cache_that_is_no_longer_needed_gives_its_memory_back():
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(5):
        cache = ChipCache()
        cache.expect({"a": 1000})
        cache.share()
        assert same(cache.get("a", lambda: chip(1)), chip(1)) and not cache._kept
    del cache
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_copy_of_a_process_whose_thread_was_in_the_cache_is_not_stuck():
    cache = ChipCache()
    cache._lock.acquire()
    assert in_processes(1, lambda _: os._exit(0 if same(cache.get("a", lambda: chip(1)), chip(1)) else 1)) == [0]


def test_a_plain_copy_has_nothing_of_it():
    cache = ChipCache()
    cache.expect({"a": 1000})
    cache.share()
    cache.get("a", lambda: chip(1))
    assert pickle.loads(pickle.dumps(cache))._shared is None  # noqa: S301


class Counted:
    """Loads are counted in a file, for all processes."""

    def __init__(self, files, log: Path) -> None:
        self.files, self.log = files, log

    def read(self, row):
        with self.log.open("a") as stream:
            stream.write(f"{row['chip']}\n")
        return self.files.read(row)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_reader_processes_share_what_they_load(indexed, tmp_path, context):
    datasets = open_datasets(*indexed("mts12-n2s"))
    collection, log = ChipCollection(datasets), tmp_path / "loads"
    keys = [(0, _query(datasets[0], number)) for number in (*range(6), *reversed(range(6)), *range(6))]
    expected = torch.stack([collection[key]["image"] for key in keys])
    datasets[0].chip_cache._kept.clear()
    collection.share_caches()
    for dataset in datasets:
        dataset._files = Counted(dataset._files, log)
    readers = DataLoader(
        collection, sampler=keys, batch_size=1, num_workers=2, collate_fn=_image, multiprocessing_context=context
    )
    assert torch.equal(torch.stack(list(readers)), expected)
    names = log.read_text().split()
    assert len(names) == len(set(names)) == 6


def _query(dataset, number: int):
    row = dataset.chip_rows()[number]
    return slice(row["xmin"], row["xmax"]), slice(row["ymin"], row["ymax"]), dataset.slot(number)


def _image(samples):
    return samples[0]["image"]


def test_readers_without_shared_memory_divide_it(indexed, monkeypatch, tmp_path):
    datasets = open_datasets(*indexed("mts12-n2s"))
    monkeypatch.setattr(module.SharedChips, "__init__", _refuse)
    collection = ChipCollection(datasets)
    collection.share_caches()
    assert datasets[0].chip_cache._shared is None
    keys = [(0, _query(datasets[0], number)) for number in range(4)]
    found = list(DataLoader(collection, sampler=keys, batch_size=1, num_workers=2, collate_fn=_image))
    assert all(torch.equal(one, collection[key]["image"]) for one, key in zip(found, keys, strict=True))


def _refuse(self, sizes) -> None:
    raise OSError("none here")


# ----------------------------------------------------------------------------------------------------------- readers


def test_reader_processes_that_stay_draw_the_random_numbers_of_those_that_begin_anew(trees):
    """Dropout after a validation must not depend on --workers."""

    def draws(workers: int) -> list[float]:
        source = make_source(trees, "mts12-n2s")
        settings = replace(source.settings, workers=workers)
        data = source.validation.only(list(source.validation.rows)[:1])
        data.settings = settings
        loader, drawn = data.loader(), []
        torch.manual_seed(5)
        for _ in range(2):
            windows = torch.cat([batch["image"] for batch in loader])
            drawn += [float(torch.rand(())), float(windows.sum())]
        return drawn

    assert draws(0) == draws(1)


def test_evaluation_of_more_than_memory_loads_each_chip_once_and_training_none(trees, tmp_path):
    source = make_source(trees, "mts12-n2s")
    cache = source.collection.datasets[0].chip_cache
    cache.limit = cache._total // 2  # not all, but any single one
    loads = []
    for dataset in (*source.validation.collection.datasets, *source.collection.datasets):
        dataset._files.read = lambda row, read=dataset._files.read: loads.append(row["chip"]) or read(row)
    list(source.validation.loader())
    assert sorted(loads) == sorted(source.validation.rows)
    loads.clear()
    for batch in source.train_loader(4, True, "segment"):
        assert batch["image"].shape[-1] == 16
    assert len(loads) <= 2, "only where two windows in a row are of one chip"


def test_windows_are_the_same_whether_chips_are_kept_shared_or_read_in_parts(trees):
    def batches(limit: int, workers: int) -> list[dict]:
        source = make_source(trees, "mts12-n2s")
        source.settings = replace(source.settings, workers=workers)
        for dataset in source.collection.datasets:
            dataset.chip_cache.limit = limit
        return list(source.train_loader(3, True, "segment"))

    first = batches(2**30, 0)
    for other in (batches(0, 0), batches(0, 1), batches(2**30, 2)):
        for one, two in zip(first, other, strict=True):
            assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_memory_of_a_reader_does_not_grow_with_the_windows(trees):
    """1,200 windows, of which none is kept."""
    source = make_source(trees, "mts12-n2s")
    for dataset in source.collection.datasets:
        dataset.chip_cache.limit = 0
    own = []

    def unique() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))

    dataset = source.collection.datasets[0]
    for step in range(1200):
        dataset.read_window(step % len(dataset), 0, 0, 32, 32)
        if step in (300, 1199):
            own.append(unique())
    assert own[1] - own[0] < 8 * 1024, own
