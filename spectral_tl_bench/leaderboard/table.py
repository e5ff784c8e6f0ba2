"""Long tables at full precision, for CSV and Parquet: single runs, and what the analysis makes of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spectral_tl_bench.leaderboard.board import FLOOR, Board, drops, floors
from spectral_tl_bench.leaderboard.measured import MeasuredRecord, all_options
from spectral_tl_bench.leaderboard.text import as_json
from spectral_tl_bench.results.schema import ScoreBlock

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.analysis import Analysis

_IDENTITY = (
    "track", "dataset", "benchmark", "benchmark_version", "gap", "method", "family", "options", "options_digest",
    "backbone", "pretrained", "backbone_digest", "protocol", "settings", "settings_digest", "seed", "status",
)  # fmt: skip
_SCORES = (
    "miou", "oa", "mean_f1", "kappa", "worst_domain", "worst_domain_miou", "release_miou", "release_inflation",
    "iou", "per_domain",
)  # fmt: skip
_FACTS = (
    "drop_from_in_domain", "selected_step", "selected_value", "trainable", "parameters", "seconds_train",
    "seconds_evaluate", "seconds_total", "peak_memory_mb", "device", "chips_train", "chips_validation",
    "chips_target", "majority_class", "split_hash", "manifest_hash", "target_hash", "fingerprint", "error_kind",
    "error_message",
)  # fmt: skip
_CHECKPOINTS = ("selected", "last", "oracle")
COLUMNS = (*_IDENTITY, *(f"{checkpoint}_{name}" for checkpoint in _CHECKPOINTS for name in _SCORES), *_FACTS)
"""Columns of the long table; lists and mappings are JSON, scores are fractions of 1."""

_WHOLE = {
    "seed", "rank", "index", "places", "selected_step", "trainable", "trainable_min", "trainable_max", "parameters",
    "chips_train", "chips_validation", "chips_target", "majority_class", "truth_pixels", "predicted_pixels",
}  # fmt: skip
_REAL = {
    *(f"{checkpoint}_{name}" for checkpoint in _CHECKPOINTS for name in _SCORES[:4]),
    *(f"{checkpoint}_{name}" for checkpoint in _CHECKPOINTS for name in _SCORES[5:8]),
    "drop_from_in_domain", "selected_value", "seconds_train", "seconds_evaluate", "seconds_total", "peak_memory_mb",
}  # fmt: skip


def analysis_tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """The frames of an analysis with the name of the board as first column: rows, cells, classes, domains."""
    found = {}
    for name in ("rows", "cells", "classes", "domains"):
        frame: pd.DataFrame = getattr(analysis, "entries" if name == "cells" else name).copy()
        frame.insert(0, "board", analysis.board.track)
        found[name] = frame
    return found


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """CSV in UTF-8 with Unix line ends."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Parquet whose types do not depend on which values are missing; the same frame gives the same bytes."""
    arrays, fields = [], []
    for name in map(str, frame.columns):
        kind = _arrow_type(name, frame[name])
        values = [None if pd.isna(value) else value for value in frame[name].tolist()]
        if kind == pa.string():
            values = [None if value is None else str(value) for value in values]
        elif kind == pa.int64():
            values = [None if value is None else round(value) for value in values]
        arrays.append(pa.array(values, type=kind))
        fields.append((name, kind))
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), stream, compression="zstd")
    return stream.getvalue()


def _arrow_type(name: str, values: pd.Series) -> pa.DataType:
    if pd.api.types.is_bool_dtype(values):
        return pa.bool_()
    if name in _WHOLE:  # before the floats, which whole numbers become where one is missing
        return pa.int64()
    return pa.float64() if name in _REAL or pd.api.types.is_float_dtype(values) else pa.string()


def long_table(board: Board) -> pd.DataFrame:
    """One row per benchmark, row of the board and seed; missing and failed cells included, floors last.

    Args:
        board: A track's board.

    Returns:
        A frame of plain Python values with the columns ``COLUMNS``, empty where there is nothing to say.
    """
    loss = drops(board.records)
    rows = []
    for group in board.groups().values():
        known = {seed: cell for by_seed in group.values() for seed, cell in by_seed.items()}
        for benchmark in (*board.benchmarks, *board.references):
            for seed in sorted(known):
                cell = group.get(benchmark, {}).get(seed)
                rows.append(_missing(board, known[seed], benchmark) if cell is None else _cell_row(board, cell, loss))
    by_benchmark = {cell.record.benchmark: cell for cell in board.records}
    for floor in floors(board.records):
        about = _about_benchmark(board, by_benchmark[floor.benchmark])
        facts = {"method": FLOOR, "family": "floor", "status": "completed", "majority_class": floor.majority_class}
        rows.extend({**about, **facts, "seed": seed, **_scores("selected", floor.scores)} for seed in floor.seeds)
    return pd.DataFrame([[row.get(name) for name in COLUMNS] for row in rows], columns=list(COLUMNS), dtype=object)


def _about_benchmark(board: Board, cell: MeasuredRecord) -> dict[str, Any]:
    record = cell.record
    return {
        "track": board.track,
        "dataset": record.dataset,
        "benchmark": record.benchmark,
        "benchmark_version": record.benchmark_version,
        "gap": record.gap,
    }


def _about_method(cell: MeasuredRecord) -> dict[str, Any]:
    record, (method, backbone, options, backbone_digest, protocol, settings) = cell.record, cell.key
    return {
        "method": method,
        "family": record.family,
        "options": as_json(all_options(record)),
        "options_digest": options,
        "backbone": backbone,
        "pretrained": record.backbone.pretrained if record.backbone else None,
        "backbone_digest": backbone_digest,
        "protocol": protocol,
        "settings": as_json(record.settings),
        "settings_digest": settings,
        "seed": record.seed,
    }


def _missing(board: Board, sibling: MeasuredRecord, benchmark: str) -> dict[str, Any]:
    other = next(cell for cell in board.records if cell.record.benchmark == benchmark)
    return {**_about_benchmark(board, other), **_about_method(sibling), "status": "missing"}


def _cell_row(board: Board, cell: MeasuredRecord, loss: dict[str, float]) -> dict[str, Any]:
    record = cell.record
    row = {**_about_benchmark(board, cell), **_about_method(cell), "status": record.status}
    for checkpoint, scores in cell.blocks.items():
        row |= _scores(checkpoint, scores)
    row |= {
        "drop_from_in_domain": loss.get(record.fingerprint),
        "majority_class": record.majority_class,
        "target_hash": cell.target or None,
        "fingerprint": record.fingerprint,
        "peak_memory_mb": record.peak_memory_mb,
        "device": record.device,
    }
    if record.selection is not None:
        row |= {"selected_step": record.selection.step, "selected_value": record.selection.value}
    if record.parameters is not None:
        row |= {"trainable": record.parameters.trainable, "parameters": record.parameters.total}
    if record.seconds is not None:
        row |= {f"seconds_{name}": value for name, value in record.seconds.model_dump().items()}
    if record.data is not None:
        row |= {f"chips_{name}": value for name, value in record.data.chips.model_dump().items()}
        row |= {"split_hash": record.data.split_hash, "manifest_hash": record.data.manifest_hash}
    if record.error is not None:
        row |= {"error_kind": record.error.kind, "error_message": record.error.message}
    return row


def _scores(checkpoint: str, scores: ScoreBlock) -> dict[str, Any]:
    inflation = None if scores.release_miou is None else scores.release_miou - scores.miou
    values = {
        **scores.model_dump(),
        "worst_domain_miou": scores.per_domain[scores.worst_domain],
        "release_inflation": inflation,
        "iou": as_json(scores.iou),
        "per_domain": as_json(scores.per_domain),
    }
    return {f"{checkpoint}_{name}": values[name] for name in _SCORES}
