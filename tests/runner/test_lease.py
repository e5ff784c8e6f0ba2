"""Two runs of one cell share the work: one has the lease, the other goes on with other cells and comes back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest
from tiny import CPU, install, make_request, quiet

from spectral_tl_bench.results.store import read_records, verify
from spectral_tl_bench.runner import cell as cells_module
from spectral_tl_bench.runner import processes
from spectral_tl_bench.runner.cell import run_cell
from spectral_tl_bench.runner.lease import Lease, free_if_dead, who_has
from spectral_tl_bench.runner.processes import execute_in_processes
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.storage import signs
from spectral_tl_bench.storage.signs import Claim, holder_of

ELSEWHERE = "elsewhere-77~4242~abcdef01"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(signs, "POLL", 0.02)
    monkeypatch.setattr(processes, "POLL", 0.02)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "benchmark" / "method" / ("a1" * 8)


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def foreign(folder, owner: str = ELSEWHERE, age: float = 0.0):
    """A lease that another process has left."""
    path = Claim(folder).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(owner)
    os.utime(path, (time.time() - age,) * 2)
    return path


def folder_of(cell, out):
    return cells_module.facts_of(cell, out, 1)[1].parent


# ---------------------------------------------------------------------------------------------- the lease itself


def test_one_has_it_and_gives_it_back(folder):
    with Lease(folder) as one, Lease(folder) as other:
        assert one.take() and not other.take() and other.is_held()
        assert who_has(folder).startswith(f"process {os.getpid()} on ")
        path = Claim(folder).path
        assert path.is_file() and path.parent == folder.parent and not folder.exists()
    assert not path.exists() and holder_of(folder) is None


@pytest.mark.parametrize("kind", ["raises", "interrupt"])
def test_whatever_ends_the_block_gives_it_back(folder, kind):
    error = KeyboardInterrupt if kind == "interrupt" else RuntimeError
    with pytest.raises(error), Lease(folder) as lease:
        assert lease.take()
        raise error
    assert not Claim(folder).path.exists()


def test_that_of_a_dead_process_of_this_machine_is_free_at_once(folder):
    foreign(folder, f"{signs.host()}~{dead_process()}~00000000")
    with Lease(folder) as lease:
        assert lease.take() and holder_of(folder).pid == os.getpid()


def test_that_of_another_machine_is_free_when_it_was_not_touched_for_long(folder, monkeypatch):
    path = foreign(folder)
    monkeypatch.setattr(signs, "STALE", 0.3)
    with Lease(folder) as lease:
        assert not lease.take() and lease.is_held()
        for _ in range(6):  # as long as it is touched, it is held
            time.sleep(0.1)
            os.utime(path)
            assert lease.is_held()
        time.sleep(0.4)
        assert not lease.is_held() and lease.take()


def test_an_old_one_is_free_at_once(folder):
    foreign(folder, age=signs.LOST + 60)
    with Lease(folder) as lease:
        assert lease.take()


def test_a_clock_ahead_of_the_disk_takes_nothing_away(folder, monkeypatch):
    """The disk's clock counts: to this machine the sign looks an hour old, and was left a moment ago."""
    path = foreign(folder)
    real = time.time
    monkeypatch.setattr(signs.time, "time", lambda: real() + 3600)
    with Lease(folder) as lease:
        assert not lease.take() and lease.is_held() and path.read_text() == ELSEWHERE
    assert path.is_file()


def test_an_owner_that_has_lost_it_leaves_the_new_one_alone(folder):
    lease = Lease(folder)
    assert lease.take()
    path = foreign(folder)
    with lease:
        pass
    assert path.read_text() == ELSEWHERE


def test_many_that_find_a_dead_one_take_it_once(folder):
    """Nobody removes what somebody else has just taken over."""
    for _ in range(20):
        foreign(folder, f"{signs.host()}~{dead_process() if _ == 0 else 2**22 - 3}~00000000")
        barrier, taken, lock = threading.Barrier(6), [], threading.Lock()

        def work(barrier=barrier, taken=taken, lock=lock) -> None:
            lease = Lease(folder)
            barrier.wait(10)
            if lease.take():
                with lock:
                    taken.append(lease)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(taken) <= 1
        while not taken:  # all of them have met in each other's way
            lease = Lease(folder)
            if lease.take():
                taken.append(lease)
        with taken[0]:
            assert not Lease(folder).take()
    assert not list(folder.parent.iterdir())


def test_where_nothing_can_be_written_it_is_had(folder, monkeypatch):
    def full(self, *arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with Lease(folder) as lease:
        assert lease.take()


def test_one_that_says_nothing_or_garbage_holds_nobody_up_for_ever(folder):
    path = foreign(folder, age=signs.LOST + 60)
    path.write_bytes(b"\xff\xfe\x00")
    with Lease(folder) as lease:
        assert lease.take()


def test_only_the_lease_of_a_dead_process_is_taken_away(folder):
    path = foreign(folder)
    free_if_dead(folder)
    assert path.exists()
    path.write_text(f"{signs.host()}~{dead_process()}~00000000")
    free_if_dead(folder)
    assert not path.exists()


# ---------------------------------------------------------------------------------------------- runs


def test_the_cell_of_another_run_comes_last_and_its_record_is_found(tree, tmp_path):
    (first,), (second,) = (plan(make_request(tree, name), quiet)[0] for name in ("majority", "nearest-mean"))
    out, said = tmp_path / "runs", []
    lease = Lease(folder_of(first, out))
    assert lease.take()

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("[1/2]"):  # the other cell is done: the owner of this one finishes it now
            monkey.append(cells_module._run(first, cells_module.facts_of(first, out, 1)[0], work))
            lease._claim.release()

    monkey: list = []
    work = cells_module.Workplace(out, CPU, 0, quiet)
    outcomes = execute_in_processes([first, second], out, CPU, 0, say, False, 1)
    assert [outcome.state for outcome in outcomes] == ["found", "done"]
    assert [outcome.cell.method_name for outcome in outcomes] == ["majority", "nearest-mean"], (
        "in the order of the cells"
    )
    (line,) = [line for line in said if "comes last" in line]
    assert line.startswith(first.title) and f"process {os.getpid()} on " in line
    assert not any("testing" in line and "majority" in line for line in said), "it was not trained again"
    assert not list(out.rglob("*.claim"))


def test_when_its_owner_dies_the_cell_is_taken_over(tree, tmp_path):
    (cell,) = plan(make_request(tree, "majority"), quiet)[0]
    out, said = tmp_path / "runs", []
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    foreign(folder_of(cell, out), f"{signs.host()}~{sleeper.pid}~00000000")

    def say(line: str) -> None:
        said.append(line)
        if "comes last" in line:
            sleeper.kill()
            sleeper.wait()

    try:
        (outcome,) = execute_in_processes([cell], out, CPU, 0, say, False, 1)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert outcome.state == "done" and f"process {sleeper.pid} on " in said[0]


def test_it_is_not_trained_while_its_owner_lives(tree, tmp_path):
    (cell,) = plan(make_request(tree, "majority"), quiet)[0]
    out = tmp_path / "runs"
    path = foreign(folder_of(cell, out))
    outcome = run_cell(cell, out, CPU, 0, quiet, wait=False)
    assert outcome.state == "busy" and "process 4242 on elsewhere" in outcome.message
    assert path.read_text() == ELSEWHERE and not outcome.record.exists()
    assert not (out / ".resume").exists()


def test_a_run_in_this_process_waits_and_says_so_once(tree, tmp_path):
    (cell,) = plan(make_request(tree, "majority"), quiet)[0]
    out, said = tmp_path / "runs", []
    path = foreign(folder_of(cell, out))
    timer = threading.Timer(0.5, path.unlink)
    timer.start()
    (outcome,) = execute([cell], out, CPU, 0, said.append)
    assert outcome.state == "done" and len([line for line in said if "waiting" in line]) == 1


def test_a_finished_cell_needs_no_lease(tree, tmp_path):
    (cell,) = plan(make_request(tree, "majority"), quiet)[0]
    out = tmp_path / "runs"
    execute([cell], out, CPU, 0, quiet)
    foreign(folder_of(cell, out))
    assert run_cell(cell, out, CPU, 0, quiet).state == "found"


@pytest.mark.parametrize("order_", ["raise", "work"])
def test_nothing_is_left_of_it_after_a_cell(tree, tmp_path, order, order_):
    order.write_text(order_)
    cells, _ = plan(make_request(tree, "breaks", options={"order": str(order)}), quiet)
    out = tmp_path / "runs"
    (outcome,) = execute(cells, out, CPU, 0, quiet)
    assert outcome.state == ("failed" if order_ == "raise" else "done")
    assert not list(out.rglob("*.claim")) and not list(out.rglob("progress.json"))


DEADLY = """
import os, signal
from torch import nn
from spectral_tl_bench.methods.base import Method

class Deadly(Method):
    uses_backbone = False

    def build(self, task):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_cell_that_kills_its_process_leaves_no_lease(tree, tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny_deadly", DEADLY, {"deadly": "tiny_deadly:Deadly"}, monkeypatch)
    cells, _ = plan(make_request(tree, "deadly"), quiet)
    out = tmp_path / "runs"
    (outcome,) = execute_in_processes(cells, out, CPU, 0, quiet, False, 1)
    assert outcome.state == "failed" and "SIGKILL" in outcome.message
    assert not list(out.rglob("*.claim")) and not list(out.rglob("progress.json"))
    assert "killed by signal 9" in (outcome.record.parent / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_two_commands_at_once_train_each_cell_once(tree, tmp_path, small, jobs):
    names = ["full", "frozen", "nearest-mean", "majority"]
    out = tmp_path / "runs"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def start(order: list[str]) -> subprocess.Popen[str]:
        methods = [part for name in order for part in ("-m", name)]
        where = ["-b", "mts12-n2s", "--data-root", str(tree), "--allow-partial", "--jobs", jobs, "--out", str(out)]
        command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", *methods, *where, *small]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    runs = [start(names), start(names)]
    texts = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], texts
    trained = re.findall(r"\[\d/4\] mts12-n2s \| (\S+) \| seed 0 \| target", "\n".join(texts))
    assert sorted(trained) == sorted(names), texts
    records = read_records([out])
    for record in records:
        verify(record)
    assert len(records) == 4 and not list(out.rglob("*.claim"))
