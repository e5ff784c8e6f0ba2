"""A store with cells in every state, without any training."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from random_records import _fields, _frame
from tiny import run_main

from spectral_tl_bench.results.store import write_record
from spectral_tl_bench.runner.lease import Lease
from spectral_tl_bench.runner.standing import Keeper
from spectral_tl_bench.runner.status import cells_of


class Store:
    """Makes cells in a store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def fields(self, method: str, seed: int) -> dict[str, Any]:
        return _fields(method=method, seed=seed)

    def folder(self, method: str, seed: int = 0) -> Path:
        fields = self.fields(method, seed)
        return self.root / fields["benchmark"] / method / fields["fingerprint"][:16]

    def done(self, method: str, seed: int = 0) -> Path:
        return write_record(self.root, self.fields(method, seed), _frame(seed)).parent

    def failed(self, method: str, message: str = "it broke", seed: int = 0) -> Path:
        fields = {
            **self.fields(method, seed),
            "status": "failed",
            "error": {"kind": "RuntimeError", "message": message},
        }
        return write_record(self.root, fields).parent

    def stopped(self, method: str, ended: str = "", seed: int = 0, hours: float = 3.0) -> Path:
        keeper = Keeper(self.root, self.fields(method, seed))
        keeper.write(stage="segment", step=120, steps=400, ended=ended)
        self.age(keeper.folder / "progress.json", hours)
        (self.folder(method, seed)).mkdir(parents=True, exist_ok=True)
        (self.folder(method, seed) / "log.txt").write_text("2026-01-01T00:00:00+00:00 a line\n")
        (keeper.folder / "last.ckpt").write_bytes(b"x" * 5000)
        return self.folder(method, seed)

    def running(self, method: str, seed: int = 0) -> Lease:
        keeper = Keeper(self.root, self.fields(method, seed))
        keeper.write(stage="segment", step=30, steps=400, left=95.0)
        lease = Lease(self.folder(method, seed))
        assert lease.take()
        return lease

    def job(self, method: str, number: str, seed: int = 0, named: bool = True) -> Path:
        path = self.root / ".jobs" / f"{self.folder(method, seed).name}.json"
        path.parent.mkdir(exist_ok=True)
        submitted = datetime.now(UTC) + timedelta(seconds=2)
        value = {"job": number, "executor": "slurm", "submitted": submitted.isoformat(), "log": "jobs/out.txt"}
        value |= {"benchmark": "mts12-n2s", "method": method, "seed": seed} if named else {}
        path.write_text(json.dumps(value))
        return path

    @staticmethod
    def age(path: Path, hours: float) -> None:
        value = json.loads(path.read_text())
        moment = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds")
        path.write_text(json.dumps({**value, "at": moment, "since": moment}))

    def states(self, queue=None) -> dict[str, str]:
        return {f"{cell.method}-{cell.seed}": cell.state for cell in cells_of(self.root, queue)}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def show(store, monkeypatch, capsys):
    """Runs a verb on the store, and gives what it prints."""
    monkeypatch.setattr("spectral_tl_bench.cli.status._queue_states", lambda: None)  # whatever this machine has

    def run(verb: str, *arguments: object, code: int = 0) -> str:
        assert run_main(monkeypatch, [verb, *arguments, "--records", store.root]) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return run
