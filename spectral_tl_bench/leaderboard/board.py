"""Boards: who stands where on which track, as a pure function of the stored evidence."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from spectral_tl_bench.evaluation.metrics import majority_matrix
from spectral_tl_bench.leaderboard.cells import Cell, RowKey, conflicts, current, load_cell
from spectral_tl_bench.provenance import LIBRARIES
from spectral_tl_bench.results.schema import Record, ScoreBlock
from spectral_tl_bench.results.store import block

FLOOR = "majority class"
"""Name of the row of a predictor that always says the source's most frequent class; no method can be called so."""


@dataclass(frozen=True, eq=False)
class Board:
    """One track.

    Attributes:
        track: reproduced, partial, sample or demonstration; with ``-unlabelled-target`` where methods saw target
            images.
        benchmarks: Ids of the benchmarks with a gap; the mean and the rank go over all of these.
        references: Ids of the in-domain references, shown beside.
        rows: One row per method, options, backbone, protocol and settings, best first, unranked below, the
            majority class last. Columns: ``rank``, ``method``, ``backbone``, the digests, ``protocol``,
            ``seeds``, ``mean``, ``mean_std``, ``complete``, ``trainable_min``, ``trainable_max``, ``seconds``
            (mean of a run), and for each benchmark ``<id>`` (mIoU, mean over seeds), ``<id>:std`` and
            ``<id>:state`` (completed, incomplete, failed, missing).
        cells: What the rows are made of.
        notes: What a reader of this board must know.
    """

    track: str
    benchmarks: tuple[str, ...]
    references: tuple[str, ...]
    rows: pd.DataFrame
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]

    def groups(self) -> dict[RowKey, dict[str, dict[int, Cell]]]:
        """Cells by row, benchmark and seed."""
        return _grouped(self.cells)


@dataclass(frozen=True)
class Floor:
    """The majority class on one benchmark; ``seeds`` share the same target and majority class."""

    benchmark: str
    majority_class: int
    seeds: tuple[int, ...]
    scores: ScoreBlock


def make_boards(records: Iterable[Record]) -> dict[str, Board]:
    """Make one board for each track that has records.

    Args:
        records: Stored records, in any order.

    Returns:
        Boards by track, sorted by name. All scores are computed from the evidence.

    Raises:
        RecordError: If a record's evidence is missing or changed, or contradicts its scores.
    """
    by_track: dict[str, list[Record]] = {}
    for record in records:
        by_track.setdefault(record.board, []).append(record)
    return {track: _board(track, by_track[track]) for track in sorted(by_track)}


def floors(cells: Iterable[Cell]) -> list[Floor]:
    """The majority class's scores per benchmark, once for each ground truth that occurs in the evidence."""
    found: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        if cell.completed and cell.record.majority_class is not None:
            place = (cell.record.benchmark, cell.target, cell.record.majority_class)
            found.setdefault(place, []).append(cell)
    result = []
    for (benchmark, _, majority), group in found.items():
        matrices = {name: majority_matrix(matrix, majority) for name, matrix in group[0].matrices.items()}
        seeds = tuple(sorted({cell.record.seed for cell in group}))
        result.append(Floor(benchmark, majority, seeds, block(matrices)))
    return sorted(result, key=lambda floor: (floor.benchmark, floor.seeds, floor.majority_class, floor.scores.miou))


def drops(board_cells: Iterable[Cell]) -> dict[str, float]:
    """In-domain mIoU minus target mIoU, by fingerprint of the cell with the gap.

    The reference is the same row and seed on the dataset's benchmark without gap; where there is none, or more
    than one, there is no drop.
    """
    cells = [cell for cell in board_cells if cell.completed]
    references: dict[tuple[RowKey, str, int], list[float]] = {}
    for cell in cells:
        if cell.record.gap == "none":
            place = (cell.key, cell.record.dataset, cell.record.seed)
            references.setdefault(place, []).append(cell.blocks["selected"].miou)
    result = {}
    for cell in cells:
        found = references.get((cell.key, cell.record.dataset, cell.record.seed), [])
        if cell.record.gap != "none" and len(found) == 1:
            result[cell.record.fingerprint] = found[0] - cell.blocks["selected"].miou
    return result


def mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing. Exactly rounded, so that the order of the values does not matter."""
    found = list(values)
    return statistics.fmean(found) if found else float("nan")


def spread(values: Iterable[float]) -> float:
    """The sample standard deviation; NaN below two values, where nothing is known about it."""
    found = list(values)
    return statistics.stdev(found) if len(found) > 1 else float("nan")


def _board(track: str, records: list[Record]) -> Board:
    kept, notes = current(records)
    cells = tuple(load_cell(record) for record in kept)
    clashes = conflicts(cells)
    # A benchmark on which nobody has a result yet must not make every row incomplete.
    measured = {cell.record.benchmark for cell in cells if cell.completed}
    order = sorted({
        (cell.record.dataset, cell.record.benchmark, cell.record.gap == "none")
        for cell in cells
        if cell.record.benchmark in measured or not measured
    })  # fmt: skip
    empty = sorted({cell.record.benchmark for cell in cells if measured} - measured)
    notes += [f"{name}: no run was completed, so it is no column; its runs are the failed cells." for name in empty]
    benchmarks = tuple(name for _, name, reference in order if not reference)
    references = tuple(name for _, name, reference in order if reference)
    rows = [_row(key, group, benchmarks, references) for key, group in _grouped(cells).items()]
    rows.sort(key=lambda row: (not row["complete"], -row["mean"] if row["complete"] else 0.0, *row["key"]))
    rank = 0
    for row in rows:
        if row["complete"] and not clashes:
            rank += 1
            tied = rank > 1 and rows[rank - 2]["mean"] == row["mean"]
            row["rank"] = rows[rank - 2]["rank"] if tied else rank
    rows.append(_floor_row(floors(cells), benchmarks, references))
    frame = pd.DataFrame([{key: value for key, value in row.items() if key != "key"} for row in rows])
    for column in ("rank", "trainable_min", "trainable_max"):
        frame[column] = frame[column].astype("Int64")
    different = differing_settings(cells)
    told = (*clashes, *([different] if different else []), *notes, *_mixed_code(cells), *_class_notes(cells))
    return Board(track, benchmarks, references, frame, cells, told)


def _grouped(cells: Iterable[Cell]) -> dict[RowKey, dict[str, dict[int, Cell]]]:
    groups: dict[RowKey, dict[str, dict[int, Cell]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.key, cell.record.benchmark, cell.record.seed)):
        groups.setdefault(cell.key, {}).setdefault(cell.record.benchmark, {})[cell.record.seed] = cell
    return groups


def _row(
    key: RowKey, group: dict[str, dict[int, Cell]], benchmarks: tuple[str, ...], references: tuple[str, ...]
) -> dict[str, Any]:
    cells = [cell for by_seed in group.values() for cell in by_seed.values()]
    seeds = sorted({cell.record.seed for cell in cells})
    columns: dict[str, Any] = {}
    for name in (*benchmarks, *references):
        by_seed = group.get(name, {})
        values = [
            by_seed[seed].blocks["selected"].miou for seed in seeds if seed in by_seed and by_seed[seed].completed
        ]
        columns |= {name: mean(values), f"{name}:std": spread(values), f"{name}:state": _state(by_seed, seeds)}
    complete = bool(benchmarks) and all(columns[f"{name}:state"] == "completed" for name in benchmarks)
    per_seed = (
        [mean(group[name][seed].blocks["selected"].miou for name in benchmarks) for seed in seeds] if complete else []
    )
    trainable = [cell.record.parameters.trainable for cell in cells if cell.record.parameters is not None]
    method, backbone, options, backbone_digest, protocol, settings = key
    return {
        "key": key,
        "rank": None,
        "method": method,
        "family": cells[0].record.family,
        "backbone": backbone,
        "options_digest": options,
        "backbone_digest": backbone_digest,
        "protocol": protocol,
        "settings_digest": settings,
        "seeds": ", ".join(map(str, seeds)),
        "mean": mean(per_seed),
        "mean_std": spread(per_seed),
        "complete": complete,
        "trainable_min": min(trainable, default=None),
        "trainable_max": max(trainable, default=None),
        "seconds": mean(
            cell.record.seconds.total for cell in cells if cell.completed and cell.record.seconds is not None
        ),
        **columns,
    }


def _state(by_seed: dict[int, Cell], seeds: list[int]) -> str:
    done = [seed for seed, cell in by_seed.items() if cell.completed]
    if by_seed and len(done) == len(seeds):
        return "completed"
    if done:
        return "incomplete"
    return "failed" if by_seed else "missing"


def _floor_row(found: list[Floor], benchmarks: tuple[str, ...], references: tuple[str, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in (*benchmarks, *references):
        here = [floor for floor in found if floor.benchmark == name]
        values = [floor.scores.miou for floor in here for _ in floor.seeds]
        std = spread(values) if len(here) > 1 else float("nan")  # one ground truth: there is nothing to spread
        state = "completed" if values else "missing"
        columns |= {name: mean(values), f"{name}:std": std, f"{name}:state": state}
    complete = bool(benchmarks) and all(columns[f"{name}:state"] == "completed" for name in benchmarks)
    return {
        "rank": None,
        "method": FLOOR,
        "family": "floor",
        **dict.fromkeys(("backbone", "options_digest", "backbone_digest", "protocol", "settings_digest", "seeds"), ""),
        "mean": mean(columns[name] for name in benchmarks) if complete else float("nan"),
        "mean_std": float("nan"),
        "complete": complete,
        "trainable_min": 0,
        "trainable_max": 0,
        "seconds": float("nan"),
        **columns,
    }


def differing_settings(cells: Iterable[Cell]) -> str:
    """Which settings are not the same in all rows, as a sentence; empty where all are."""
    found: dict[str, set[str]] = {}
    settings = {cell.key: flat_settings(cell.record.settings) for cell in cells}
    for name in {name for values in settings.values() for name in values}:
        found[name] = {values.get(name, "none") for values in settings.values()}
    listed = [f"{name} is {' or '.join(sorted(values))}" for name, values in sorted(found.items()) if len(values) > 1]
    if not listed:
        return ""
    return f"Not all rows were run with the same settings: {'; '.join(listed)}. A rank takes no account of that."


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text, those of the budget as ``budget.steps`` and so on."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat_settings(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def _mixed_code(cells: tuple[Cell, ...]) -> list[str]:
    """Say where results were not made by the same code: numerics within a row, libraries on the whole board."""
    found = []
    for key, group in _grouped(cells).items():
        records = [cell.record for by_seed in group.values() for cell in by_seed.values() if cell.completed]
        versions: dict[str, set[str]] = {}
        for record in records:
            for name, version in (record.numerics or {}).items():
                versions.setdefault(name, set()).add(version)
        found += [f"{key[0]}: its results come from several numerics versions of {name} ({', '.join(sorted(several))})."
                  for name, several in sorted(versions.items()) if len(several) > 1]  # fmt: skip
    completed = [cell.record for cell in cells if cell.completed]
    unknown = sum(record.identity() is None for record in completed)
    if unknown:
        found.append(f"Of {unknown} of {len(completed)} results it is not known which code they belong to.")
    for name in LIBRARIES:
        several = sorted({record.environment.get(name, "unknown") for record in completed})
        if len(several) > 1:
            found.append(f"The results were made with several versions of {name}: {', '.join(several)}.")
    return sorted(set(found))


def _class_notes(cells: tuple[Cell, ...]) -> list[str]:
    """Say where a drop compares different lists of classes."""
    classes: dict[str, dict[str, set[tuple[str, ...]]]] = {}
    for cell in cells:
        side = "in-domain" if cell.record.gap == "none" else "gap"
        classes.setdefault(cell.record.dataset, {}).setdefault(side, set()).add(cell.record.classes)
    return [
        f"{dataset}: the in-domain reference has other classes than the benchmarks with a gap, so that the drop holds "
        "more than the gap."
        for dataset, sides in sorted(classes.items())
        if len(sides) == 2 and sides["gap"] != sides["in-domain"]
    ]
