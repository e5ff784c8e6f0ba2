"""A pack that is removed, replaced, cut short or written to while readers have it mapped."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packs import alike, both

from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.data.packed import PackedChips
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.endings import how_ended
from spectral_tl_bench.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked here")
FORK = multiprocessing.get_context("fork")
STEPS = 40


class Came(NamedTuple):
    """What came of a loader whose pack was changed after the first batch."""

    code: int | None
    batches: int
    same: bool
    error: Any
    said: list[str]


@pytest.fixture(params=["threads", "processes"])
def loaders(request, own, tmp_path) -> Callable[[], tuple[Any, Any]]:
    """Loaders of the same batches, from files and from a pack; readers are processes where one chip is not packed."""
    benchmark = own.benchmark()
    plain, packed = both(benchmark, own.root, tmp_path / "packs")
    split = make_split(benchmark, plain, 0)
    places = dict(packed.packed.places)
    if request.param == "processes":
        del places[split.chips("train")[0]]
    settings = LoaderSettings(8, 4, 2, 2)

    def make() -> tuple[Any, Any]:
        found = []
        for index, one in ((plain, LoaderSettings(8, 4, 2)), (packed, settings)):
            chips = PackedChips(places) if index is packed else index.packed
            found.append(
                SourceData(benchmark, replace(index, packed=chips), split, one, 3).train_loader(STEPS, True, "one")
            )
        assert bool(found[1].threads) == (request.param == "threads")
        return found[0], found[1]

    return make


def came(loaders: Callable[[], tuple[Any, Any]], change: Callable[[], None], tmp_path: Path) -> Came:
    """Read in a process of its own, which a lost map may end."""
    ours, theirs = FORK.Pipe()

    def read() -> None:
        os.dup2(os.open(tmp_path / "said", os.O_CREAT | os.O_WRONLY), 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        files, packed = loaders()
        count, same, error = 0, True, None
        try:
            for one, other in zip(files, _changed(packed, change), strict=True):
                same &= all(alike(one[key], other[key]) for key in one)
                count += 1
        except DataError as caught:
            error = caught
        theirs.send((count, same, error))

    process = FORK.Process(target=read)
    process.start()
    theirs.close()
    try:
        told = ours.recv()
    except EOFError:
        told = (0, False, None)
    process.join(60)
    return Came(process.exitcode, *told, (tmp_path / "said").read_text().splitlines())


def _changed(loader: Any, change: Callable[[], None]) -> Iterator[Any]:
    for number, batch in enumerate(loader):
        yield batch
        if number == 0:
            time.sleep(0.5)  # what is fetched ahead has been
            change()


def shards(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "packs").rglob("*.safetensors"))


def removed(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "packs")


def replaced(tmp_path: Path) -> None:
    for path in shards(tmp_path):
        beside = path.with_suffix(".new")
        beside.write_bytes(bytes(path.stat().st_size))
        beside.replace(path)


def cut_to_nothing(tmp_path: Path) -> None:
    for path in shards(tmp_path):
        os.truncate(path, 0)


def cut_within_a_page(tmp_path: Path) -> None:
    """The rest of the page is zeros then, and ends nothing."""
    for path in shards(tmp_path):
        os.truncate(path, path.stat().st_size - 2000)


def written_to(tmp_path: Path) -> None:
    for path in shards(tmp_path):
        content = path.read_bytes()
        with path.open("r+b") as stream:
            stream.seek(len(content) // 2)
            stream.write(bytes(len(content) - len(content) // 2))


@pytest.mark.parametrize("change", [removed, replaced], ids=lambda change: change.__name__)
def test_the_files_are_read_instead(loaders, tmp_path, change):
    found = came(loaders, lambda: change(tmp_path), tmp_path)
    assert (found.code, found.batches, found.same, found.error) == (0, STEPS, True, None)
    readers = 1 if loaders()[1].threads else 2
    assert 1 <= len(found.said) <= readers, found.said
    assert all("packed chips cannot be read, and their files are" in line for line in found.said)


@pytest.mark.parametrize("change", [cut_to_nothing, cut_within_a_page, written_to], ids=lambda change: change.__name__)
def test_what_was_written_to_ends_the_reading(loaders, tmp_path, change):
    found = came(loaders, lambda: change(tmp_path), tmp_path)
    assert (found.code, found.same) == (0, True)
    assert 1 <= found.batches < STEPS
    assert found.error.what == "packed chips have been written to while they were read"
    assert str(tmp_path) in str(found.error.where) and "run again" in found.error.fix
    assert found.said == []


def test_what_is_cut_short_while_it_is_copied_ends_the_process_with_a_hint(own, tmp_path):
    """What no look beforehand can prevent; a run says so of its cell."""
    benchmark = own.benchmark()
    _, index = both(benchmark, own.root, tmp_path / "packs")
    row = index.frame.reset_index(names="chip").to_dict("records")[0]

    def read() -> None:
        faulthandler.disable()
        pixels, *_ = index.packed.window(row, (slice(0, 16), slice(0, 16)))
        cut_to_nothing(tmp_path)
        pixels.copy()

    process = FORK.Process(target=read)
    process.start()
    process.join(60)
    assert "(SIGBUS), as it happens when a file that is read is cut short" in how_ended(process.exitcode)
