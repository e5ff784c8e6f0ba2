"""Plan the cells of a run and work through them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectral_tl_bench.endings import check_stopped
from spectral_tl_bench.runner.cell import Cell, Outcome, Say, run_cell
from spectral_tl_bench.runner.planning import plan
from spectral_tl_bench.runner.request import Request
from spectral_tl_bench.training.hardware import Hardware

__all__ = ["Request", "closing_line", "execute", "plan"]


def execute(
    cells: Sequence[Cell], out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool = False
) -> list[Outcome]:
    """Run cells one after the other in this process; each leaves its record as soon as it ends."""
    outcomes = []
    for cell in cells:
        check_stopped()
        outcomes.append(run_cell(cell, out, hardware, workers, say, fresh))
        say(closing_line(outcomes[-1], len(outcomes), len(cells)))
    return outcomes


def closing_line(outcome: Outcome, number: int, total: int) -> str:
    """One line on how a cell ended."""
    return f"[{number}/{total}] {outcome.cell.title} | {outcome.line}"
