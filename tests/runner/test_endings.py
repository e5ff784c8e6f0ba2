"""Signals, closed pipes and killed runs: no process and no wrong record is left, and the same command goes on."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tiny import install, run_main

from spectral_tl_bench.cli.main import main
from spectral_tl_bench.results.store import load_evidence, read_records, verify
from spectral_tl_bench.runner import apart

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

SLEEPY = """
import time
from torch import nn
from spectral_tl_bench.methods.base import Method

class Sleepy(Method):
    '''Sleeps instead of building anything.'''
    uses_backbone = False

    def build(self, task):
        print("asleep")
        time.sleep(300)
"""


@pytest.fixture
def arguments(tree, tmp_path, small):
    where = ["-b", "mts12-n2s", "--data-root", tree, "--allow-partial", "--out", tmp_path / "runs"]
    return [str(part) for part in (*where, *small)]


# ---------------------------------------------------------------------------------------------- closed pipes


class Head(io.StringIO):
    """An output that is closed after some lines, as by ``| head``."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.left = lines

    def write(self, text: str) -> int:
        if self.left == 0:
            raise BrokenPipeError(32, "Broken pipe")
        self.left -= 1
        return len(text)


@pytest.mark.parametrize(
    ("method", "lines"), [("nearest-mean", 0), ("nearest-mean", 6), ("nearest-mean", 8), ("sleepy", 5)]
)
def test_a_closed_output_ends_the_run_and_is_no_failure(
    tmp_path, monkeypatch, capsys, stbench, arguments, method, lines
):
    if method == "sleepy":
        install(tmp_path / "site", "tiny_sleepy", SLEEPY, {"sleepy": "tiny_sleepy:Sleepy"}, monkeypatch)
        monkeypatch.setattr(apart, "_end_server", lambda: None)  # other tests go on with it
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Head(lines))
        assert run_main(patch, ["run", "-m", method, *arguments]) == 141
    assert capsys.readouterr().err == ""
    records = read_records([tmp_path / "runs"]) if (tmp_path / "runs").exists() else []
    assert not [record for record in records if record.status == "failed"]
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("stbench")]
    if method == "nearest-mean":
        assert stbench("run", "-m", method, *arguments) == 0


def test_listings_end_quietly_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Head(1))
    assert run_main(monkeypatch, ["methods"]) == 141
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------------------------------------- signals


def processes_of(pid: int) -> list[str]:
    """All processes of a session that live."""
    listed = subprocess.run(["ps", "-eo", "pid,sid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()[1:]]
    return [" ".join(row) for row in rows if row[1] == str(pid) and not row[2].startswith("Z")]


def started(arguments, word: str) -> subprocess.Popen[str]:
    """A run as a session of its own, once it has said a word."""
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, start_new_session=True
    )
    began = time.monotonic()
    while word not in (line := process.stdout.readline()):
        assert line and time.monotonic() - began < 180 and process.poll() is None, line
    return process


def endless(arguments: list[str]) -> list[str]:
    """The same run with so many steps that it does not end."""
    changed = {"--steps": "100000", "--validations": "5000"}
    return [changed.get(flag, value) for flag, value in zip(["", *arguments], arguments, strict=False)]


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_ends_all_of_it(tmp_path, monkeypatch, arguments, number, jobs, foreign):
    methods, word = ["-m", "full", "-m", "frozen"], "source-validation"
    if foreign:
        install(tmp_path / "site", "tiny_sleepy", SLEEPY, {"sleepy": "tiny_sleepy:Sleepy"}, monkeypatch)
        monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")
        methods, word = ["-m", "sleepy", "-m", "full"], "asleep"
    process = started([*methods, *endless(arguments), "--jobs", jobs], word)
    try:
        began = time.monotonic()
        os.killpg(process.pid, number)
        rest, _ = process.communicate(timeout=30)
        seconds = time.monotonic() - began
        assert process.returncode == 128 + number and seconds < 5
        assert "finished cells keep their records" in rest and "Traceback" not in rest
        assert processes_of(process.pid) == []
    finally:
        process.kill()
    assert not list((tmp_path / "runs").rglob("record.json"))


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tmp_path, monkeypatch, arguments):
    code = SLEEPY.replace(
        "time.sleep(300)", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    )
    install(tmp_path / "site", "tiny_stubborn", code, {"stubborn": "tiny_stubborn:Sleepy"}, monkeypatch)
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}")
    process = started(["-m", "stubborn", *arguments], "asleep")
    try:
        process.send_signal(signal.SIGINT)
        time.sleep(0.6)  # it waits for the method to clear up, which it does not
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - began < 1.2, "it has not waited for the rest of its grace"
        process.communicate(timeout=30)
        last = time.monotonic() + 5
        while processes_of(process.pid) and time.monotonic() < last:
            time.sleep(0.1)
        assert processes_of(process.pid) == []
    finally:
        process.kill()


LATE = """
import atexit, os, signal, sys, time
from spectral_tl_bench.endings import stoppable

class AtTheEnd:
    def __del__(self, kill=os.kill, own=os.getpid(), sleep=time.sleep):
        sleep(0.4)
        kill(own, signal.SIGINT)

if sys.argv[1] == "while modules go":
    last = AtTheEnd()
else:
    at_exit = AtTheEnd()
    atexit.register(at_exit.__del__)
with stoppable(to_the_end=True):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("when", ["while modules go", "at exit"])
def test_a_second_signal_while_python_clears_up_leaves_the_exit_code(when):
    """Python gives SIGINT its deadly default back at its end, and a shell would see a killed program."""
    ended = subprocess.run(
        [sys.executable, "-c", LATE, when], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "")


@pytest.mark.slow
def test_when_the_run_is_killed_its_processes_end_themselves(arguments):
    process = started(["-m", "full", "-m", "frozen", *endless(arguments), "--jobs", "2"], "source-validation")
    assert len(processes_of(process.pid)) >= 4
    process.kill()
    process.wait()
    last = time.monotonic() + 15
    while processes_of(process.pid) and time.monotonic() < last:
        time.sleep(0.2)
    process.stdout.close()
    assert processes_of(process.pid) == []


# ---------------------------------------------------------------------------------------------- killed runs

FILE_WORK = 16
"""How many times a run of two cells syncs a file or a folder, about: a moment within its writing."""


def command(arguments: list[str], log: str, temporary: str, kill_at: int) -> None:
    """In a process of its own: the command; it kills itself at the ``kill_at``-th time that something is synced."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    tempfile.tempdir = temporary
    sync, left = os.fsync, [kill_at]

    def counted(handle: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = counted
    sys.argv = ["stbench", *arguments]
    main()


def run_command(arguments, folder: Path, seconds: float | None = None, kill_at: int = 0) -> tuple[int, float]:
    """The exit code, and how long it took; the process is killed after ``seconds``."""
    context = multiprocessing.get_context("forkserver")
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    process = context.Process(
        target=command, args=([str(part) for part in arguments], str(folder / "log"), str(folder / "tmp"), kill_at)
    )
    began = time.monotonic()
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode, time.monotonic() - began


def matrices(out: Path):
    records = read_records([out])
    for record in records:
        verify(record)
    return {
        record.method: {name: value.tolist() for name, value in load_evidence(record).matrices.items()}
        for record in records
    }


def kill_and_go_on(tree, tmp_path, small, moments: int, seed: int) -> None:
    """Kill a run at random moments, each time run it again, and expect what an undisturbed run gives."""
    methods = ["-m", "nearest-mean", "-m", "full"]
    where = ["-b", "mts12-n2s", "--data-root", tree, "--allow-partial", "--jobs", 1, *small, "--out"]
    whole = tmp_path / "whole"
    apart.start_server(["spectral_tl_bench.methods.baselines", "spectral_tl_bench.methods.floors"])
    run_command(["methods"], whole)
    code, seconds = run_command(["run", *methods, *where, whole / "runs"], whole)
    assert code == 0, (whole / "log").read_text()
    wanted, rng, killed, before = matrices(whole / "runs"), random.Random(seed), 0, []
    assert set(wanted) == {"nearest-mean", "full"}
    for moment in range(moments):
        folder = tmp_path / f"moment {moment}"
        arguments = ["run", *methods, *where, folder / "runs"]
        if moment % 3 == 2:  # within writing, which is short
            code, _ = run_command(arguments, folder, kill_at=rng.randint(1, FILE_WORK))
        else:
            code, _ = run_command(arguments, folder, seconds=rng.uniform(0.05, 1.0) * seconds)
        killed += code == -signal.SIGKILL
        there = matrices(folder / "runs") if (folder / "runs").exists() else {}
        assert all(wanted[method] == value for method, value in there.items()), "a half is never read as a whole"
        before.append(len(there))
        code, _ = run_command(arguments, folder)
        assert code == 0, (folder / "log").read_text()
        assert matrices(folder / "runs") == wanted
        assert not list((folder / "tmp").glob("stbench-*")), "what the killed run has left is cleared away"
    assert killed >= moments - moments // 4, f"only {killed} of {moments} were killed before they had ended"
    assert len(set(before)) > 1 or moments < 10, "the moments are spread over the run"


@pytest.mark.slow
def test_three_killed_runs_are_completed_by_the_same_command(tree, tmp_path, small):
    kill_and_go_on(tree, tmp_path, small, 3, seed=4)


@pytest.mark.slow
def test_twenty_killed_runs_are_completed_by_the_same_command(tree, tmp_path, small):
    kill_and_go_on(tree, tmp_path, small, 20, seed=13)
