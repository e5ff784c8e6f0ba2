"""``stbench plan`` and ``stbench run --dry-run``: what would be run, and what is left of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.run_options import Choices, blocks_of, flag_of, requests_of, seeds_of, takes_choices
from spectral_tl_bench.console import complain, counted, print_rows, say
from spectral_tl_bench.defaults import RESULTS_HELP, results_folder
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.runner.request import Request
    from spectral_tl_bench.runner.survey import Survey

PUBLISHED = "published"
_OF_PUBLISHED = ("weights", "seed", "seeds", "as_published")
WORDS = {"done": "done", "new": "new", "failed": "failed before", "changed": "changed"}


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("plan")(plan)


@takes_choices
def plan(
    choices: Choices,
    what: Annotated[
        str | None,
        typer.Argument(help="A plan in YAML, as with --plan; or published, to write that of a table of the paper."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="For published: the table of the SpectralX paper, I, IV, V or VI.")
    ] = None,
    miniature: Annotated[
        bool,
        typer.Option("--miniature", help="For published: small backbones, random weights, few steps; for a try."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help=f"Folder that results are looked for in; for published: as --write. {RESULTS_HELP}"),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the plan to this new YAML file, - for the output, and look at no data.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Cells at a time, for the time it will take.")] = 1,
) -> None:
    """Show the cells of a plan, what is done and what is left and why; or write the plan to a file."""
    if what == PUBLISHED:
        write_plan(_published_text(choices, table, miniature), write or out)
        return
    if table is not None or miniature:
        raise UserError(f"{'--table' if table else '--miniature'} belongs to a table of the paper",
                        fix=f"stbench plan {PUBLISHED} --table I")  # fmt: skip
    if what is not None:
        if choices.plan is not None:
            raise UserError(f"two plans: {what} and --plan {choices.plan}", expected="one of the two")
        if not Path(what).exists():
            raise UserError(f"there is no plan {what!r}", expected=f"a plan in YAML, or {PUBLISHED}",
                            fix=f"stbench plan {PUBLISHED} --table I")  # fmt: skip
        choices = replace(choices, plan=Path(what))
    if write is None:
        show_plan(requests_of(choices), out or results_folder(), jobs)
        return
    from spectral_tl_bench.runner.plan_file import plan_text

    write_plan(plan_text(blocks_of(choices)), write)


def _published_text(choices: Choices, table: str | None, miniature: bool) -> str:
    """The plan of a published table."""
    from spectral_tl_bench.leaderboard.published_plan import published_plan
    from spectral_tl_bench.leaderboard.reported import read_reported, reported_folder
    from spectral_tl_bench.runner.plan_file import HEAD

    given = [one.name for one in fields(choices) if getattr(choices, one.name) not in (None, False, [], ())]
    settled = [flag_of(name) for name in given if name not in _OF_PUBLISHED]
    if settled:
        raise UserError(
            f"the table says what is run, and so do {', '.join(settled)}",
            expected=f"beside --table only {', '.join(map(flag_of, _OF_PUBLISHED))}, --miniature and --write",
            fix="write the plan, and change it there",
        )
    if table is None:
        raise UserError("which table of the paper?", fix=f"stbench plan {PUBLISHED} --table I (or IV, V, VI)")
    if miniature and choices.weights not in (None, "none"):
        raise UserError("--miniature has random weights", expected=f"not --weights {choices.weights}")
    return HEAD + published_plan(
        read_reported(reported_folder()), table, weights=choices.weights, miniature=miniature,
        seeds=seeds_of(choices.seed, choices.seeds), as_published=getattr(choices, "as_published", False),
    )  # fmt: skip


def write_plan(text: str, write: Path | None) -> None:
    """Write a plan to a new file, or print it.

    Raises:
        UserError: If the file is there already, or cannot be written.
    """
    if write is None or str(write) == "-":
        say(text.rstrip())
        return
    from spectral_tl_bench.files import write_text
    from spectral_tl_bench.storage.output import check_file

    if write.exists() and not write.is_dir():
        raise UserError(f"{write} is there already", where=write, fix="name a new file with --write, or remove it")
    check_file(write, "--write")
    write_text(write, text)
    say(f"written: {write}   run it: stbench run --plan {write}")


def show_plan(requests: Sequence[Request], out: Path, jobs: int) -> None:
    """Print the cells of a plan and what is left of them; nothing is written.

    Raises:
        typer.Exit: With code 2 if some of it cannot run.
    """
    from spectral_tl_bench.runner.run import plan as make_cells
    from spectral_tl_bench.runner.survey import survey

    cells, broken = make_cells(requests, say)
    for name, reason in broken:
        complain(f"error: {name} cannot run: {reason}")
    if cells:
        found = survey(cells, out)
        _print_looks(found)
        _print_summary(found, out, jobs)
    if broken:
        raise typer.Exit(2)


def _print_looks(found: Survey) -> None:
    rows = [("cell", "benchmark", "method", "backbone", "seed", "state", "why")]
    for look in found.looks:
        cell = look.cell
        backbone = cell.backbone.name if cell.method.uses_backbone else "-"
        place = (look.fingerprint[:16], cell.opened.benchmark.id, cell.method_title, backbone, str(cell.seed))
        rows.append((*place, WORDS[look.state], look.reason))
    say("")
    print_rows(rows)


def _print_summary(found: Survey, out: Path, jobs: int) -> None:
    from spectral_tl_bench.runner.estimate import estimate
    from spectral_tl_bench.storage.room import in_words
    from spectral_tl_bench.training.progress import clock

    counts = Counter(look.state for look in found.looks)
    left = len(found.left)
    reasons = ", ".join(f"{counts[state]} {WORDS[state]}" for state in ("new", "failed", "changed") if counts[state])
    say("")
    why = f" ({reasons})" if reasons else ""
    say(f"{counted(len(found.looks), 'cell')}: {counts['done']} done, {left} left{why}")
    if left:
        judged, together = estimate(found), max(1, jobs)
        if judged.known:
            on = " and ".join(judged.devices)
            each = f", with {together} at a time" if together > 1 else ""
            say(f"time: about {clock(judged.seconds / min(together, judged.known))} for {judged.known} of them{each}, "
                f"from {counted(judged.finished, 'finished one')} of the same benchmark, method and backbone "
                f"on {on}")  # fmt: skip
        if judged.unknown:
            say(f"time: unknown for {counted(judged.unknown, 'cell')}, of which none like them has finished")
        rest = "" if not judged.unknown else ", and the weights of those of which none like them has finished"
        say(f"room: about {in_words(judged.room)}{rest}")
    say(f"records: {out}; their evidence was not verified, which `stbench report` does")
