"""Arrays of cells on a real SLURM of this machine: killed, preempted, out of time, and the same board in the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

from spectral_tl_bench.results import store
from spectral_tl_bench.runner.slurm import submit
from spectral_tl_bench.runner.slurm.queue import FOLDER, LOGS, queue_states
from tests.tiny import SIZES, make_tree, run_main

pytestmark = pytest.mark.slow

Run = Callable[..., int]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data root in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("data") / "of all"
    folder.mkdir()
    return make_tree(folder)


@pytest.fixture
def stbench(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: object, steps: int = 600) -> int:
        sizes = [f"--backbone-size={name}={number}" for name, number in SIZES.items()]
        common = ["run", "-b", "mts12-n2s", f"--data-root={tree}", "--allow-partial", f"--steps={steps}", "--window=16",
                  "--batch-size=2", "--validations=20", "--backbone=compact", *sizes]  # fmt: skip
        return run_main(monkeypatch, [*common, *arguments])

    return run


def entries(out: Path) -> dict[str, dict[str, Any]]:
    """By the job's number: what is noted of the cell."""
    found = [json.loads(path.read_text()) for path in (out / FOLDER).glob("*.json")]
    return {entry["job"]: entry for entry in found}


def log(out: Path, job: str) -> str:
    path = out / LOGS / f"{job}_0_log.out"
    return path.read_text() if path.is_file() else ""


def command_of(out: Path, job: str) -> int | None:
    """The process of a job that runs cells, once it trains."""
    names = [path.stem for path in (out / FOLDER).glob("*.json") if json.loads(path.read_text())["job"] == job]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--only" in arguments and arguments[arguments.index(b"--only") + 1].decode() in names:
            return int(folder.name)
    return None


def wants_to_pause(pid: int) -> bool:
    """Whether the signal waits for a stopped process to go on; SLURM may have it go on, and it paused and ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    pending = re.search(r"ShdPnd:\s*([0-9a-f]+)", status)
    return pending is not None and bool(int(pending[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def results(out: Path) -> dict[str, Any]:
    return {
        record.fingerprint: (record.scores, store.evidence(record).to_csv(index=False))
        for record in store.read_records([out])
    }


def requeued(cluster: Cluster, job: str) -> int:
    return int(re.search(r"Restarts=(\d+)", cluster.ask("scontrol", "show", "job", job))[1])


@pytest.fixture
def stopped(cluster: Cluster) -> Iterator[Callable[[Path, str], int]]:
    """Holds the command of a job while it trains, so that what is done to it is done in the middle."""
    held: list[int] = []

    def stop(out: Path, job: str) -> int:
        cluster.wait(f"{job} trains", lambda: "| segment" in log(out, job), 60)
        pid = command_of(out, job)
        assert pid is not None, log(out, job)
        os.kill(pid, signal.SIGSTOP)
        held.append(pid)
        return pid

    yield stop
    for pid in held:
        go_on(pid)


def test_killed_preempted_and_out_of_time_end_as_a_local_run_does(cluster, stbench, stopped, tmp_path, capsys):
    out, local = tmp_path / "on the cluster", tmp_path / "local"
    methods = ["-m", "lora", "-m", "pixel-mlp", "-s", "0", "-s", "1"]
    submit = [*methods, f"--out={out}", "--executor=slurm", "--slurm=time=60", "--slurm=cpus=1",
              "--slurm=partition=low", "--slurm=array_limit=3"]  # fmt: skip
    assert stbench(*submit) == 0
    array = re.search(r"submitted 4 cells as 4 jobs, array (\d+)", capsys.readouterr().out)[1]
    jobs = [f"{array}_{number}" for number in range(4)]
    assert sorted(entries(out)) == jobs
    assert stbench(*submit) == 0
    said = capsys.readouterr().out
    assert "nothing to submit" in said
    assert len({job.split("_")[0] for job in queue_states(jobs)}) == 1

    killed, late, preempted = jobs[0], jobs[1], jobs[2]
    held = {job: stopped(out, job) for job in (killed, late)}
    os.kill(held[killed], signal.SIGKILL)
    held[preempted] = stopped(out, preempted)
    cluster.wait("the killed one is queued again", lambda: requeued(cluster, killed) == 1)
    assert [requeued(cluster, job) for job in jobs] == [1, 0, 0, 0]

    # Less than the five minutes of `pause_before`: SLURM signals when it looks next, and ends nothing yet.
    cluster.ask("scontrol", "update", f"JobId={late}", "TimeLimit=4", check=True)
    cluster.wait("the late one is asked to pause", lambda: wants_to_pause(held[late]), 60)
    go_on(held[late])
    cluster.wait("the late one is queued again", lambda: requeued(cluster, late) == 1)
    cluster.ask("scontrol", "update", f"JobId={late}", "TimeLimit=60", check=True)

    urgent = cluster.ask("sbatch", "--parsable", "-p", "high", "-n", "2", "-o", "/dev/null", "--wrap", "sleep 1")
    cluster.wait("the preempted one is asked to pause", lambda: wants_to_pause(held[preempted]))
    go_on(held[preempted])
    cluster.wait("the preempted one is queued again", lambda: requeued(cluster, preempted) == 1)
    cluster.wait("the urgent one has run", lambda: queue_states([urgent])[urgent] == "COMPLETED")

    cluster.wait("all have ended", lambda: set(queue_states(jobs).values()) == {"COMPLETED"}, 120)
    for job, why in ((killed, "killed by signal 9"), (late, "out of time"), (preempted, "preempted")):
        assert log(out, job).count("queued again") == 1, log(out, job)
        assert why in log(out, job)
    assert {entry["reason"] for entry in entries(out).values()} == {""}
    assert stbench(*methods, f"--out={local}", "--jobs=1") == 0
    assert len(results(local)) == 4
    assert results(out) == results(local)
    capsys.readouterr()
    assert stbench(*submit) == 0
    assert "4 cells, 4 finished\nnothing left to do" in capsys.readouterr().out


def test_a_cancelled_job_stays_cancelled_and_is_submitted_again(cluster, stbench, stopped, tmp_path, capsys):
    out = tmp_path / "runs"
    submit = ["-m", "lora", f"--out={out}", "--executor=slurm"]
    assert stbench(*submit) == 0
    (job,) = entries(out)
    pid = stopped(out, job)
    cluster.ask("scancel", job, check=True)
    cluster.wait("it is asked to pause", lambda: wants_to_pause(pid))
    go_on(pid)
    cluster.wait("it has ended", lambda: queue_states([job])[job] == "CANCELLED")
    assert "stopped from outside" in entries(out)[job]["reason"]
    assert stbench(*submit, "--wait") == 0
    assert "1/1] mts12-n2s | lora | seed 0 | finished" in capsys.readouterr().out
    assert job not in entries(out)


def test_a_job_without_progress_is_given_up_and_says_why(cluster, stbench, stopped, tmp_path):
    out = tmp_path / "runs"
    assert stbench("-m", "lora", f"--out={out}", "--executor=slurm") == 0
    (job,) = entries(out)
    path = next((out / FOLDER).glob("*.json"))
    cluster.wait("it runs", lambda: command_of(out, job) is not None)
    path.write_text(json.dumps({**json.loads(path.read_text()), "stalls": 2}))
    pid = command_of(out, job)
    os.kill(pid, signal.SIGKILL)
    cluster.wait("it has ended", lambda: queue_states([job])[job] == "FAILED")
    assert "3 times in a row without a new checkpoint or record: given up" in entries(out)[job]["reason"]
    assert requeued(cluster, job) == 0


def test_a_plain_script_runs_an_array_and_pauses_one_element(cluster, stbench, stopped, tmp_path, capsys):
    out = tmp_path / "runs of two"
    run = ["-m", "lora", "-s", "0", "-s", "1", f"--out={out}"]
    assert stbench(*run, "--executor=sbatch-script", "--slurm=setup=export GREETING='hello there'") == 0
    script = Path(re.search(r"sbatch (.*\.sh)", capsys.readouterr().out)[1])
    array = cluster.ask("sbatch", "--parsable", str(script), check=True)
    jobs = [f"{array}_0", f"{array}_1"]
    pid = stopped(out, jobs[0])
    assert entries(out).keys() >= {jobs[0]}
    cluster.ask("scancel", "--signal=USR2", "--batch", jobs[0], check=True)
    cluster.wait("it is asked to pause", lambda: wants_to_pause(pid))
    go_on(pid)
    cluster.wait("it is queued again", lambda: requeued(cluster, jobs[0]) == 1)
    cluster.wait("all have ended", lambda: set(queue_states(jobs).values()) == {"COMPLETED"}, 90)
    assert requeued(cluster, jobs[1]) == 0
    assert len(results(out)) == 2


def test_a_job_that_is_ended_before_its_python_runs_is_queued_again(cluster, stbench, tmp_path, monkeypatch):
    """As SLURM ends one that it preempts in the first milliseconds, before anything can hold the signal back."""
    once = shlex.quote(f'mkdir {tmp_path}/once 2>/dev/null && kill -TERM $$; exec "$@"')
    monkeypatch.setattr(submit, "PYTHON", f"sh -c {once} sh {submit.PYTHON}")
    out = tmp_path / "runs"
    assert stbench("-m", "majority", "-s", "0", "-s", "1", f"--out={out}", "--executor=slurm") == 0
    jobs = sorted(entries(out))
    cluster.wait("both have ended", lambda: set(queue_states(jobs).values()) == {"COMPLETED"}, 120)
    assert sorted(requeued(cluster, job) for job in jobs) == [0, 1]
    assert len(results(out)) == 2
