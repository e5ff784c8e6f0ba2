"""Ctrl-C to a run of several processes: nothing is held, the store tells, and the same command completes."""

from __future__ import annotations

import os
import signal
import time

import pytest
from test_endings import endless, matrices, processes_of, started

from spectral_tl_bench.runner.lease import Lease
from spectral_tl_bench.runner.status import cells_of


@pytest.fixture
def arguments(tree, tmp_path, small):
    where = ["-m", "full", "-m", "frozen", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial"]
    return [str(part) for part in (*where, "--jobs", "2", *small, "--out", tmp_path / "runs")]


def leave(process, number: int) -> tuple[str, float]:
    began = time.monotonic()
    os.killpg(process.pid, number)
    rest, _ = process.communicate(timeout=30)
    return rest, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_store_says_where_they_were_stopped_and_they_go_on(tmp_path, arguments, number):
    process = started(endless(arguments), "source-validation")
    out = tmp_path / "runs"
    try:
        while [cell.state for cell in cells_of(out)] != ["running"] * 2:
            time.sleep(0.1)
        running = cells_of(out)
        assert all(cell.standing and cell.holder.pid == cell.standing.pid != process.pid for cell in running)
        rest, seconds = leave(process, number)
        assert process.returncode == 128 + number and seconds < 5 and "run the same command again" in rest
        assert processes_of(process.pid) == []
    finally:
        process.kill()
    assert not list(out.rglob("*.claim")), "the leases are given back"
    stopped = cells_of(out)
    assert [cell.state for cell in stopped] == ["stopped"] * 2
    assert any("of 100000" in cell.detail for cell in stopped)
    assert all(cell.detail.endswith("the same command goes on") for cell in stopped)
    for cell in stopped:
        with Lease(cell.folder) as lease:
            assert lease.take()
    again = started(arguments, "target mIoU")
    again.communicate(timeout=120)
    assert again.returncode == 0 and set(matrices(out)) == {"full", "frozen"}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "child"])
def test_a_killed_process_holds_nothing(tmp_path, arguments, victim):
    process = started(endless(arguments), "source-validation")
    out = tmp_path / "runs"
    try:
        while [cell.state for cell in cells_of(out)] != ["running"] * 2:
            time.sleep(0.1)
        one, other = cells_of(out)
        os.kill(process.pid if victim == "parent" else one.holder.pid, signal.SIGKILL)
        last = time.monotonic() + 20
        wanted = {"stopped"} if victim == "parent" else {"failed", "running"}
        while {cell.state for cell in cells_of(out)} != wanted and time.monotonic() < last:
            time.sleep(0.1)
        states = {cell.key: cell.state for cell in cells_of(out)}
        assert states == {
            one.key: "stopped" if victim == "parent" else "failed",
            other.key: "stopped" if victim == "parent" else "running",
        }
        with Lease(one.folder) as lease:
            assert lease.take()
        if victim == "child":
            leave(process, signal.SIGINT)
    finally:
        process.kill()
        process.stdout.close()
