"""``stbench run``: train methods on the source of benchmarks, test them on the target."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench import pause
from spectral_tl_bench.cli.closing import Again, close, same_run
from spectral_tl_bench.cli.plan import show_plan
from spectral_tl_bench.cli.run_options import Choices, requests_of, takes_choices
from spectral_tl_bench.console import ACCELERATORS, ON_OOM, complain, one_of, read_duration, say
from spectral_tl_bench.defaults import HANG_AFTER, RESULTS_HELP, results_folder
from spectral_tl_bench.endings import stopped_by
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.runner.definitions import Cell
    from spectral_tl_bench.runner.nodes import Place
    from spectral_tl_bench.runner.request import Request
    from spectral_tl_bench.runner.slurm.submit import Submission
    from spectral_tl_bench.training.hardware import Hardware


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("run")(run)


@takes_choices
def run(
    choices: Choices,
    context: typer.Context = None,  # type: ignore[assignment]  # none where this is called from Python
    out: Annotated[Path | None, typer.Option(help=f"Folder for results. {RESULTS_HELP}")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs (with --accelerator cpu: processes) that train a cell together.")
    ] = 1,
    num_nodes: Annotated[
        int,
        typer.Option(min=1, help="Nodes that train a cell together; start the command there by srun or torchrun."),
    ] = 1,
    gpus: Annotated[
        str, typer.Option(help="GPUs to use, as 0,1 or UUIDs: as many cells at a time, each process with its own.")
    ] = "",
    micro_batches: Annotated[
        int, typer.Option(min=1, help="Go through each batch in so many parts, one after the other, to save memory.")
    ] = 1,
    on_oom: Annotated[
        str,
        typer.Option("--on-oom", help="When memory runs out: fail, or split (again, with batches in parts)."),
    ] = "fail",
    logger: Annotated[
        list[str] | None,
        typer.Option(help="Also log training: csv, tensorboard, wandb, mlflow; may be given more than once."),
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option(help="Where loggers write; default: in the folder of each cell's record.")
    ] = None,
    feature_cache_limit: Annotated[
        float, typer.Option(min=0, help="GiB for the features that methods with cache=true keep; 0 keeps none.")
    ] = 50.0,
    workers: Annotated[int, typer.Option(min=0, help="Readers: processes, or threads where all chips are packed.")] = 0,
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
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How often training is kept so that a run that was cut off goes on, such as 30s, 10m, 1h; 0: never.",
        ),
    ] = "10m",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run cells again that have a finished record, and from the start.")
    ] = False,
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
    executor: Annotated[
        str, typer.Option(help="local, slurm, or sbatch-script, which only writes a script. See docs/cluster.md.")
    ] = "local",
    profile: Annotated[
        str | None,
        typer.Option(help="What a job asks the cluster for: a file, or its name; default: STBENCH_PROFILE."),
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", metavar="KEY=VALUE", help="One value of the profile, changed.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until submitted jobs have ended.")] = False,
    only: Annotated[str | None, typer.Option(hidden=True, help="Cells, by their fingerprints.")] = None,
) -> None:
    """Train methods on the source of benchmarks and test them on the target; leaves one record per cell."""
    named, out = out is not None, out or results_folder()
    submission = _submission(context, executor, profile, slurm or [], wait, num_nodes)
    if submission is not None and not named:
        submission.arguments += (f"--out={out}",)  # a job has not the variables of this shell
    one_of("--accelerator", accelerator, ACCELERATORS)
    if dry_run and fresh:
        raise UserError("--dry-run says what is left, and with --fresh all is", fix="leave out one of the two")
    one_of("--on-oom", on_oom, ON_OOM)
    every = read_duration(checkpoint_every, "--checkpoint-every")
    nodes = _nodes(num_nodes, jobs, gpus) if num_nodes > 1 and submission is None and not dry_run else None
    if nodes is not None and nodes.node:
        from spectral_tl_bench.runner.serve import serve

        serve(nodes, out, devices)
        return
    requests = requests_of(choices)
    if dry_run:
        show_plan(requests, out, jobs)
        return
    _check_folders(out)
    from spectral_tl_bench.runner.work import hardware_for
    from spectral_tl_bench.training.loggers import check_loggers

    check_loggers(logger or [])
    if submission is not None:
        _submit(submission, requests, out, only)
        return
    patience = wait_for_room if wait_for_room is not None else 10.0 * sys.stdout.isatty()
    device, names_of_gpus = hardware_for(
        requests, accelerator=accelerator, devices=devices, nodes=num_nodes, gpus=gpus, micro_batches=micro_batches,
        on_oom=on_oom, logger=logger or [], log_dir=log_dir, feature_limit=feature_cache_limit, threads=threads,
        wait_for_room=patience, checkpoint_every=every,
    )  # fmt: skip
    again = same_run(context, choices.method or [], choices.plan)
    with _pausing(), contextlib.ExitStack() as stack:
        if nodes is not None:
            from spectral_tl_bench.runner.nodes import leading

            device = replace(device, meeting=stack.enter_context(leading(nodes, out)))
        _run(requests, out, device, workers, jobs, hang_after, fresh, only, names_of_gpus, again)


def _nodes(number: int, jobs: int, gpus: str) -> Place:
    """Which of several nodes this is."""
    from spectral_tl_bench.runner.nodes import placed

    if jobs > 1 or gpus:
        raise UserError(f"--num-nodes {number} runs one cell at a time", fix="leave out --jobs and --gpus")
    return placed(number)


def _run(
    requests: Sequence[Request], out: Path, hardware: Hardware, workers: int, jobs: int, hang_after: float,
    fresh: bool, only: str | None, gpus: Sequence[str], again: Again,
) -> None:  # fmt: skip
    """Plan and run, and say how it went; the exit code tells it too."""
    from spectral_tl_bench.runner.together import divisible
    from spectral_tl_bench.runner.work import work_through

    try:
        cells, broken = _planned(requests, out, only)
        cells, whole = divisible(cells, hardware)
        for name, reason in whole:
            complain(f"error: {name} cannot run: {reason}")
        broken = broken or bool(whole)
        ended = work_through(cells, out, hardware, workers, jobs, hang_after, fresh, gpus, say)
    except KeyboardInterrupt:  # caught here, because Typer would end without a word
        complain(
            "interrupted; finished cells keep their records, run the same command again to go on: those that are "
            "training go on from their last checkpoint"
        )
        raise typer.Exit(128 + (stopped_by() or signal.SIGINT)) from None
    if cells:
        close(ended, out, again)
    if any(outcome.state == "paused" for outcome in ended):
        complain("paused, as asked; run the same command again to go on")
        raise typer.Exit(pause.EXIT_CODE)
    if broken or any(outcome.state == "refused" for outcome in ended):
        raise typer.Exit(2)
    if any(outcome.state == "failed" for outcome in ended):
        raise typer.Exit(1)


def _planned(requests: Sequence[Request], out: Path, only: str | None) -> tuple[list[Cell], bool]:
    """The cells that can run, and whether others cannot."""
    from spectral_tl_bench.runner.run import plan

    cells, broken = plan(requests, say)
    for name, reason in broken:
        complain(f"error: {name} cannot run: {reason}")
    if only is None:
        return cells, bool(broken)
    from spectral_tl_bench.runner.slurm.job import note_own_job
    from spectral_tl_bench.runner.slurm.submit import select

    note_own_job(out, only.split(","))
    return select(cells, only), False  # whoever has named the cells was told about the others


def _submit(submission: Submission, requests: Sequence[Request], out: Path, only: str | None) -> None:
    """Plan, and hand over to the cluster."""
    cells, broken = _planned(requests, out, only)
    well = submission.run(cells, out, say)
    if broken:
        raise typer.Exit(2)
    if not well:
        raise typer.Exit(1)


def _submission(
    context: typer.Context | None, executor: str, profile: str | None, changes: list[str], wait: bool, nodes: int
) -> Submission | None:
    """How cells are submitted; None where they run here."""
    one_of("--executor", executor, ("local", "slurm", "sbatch-script"))
    if executor == "local":
        if profile is not None or changes or wait:
            raise UserError("--profile, --slurm and --wait are for jobs of a cluster", fix="add --executor slurm")
        return None
    if context is None:
        raise UserError(f"executor={executor!r} repeats the words of a command", fix="give it as a command")
    from spectral_tl_bench.cli.again import arguments_of
    from spectral_tl_bench.runner.slurm.profile import read_profile
    from spectral_tl_bench.runner.slurm.submit import Submission

    without = ("executor", "profile", "slurm", "wait", "only")
    asked = read_profile(profile, changes).on_nodes(nodes)
    return Submission(executor, asked, arguments_of(context, without), wait)


@contextlib.contextmanager
def _pausing() -> Iterator[None]:
    """Inside, SIGUSR1 asks for a pause, as batch systems can send it some time before they end a job."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda *_: pause.ask())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
        pause.clear()


def _check_folders(out: Path) -> None:
    """Whatever will be written can be written: said before any data are read."""
    from spectral_tl_bench.storage.output import check_run_folders

    check_run_folders(out)
