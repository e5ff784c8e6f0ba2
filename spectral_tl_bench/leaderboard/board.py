"""Boards: who stands where on which track, as a pure function of the stored evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from spectral_tl_bench.evaluation.metrics import majority_matrix
from spectral_tl_bench.leaderboard.board_notes import class_notes, differing_settings, mixed_choices, mixed_code
from spectral_tl_bench.leaderboard.frames import NAN, Fields, frame, mean, spread
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.leaderboard.measured import (
    MeasuredRecord,
    RowKey,
    choice_of,
    conflicts,
    current,
    measure_record,
    most_in_decoders,
    row_name,
    row_options,
    searched,
)
from spectral_tl_bench.leaderboard.text import as_json
from spectral_tl_bench.results.schema import Record, ScoreBlock
from spectral_tl_bench.results.store import block

FLOOR = "majority class"
"""Name of the row of a predictor that always says the source's most frequent class; no method can be called so."""
FLOOR_ROW = row_name((FLOOR, "", "", "", "", ""))
CHECKPOINTS = ("selected", "last", "oracle")
BySeed = dict[int, MeasuredRecord]


@dataclass(frozen=True, eq=False)
class Board:
    """One track.

    Attributes:
        track: reproduced, partial, sample or demonstration; then ``-PROTOCOL`` unless that is strict, then
            ``-unlabelled-target`` where methods saw target images.
        benchmarks: Ids of the benchmarks with a gap; the mean and the rank go over all of these.
        references: Ids of the in-domain references, shown beside.
        rows: A line per method, options, backbone, protocol and settings, best first, unranked below, the
            majority class last.
        entries: A line per row and benchmark, those without a result included: its records merged over
            seeds. Its ``state`` is completed, incomplete, failed or missing.
        records: What the rows are made of.
        notes: What a reader of this board must know.
    """

    track: str
    benchmarks: tuple[str, ...]
    references: tuple[str, ...]
    rows: pd.DataFrame
    entries: pd.DataFrame
    records: tuple[MeasuredRecord, ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All benchmarks, references last."""
        return (*self.benchmarks, *self.references)

    @property
    def methods(self) -> dict[str, str]:
        """Method by row, in the order of the board."""
        return dict(zip(self.rows["row"], self.rows["method"], strict=True))

    @cached_property
    def known(self) -> dict[str, Record]:
        """A record of each benchmark, which says what the benchmark is; a completed one where there is one."""
        records = sorted(self.records, key=lambda run: (not run.completed, run.key, run.record.seed), reverse=True)
        by_benchmark = {run.record.benchmark: run.record for run in records}
        return {name: by_benchmark[name] for name in self.columns}

    def groups(self) -> dict[str, dict[str, BySeed]]:
        """Records by row, benchmark and seed, sorted by the rows' keys; not to be changed."""
        return self._groups

    @cached_property
    def _groups(self) -> dict[str, dict[str, BySeed]]:
        return _grouped(self.records)

    def data_notes(self) -> set[str]:
        """What the records say of their data."""
        records = [run.record for run in self.records]
        return {f"{record.benchmark}: {note}" for record in records if record.data for note in record.data.notes}

    def statements(self) -> list[str]:
        """What the records say of synthetic data."""
        return sorted({run.record.statement for run in self.records if run.record.statement})


@dataclass(frozen=True)
class Floor:
    """The majority class on one benchmark; ``seeds`` share the same target and majority class."""

    benchmark: str
    majority_class: int
    seeds: tuple[int, ...]
    scores: ScoreBlock


def make_boards(records: Iterable[Record], kept: Kept | None = None) -> dict[str, Board]:
    """Make one board for each track that has records.

    Args:
        records: Stored records, in any order.
        kept: What earlier reports worked out of them; the boards are the same without.

    Returns:
        Boards by track, sorted by name. All scores are computed from the evidence.

    Raises:
        RecordError: If a record's evidence is missing or changed, or contradicts its scores.
    """
    by_track: dict[str, list[Record]] = {}
    for record in records:
        by_track.setdefault(record.board, []).append(record)
    return {track: _board(track, by_track[track], kept) for track in sorted(by_track)}


def floors(records: Iterable[MeasuredRecord]) -> list[Floor]:
    """The majority class's scores per benchmark, once for each ground truth that occurs in the evidence."""
    groups: dict[tuple[str, str, int], list[MeasuredRecord]] = {}
    for run in records:
        if run.completed and run.record.majority_class is not None:
            groups.setdefault((run.record.benchmark, run.target, run.record.majority_class), []).append(run)
    result = []
    for (benchmark, _, majority), group in groups.items():
        matrices = {name: majority_matrix(matrix, majority) for name, matrix in group[0].matrices.items()}
        seeds = tuple(sorted({run.record.seed for run in group}))
        result.append(Floor(benchmark, majority, seeds, block(matrices)))
    return sorted(result, key=lambda floor: (floor.benchmark, floor.seeds, floor.majority_class, floor.scores.miou))


def drops(records: Iterable[MeasuredRecord]) -> dict[str, float]:
    """In-domain mIoU minus target mIoU, by fingerprint of the record with the gap.

    The reference is the same row and seed on the dataset's benchmark without gap; where there is none, or more
    than one, there is no drop.
    """
    groups: dict[tuple[RowKey, str, int], list[MeasuredRecord]] = {}
    for run in records:
        if run.completed:
            groups.setdefault((run.key, run.record.dataset, run.record.seed), []).append(run)
    losses: dict[str, float] = {}
    for group in groups.values():
        inside = [run.miou for run in group if run.record.gap == "none"]
        if len(inside) == 1:
            losses |= {run.record.fingerprint: inside[0] - run.miou for run in group if run.record.gap != "none"}
    return losses


def _board(track: str, stored: list[Record], known: Kept | None) -> Board:
    kept, notes = current(stored)
    records = tuple(known.measured(record, measure_record) if known else measure_record(record) for record in kept)
    clashes = conflicts(records)
    # A benchmark on which nobody has a result yet must not make every row incomplete.
    measured = {run.record.benchmark for run in records if run.completed}
    order = sorted({
        (record.dataset, record.benchmark, record.gap == "none")
        for record in kept
        if record.benchmark in measured or not measured
    })  # fmt: skip
    empty = sorted({record.benchmark for record in kept if measured} - measured)
    notes += [f"{name}: no run was completed, so it is no column; its runs are the failed cells." for name in empty]
    settings = differing_settings(records)
    board = Board(
        track=track,
        benchmarks=tuple(name for _, name, reference in order if not reference),
        references=tuple(name for _, name, reference in order if reference),
        rows=pd.DataFrame(),
        entries=pd.DataFrame(),
        records=records,
        notes=(
            *clashes,
            *([settings] if settings else []),
            *notes,
            *mixed_code(_grouped(records)),
            *mixed_choices(records),
            *class_notes(kept),
        ),
    )
    lines = [_row_lines(board, group) for group in board.groups().values()]
    lines.sort(key=lambda line: (not line[0]["complete"], -line[0]["mean"] if line[0]["complete"] else 0.0))
    ranked = [row for row, _ in lines if row["complete"] and not clashes]
    for row in ranked:
        row["rank"] = 1 + sum(other["mean"] > row["mean"] for other in ranked)
    lines.append(_floor_lines(board))
    rows, entries = [row for row, _ in lines], [entry for _, group in lines for entry in group]
    _add_variants(board, rows, entries)
    return dataclasses.replace(board, rows=frame(rows), entries=frame(entries))


def _grouped(records: Iterable[MeasuredRecord]) -> dict[str, dict[str, BySeed]]:
    groups: dict[str, dict[str, BySeed]] = {}
    for run in sorted(records, key=lambda run: (run.key, run.record.benchmark, run.record.seed)):
        groups.setdefault(run.row, {}).setdefault(run.record.benchmark, {})[run.record.seed] = run
    return groups


def _row_lines(board: Board, group: dict[str, BySeed]) -> tuple[Fields, list[Fields]]:
    """A row of the board and its entries."""
    records = [run for by_seed in group.values() for run in by_seed.values()]
    seeds = sorted({run.record.seed for run in records})
    entries = [_entry(about, group.get(name, {}), len(seeds)) for name, about in board.known.items()]
    fields = _complete(entries)
    means = [mean(group[name][seed].miou for name in board.benchmarks) for seed in seeds] if fields["complete"] else []
    first, name = records[0].record, records[0].row
    trainable = [run.record.parameters.trainable for run in records if run.record.parameters]
    row = {
        **fields,
        **{column: getattr(first, column) for column in ("method", "family", "protocol")},
        "row": name,
        "backbone": first.backbone.name if first.backbone else "",
        "pretrained": first.backbone.pretrained if first.backbone else "",
        "patch_embedding": first.backbone.reading if first.backbone else "",
        "options": as_json(row_options(first)),
        "settings": as_json(searched(first)[1]),
        "seeds": ", ".join(map(str, seeds)),
        "mean": mean(means),
        "mean_std": spread(means),
        **_over_gaps(entries, bool(means), "release", "inflation", "validation"),
        "unconverged": _unconverged(records),
        "tuned": f"tuned ({first.tuning.budget})" if first.tuning is not None else "",
        "trainable_min": min(trainable, default=None),
        "trainable_max": max(trainable, default=None),
        "decoder_max": most_in_decoders(run.record for run in records),
        "seconds": mean(run.record.seconds.total for run in records if run.completed and run.record.seconds),
        "is_floor": False,
        "rank": None,
    }
    return row, [{**entry, "row": name} for entry in entries]


def _floor_lines(board: Board) -> tuple[Fields, list[Fields]]:
    """The row of the majority class, which has neither seeds nor checkpoints nor parameters to train."""
    entries, scores = [], floors(board.records)
    for name, about in board.known.items():
        values = [floor.scores for floor in scores if floor.benchmark == name for _ in floor.seeds]
        entries.append({**_about(about), "row": FLOOR_ROW, "state": "completed" if values else "missing", "seeds": "",
                        "miou": mean(one.miou for one in values), **_release(values), "trainable": 0,
                        "parameters": 0})  # fmt: skip
    fields = _complete(entries)
    means = _over_gaps(entries, fields["complete"], "miou", "release", "inflation")
    texts = dict.fromkeys(("backbone", "pretrained", "patch_embedding", "protocol", "seeds"), "")
    row = {**fields, **texts, "row": FLOOR_ROW, "method": FLOOR, "family": "floor", "options": "{}", "settings": "{}",
           "mean": means.pop("miou"), **means, "validation": NAN, "tuned": "", "unconverged": "",
           "trainable_min": 0, "trainable_max": 0, "decoder_max": 0,
           "is_floor": True}  # fmt: skip
    return row, entries


def _over_gaps(entries: list[Fields], complete: bool, *names: str) -> Fields:
    """Means over the benchmarks with a gap; NaN for a row that is not complete."""
    return {name: mean(one[name] for one in entries if not one["reference"]) if complete else NAN for name in names}


def _complete(entries: list[Fields]) -> Fields:
    """Whether a row has all seeds on all benchmarks with a gap, and what it lacks."""
    gaps = [entry for entry in entries if not entry["reference"]]
    lacking = [f"{entry['benchmark']} {entry['state']}" for entry in gaps if entry["state"] != "completed"]
    return {"complete": bool(gaps) and not lacking, "incomplete_reason": ", ".join(lacking)}


def _entry(about: Record, by_seed: BySeed, seeds: int) -> Fields:
    """The records of one row on one benchmark, merged; the row has so many ``seeds`` on all benchmarks together."""
    done = [run for run in by_seed.values() if run.completed]
    blocks = {name: [run.blocks[name] for run in done if name in run.blocks] for name in CHECKPOINTS}
    chosen = blocks["selected"]
    domains: dict[str, list[float]] = {}
    for name, value in (item for scores in chosen for item in scores.per_domain.items()):
        if value is not None:
            domains.setdefault(name, []).append(value)
    worst, worst_domain = min(((mean(values), name) for name, values in domains.items()), default=(NAN, ""))
    parameters = [run.record.parameters for run in done if run.record.parameters]
    errors = [f"{run.record.error.kind}: {run.record.error.message}" for run in by_seed.values() if run.record.error]
    some = "incomplete" if done else "failed" if by_seed else "missing"
    return {
        **_about(about),
        "state": "completed" if by_seed and len(done) == seeds else some,
        "seeds": ", ".join(f"{seed}" if run.completed else f"{seed} (failed)" for seed, run in by_seed.items()),
        "miou": mean(scores.miou for scores in chosen),
        "std": spread(scores.miou for scores in chosen),
        "validation": _validation(done),
        "choice": "; ".join(sorted({choice_of(run.record) for run in done} - {""})),
        "last": mean(scores.miou for scores in blocks["last"]),
        "oracle": mean(scores.miou for scores in blocks["oracle"]),
        "oa": mean(scores.oa for scores in chosen),
        "mean_f1": mean(scores.mean_f1 for scores in chosen),
        "kappa": mean(scores.kappa for scores in chosen if scores.kappa is not None),
        "worst_domain": worst_domain,
        "worst_miou": worst,
        **_release(chosen),
        "trainable": max((count.trainable for count in parameters), default=None),
        "decoder": most_in_decoders(run.record for run in done),
        "parameters": max((count.total for count in parameters), default=None),
        "seconds": mean(run.record.seconds.total for run in done if run.record.seconds),
        "peak_memory_mb": mean(run.record.peak_memory_mb for run in done if run.record.peak_memory_mb is not None),
        "error": errors[0] if errors else "",
    }


def _release(chosen: Iterable[ScoreBlock]) -> Fields:
    """The mIoU by the release's rule, mean over seeds, and by how much it is above ours."""
    both = [(scores.release_miou, scores.miou) for scores in chosen if scores.release_miou is not None]
    return {"release": mean(theirs for theirs, _ in both), "inflation": mean(theirs - ours for theirs, ours in both)}


def _validation(done: list[MeasuredRecord]) -> float:
    """Source-validation mIoU of the selected checkpoints, mean over seeds; NaN where one has none."""
    values = [run.record.selection.value if run.record.selection else None for run in done]
    return mean(NAN if value is None else value for value in values)


def _add_variants(board: Board, rows: list[Fields], entries: list[Fields]) -> None:
    """Add how many rows of the same method and backbone were run: by benchmark, and the most on any."""
    variants: dict[tuple[str, str, str], set[str]] = {}
    of_row: dict[str, tuple[str, str]] = {}
    for run in board.records:
        of_row[run.row] = (run.record.method, run.record.backbone.name if run.record.backbone else "")
        variants.setdefault((*of_row[run.row], run.record.benchmark), set()).add(run.row)
    most: dict[str, int] = {}
    for entry in entries:
        if entry["row"] in of_row:
            entry["variants"] = len(variants.get((*of_row[entry["row"]], entry["benchmark"]), ()))
            most[entry["row"]] = max(most.get(entry["row"], 0), entry["variants"])
    for row in rows:
        row["variants"] = most.get(row["row"])


def _unconverged(records: Iterable[MeasuredRecord]) -> str:
    """How many of a row's runs until a plateau ran out of steps; empty where none did."""
    endings = [run.record.selection.convergence for run in records if run.completed and run.record.selection]
    asked = [ending for ending in endings if ending is not None]
    short = sum(not ending.converged for ending in asked)
    return f"{short} of {len(asked)} not converged" if short else ""


def _about(record: Record) -> Fields:
    return {"benchmark": record.benchmark, "dataset": record.dataset, "gap": record.gap,
            "reference": record.gap == "none"}  # fmt: skip
