"""Two rows of a board against each other: here, and with the draws that are given away for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from spectral_tl_bench.errors import RecordError, nearest
from spectral_tl_bench.leaderboard.statistics import across, aggregate
from spectral_tl_bench.leaderboard.statistics.draws import DRAWS
from spectral_tl_bench.leaderboard.statistics.intervals import LEVEL, Estimate, combine, holm, unknown
from spectral_tl_bench.leaderboard.statistics.scores import OTHER_PIXELS, Target, difference
from spectral_tl_bench.leaderboard.statistics.tables import NAN, Fields, frame

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.analysis import Analysis

ALL = "all"
"""Name of the line of ``compare`` for the mean over the benchmarks."""

_COMPARISON = ("benchmark", "difference", "low", "high", "places", "estimable", "reason", "p", "p_holm")


@dataclass(frozen=True, eq=False)
class Replicates:
    """Bootstrap draws on one benchmark, with which any two rows can be compared elsewhere.

    The difference of two rows of one target with the same seeds has the standard error
    ``std(draws[a] - draws[b], ddof=1)``, and the 95 % interval of ``quantile`` times as much on both sides.

    Attributes:
        benchmark: Id.
        rows: Names of the rows with a result, in the order of the board.
        seeds: Their seeds.
        targets: Number of the target of each row: only rows of one target can be compared; -1 where the row's seeds
            were not evaluated on the same pixels.
        miou: (rows,) over all places, mean over seeds.
        draws: (rows, B) float32, of the same; every row of one target has the same places in the same draw.
        places: (rows,) number of places.
        effective: (rows,) effective number of places.
        freedom: (rows,) degrees of freedom, n - 1.
        quantile: (rows,) 0.975 quantile of Student's t.
        reasons: Why nothing is estimable; empty where it is.
    """

    benchmark: str
    rows: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    targets: tuple[int, ...]
    miou: NDArray[np.float64]
    draws: NDArray[np.float32]
    places: NDArray[np.int64]
    effective: NDArray[np.float64]
    freedom: NDArray[np.float64]
    quantile: NDArray[np.float64]
    reasons: tuple[str, ...]


def replicates(analysis: Analysis) -> dict[str, Replicates]:
    """Bootstrap draws by benchmark, for comparing rows without this package."""
    found = {}
    for benchmark in (*analysis.board.benchmarks, *analysis.board.references):
        rows = [name for name in analysis.rows["row"] if benchmark in analysis.scores[name]]
        scores = [analysis.scores[name][benchmark] for name in rows]
        numbers: dict[Target, int] = {}
        targets = [-1 if s.target is None else numbers.setdefault(s.target, len(numbers)) for s in scores]
        freedom = np.array([s.estimate.freedom for s in scores])
        found[benchmark] = Replicates(
            benchmark=benchmark,
            rows=tuple(rows),
            seeds=tuple(tuple(sorted(s.seeds)) for s in scores),
            targets=tuple(targets),
            miou=np.array([s.miou for s in scores]),
            draws=np.array([s.draws for s in scores], dtype=np.float32).reshape(len(rows), DRAWS),
            places=np.array([s.places for s in scores], dtype=np.int64),
            effective=np.array([s.effective for s in scores]),
            freedom=freedom,
            quantile=stdtrit(freedom, 0.5 + LEVEL / 2),
            reasons=tuple(s.estimate.reason for s in scores),
        )
    return found


def compare(analysis: Analysis, row_a: str, row_b: str) -> pd.DataFrame:
    """Compare two rows over the same places and the seeds that both have.

    Args:
        analysis: The board.
        row_a: A row by its name (8 hex digits) or, where only one row has it, its method.
        row_b: Another.

    Returns:
        One line per benchmark with a gap and a last one, ``all``, for their mean: the difference a - b with its 95 %
        interval, two-sided p, and p after Holm's correction over the benchmarks. Where ``estimable`` is false,
        ``reason`` says why.

    Raises:
        RecordError: If a name is unknown or ambiguous.
    """
    a, b = (analysis.scores[find_row(analysis, name)] for name in (row_a, row_b))
    lines: list[Fields] = []
    parts = []
    for benchmark in analysis.board.benchmarks:
        first, second = a.get(benchmark), b.get(benchmark)
        places, draws, found = difference(first, second)
        lines.append(_comparison(benchmark, places, found))
        parts.append((1 / len(analysis.board.benchmarks), draws, found))
    corrected = holm({line["benchmark"]: line["p"] for line in lines})
    for line in lines:
        line["p_holm"] = corrected[line["benchmark"]]
    differences = [line["difference"] for line in lines]
    value = float(np.mean(differences)) if differences else NAN
    combined = combine(value, parts) if parts else unknown(NAN, "no benchmark with a gap")
    places = min((line["places"] for line in lines), default=0)
    return frame([*lines, {**_comparison(ALL, places, combined), "p_holm": NAN}], _COMPARISON)


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
    found = [analysis.scores[name] for name in names]
    if any(difference(found[0][one], found[1][one])[2].reason.endswith(OTHER_PIXELS) for one in benchmarks):
        return NAN, NAN, NAN, OTHER_PIXELS
    first, second = (across.seed_table(one, benchmarks) for one in found)
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
    told = analysis.rows.set_index("row")
    different = [
        column
        for column in ("backbone", "patch_embedding", "options", "protocol", "settings")
        if told.loc[rows, column].nunique() > 1
    ]
    listed = [", ".join([row, *(str(told.loc[row, column]) for column in different)]) for row in rows]
    raise RecordError(
        f"{len(rows)} rows of the board {analysis.board.track!r} are of the method {name!r}",
        expected="\n    ".join(["one of", *listed]),
        fix="give the row's name, the 8 digits, instead",
    )


def _comparison(benchmark: str, places: int, found: Estimate) -> Fields:
    low, high = found.interval(-1.0, 1.0)
    return {
        "benchmark": benchmark,
        "difference": found.value,
        "low": low,
        "high": high,
        "places": places,
        "estimable": found.estimable,
        "reason": found.reason,
        "p": found.p_value(),
    }
