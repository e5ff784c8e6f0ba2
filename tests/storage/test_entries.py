"""An entry is made once, is whole or not there, and is mended where it is damaged."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from storing import get, names, read, write

from spectral_tl_bench.errors import StageError, StorageError
from spectral_tl_bench.storage import INDEX, STAGES, hold, obtain


def test_what_is_made_is_found_and_counts_as_used(cache):
    assert get() == ("made", False) and get(text="other") == ("made", True)
    assert names(cache / "stages") == {"k"} and names(STAGES.path("k")) == {"text"}
    os.utime(STAGES.path("k"), (1, 1))
    get()
    assert time.time() - STAGES.entries()[0].used < 60
    value, there = obtain(INDEX, "k", Path.read_text, lambda path: path.write_text("a file"))
    assert (value, there) == ("a file", False) and names(cache / "index") == {"k.parquet"}


def test_an_interruption_leaves_nothing(cache):
    def interrupted(folder):
        (folder / "text").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(STAGES, "k", read, interrupted)
    assert names(cache / "stages") == set()
    assert get() == ("made", False)


def test_a_damaged_entry_is_replaced_and_said():
    STAGES.path("k").mkdir(parents=True)
    write("broken")(STAGES.path("k"))
    said: list[str] = []
    assert get(say=said.append) == ("made", False)
    assert said == [
        f"what is stored as first stage k cannot be used and is made again: it is broken ({STAGES.path('k')})"
    ]
    assert names(STAGES.folder) == {"k"} and get() == ("made", True)


def test_who_is_second_to_finish_takes_what_is_there(cache):
    def overtaken(folder):
        write("slow")(folder)
        (cache / "stages" / "k").mkdir()
        write("quick")(cache / "stages" / "k")

    assert obtain(STAGES, "k", read, overtaken) == ("quick", False)
    assert names(cache / "stages") == {"k"}


def test_an_entry_that_another_has_mended_is_not_replaced(cache):
    (cache / "stages" / "k").mkdir(parents=True)
    write("broken")(cache / "stages" / "k")

    def overtaken(folder):
        write("mine")(folder)
        (cache / "stages" / "k").rename(cache / "old")
        (cache / "stages" / "k").mkdir()
        write("theirs")(cache / "stages" / "k")

    value, _ = obtain(STAGES, "k", read, overtaken, damaged=(StageError,), say=lambda _: None)
    assert value == "theirs"


def test_a_disk_that_is_full_is_explained():
    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"No space left[\s\S]*STBENCH_CACHE"):
        obtain(STAGES, "k", read, full)
    with pytest.raises(FileNotFoundError):
        obtain(STAGES, "k", read, lambda folder: Path(folder, "nothing").read_text())


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_cache_that_is_read_only(cache):
    get()
    (cache / "stages").chmod(0o555)
    try:
        assert get() == ("made", True)
        hold(STAGES.path("k"))
        with pytest.raises(StorageError, match="cannot be stored"):
            get("other")
    finally:
        (cache / "stages").chmod(0o755)


def test_a_cache_that_refuses_every_change_is_read(cache, monkeypatch):
    """The same without the need of another user."""
    get()

    def refuse(*_args, **_more):
        raise OSError(30, "Read-only file system")

    for owner, name in ((os, "utime"), (Path, "touch"), (Path, "mkdir"), (Path, "rename")):
        monkeypatch.setattr(owner, name, refuse)
    assert get() == ("made", True)
    hold(STAGES.path("k"), test_a_cache_that_refuses_every_change_is_read)
    with pytest.raises(StorageError, match=r"cannot be stored: Read-only[\s\S]*STBENCH_CACHE"):
        get("other")


def test_a_file_where_the_folder_should_be(cache):
    cache.touch()
    with pytest.raises(StorageError, match="cannot be stored"):
        get()
