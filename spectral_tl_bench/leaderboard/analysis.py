"""The numbers of one board with their uncertainty: what tables, figures and the site are made from.

Every score has an interval over places, any two rows can be compared over the places that they share, and complete
rows have means over the benchmarks. ``docs/read-the-board.md`` says what each of them means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from spectral_tl_bench.leaderboard.board import FLOOR, Board
from spectral_tl_bench.leaderboard.cells import Cell, RowKey, all_options
from spectral_tl_bench.leaderboard.statistics import across, tables
from spectral_tl_bench.leaderboard.statistics.comparison import (
    ALL,
    Replicates,
    compare,
    find_row,
    improvement,
    replicates,
)
from spectral_tl_bench.leaderboard.statistics.scores import RowScores, floor_scores, seed_score
from spectral_tl_bench.leaderboard.statistics.tables import NAN, About, Fields
from spectral_tl_bench.leaderboard.text import as_json, row_name

_ROWS = (
    "row", "method", "family", "backbone", "pretrained", "patch_embedding", "options", "settings", "protocol", "rank",
    "complete", "incomplete_reason", "mean", "mean_low", "mean_high", "mean_std", "mean_places_low", "mean_places_high",
    "mean_rank", "mean_rank_low", "mean_rank_high", "iqm", "iqm_low", "iqm_high", "trainable_min", "trainable_max",
    "seconds", "seeds", "is_floor",
)  # fmt: skip
_CELLS = (
    "row", "benchmark", "dataset", "gap", "reference", "state", "seeds", "miou", "std", "low", "high", "places",
    "estimable", "reason", "last", "oracle", "oa", "mean_f1", "kappa", "worst_domain", "worst_miou", "in_domain",
    "drop", "drop_low", "drop_high", "release", "inflation", "trainable", "parameters", "seconds", "peak_memory_mb",
    "error",
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
        cells: One line per row and benchmark, those without a result included. ``low`` to ``high`` is over places.
        domains: One line per row, benchmark and domain of the target.
        classes: One line per row, benchmark and class.
        scores: By row and benchmark, what is completed.
    """

    board: Board
    rows: pd.DataFrame
    cells: pd.DataFrame
    domains: pd.DataFrame
    classes: pd.DataFrame
    scores: dict[str, dict[str, RowScores]] = field(repr=False)

    @cached_property
    def names(self) -> dict[str, str]:
        """Method by row."""
        return row_names(self.board)


def analyse(board: Board) -> Analysis:
    """Compute the numbers of a board with their uncertainty.

    Deterministic: the random numbers come from the names of places, rows and nothing else.

    Args:
        board: A board, as ``make_boards`` makes it.
    """
    abouts = _abouts(board)
    groups = {row_name(key): (key, group) for key, group in board.groups().items()}
    scores = {name: _scores(group) for name, (_, group) in groups.items()}
    lines: dict[str, list[Fields]] = {"rows": [], "cells": [], "domains": [], "classes": []}
    for row in board.rows.to_dict("records"):
        key = _key(row)
        name, is_floor = row_name(key), row["method"] == FLOOR
        if is_floor:
            scores[name] = floor_scores(board.cells)
        group = {} if is_floor else groups[name][1]
        found, here = scores[name], []
        for about in abouts.values():
            state, mine = row[f"{about.benchmark}:state"], found.get(about.benchmark)
            if is_floor:
                fields = tables.floor_fields(name, about, state, row[about.benchmark], mine)
            else:
                fields = tables.cell_fields(name, about, state, group.get(about.benchmark, {}), mine)
            reference = _reference(about, abouts.values())
            here.append(fields | tables.drop_fields(mine, None if reference is None else found.get(reference)))
            if mine is not None:
                lines["domains"] += tables.domain_fields(name, about, mine)
                lines["classes"] += tables.class_fields(name, about, mine)
        lines["cells"] += here
        lines["rows"].append(_row(row, name, is_floor, group, here))
    _add_means(lines["rows"], board, scores)
    return Analysis(
        board,
        tables.frame(lines["rows"], _ROWS),
        tables.frame(lines["cells"], _CELLS),
        tables.frame(lines["domains"], _DOMAINS),
        tables.frame(lines["classes"], _CLASSES),
        scores,
    )


def row_names(board: Board) -> dict[str, str]:
    """Method by row, in the order of the board."""
    return {row_name(_key(row)): row["method"] for row in board.rows.to_dict("records")}


def _abouts(board: Board) -> dict[str, About]:
    found: dict[str, About] = {}
    for cell in sorted(board.cells, key=lambda cell: (not cell.completed, cell.key, cell.record.seed)):
        one = cell.record
        found.setdefault(
            one.benchmark, About(one.benchmark, one.dataset, one.gap, one.classes, tuple(sorted(one.target_domains)))
        )
    return {name: found[name] for name in (*board.benchmarks, *board.references)}


def _reference(about: About, abouts: Iterable[About]) -> str | None:
    """The in-domain reference of a benchmark's dataset, where there is exactly one."""
    found = [one.benchmark for one in abouts if one.reference and one.dataset == about.dataset]
    return found[0] if len(found) == 1 and not about.reference else None


def _scores(group: Mapping[str, Mapping[int, Cell]]) -> dict[str, RowScores]:
    found = {}
    for benchmark, by_seed in group.items():
        done = {seed: seed_score(cell) for seed, cell in by_seed.items() if cell.completed}
        if done:
            found[benchmark] = RowScores(next(iter(by_seed.values())).record.dataset, done)
    return found


def _key(row: Mapping[Any, Any]) -> RowKey:
    return (
        row["method"],
        row["backbone"],
        row["options_digest"],
        row["backbone_digest"],
        row["protocol"],
        row["settings_digest"],
    )


def _row(
    row: Mapping[Any, Any], name: str, is_floor: bool, group: Mapping[str, Mapping[int, Cell]], cells: list[Fields]
) -> Fields:
    record = next((cell.record for by_seed in group.values() for cell in by_seed.values()), None)
    lacking = [
        f"{cell['benchmark']} {cell['state']}"
        for cell in cells
        if not cell["reference"] and cell["state"] != "completed"
    ]
    return {
        **{column: row[column] for column in _ROWS if column in row},
        "row": name,
        "pretrained": record.backbone.pretrained if record and record.backbone else "",
        "patch_embedding": record.backbone.patch_embedding if record and record.backbone else "",
        "options": as_json(all_options(record)) if record else "{}",
        "settings": as_json(record.settings) if record else "{}",
        "incomplete_reason": ", ".join(lacking),
        "is_floor": is_floor,
    }


def _add_means(rows: list[Fields], board: Board, scores: Mapping[str, Mapping[str, RowScores]]) -> None:
    complete = [row["row"] for row in rows if row["complete"]]
    seeds = {name: across.seed_table(scores[name], board.benchmarks) for name in complete}
    ranked = [row["row"] for row in rows if row["complete"] and not row["is_floor"] and not pd.isna(row["rank"])]
    columns = across.over_seeds(seeds, ranked)
    for row in rows:
        found = [scores[row["row"]][name] for name in board.benchmarks] if row["complete"] else []
        low, high = across.over_places(row["mean"], found).interval(0.0, 1.0)
        row.update({"mean_places_low": low, "mean_places_high": high, **columns.get(row["row"], {})})
        if row["is_floor"]:  # it has no seeds of its own
            row.update(dict.fromkeys(("mean_low", "mean_high", "iqm_low", "iqm_high"), NAN))


__all__ = [
    "ALL",
    "Analysis",
    "Replicates",
    "analyse",
    "compare",
    "find_row",
    "improvement",
    "replicates",
    "row_names",
]
