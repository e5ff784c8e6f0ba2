"""Bars on a terminal, lines elsewhere; and the terminal is left as it was found."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from test_endings import ENVIRONMENT, endless
from tiny import CPU, make_request, quiet

from spectral_tl_bench import console
from spectral_tl_bench.runner.display import Bars, Display, display
from spectral_tl_bench.runner.processes import execute_in_processes
from spectral_tl_bench.runner.run import plan
from spectral_tl_bench.runner.standing import Keeper

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def shown_by(out, cells, monkeypatch, **environment: str) -> Display:
    monkeypatch.setenv("TERM", environment.get("TERM", "xterm"))
    with display(out, len(cells), console.say) as shown:
        return shown


def test_without_a_terminal_there_are_lines_alone(tmp_path, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.setenv(name, "1")
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    with display(tmp_path, 3, console.say) as shown:
        assert type(shown) is Display and shown.say is console.say
        shown.begin(0, None)
        shown.end(0, None)
    assert output.getvalue() == ""


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(tmp_path, monkeypatch, terminal):
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert type(shown_by(tmp_path, [], monkeypatch, TERM=terminal)) is Display


def test_what_takes_the_lines_itself_gets_no_bars(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    said: list[str] = []
    with display(tmp_path, 1, said.append) as shown:
        assert type(shown) is Display
        shown.say("a line")
    assert said == ["a line"] and sys.stdout.getvalue() == ""


def test_the_bars_of_cells_that_run(tree, tmp_path, monkeypatch):
    """What a user sees, in the middle of a run."""
    output = Terminal()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    cells, _ = plan(make_request(tree, "full", "frozen", "majority"), quiet)
    with display(tmp_path, len(cells), console.say) as shown:
        assert isinstance(shown, Bars)
        shown.begin(0, cells[0])
        shown.begin(1, cells[1])
        identity = cells[1].identity(cells[1].split())
        fields = {"benchmark": "b", "method": "m", "seed": 0, "fingerprint": identity.fingerprint}
        Keeper(tmp_path, fields).write(stage="segment", step=30, steps=120, left=75.4)
        shown.say("a line [with what is no markup] " + "and is long " * 12)
        picture = Console(width=120, file=io.StringIO(), record=True)
        picture.print(*shown._progress.get_renderables())
        text = picture.export_text()
        shown.end(0, SimpleNamespace(state="done"))
        shown.end(1, SimpleNamespace(state="busy"))
        after = Console(width=120, file=io.StringIO(), record=True)
        after.print(*shown._progress.get_renderables())
        later = after.export_text()
    first, second, third = text.splitlines()
    assert first.startswith("all cells") and "0/3" in first
    assert "full | seed 0" in second and "0/?" in second
    assert "frozen | seed 0" in third and "30/120" in third and third.rstrip().endswith("segment 1:15 left")
    assert len(later.splitlines()) == 1 and "1/3" in later and "left" in later
    assert ("a line [with what is no markup] " + "and is long " * 12).rstrip() in output.getvalue(), "it is not cut"
    assert output.getvalue().count("\x1b[?25l") == output.getvalue().count("\x1b[?25h") == 1


def test_an_error_leaves_the_terminal_clean(tmp_path, monkeypatch):
    output = Terminal()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyboardInterrupt), display(tmp_path, 1, console.say):
        raise KeyboardInterrupt
    last = max(output.getvalue().rfind(code) for code in ("\x1b[?25h", "\x1b[?25l"))
    assert output.getvalue()[last:].startswith("\x1b[?25h"), "the cursor is back"


def test_the_same_lines_are_said_with_bars_and_without(tree, tmp_path, monkeypatch, capsys):
    cells, _ = plan(make_request(tree, "majority", "nearest-mean"), quiet)
    said: list[str] = []
    execute_in_processes(cells, tmp_path / "one", CPU, 0, said.append, False, 1)
    output = Terminal()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    execute_in_processes(cells, tmp_path / "two", CPU, 0, console.say, False, 1)
    drawn = ESCAPES.sub("", output.getvalue()).replace("\r", "\n").splitlines()
    assert [line for line in drawn if line in said] == said


# ---------------------------------------------------------------------------------------------- a real terminal


class Pty:
    """A command on a terminal of its own."""

    def __init__(self, arguments: list[str]) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.execve(  # noqa: S606
                sys.executable,
                [sys.executable, "-m", "spectral_tl_bench.cli.main", *arguments],
                ENVIRONMENT | {"TERM": "xterm", "OMP_NUM_THREADS": "1"},
            )
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.text = ""

    def read(self, until: str = "", seconds: float = 180.0) -> None:
        """Read until some text has come since now, or the end."""
        start, last = len(self.text), time.monotonic() + seconds
        while (not until or until not in self.text[start:]) and time.monotonic() < last:
            if select.select([self.descriptor], [], [], 0.5)[0]:
                try:
                    piece = os.read(self.descriptor, 65536)
                except OSError:
                    return
                if not piece:
                    return
                self.text += piece.decode(errors="replace")
        assert not until or until in self.text[start:], self.text[-3000:]

    def end(self) -> int:
        self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.slow
@pytest.mark.parametrize("times", [0, 1, 2])
def test_on_a_real_terminal(tree, tmp_path, small, times):
    where = ["-b", "mts12-n2s", "--data-root", str(tree), "--allow-partial", "--out", str(tmp_path / "runs"), *small]
    arguments = ["run", "-m", "full", "-m", "frozen", "--jobs", "2", *where]
    terminal = Pty(endless(arguments) if times else arguments)
    try:
        if times:
            terminal.read("source-validation")
            terminal.read("segment")  # a bar
            os.write(terminal.descriptor, b"\x03")
            if times == 2:
                time.sleep(0.4)
                with contextlib.suppress(OSError):
                    os.write(terminal.descriptor, b"\x03")
        assert terminal.end() == (130 if times else 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGKILL)
    assert "all cells" in terminal.text and "\x1b[?25l" in terminal.text
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l"), "the cursor is back"
    if times < 2:
        after = ESCAPES.sub("", terminal.text[terminal.text.rfind("\x1b[?25h") :])
        assert "all cells" not in after and "━" not in after
        assert ("target mIoU" if times == 0 else "finished cells keep their records") in after
