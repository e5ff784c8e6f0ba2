"""``stbench run``: train methods on the source of benchmarks, test them on the target."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.plan import show_plan
from spectral_tl_bench.cli.run_options import Choices, requests_of, takes_choices
from spectral_tl_bench.console import complain, print_rows, say
from spectral_tl_bench.defaults import HANG_AFTER
from spectral_tl_bench.endings import stopped_by
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.runner.definitions import Cell, Outcome
    from spectral_tl_bench.runner.request import Request
    from spectral_tl_bench.training.hardware import Hardware


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("run")(run)


@takes_choices
def run(
    choices: Choices,
    out: Annotated[Path, typer.Option(help="Where records are stored.")] = Path("runs"),
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    feature_cache_limit: Annotated[
        float, typer.Option(min=0, help="GiB for the features that methods with cache=true keep; 0 keeps none.")
    ] = 50.0,
    workers: Annotated[int, typer.Option(min=0, help="Reader processes.")] = 0,
    jobs: Annotated[
        int, typer.Option(min=0, help="Cells at a time, a process each; 0: one per core for the sample on a CPU.")
    ] = 0,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="Computing threads of a cell on the CPU; 0: one for small chips, else its share of the cores."
        ),
    ] = 0,
    hang_after: Annotated[
        float,
        typer.Option(
            min=0,
            help="Minutes without a line or a step after which a cell in a process of its own is stopped; 0: never.",
        ),
    ] = HANG_AFTER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run cells again that have a finished record.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what is done and what is left and why, and run nothing.")
    ] = False,
    wait_for_room: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MINUTES",
            help="How long to wait where the disk is full, before a result is kept elsewhere. "
            "Default: 10 on a terminal, else 0.",
        ),
    ] = None,
) -> None:
    """Train methods on the source of benchmarks and test them on the target; leaves one record per cell."""
    if accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"--accelerator is {accelerator!r}", expected="one of auto, cpu, gpu")
    if dry_run and fresh:
        raise UserError("--dry-run says what is left, and with --fresh all is", fix="leave out one of the two")
    requests = requests_of(choices)
    if dry_run:
        show_plan(requests, out, jobs)
        return
    _check_folders(out)
    from spectral_tl_bench.training.hardware import checked_hardware

    wait = wait_for_room if wait_for_room is not None else 10.0 * sys.stdout.isatty()

    for precision in {request.overrides.precision for request in requests}:
        device = checked_hardware(accelerator, feature_cache_limit, threads, precision, wait)
    _run(requests, out, lambda: device, workers, jobs, hang_after, fresh)


def _run(
    requests: Sequence[Request], out: Path, hardware: Callable[[], Hardware], workers: int, jobs: int,
    hang_after: float, fresh: bool,
) -> None:  # fmt: skip
    """Plan and run, and say how it went; the exit code tells it too."""
    from spectral_tl_bench.runner.room import check_places
    from spectral_tl_bench.runner.run import plan

    try:
        cells, broken = plan(requests, say)
        for name, reason in broken:
            complain(f"error: {name} cannot run: {reason}")
        outcomes, room = ({}, 0) if fresh else _found(cells, out)
        left = {number: cell for number, cell in enumerate(cells) if number not in outcomes}
        if left:
            device = hardware()
            check_places(list(left.values()), out, room)
            outcomes |= _execute(left, out, device, workers, jobs, hang_after, fresh, len(outcomes))
    except KeyboardInterrupt:  # caught here, because Typer would end without a word
        complain("interrupted; finished cells keep their records, run the same command again to go on")
        raise typer.Exit(128 + (stopped_by() or signal.SIGINT)) from None
    ended = [outcomes[number] for number in range(len(cells))]
    if cells:
        say("")
        _print_outcomes(ended)
        say(f"records: {out}   board: stbench report --records {out}")
    if broken or any(outcome.state == "refused" for outcome in ended):
        raise typer.Exit(2)
    if any(outcome.state == "failed" for outcome in ended):
        raise typer.Exit(1)


def _found(cells: Sequence[Cell], out: Path) -> tuple[dict[int, Outcome], int]:
    """The cells that are finished, by number, without models or processes; and bytes of the others' results."""
    from spectral_tl_bench.runner.estimate import estimate
    from spectral_tl_bench.runner.run import closing_line
    from spectral_tl_bench.runner.survey import confirmed, survey

    found = survey(cells, out)
    done = len(cells) - len(found.left)
    if done:
        say(f"{done} of {len(cells)} cells are finished; their records are verified")
    outcomes = confirmed(found, say)
    for place, outcome in enumerate(outcomes.values(), 1):
        say(closing_line(outcome, place, len(cells)))
    return outcomes, estimate(found).room


def _execute(
    cells: Mapping[int, Cell], out: Path, hardware: Hardware, workers: int, jobs: int, hang_after: float, fresh: bool,
    before: int,
) -> dict[int, Outcome]:  # fmt: skip
    """Run cells, by number; ``before`` others of the same run are over."""
    from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes

    left = list(cells.values())
    jobs = min(jobs, len(left)) or automatic_jobs(left)
    outcomes = execute_in_processes(left, out, hardware, workers, say, fresh, jobs, hang_after, before)
    return dict(zip(cells, outcomes, strict=True))


def _check_folders(out: Path) -> None:
    """Whatever will be written can be written: said before any data are read."""
    from spectral_tl_bench.storage.output import LEAST_ROOM, check_cache, check_folder, check_temporary

    check_folder(out, "--out", LEAST_ROOM)
    check_temporary()
    check_cache()


def _print_outcomes(outcomes: list[Outcome]) -> None:
    rows = [("benchmark", "method", "seed", "target mIoU", "track", "state")]
    for outcome in outcomes:
        cell = outcome.cell
        miou = "-" if outcome.miou is None else f"{outcome.miou:.3f}"
        rows.append(
            (cell.opened.benchmark.id, cell.method_title, str(cell.seed), miou, cell.opened.track, outcome.state)
        )
    print_rows(rows)
