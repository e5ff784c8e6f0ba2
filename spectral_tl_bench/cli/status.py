"""``stbench status``, ``stbench logs``, ``stbench clean``: what runs have left in a store, and how far they are."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.console import confirm, print_folded, say
from spectral_tl_bench.defaults import RESULTS_HELP, results_folder
from spectral_tl_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from spectral_tl_bench.runner.status import CellStatus, QueueStates

POLL = 0.5
"""Seconds between two looks at a log that is followed."""
Records = Annotated[
    Path | None,
    typer.Option("--records", "-r", help=f"Folder of results: what `stbench run` calls --out. {RESULTS_HELP}"),
]
Cells = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CELL]...", help="The beginning of a fingerprint, or benchmark/method, or .../seed."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("status")(status)
    app.command("logs")(logs)
    app.command("clean")(clean)


def status(
    records: Records = None,
    benchmark: Annotated[list[str] | None, typer.Option("--benchmark", "-b", help="Only this benchmark.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", "-m", help="Only this method.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only: done, running, queued, paused, stopped or failed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the cells of a store: done, running (where, since when, how far), queued, paused, stopped, failed."""
    from spectral_tl_bench.runner.status import STATES, cells_of

    records = records or results_folder()
    for name in state or []:
        if name not in STATES:
            raise UserError(f"--state is {name!r}", expected=nearest(name, STATES))
    cells = [
        cell
        for cell in cells_of(records, _queue_states())
        if (not benchmark or cell.benchmark in benchmark)
        and (not method or cell.method in method)
        and (not state or cell.state in state)
    ]
    if as_json:
        say(json.dumps([cell.facts() for cell in cells], indent=2))
        return
    if cells:
        _print(cells)
    counts = Counter(cell.state for cell in cells)
    say(
        ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
        or f"there are no such cells in {records}"
    )


def logs(
    cell: Annotated[str, typer.Argument(help="The beginning of a fingerprint, or benchmark/method, or .../seed.")],
    records: Records = None,
    error: Annotated[bool, typer.Option("--error", help="What is kept of a failure, instead of the log.")] = False,
    job: Annotated[bool, typer.Option("--job", help="What the batch system has kept, instead of the log.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing as long as the cell runs.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
) -> None:
    """Print the log of a cell; where it has none, what is kept of its failure or of its batch job."""
    from spectral_tl_bench.runner.status import cells_of, find_cell

    records = records or results_folder()
    if error and job:
        raise UserError("--error and --job exclude each other")
    found = find_cell(cells_of(records, _queue_states()), cell)
    places = _log_places(records, found, error, job)
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise UserError(
            f"cell {found.key} ({found.name}) has no such log: it is {found.state}",
            where=" or ".join(map(str, places)) or None,
        )
    _print_log(path, tail)
    if follow:
        _follow(path, found)


def clean(
    cell: Cells = None,
    records: Records = None,
    failed: Annotated[bool, typer.Option("--failed", help="Failed cells, with all that they have left.")] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Checkpoints and leases of cells that were stopped, and half-written files.")
    ] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Checkpoints of all cells that do not run: they begin anew.")
    ] = False,
    logs: Annotated[bool, typer.Option("--logs", help="Logs of cells that do not run.")] = False,
    jobs: Annotated[bool, typer.Option("--jobs", help="Notes about batch jobs that are over.")] = False,
    finished: Annotated[bool, typer.Option("--finished", help="Named cells even if they are finished.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove from a store what is named, after a question; what a process is using stays.

    Without CELL, an option goes for all cells; with it, for these alone; CELL without an option is the whole cell.
    What is kept in the cache is for `stbench cache clear`.
    """
    from spectral_tl_bench.runner import clean as cleaning
    from spectral_tl_bench.runner.status import cells_of, find_cell
    from spectral_tl_bench.storage import in_words

    records = records or results_folder()
    parts = failed or stale or checkpoints or logs or jobs
    if not parts and not cell:
        raise UserError(
            "nothing is named",
            expected="--failed, --stale, --checkpoints, --logs, --jobs, or cells",
            fix="`stbench status` lists the cells, `stbench clean --help` tells what the options mean; "
            "what can be made again is in `stbench cache`",
        )
    if finished and (parts or not cell):
        raise UserError("--finished is for cells that are named, and for the whole of them", fix="name the cells")
    cells = cells_of(records, _queue_states())
    named = [find_cell(cells, name) for name in dict.fromkeys(cell or [])]
    if named and not parts:
        cleaning.check_named(named, finished)
    wishes = cleaning.Wishes(failed, stale, checkpoints, logs, jobs, whole=bool(named) and not parts)
    going, staying = cleaning.to_remove(records, named or cells, wishes)
    if checkpoints and not named:
        more, busy = cleaning.stages_to_remove(records, cells)
        going, staying = going + more, staying + busy
    for line in staying:
        say(f"stays   {line}")
    if not going:
        say("nothing to remove")
        return
    for removal in going:
        say(f"{in_words(removal.size):>10}  {removal.path}")
    question = f"remove {len(going)} of them, {in_words(sum(removal.size for removal in going))}?"
    if not yes:
        confirm(question)
    left = cleaning.remove(going)
    for line in left:
        say(f"stays   {line}")
    say(f"removed {len(going) - len(left)} of {len(going)}")


def _queue_states() -> QueueStates | None:
    """What asks the batch system for the jobs that wait or run; None where there is nothing to ask."""
    import shutil

    if shutil.which("squeue") is None:
        return None
    from spectral_tl_bench.runner.slurm.queue import ENDED, queue_states

    return lambda jobs: {job: state for job, state in queue_states(jobs).items() if state not in ENDED}


def _print(cells: list[CellStatus]) -> None:
    head = ("benchmark", "method", "seed", "state", "cell", "")
    rows = []
    for cell in cells:
        seed = "-" if cell.seed is None else str(cell.seed)
        rows.append((cell.benchmark or "-", cell.method or "-", seed, cell.state, cell.key[:8], cell.detail))
    colours = {"done": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "paused": "yellow"}
    print_folded([head, *rows], ("seed", "state", "cell"), {"state": colours})


def _log_places(records: Path, cell: CellStatus, error: bool, job: bool) -> list[Path]:
    """Where a cell's log may be, the first that is there counts."""
    of_error = [cell.folder / "error.txt"] if cell.folder is not None else []
    of_job = [records / str(cell.job["log"])] if cell.job.get("log") else []
    if error or job:
        return of_error if error else of_job
    return [*([cell.folder / "log.txt"] if cell.folder is not None else []), *of_error, *of_job]


def _print_log(path: Path, tail: int | None) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    for line in lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]:
        say(line)


def _follow(path: Path, cell: CellStatus) -> None:
    """Print what is added to a log, until the cell has ended; a log that has begun anew is read from its beginning."""
    from spectral_tl_bench.storage.signs import holder_of

    stream, rest, over = path.open("rb"), b"", False
    stream.seek(0, os.SEEK_END)
    try:
        while True:
            *lines, rest = (rest + stream.read()).split(b"\n")
            for line in lines:
                say(line.decode("utf-8", "replace"))
            if over:
                return
            holder = None if cell.folder is None else holder_of(cell.folder)
            over = cell.state != "queued" and (holder is None or not holder.lives)
            time.sleep(POLL * (not over))
            if path.is_file() and path.stat().st_ino != os.fstat(stream.fileno()).st_ino:
                stream.close()
                stream = path.open("rb")
    finally:
        stream.close()
