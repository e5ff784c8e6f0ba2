"""What a run closes with: how each cell ended, what that says in few numbers, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spectral_tl_bench.cli.again import arguments_of
from spectral_tl_bench.console import complain, in_percent, print_rows, say
from spectral_tl_bench.defaults import results_folder
from spectral_tl_bench.errors import RecordError

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.summary import Summary
    from spectral_tl_bench.runner.definitions import Outcome

Again = Callable[[str], str]
"""The command that runs the same on another benchmark."""


def close(outcomes: Sequence[Outcome], out: Path, again: Again) -> None:
    """Print it.

    Args:
        out: The folder of results.
        again: The command for an in-domain reference.
    """
    say("")
    print_outcomes(outcomes)
    records = [one.record for one in outcomes if one.record is not None and one.miou is not None]
    inside = [path for path in records if path.is_relative_to(out)]  # a full disk sends them elsewhere
    try:
        from spectral_tl_bench.leaderboard.summary import summarise

        summaries = summarise(out, inside)
    except RecordError as error:  # the run is over and well: what cannot be read are other records
        complain(f"nothing is summed up: {error}")
        summaries = []
    if summaries:
        _print_summaries(summaries, again)
    _print_next(records, summaries, out)


def same_run(context: typer.Context | None, methods: Sequence[str], plan: Path | None) -> Again:
    """The command of a run with another benchmark.

    Args:
        context: Of the verb; None where it was called from Python.
        plan: The plan that said what is run.
    """

    def again(benchmark: str) -> str:
        if plan is not None:
            return f"{plan} with `benchmarks: {benchmark}`"
        given = [f"--method={name}" for name in methods]
        if context is not None:
            given = arguments_of(context, ("benchmark", "jobs", "fresh"))
        return shlex.join(["stbench", "run", *given, f"--benchmark={benchmark}"])

    return again


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a row for each cell."""
    rows = [("benchmark", "method", "seed", "target mIoU", "track", "state", "record")]
    for outcome in outcomes:
        cell = outcome.cell
        miou, name = in_percent(outcome.miou), "-" if outcome.record is None else outcome.record.parent.name[:8]
        rows.append(
            (cell.opened.benchmark.id, cell.method_title, str(cell.seed), miou, cell.opened.track, outcome.state, name)
        )
    print_rows(rows, right=(2, 3))


def _print_summaries(summaries: Sequence[Summary], again: Again) -> None:
    same = len({(one.benchmark, one.method) for one in summaries}) == len(summaries)
    rows = [("benchmark", "method", "seeds", "target mIoU", "majority class", "in-domain", "drop, points", "row")]
    for one in summaries:
        spread = "" if len(one.seeds) == 1 else f" ± {in_percent(one.std).removesuffix(' %')}"
        target = in_percent(one.miou).removesuffix(" %") + spread + " %"
        drop = in_percent(one.drop).removesuffix(" %")
        rows.append(
            (one.benchmark, one.method, in_ranges(one.seeds), target, in_percent(one.floor), in_percent(one.in_domain),
             drop, one.row)
        )  # fmt: skip
    say("")
    say("mean over the seeds in this folder")
    print_rows([row[:-1] if same else row for row in rows], right=(3, 4, 5, 6))
    lacking = {one.references for one in summaries if math.isnan(one.in_domain) and one.references}
    for names in sorted(lacking):
        say(f"for in-domain and drop: {again(names[0])}")
    gaps = sorted({one.benchmark for one in summaries if one.gap and not one.references})
    if gaps:
        say(f"for in-domain and drop of {', '.join(gaps)}: a benchmark of the same dataset with `gap: none`")
    if max(len(one.seeds) for one in summaries) == 1:
        say("one seed each: how much another would differ is not known (--seeds 3)")


def in_ranges(seeds: Sequence[int]) -> str:
    """Sorted seeds as ``--seed`` takes them: ``0-4,7``."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _print_next(records: Sequence[Path], summaries: Sequence[Summary], out: Path) -> None:
    where = "" if out == results_folder() else f" --records {shlex.quote(str(out))}"
    say("")
    say(f"results: {out}")
    lines = [(f"next: stbench report{where}", "boards and a site of all that is there")]
    if records:
        lines.append((f"      stbench show {records[0].parent.name[:8]}{where}", "one result in full"))
    methods = list(dict.fromkeys(one.method for one in sorted(summaries, key=lambda one: -one.miou)))
    if len(methods) > 1:
        lines.append((f"      stbench compare {methods[0]} {methods[1]}{where}", "over the same places"))
    print_rows(lines)
