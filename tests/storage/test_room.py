"""Limits: what gives way, what does not, and that nothing outside the cache folder is removed."""

from __future__ import annotations

import os

import pytest
from storing import entry, get, names

from spectral_tl_bench import storage
from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.storage import FEATURES, SAMPLE, STAGES, WEIGHTS, hold, make_room, room

HOUR = 3600


def test_what_was_not_used_for_longest_gives_way(monkeypatch):
    oldest, old, newer = (entry(STAGES, name, 100, age * HOUR) for name, age in (("a", 9), ("b", 7), ("c", 5)))
    kept = entry(WEIGHTS, "w", 100, 99 * HOUR)
    recent = entry(FEATURES, "f", 100, 0.5 * HOUR)
    sample = entry(SAMPLE, "s", 100, 8 * HOUR)
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", "700B")
    said: list[str] = []
    make_room(STAGES, 100, say=said.append)
    assert said == [] and oldest.exists()
    make_room(STAGES, 250, say=said.append)
    assert not oldest.exists() and not sample.exists() and all(path.exists() for path in (old, newer, kept, recent))
    assert [str(oldest) in said[0], str(sample) in said[1], len(said)] == [True, True, 2]
    assert all("STBENCH_CACHE_LIMIT" in line for line in said)


def test_nothing_is_removed_where_that_would_not_suffice(monkeypatch):
    paths = [entry(STAGES, "a", 100, 9 * HOUR), entry(STAGES, "b", 100, 0), entry(WEIGHTS, "w", 100, 9 * HOUR)]
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", "300B")
    with pytest.raises(StorageError, match=r"limit is 300 B \(STBENCH_CACHE_LIMIT\)[\s\S]*stbench cache clear"):
        make_room(STAGES, 150)
    assert all(path.exists() for path in paths)


def test_what_is_used_or_made_does_not_give_way(monkeypatch, cache):
    class User:
        pass

    user = User()
    used, made, free = (entry(STAGES, name, 100, 9 * HOUR) for name in ("used", "made", "free"))
    hold(used, user)
    (cache / "stages" / ".made.claim").write_text("elsewhere~1~abc")
    limit = room.Limit((STAGES,), 10, "a limit")
    with pytest.raises(StorageError):
        make_room(STAGES, 0, limit=limit)
    make_room(STAGES, 0, limit=room.Limit((STAGES,), 215, "a limit"), say=lambda _: None)
    assert used.exists() and made.exists() and not free.exists()
    del user
    (cache / "stages" / ".made.claim").unlink()
    os.utime(used, (1, 1))
    make_room(STAGES, 0, limit=limit, say=lambda _: None)
    assert names(cache / "stages") == set()


def test_what_has_been_made_is_kept_whatever_its_size(monkeypatch):
    old = entry(STAGES, "a", 100, 9 * HOUR)
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", "150B")
    assert get(text="x" * 100) == ("x" * 100, False)
    assert not old.exists() and get()[1]
    assert get("other", text="y" * 500)[0] == "y" * 500
    with pytest.raises(StorageError, match="STBENCH_CACHE_LIMIT"):
        get("third")
    assert get() == ("x" * 100, True), "what is there can be used all the same"


@pytest.mark.parametrize("text", ["many", "-5GB", "1e400"])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", text)
    with pytest.raises(StorageError, match="200GiB"):
        get()


def test_the_disk_counts(monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: room.shutil._ntuple_diskusage(10**9, 10**9, 1000))
    make_room(STAGES, 900)
    with pytest.raises(StorageError, match="the disk has 1000 B"):
        make_room(STAGES, 1000)


def test_links_lead_nowhere(tmp_path, cache):
    """A folder that was moved to another disk is used there, and nothing is removed in it."""
    outside = tmp_path / "outside"
    (outside / "k").mkdir(parents=True)
    (outside / "k" / "text").write_text("moved")
    cache.mkdir()
    (cache / "stages").symlink_to(outside)
    assert get() == ("moved", True)
    limit = room.Limit((STAGES,), 1, "a limit")
    with pytest.raises(StorageError):
        make_room(STAGES, 0, limit=limit)
    going, staying = storage.to_clear([STAGES])
    assert going == [] and [entry.path.name for entry in staying] == ["k"]
    assert (outside / "k" / "text").exists()

    linked = entry(FEATURES, "real", 10, 0)
    (linked.parent / "link").symlink_to(outside)
    (linked / "inner").symlink_to(outside)
    going, _ = storage.to_clear([FEATURES])
    assert storage.clear(going) == [] and names(cache / "features") == set()
    assert (outside / "k" / "text").exists(), "links are removed, not what they lead to"
