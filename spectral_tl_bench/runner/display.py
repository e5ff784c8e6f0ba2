"""Bars on a terminal: one for all cells and one for each that runs, below the lines. Elsewhere there are lines alone.

How far a cell is, is read from where it leaves that for everybody, see ``standing``: cells of this process and of
others look the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_tl_bench.console import clock, complain
from spectral_tl_bench.endings import OutputClosed, at_once
from spectral_tl_bench.runner.standing import DIGITS, Standing

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from spectral_tl_bench.runner.definitions import Cell, Outcome

Say = Callable[[str], None]
REFRESH = 2.0
"""Times per second that bars are drawn."""
SHOW_CURSOR = b"\x1b[?25h\r\n"


class Display:
    """What a run shows beside its lines: nothing."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.complain: Say = complain

    def begin(self, number: int, cell: Cell) -> None:
        """A cell begins."""

    def end(self, number: int, outcome: Outcome) -> None:
        """A cell has ended, or another run has it."""


class Bars(Display):
    """Bars on a terminal, below the lines.

    Args:
        out: Root of the record store.
        total: Number of cells.
    """

    def __init__(self, progress: Progress, out: Path, total: int) -> None:
        super().__init__(self._say)
        if sys.stderr.isatty():  # it is this terminal, as a rule: a line that came between would tear the bars
            self.complain = self._say
        self._progress, self._out, self._total = progress, out, total
        self._overall = progress.add_task("all cells", total=total, left="", stage="")
        self._running: dict[int, tuple[TaskID, str]] = {}
        self._ended = self._ran = 0
        self._began = time.monotonic()

    def _say(self, text: str) -> None:
        from rich.text import Text

        try:
            self._progress.console.print(Text(text), soft_wrap=True)
        except BrokenPipeError:
            raise OutputClosed from None

    def begin(self, number: int, cell: Cell) -> None:
        """Add a bar."""
        if number not in self._running:
            name = cell.identity(cell.split()).fingerprint[:DIGITS]
            task = self._progress.add_task(cell.title, total=None, left="", stage="")
            self._running[number] = (task, name)

    def end(self, number: int, outcome: Outcome) -> None:
        """Take its bar away, and move the one of all cells."""
        if number in self._running:
            self._progress.remove_task(self._running.pop(number)[0])
        if outcome.state == "busy":
            return
        self._ended += 1
        self._ran += outcome.state != "found"
        rest = self._total - self._ended
        left = (time.monotonic() - self._began) / self._ran * rest if self._ran else None
        self._progress.update(self._overall, completed=self._ended, left=_left(left) if rest else "")

    def look(self) -> None:
        """See how far the cells are."""
        for task, name in list(self._running.values()):
            standing = Standing.read(self._out, name)
            if standing is not None and not standing.ended:
                self._progress.update(
                    task, total=standing.steps or None, completed=standing.step, stage=standing.stage,
                    left=_left(standing.left),
                )  # fmt: skip


@contextlib.contextmanager
def display(out: Path, total: int, say: Say) -> Iterator[Display]:
    """Bars within the block if the lines go to a terminal.

    Args:
        out: Root of the record store.
        total: Number of cells.
    """
    if not _can_draw(say):
        yield Display(say)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    shown: list[Bars] = []

    class Looking(Progress):
        def get_renderables(self) -> Iterator[object]:  # type: ignore[override]
            for bars in shown:
                bars.look()
            yield from super().get_renderables()

    # Outputs stay what they are: a process that is forked off while a bar is drawn must be able to print.
    progress = Looking(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
        TextColumn("{task.fields[stage]}", markup=False), TextColumn("{task.fields[left]}", justify="right"),
        console=Console(file=sys.stdout, highlight=False), refresh_per_second=REFRESH, transient=True,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    with at_once(_restore), progress:
        shown.append(Bars(progress, out, total))
        yield shown[0]


def _can_draw(say: Say) -> bool:
    """Whether lines are printed, to a terminal that can move its cursor."""
    from spectral_tl_bench import console

    return say is console.say and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def _restore() -> None:
    os.write(sys.stdout.fileno(), SHOW_CURSOR)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{clock(seconds)} left"
