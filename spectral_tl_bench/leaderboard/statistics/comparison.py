"""Two rows of a board against each other."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from spectral_tl_bench.errors import RecordError, nearest
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.frames import NAN, Fields, frame, lines_of
from spectral_tl_bench.leaderboard.statistics import aggregate
from spectral_tl_bench.leaderboard.statistics.entry import OTHER_PIXELS, difference
from spectral_tl_bench.leaderboard.statistics.intervals import (
    LEVEL,
    NEEDS,
    Estimate,
    combine,
    holm,
    over_seeds,
    unknown,
)

FEWEST_SEEDS = 3
"""Below, a comparison is one of runs rather than of methods."""
ALL = "all"
"""Name of the line of ``compare`` for the mean over the benchmarks."""

_COMPARISON = ("benchmark", "difference", "low", "high", "places", "estimable", "reason", "p", "p_holm",
               "by_seed", "runs_low", "runs_high", "runs_p", "runs_p_holm", "runs_reason")  # fmt: skip


def compare(analysis: Analysis, row_a: str, row_b: str) -> pd.DataFrame:
    """Compare two rows over the same places and the seeds that both have.

    Args:
        row_a: A row by its name (8 hex digits) or, where only one row has it, its method.
        row_b: Another.

    Returns:
        One line per benchmark with a gap and a last one, ``all``, for their mean: the difference a - b with its 95 %
        interval over places, two-sided p, and p after Holm's correction over the benchmarks. Where ``estimable`` is
        false, ``reason`` says why. ``by_seed`` has the differences in the order of the seeds (a tuple; empty for
        ``all``), and ``runs_low`` to ``runs_high``, ``runs_p`` and ``runs_p_holm`` are over places and seeds;
        ``runs_reason`` says why they are missing.

    Raises:
        RecordError: If a name is unknown or ambiguous.
    """
    a, b = (analysis.scores[find_row(analysis, name)] for name in (row_a, row_b))
    benchmarks = analysis.board.benchmarks
    parts = [difference(a.get(name), b.get(name)) for name in benchmarks]
    lines = [
        _comparison(name, places, estimate, [(1.0, by_seed)])
        for name, (places, _, estimate, by_seed) in zip(benchmarks, parts, strict=True)
    ]
    for kind in ("p", "runs_p"):
        for line, corrected in zip(lines, holm([line[kind] for line in lines]), strict=True):
            line[f"{kind}_holm"] = corrected
    mean = unknown(NAN, "no benchmark with a gap")
    if lines:
        value = float(np.mean([line["difference"] for line in lines]))
        mean = combine(value, [(1 / len(parts), draws, estimate) for _, draws, estimate, _ in parts])
    places = min((line["places"] for line in lines), default=0)
    last = _comparison(ALL, places, mean, [(1 / len(parts), by_seed) for *_, by_seed in parts])
    return frame([*lines, {**last, "p_holm": NAN, "runs_p_holm": NAN, "by_seed": ()}], _COMPARISON)


def verdict(analysis: Analysis, row_a: str, row_b: str, comparison: pd.DataFrame) -> list[str]:
    """What a comparison says, and where it has too little to say it, in sentences.

    Args:
        row_a: A row by its name or its method.
        row_b: Another.
        comparison: What ``compare`` gives for them.
    """
    rows = [find_row(analysis, name) for name in (row_a, row_b)]
    a, b = (analysis.names[row] if analysis.names[rows[0]] != analysis.names[rows[1]] else row for row in rows)
    lines = [line for line in lines_of(comparison) if line["benchmark"] != ALL]
    groups: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        groups.setdefault(_judged(line, a, b), []).append(line["benchmark"])
    parts = [f"{said} on {', '.join(names)}{remark}" for (said, remark), names in groups.items()]
    if len(lines) > 1:
        parts.append(" in the mean over all".join(_judged(lines_of(comparison)[-1], a, b)))
    few = [f"{line['benchmark']} ({line['reason']})" for line in lines if NEEDS in line["reason"]]
    sentences = ["verdict: " + ("; ".join(parts) or "none, no benchmark with a gap") + "."]
    if few:
        sentences.append(f"Too few places: {'; '.join(few)}.")
    first, second = (analysis.scores[row] for row in rows)
    shared = [name for name in analysis.board.benchmarks if name in first and name in second]
    counts = {len(first[name].seeds.keys() & second[name].seeds.keys()) for name in shared}
    scarce = sorted(count for count in counts if 0 < count < FEWEST_SEEDS)
    if scarce:
        sentences.append(
            f"Too few seeds: {' or '.join(map(str, scarce))} in common, and methods rather than runs are compared with "
            f"at least {FEWEST_SEEDS}: stbench run ... --seeds {FEWEST_SEEDS}"
        )
    return sentences


def _judged(line: Fields, a: str, b: str) -> tuple[str, str]:
    """Who is ahead, for a benchmark after Holm's correction; and a remark where other seeds may say otherwise."""
    suffix = "" if line["benchmark"] == ALL else "_holm"
    over_places, over_seeds = line[f"p{suffix}"], line[f"runs_p{suffix}"]
    if math.isnan(over_places):
        return "none", ""
    if over_places >= 1 - LEVEL:
        return "no difference shown", ""
    lucky = over_seeds >= 1 - LEVEL  # False where there is one seed, of which is said more below
    return f"{a if line['difference'] > 0 else b} ahead", " with these seeds, which others may turn" if lucky else ""


def improvement(analysis: Analysis, row_a: str, row_b: str) -> tuple[float, float, float, str]:
    """Probability that a run of the first row beats one of the second, with its 95 % interval over seeds.

    As in ``rliable``, averaged over the benchmarks with a gap.

    Returns:
        Probability, low, high, and why there is none; NaN then.

    Raises:
        RecordError: If a name is unknown or ambiguous.
    """
    benchmarks = analysis.board.benchmarks
    names = [find_row(analysis, name) for name in (row_a, row_b)]
    complete = dict(zip(analysis.rows["row"], analysis.rows["complete"], strict=True))
    for name in names:
        if not complete[name]:
            return NAN, NAN, NAN, f"{analysis.names[name]} is not complete"
    scores = [analysis.scores[name] for name in names]
    if any(difference(scores[0][name], scores[1][name])[2].reason.endswith(OTHER_PIXELS) for name in benchmarks):
        return NAN, NAN, NAN, OTHER_PIXELS
    first, second = (aggregate.seed_table([entries[name] for name in benchmarks]) for entries in scores)
    value = float(aggregate.probability_of_improvement(first, second))
    if min(len(first), len(second)) < 2:
        return value, NAN, NAN, "one seed; an interval over seeds needs at least two"
    samples = [
        aggregate.resample(table, aggregate.seed_draws(len(table), table.shape[1], name=f"{side}/{name}"))
        for side, name, table in zip("ab", names, (first, second), strict=True)
    ]
    low, high = aggregate.percentile_interval(aggregate.probability_of_improvement(*samples))
    return value, low, high, ""


def find_row(analysis: Analysis, name: str) -> str:
    """The row that a name stands for: its own, or that of a method with one row.

    Raises:
        RecordError: If there is none, or more than one.
    """
    if name in analysis.names:
        return name
    rows = [row for row, method in analysis.names.items() if method == name]
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise RecordError(
            f"there is no row {name!r} on the board {analysis.board.track!r}",
            fix=nearest(name, {*analysis.names, *analysis.names.values()}),
        )
    about = analysis.rows.set_index("row")
    different = [
        column
        for column in ("backbone", "patch_embedding", "options", "protocol", "settings")
        if about.loc[rows, column].nunique() > 1
    ]
    listed = [", ".join([row, *(str(about.loc[row, column]) for column in different)]) for row in rows]
    raise RecordError(
        f"{len(rows)} rows of the board {analysis.board.track!r} are of the method {name!r}",
        expected="\n    ".join(["one of", *listed]),
        fix="give the row's name, the 8 digits, instead",
    )


def _comparison(
    benchmark: str, places: int, estimate: Estimate, seeds: list[tuple[float, tuple[float, ...]]]
) -> Fields:
    runs = over_seeds(estimate, seeds)
    low, high = runs.interval(-1.0, 1.0)
    return {"benchmark": benchmark, "difference": estimate.value, "places": places, "p": estimate.p_value(),
            **estimate.fields(-1.0, 1.0), "by_seed": seeds[0][1] if seeds else (), "runs_low": low, "runs_high": high,
            "runs_p": runs.p_value(), "runs_reason": runs.reason}  # fmt: skip
