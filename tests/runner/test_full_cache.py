"""A cache folder on a full disk: runs go on without it, say so, and lose no training."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from tiny import make_request

from spectral_tl_bench.features import store as feature_store
from spectral_tl_bench.results.store import load_evidence, read_record
from spectral_tl_bench.runner import stages as stages_module
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.storage import INDEX, entries
from spectral_tl_bench.storage.signs import Claim
from spectral_tl_bench.training.hardware import Hardware

CPU = Hardware("cpu")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.fixture
def full_once_written(monkeypatch):
    """The disk of the cache is full when an entry is to be synced, after it was made."""

    def sync(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(entries, "_sync", sync)


def matrices(outcome):
    return load_evidence(read_record(outcome.record)).matrices["selected"].tolist()


def test_a_first_stage_serves_its_run_and_is_trained_once(tree, places, full_once_written, monkeypatch):
    trained, plain = [], stages_module.train_shared
    monkeypatch.setattr(stages_module, "train_shared", lambda *a, **k: trained.append(1) or plain(*a, **k))
    said: list[str] = []
    request = make_request(tree, "spectralx", pretrain_steps=2)
    (outcome,) = execute(plan(request, lambda _: None)[0], places / "runs", CPU, 0, said.append)
    assert outcome.state == "done" and len(trained) == 1
    (line,) = [line for line in said if "serves this run alone" in line]
    assert "No space left on device" in line and str(places / "cache" / "stages") in line
    assert not list((places / "tmp").iterdir()) and not list((places / "cache" / "stages").iterdir())
    monkeypatch.undo()
    monkeypatch.setenv("STBENCH_CACHE", str(places / "other"))
    (kept,) = execute(plan(request, lambda _: None)[0], places / "again", CPU, 0, lambda _: None)
    assert matrices(kept) == matrices(outcome), "where a stage is kept changes no number"


@pytest.mark.slow
def test_a_cache_that_cannot_be_made(tree, places, capsys):
    (places / "cache").write_text("")
    cells, _ = plan(make_request(tree, "spectralx", pretrain_steps=1), lambda _: None)
    assert "is not kept, and found again by the next run" in capsys.readouterr().err
    said: list[str] = []
    (outcome,) = execute(cells, places / "runs", CPU, 0, said.append)
    assert outcome.state == "done" and any("serves this run alone" in line for line in said)


def test_features_serve_their_run(tree, places, full_once_written):
    said: list[str] = []
    request = make_request(tree, "linear-probe", options={"cache": "true"})
    (outcome,) = execute(plan(request, lambda _: None)[0], places / "runs", CPU, 0, said.append)
    lines = [line for line in said if "the features serve this run alone" in line]
    assert outcome.state == "done" and len(lines) == 3, "training, validation and target"


def test_features_without_a_place_are_computed_for_nothing_else(places, monkeypatch):
    """Room is asked for before it is used: a mapped file that finds none would kill the process."""

    def no_room(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (places / "level-0.npy").write_bytes(b"x" * 100)
    monkeypatch.setattr(feature_store.os, "posix_fallocate", no_room)
    with pytest.raises(OSError, match="No space left"):
        feature_store._reserve(places / "level-0.npy")
    monkeypatch.undo()
    feature_store._reserve(places / "level-0.npy")
    assert (places / "level-0.npy").read_bytes() == b"x" * 100


def test_a_claim_for_which_there_is_no_room_holds_up_nobody(places, monkeypatch):
    entry = INDEX.path("k")
    entry.parent.mkdir(parents=True)
    first = Claim(entry)
    first._owner = "x" * 10
    plain = Path.open

    def opened(self, *arguments, **more):
        stream = plain(self, *arguments, **more)

        def write(_text: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        stream.write = write
        return stream

    monkeypatch.setattr(Path, "open", opened)
    assert first.take() and not list(entry.parent.iterdir())
    monkeypatch.undo()
    second = Claim(entry)
    assert second.take() and second._sign is not None
    second.release()
