"""Calls in processes of their own: whatever they do to themselves is known here, and ends with them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from spectral_tl_bench import pulse
from spectral_tl_bench.endings import OutputClosed
from spectral_tl_bench.runner import apart
from spectral_tl_bench.runner.apart import Call, run_apart


def end(how: str) -> str:
    """What a foreign method might do."""
    sys.stdout.write("before\n")
    if how == "exit":
        os._exit(3)
    elif how == "leave":
        sys.exit(4)
    elif how == "crash":
        ctypes.string_at(0)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "raise":
        raise RuntimeError("the call's own mistake")
    elif how == "hang":
        time.sleep(60)
    elif how == "freeze":  # with signals ignored, as a library might
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    elif how == "work":
        pulse.INTERVAL = 0.1
        for _ in range(40):
            time.sleep(0.1)
            pulse.beat()
    return how


def children(how: str) -> tuple[int, str]:
    """Starts a process that would outlive this one, and holds its output open."""
    started = subprocess.Popen([sys.executable, "-c", "import time; print('inner', flush=True); time.sleep(60)"])
    return started.pid, how


def surroundings() -> tuple[str, str | None]:
    folder, value = str(Path.cwd()), os.environ.get("TINY_VALUE")
    os.chdir("/")
    os.environ["TINY_VALUE"] = "changed"
    return folder, value


def lives(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def run(*calls: Call, at_a_time: int = 2, hang_after: float | None = None):
    out: list[str] = []
    err: list[str] = []
    ended = dict(run_apart(enumerate(calls), at_a_time, out.append, err.append, hang_after))
    return [ended[number] for number in range(len(calls))], out, err


def test_each_way_to_end_is_known_by_its_reason():
    ways = {
        "fine": "",
        "exit": "exited with code 3",
        "leave": "exited with code 4",
        "crash": "killed by signal 11 (SIGSEGV)",
        "killed": "killed by signal 9 (SIGKILL)",
        "raise": "exited with code 1",
    }
    ended, out, err = run(*(Call.of(end, how) for how in ways))
    for (how, reason), one in zip(ways.items(), ended, strict=True):
        assert one.reason.startswith(reason) and not one.hung, how
        assert (one.value == how) == (reason == "") and one.tail.startswith("before")
    assert out.count("before") == len(ways), "lines are passed on"
    assert "RuntimeError: the call's own mistake" in ended[5].tail and "Segmentation fault" in ended[3].tail
    assert any("the call's own mistake" in line for line in err)


def test_silence_is_ended_and_steps_are_signs_of_life():
    calls = [Call.of(end, how) for how in ("hang", "freeze", "work")]
    ended, _, _ = run(*calls, at_a_time=3, hang_after=2.4)
    for one in ended[:2]:
        assert one.hung and "no line and no step for 0.04 minutes" in one.reason
        assert "in end" in one.tail, "the log says where it was"
    assert ended[2].value == "work" and not ended[2].hung


def test_what_a_process_has_started_ends_with_it_and_nothing_else_is_changed(monkeypatch):
    monkeypatch.setenv("TINY_VALUE", "as it was")
    began = time.monotonic()
    ended, _, _ = run(Call.of(children, "done"), Call.of(surroundings), Call.of(surroundings), at_a_time=1)
    pid, value = ended[0].value
    assert value == "done" and time.monotonic() - began < 30, "an open output of an orphan holds nothing up"
    last = time.monotonic() + 5
    while lives(pid) and time.monotonic() < last:
        time.sleep(0.05)
    assert not lives(pid)
    assert ended[1].value == ended[2].value == (str(Path.cwd()), "as it was")
    assert os.environ["TINY_VALUE"] == "as it was"


def test_when_nobody_listens_the_processes_end(monkeypatch):
    monkeypatch.setattr(apart, "_end_server", lambda: None)  # other tests go on with it
    pids: list[int] = []

    def closed(line: str) -> None:
        raise OutputClosed

    with pytest.raises(OutputClosed):
        for _ in run_apart([(0, Call.of(end, "hang"))], 1, closed, closed):
            pids.append(0)
    assert pids == []
    import multiprocessing

    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_what_cannot_be_sent_is_known_before():
    with pytest.raises(Exception, match="pickle"):
        Call.of(lambda: 1)


def test_processes_do_not_import_the_program_that_starts_them(tmp_path, monkeypatch):
    """A script may do anything at its top level, such as starting these very processes."""
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('imported again')\n")
    program = ModuleType("__main__")
    program.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", program)
    [(_, ended)] = run_apart([(0, Call.of(end, "return"))], 1, print, print)
    assert (ended.value, ended.reason) == ("return", "")
    assert sys.modules["__main__"] is program
