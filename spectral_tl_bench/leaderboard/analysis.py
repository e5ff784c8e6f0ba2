"""The numbers of one board with their uncertainty: what tables, figures and the site are made from.

Every score has an interval over places, any two rows can be compared over the places that they share, and complete
rows have means over the benchmarks. ``docs/read-the-board.md`` says what each of them means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.leaderboard.board import Board
from spectral_tl_bench.leaderboard.frames import NAN, Fields, frame, lines_of
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.leaderboard.statistics.aggregate import over_seeds, seed_table
from spectral_tl_bench.leaderboard.statistics.entry import Entry, floor_entries, seed_score
from spectral_tl_bench.leaderboard.statistics.intervals import combine, unknown
from spectral_tl_bench.results.schema import Record

_ROWS = (
    "row", "method", "family", "backbone", "pretrained", "patch_embedding", "options", "settings", "protocol", "rank",
    "complete", "incomplete_reason", "mean", "mean_low", "mean_high", "mean_std", "mean_places_low", "mean_places_high",
    "release", "inflation", "mean_rank", "mean_rank_low", "mean_rank_high", "iqm", "iqm_low", "iqm_high",
    "trainable_min", "trainable_max", "decoder_max", "seconds", "seeds", "is_floor", "tuned", "unconverged",
    "validation", "variants",
)  # fmt: skip
_ENTRIES = (
    "row", "benchmark", "dataset", "gap", "reference", "state", "seeds", "miou", "std", "low", "high", "places",
    "estimable", "reason", "last", "oracle", "oa", "mean_f1", "kappa", "worst_domain", "worst_miou", "in_domain",
    "drop", "drop_low", "drop_high", "release", "inflation", "trainable", "decoder", "parameters", "seconds",
    "peak_memory_mb", "error", "validation", "variants", "choice",
)  # fmt: skip
_DOMAINS = ("row", "benchmark", "domain", "miou", "std", "low", "high", "places", "estimable")
_CLASSES = ("row", "benchmark", "index", "name", "iou", "std", "truth_pixels", "predicted_pixels")


@dataclass(frozen=True, eq=False)
class Analysis:
    """One board with its uncertainty. All mIoU are fractions of 1, NaN where unknown.

    Attributes:
        board: What it was made from.
        rows: One line per row of the board, in its order. ``mean_low`` to ``mean_high``, and those of the mean rank
            and of the interquartile mean, are over seeds; ``mean_places_low`` to ``mean_places_high`` over places.
        entries: One line per row and benchmark, those without a result included. ``low`` to ``high`` is over places.
        domains: One line per row, benchmark and domain of the target.
        classes: One line per row, benchmark and class.
        scores: By row and benchmark, what is completed.
    """

    board: Board
    rows: pd.DataFrame
    entries: pd.DataFrame
    domains: pd.DataFrame
    classes: pd.DataFrame
    scores: dict[str, dict[str, Entry]] = field(repr=False)

    @cached_property
    def floor_again(self) -> set[str]:
        """Rows that are the majority class once more, run as a method: the same numbers wherever they have any."""
        values = self.entries.set_index(["row", "benchmark"])["miou"]
        floor = values[self.rows["row"].iloc[-1]]
        methods = self.rows[(self.rows["method"] == "majority") & (self.rows["family"] == "floor")]
        return {row for row in methods["row"] if (values[row].dropna() == floor[values[row].dropna().index]).all()}

    @cached_property
    def names(self) -> dict[str, str]:
        """Method by row."""
        return self.board.methods


def analyse(board: Board, kept: Kept | None = None) -> Analysis:
    """Compute the numbers of a board with their uncertainty.

    Deterministic: the random numbers come from the names of places, rows and nothing else.

    Args:
        board: A board, as ``make_boards`` makes it.
        kept: Draws of earlier reports; the numbers are the same without.
    """
    known, groups, scores = board.known, board.groups(), {}
    rows = lines_of(board.rows)
    for row in rows:
        scores[row["row"]] = floor_entries(board.records, kept) if row["is_floor"] else {
            name: Entry(known[name].dataset, {seed: seed_score(run) for seed, run in by_seed.items() if run.completed},
                        kept=kept)
            for name, by_seed in groups[row["row"]].items()
            if name in known and any(run.completed for run in by_seed.values())
        }  # fmt: skip
    floor = rows[-1]["row"]
    entries, domains, classes = [], [], []
    for line in lines_of(board.entries):
        entry, about = scores[line["row"]].get(line["benchmark"]), known[line["benchmark"]]
        estimate = unknown(NAN, "nothing completed") if entry is None else entry.estimate
        line.update(estimate.fields(0.0, 1.0))
        line.update(_drop(entry, scores[line["row"]].get(_reference(about, known))))
        entries.append(line)
        if entry is None:
            continue
        line["places"] = entry.places
        parts = _domain_lines(line, about, entry)
        if line["row"] == floor:
            values = [(part["miou"], part["domain"]) for part in parts if not np.isnan(part["miou"])]
            line["worst_miou"], line["worst_domain"] = min(values, default=(NAN, ""))
        domains += parts
        classes += _class_lines(line, about, entry)
    _add_means(rows, board, scores, kept)
    return Analysis(board, frame(rows, _ROWS), frame(entries, _ENTRIES), frame(domains, _DOMAINS),
                    frame(classes, _CLASSES), scores)  # fmt: skip


def _reference(about: Record, known: Mapping[str, Record]) -> str:
    """The in-domain reference of a benchmark's dataset, where there is exactly one."""
    names = [name for name, other in known.items() if other.gap == "none" and other.dataset == about.dataset]
    return names[0] if len(names) == 1 and about.gap != "none" else ""


def _drop(entry: Entry | None, reference: Entry | None) -> Fields:
    """In-domain mIoU minus mIoU on the target, over the seeds that both have.

    The two are drawn independently, except where a stratum of places is the same in both.
    """
    shared = sorted(entry.seeds.keys() & reference.seeds.keys()) if entry and reference else []
    if not shared or entry is None or reference is None:
        return {}
    target, inside = entry.only(shared), reference.only(shared)
    parts = [(1.0, inside.draws, inside.estimate), (-1.0, target.draws, target.estimate)]
    drop = combine(inside.miou - target.miou, parts)
    low, high = drop.interval(-1.0, 1.0)
    return {"in_domain": inside.miou, "drop": drop.value, "drop_low": low, "drop_high": high}


def _domain_lines(line: Fields, about: Record, entry: Entry) -> list[Fields]:
    domains = sorted(about.target_domains)

    def make() -> list[Fields]:
        parts = {domain: entry.within(domain) for domain in domains}
        return [
            {
                "domain": domain, "miou": part.miou, "places": part.places,
                "std": float(_over_seeds(np.array(part.values)[:, None])[1][0]), **part.estimate.fields(0.0, 1.0),
            }
            for domain, part in parts.items()
            if part.places
        ]  # fmt: skip

    names = {"row": line["row"], "benchmark": line["benchmark"]}
    return [{**names, **part} for part in entry.once(f"domains {domains}", make)]


def _class_lines(line: Fields, about: Record, entry: Entry) -> list[Fields]:
    """Pixels are means over seeds, of which the ground truth usually has one value."""

    def make() -> list[list[float]]:
        right, union, truth = (
            np.stack([getattr(counts, name).sum(axis=0) for counts in entry.counts])
            for name in ("right", "union", "truth")
        )
        iou = np.divide(right, union, out=np.full(right.shape, np.nan), where=union > 0)
        columns = (*_over_seeds(iou), truth.mean(axis=0), (union - truth + right).mean(axis=0))
        return [column.tolist() for column in columns]

    return [
        {
            "row": line["row"], "benchmark": line["benchmark"], "index": index, "name": name, "iou": value, "std": std,
            "truth_pixels": round(true), "predicted_pixels": round(said),
        }
        for index, (name, value, std, true, said) in enumerate(
            zip(about.classes, *entry.once("classes", make), strict=True)
        )
    ]  # fmt: skip


def _over_seeds(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample standard deviation (columns,) of the known values of each column."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    average = np.where(known, values, 0).sum(axis=0) / np.where(count, count, np.nan)
    squares = np.where(known, values - average, 0) ** 2
    return average, np.sqrt(squares.sum(axis=0) / np.where(count > 1, count - 1, np.nan))


def _add_means(rows: list[Fields], board: Board, scores: Mapping[str, Mapping[str, Entry]], kept: Kept | None) -> None:
    """Add what is known over several benchmarks to the rows that have them all."""
    complete = [row for row in rows if row["complete"]]
    entries = {row["row"]: [scores[row["row"]][name] for name in board.benchmarks] for row in complete}
    ranked = [row["row"] for row in complete if not row["is_floor"] and not pd.isna(row["rank"])]
    columns = over_seeds({name: seed_table(group) for name, group in entries.items()}, ranked, kept)
    for row in complete:
        group = entries[row["row"]]
        estimate = combine(row["mean"], [(1 / len(group), entry.draws, entry.estimate) for entry in group])
        low, high = estimate.interval(0.0, 1.0)
        row.update({"mean_places_low": low, "mean_places_high": high, **columns[row["row"]]})
        if row["is_floor"]:  # it has no seeds of its own
            row.update(dict.fromkeys(("mean_low", "mean_high", "iqm_low", "iqm_high"), NAN))
