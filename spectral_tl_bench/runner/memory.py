"""What happens where the memory for a cell runs out: it is said what helps, or tried again with batches in parts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from spectral_tl_bench.runner.build import Workplace
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.oom import StepMemoryError, is_out_of_memory

Result = TypeVar("Result")


def with_enough_parts(
    measure: Callable[[Cell, Workplace], Result], cell: Cell, workplace: Workplace, fields: dict[str, Any]
) -> Result:
    """Run a cell, and where asked for run it again with batches in twice as many parts when a step needs less memory.

    Args:
        fields: What is known about the cell; its environment is told in how many parts it was run.
    """
    while True:
        fields["environment"] |= workplace.hardware.facts()
        try:
            return measure(cell, workplace)
        except StepMemoryError as error:
            passes = _more(cell, workplace.hardware)
            if passes is None:
                raise
            reason = _first_line(error)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        workplace.say(f"{cell.title} | {reason}; again, with each batch in {passes} parts")
        workplace = replace(workplace, hardware=replace(workplace.hardware, passes=passes))


def _more(cell: Cell, hardware: Hardware) -> int | None:
    """In how many parts each device takes its share next; None where it stays at that."""
    passes, share = 2 * hardware.passes, cell.settings.budget.batch_size // hardware.processes
    whole = any(objective.looks_across() for objective in cell.objectives.values())
    return None if hardware.on_oom != "split" or whole or hardware.passes >= share else min(passes, share)


def explained(failure: dict[str, str], error: Exception, cell: Cell, fields: dict[str, Any]) -> dict[str, str]:
    """A failure, which says what helps where memory has run out.

    Args:
        failure: ``kind`` and ``message``.
        fields: What is known about it; its environment tells in how many parts its batches were.
    """
    if not is_out_of_memory(error):
        return failure
    return {
        "kind": "OutOfMemory",
        "message": f"{_first_line(error)}, {advice(cell, int(fields['environment'].get('micro-batches', 1)))}",
    }


def advice(cell: Cell, parts: int) -> str:
    """With which sizes memory has run out, and what helps.

    Args:
        parts: Parts that its batches were in.
    """
    settings = cell.settings
    across = [name for name, objective in cell.objectives.items() if objective.looks_across()]
    fixes = ["a smaller --batch-size or --window"]
    if across:
        fixes.append(f"batches cannot be in parts with {', '.join(across)}")
    elif 2 * parts <= settings.budget.batch_size:
        fixes.insert(0, f"--micro-batches {2 * parts} or --on-oom split, for the same batch in parts")
    if settings.precision == "32-true":
        fixes.append("--precision bf16-mixed")
    size = f"a batch of {settings.budget.batch_size} windows of {settings.window} px"
    return f"with {size}{f' in {parts} parts' if parts > 1 else ''}; to do: {'; '.join(fixes)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["memory has run out"])[0][:500]
