"""The first page: what is measured, on what, and where the methods stand, group of benchmarks by group."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.site.names import kind_of
from spectral_tl_bench.leaderboard.site.scales import scale_of
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.statistics.intervals import combine
from spectral_tl_bench.leaderboard.text import STRICT, parts_of

MOST_LINES = 20
"""Rows that are drawn of a group; where a board has several groups, they share them."""
_LEAST_LINES = 8


def write_landing(writer: Writer, views: Sequence[View], path: str = "index.html") -> None:
    """Write the page that a visitor sees first.

    Boards by another protocol than strict have their own pages, and are named here.
    """
    ordered = sorted(views, key=lambda view: view.track.order)
    shown = [view for view in ordered if parts_of(view.track.name).protocol == STRICT]
    writer.page(path, "landing", boards=[board(view) for view in shown or ordered])


def board(view: View) -> Fields:
    """A board on the first page: what it is of, and its groups of benchmarks."""
    datasets = dict.fromkeys(benchmark.dataset for benchmark in view.benchmarks if not benchmark.reference)
    most = max(_LEAST_LINES, MOST_LINES // max(1, len(datasets)))
    records = view.analysis.board.records
    groups = [group(view, [one for one in view.benchmarks if one.dataset == name], most) for name in datasets]
    return {
        "view": view,
        "track": view.track,
        "kind": kind_of(view.track.name),
        "groups": [found for found in groups if found["lines"]],
        "methods": len({row["method"] for row in view.listed if not row["is_floor"]}),
        "gaps": sum(not benchmark.reference for benchmark in view.benchmarks),
        "datasets": list(datasets),
        "runs": sum(run.completed for run in records),
    }


def group(view: View, benchmarks: Sequence[BenchmarkView], most: int) -> Fields:
    """The rows that are complete on all benchmarks of a dataset, the best first, those of one seed after all others.

    Of many rows the one seed of some is lucky, and would lead.

    ``lines`` have the mean ``miou`` over the benchmarks with a gap, its interval over places (``low``, ``high``), and
    the means of the in-domain score and of the drop over the same benchmarks, None where one lacks them. How many
    ``seeds`` each has is shown where they differ.
    """
    gaps = [benchmark for benchmark in benchmarks if not benchmark.reference]
    lines: list[Fields] = []
    for row in view.listed:
        entries = [view.entries[row["row"], benchmark.id] for benchmark in gaps]
        if row["is_floor"] or any(entry["state"] != "completed" for entry in entries):
            continue
        scores = [view.analysis.scores[row["row"]][benchmark.id] for benchmark in gaps]
        miou = statistics.fmean(entry["miou"] for entry in entries)
        estimate = combine(miou, [(1 / len(scores), score.draws, score.estimate) for score in scores])
        low, high = estimate.interval(0.0, 1.0) if estimate.estimable else (None, None)
        lines.append({
            "row": row, "miou": miou, "low": low, "high": high,
            "in_domain": _mean(entries, "in_domain"), "drop": _mean(entries, "drop"),
            "seconds": _mean(entries, "seconds"), "seeds": len(row["seeds"].split(", ")),
        })  # fmt: skip
    lines.sort(key=lambda line: (line["seeds"] == 1, -line["miou"]))
    drawn = lines[:most]
    names = Counter((line["row"]["method"], line["row"]["backbone"], line["row"]["pretrained"]) for line in drawn)
    for line in drawn:
        row = line["row"]
        line["variant"] = row["variant"] if names[row["method"], row["backbone"], row["pretrained"]] > 1 else ""
    floors = [view.floor(benchmark.id) for benchmark in gaps]
    known = [floor for floor in floors if floor is not None]
    ends = [line[name] for line in drawn for name in ("miou", "low", "high", "in_domain")]
    return {
        "dataset": gaps[0].dataset,
        "benchmarks": gaps,
        "references": [benchmark for benchmark in benchmarks if benchmark.reference],
        "lines": drawn,
        "all": len(lines),
        "lacking": len(view.listed) - 1 - len(lines),
        "floor": statistics.fmean(known) if known and len(known) == len(floors) else None,
        "scale": scale_of(ends),
        "seeds": _range(line["seeds"] for line in drawn),
        "single": len({line["seeds"] == 1 for line in lines}) == 2,
        "places": [(one.id, _range(_places(view, drawn, one))) for one in gaps],
    }  # fmt: skip


def _mean(entries: Sequence[Fields], name: str) -> float | None:
    values = [entry[name] for entry in entries]
    return None if any(value is None for value in values) else statistics.fmean(values)


def _places(view: View, lines: Sequence[Fields], benchmark: BenchmarkView) -> list[int]:
    places = [view.entries[line["row"]["row"], benchmark.id]["places"] for line in lines]
    return [int(number) for number in places if number is not None]


def _range(numbers: Iterable[int]) -> str:
    """Whole numbers in words: 3, or 1 to 3."""
    known = sorted(set(numbers))
    if not known:
        return "no"
    return f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"
