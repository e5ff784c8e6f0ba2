"""What a run does with its cells, for the command and for Python: those that are finished are found, the others run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.runner.checkpoints import forget_finished
from spectral_tl_bench.runner.definitions import Cell, Outcome
from spectral_tl_bench.runner.estimate import estimate
from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes
from spectral_tl_bench.runner.request import Request
from spectral_tl_bench.runner.room import check_places
from spectral_tl_bench.runner.run import closing_line
from spectral_tl_bench.runner.survey import confirmed, survey
from spectral_tl_bench.training.hardware import Hardware, checked_hardware, chosen_gpus
from spectral_tl_bench.training.progress import Say


def hardware_for(
    requests: Iterable[Request], *, accelerator: str, devices: int, nodes: int, gpus: str, micro_batches: int,
    on_oom: str, logger: Sequence[str], log_dir: Path | None, feature_limit: float, threads: int, wait_for_room: float,
    checkpoint_every: float,
) -> tuple[Hardware, list[str]]:  # fmt: skip
    """The hardware that a user asks for, as the options of ``stbench run`` say it, and the GPUs to choose from.

    Raises:
        UserError: If it is not there, or cannot compute what the requests ask for.
    """
    for precision in {request.overrides.precision for request in requests}:
        device = checked_hardware(
            accelerator, feature_limit, threads, precision, wait_for_room, checkpoint_every, devices, nodes
        )
    device = replace(
        device, passes=micro_batches, on_oom="split" if on_oom == "split" else "fail",
        loggers=tuple(dict.fromkeys(logger)), log_dir=log_dir,
    )  # fmt: skip
    names = chosen_gpus(gpus)
    if names and len(names) < devices:
        raise UserError(f"--gpus names {len(names)} GPUs, --devices asks for {devices} for each cell")
    return device, names


def work_through(
    cells: Sequence[Cell], out: Path, hardware: Hardware, workers: int, jobs: int, hang_after: float, fresh: bool,
    gpus: Sequence[str], say: Say,
) -> list[Outcome]:  # fmt: skip
    """Find what is finished, and run what is left.

    Args:
        out: Root of the record store.
        workers: Readers of each cell: processes, or threads where all chips are packed.
        jobs: Cells at a time; 0 for as many as is usual.
        hang_after: Minutes after which a process without a sign of life is stopped; 0 for never.
        fresh: Run again what is finished.
        gpus: GPUs to choose from, as ``CUDA_VISIBLE_DEVICES`` names them.

    Returns:
        The outcomes in the order of the cells.

    Raises:
        UserError: If results cannot be stored.
    """
    outcomes, room = ({}, 0) if fresh else _found(cells, out, say)
    left = {number: cell for number, cell in enumerate(cells) if number not in outcomes}
    if left:
        check_places(list(left.values()), out, room)
        outcomes |= _run(left, out, hardware, workers, jobs, hang_after, fresh, len(outcomes), gpus, say)
    return [outcomes[number] for number in range(len(cells))]


def _found(cells: Sequence[Cell], out: Path, say: Say) -> tuple[dict[int, Outcome], int]:
    """The cells that are finished, by number, without models or processes; and bytes of the others' results."""
    found = survey(cells, out)
    done = len(cells) - len(found.left)
    if done:
        say(f"{done} of {len(cells)} cells are finished; their records are verified")
    outcomes = confirmed(found, say)
    forget_finished(out, [outcome.cell.fingerprint() for outcome in outcomes.values()])
    for place, outcome in enumerate(outcomes.values(), 1):
        say(closing_line(outcome, place, len(cells)))
    return outcomes, estimate(found).room


def _run(
    cells: Mapping[int, Cell], out: Path, hardware: Hardware, workers: int, jobs: int, hang_after: float, fresh: bool,
    before: int, gpus: Sequence[str], say: Say,
) -> dict[int, Outcome]:  # fmt: skip
    """Run cells, by number; ``before`` others of the same run are over."""
    left = list(cells.values())
    several = f", {hardware.processes} of them for each cell" if hardware.processes > 1 else ""
    say(f"device: {hardware.name}{several}")
    usual = automatic_jobs(left, hardware, gpus)
    jobs = min(jobs, len(left), *([usual] if gpus else [])) or usual
    outcomes = execute_in_processes(left, out, hardware, workers, say, fresh, jobs, hang_after, before, gpus)
    return dict(zip(cells, outcomes, strict=True))
