"""Data of one row that a page loads only when somebody asks for it: bootstrap draws and confusion matrices."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.statistics.entry import Entry
from spectral_tl_bench.leaderboard.statistics.intervals import MIN_EFFECTIVE


def write_rows(writer: Writer, view: View) -> None:
    """Write a file for each row that has a number somewhere.

    Each holds, by benchmark, the ``matrix`` (lines are ground truth; null for the majority class) and, where it has a
    gap, what ``analysis.compare`` needs: ``seeds``; by seed ``miou``, number of the ``target`` and of its ``places``;
    the ``effective`` number of places; and ``draws`` as ``packed`` writes them: one array for the mean over the seeds
    or, where not all rows have the same seeds, one for each.
    """
    scores = view.analysis.scores
    targets: dict[tuple[str, Any], int] = {}
    apart = {one.id for one in view.benchmarks if len(_seeds(view, one.id)) > 1}
    for row in view.rows:
        benchmarks: dict[str, dict[str, Any]] = {}
        for one in view.benchmarks:
            found = scores.get(row["row"], {}).get(one.id)
            if found is None:
                continue
            matrix = view.matrix(row["row"], one.id)
            benchmarks[one.id] = {"matrix": None if matrix is None else matrix.tolist()}
            if not one.reference:
                seeds = sorted(found.seeds)
                benchmarks[one.id] |= {
                    "seeds": seeds,
                    "miou": [found.seeds[seed].miou for seed in seeds],
                    "target": [targets.setdefault((one.id, found.seeds[seed].target), len(targets)) for seed in seeds],
                    "places": [len(found.seeds[seed].counts.places) for seed in seeds],
                    "effective": [found.only([seed]).effective for seed in seeds],
                    "draws": _draws(found, one.id in apart),
                }
        if benchmarks:
            path = f"{view.track.slug}/rows/{row['slug']}.js"
            writer.script(path, f"row:{row['slug']}", {"least": MIN_EFFECTIVE, "benchmarks": benchmarks})


def packed(values: NDArray[Any]) -> str:
    """Numbers as little-endian float32 in base64: their rounding, 6e-8, is far below any digit that is shown."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _seeds(view: View, benchmark: str) -> set[tuple[int, ...]]:
    """The different sets of seeds that rows have on a benchmark."""
    found = [rows[benchmark] for rows in view.analysis.scores.values() if benchmark in rows]
    return {tuple(sorted(one.seeds)) for one in found}


def _draws(found: Entry, apart: bool) -> list[str]:
    if apart:
        return [packed(found.only([seed]).draws) for seed in sorted(found.seeds)]
    return [packed(found.draws)]
