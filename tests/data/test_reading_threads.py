"""Packed chips are read by threads: when, and what becomes of errors, of Ctrl-C and of loaders that are left early."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from packs import both
from torch.utils.data import DataLoader

from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.data.packed import PackedChips
from spectral_tl_bench.data.readers import in_threads
from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.data.whole_chips import WholeChips
from spectral_tl_bench.errors import DataError


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


@pytest.fixture
def source(own, tmp_path) -> Callable[..., SourceData]:
    """What training sees, of chips of which all are packed, or all but one."""
    benchmark = own.benchmark()
    _, index = both(benchmark, own.root, tmp_path / "packs")

    def make(workers: int, packed: bool = True, **more: object) -> SourceData:
        split = make_split(benchmark, index, 0)
        left_out = () if packed else split.chips("train")[:1]
        places = {chip: place for chip, place in index.packed.places.items() if chip not in left_out}
        seen = replace(index, packed=PackedChips(places))
        return SourceData(benchmark, seen, split, LoaderSettings(8, 4, 2, workers, **more), 3)

    return make


class Slow:
    """Numbers that take a while to read; ``begun`` has those that somebody has asked for."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begun = seconds, list[int]()

    def __getitem__(self, key: int) -> int:
        self.begun.append(key)
        time.sleep(self.seconds)
        return key

    def __len__(self) -> int:
        return 100


def test_readers_are_threads_and_no_processes(source):
    batches = iter(source(2).train_loader(4, True, "one"))
    next(batches)
    assert 1 <= len(readers()) <= 2 and not multiprocessing.active_children()
    assert len(list(batches)) == 3
    assert not readers()


@pytest.mark.parametrize("more", [{"packed": False}, {"rules": PixelRules(windows=WholeChips())}])
def test_readers_are_processes_where_more_is_to_be_done_than_to_copy(source, more):
    loader = source(2, **more).train_loader(4, True, "one")
    assert (loader.threads, loader.num_workers) == (0, 2)


def test_a_loader_that_is_left_early_leaves_no_thread(source):
    loader = source(3).train_loader(50, True, "one")
    for number, _ in enumerate(loader):
        if number == 2:
            break
    assert not readers()
    assert len(list(loader)) == len(loader) == 50, "it begins again"


def test_an_error_comes_as_it_is_and_names_the_chip(source, own):
    data = source(2)
    loader = data.train_loader(20, True, "one")
    for row in data.collection.datasets[0].chip_rows():
        os.utime(own.root / row["image"], (1, 1))
    with pytest.raises(DataError, match="changed") as caught:
        list(loader)
    assert "image" in str(caught.value.where) and caught.value.fix
    assert not readers()


def test_no_more_is_fetched_than_two_batches_per_reader():
    numbers = Slow(0)
    batches = in_threads(DataLoader(numbers, batch_size=1), 3)
    assert int(next(batches)) == 0
    time.sleep(0.2)
    assert sorted(numbers.begun) == list(range(6))
    next(batches)
    batches.close()
    assert len(numbers.begun) <= 7 and not readers()


def test_batches_are_fetched_at_the_same_time_and_come_in_order():
    numbers, began = Slow(0.05), time.perf_counter()
    assert [int(batch) for batch in in_threads(DataLoader(numbers, batch_size=1, sampler=range(40)), 8)] == [*range(40)]
    assert time.perf_counter() - began < 0.7 * 40 * 0.05


def test_ctrl_c_ends_it():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            list(in_threads(DataLoader(Slow(0.5), batch_size=1), 2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not readers()


def test_pinned_batches_are_pinned_by_the_threads_for_the_device_of_the_process(monkeypatch):
    devices, pinned = dict[str, int](), list[str]()
    both = threading.Barrier(2)  # one thread may be so quick that it fetches both batches

    def pin(batch: torch.Tensor) -> torch.Tensor:
        both.wait(60)
        pinned.append(threading.current_thread().name)
        return batch + 1000

    def set_device(index: int) -> None:
        devices[threading.current_thread().name] = index

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "set_device_index", set_device)
    monkeypatch.setattr("spectral_tl_bench.data.readers.pin_memory", pin)
    loader = DataLoader(Slow(0), batch_size=50, pin_memory=True)
    assert torch.cat(list(in_threads(loader, 2))).tolist() == [*range(1000, 1100)]
    assert set(pinned) == set(devices) and set(devices.values()) == {3}
    assert all(name.startswith("reader") for name in pinned)
