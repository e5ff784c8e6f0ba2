"""Long tables at full precision, for CSV and Parquet: single runs, and what the analysis makes of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board import CHECKPOINTS, FLOOR, Board, drops, floors
from spectral_tl_bench.leaderboard.frames import Fields, known_values
from spectral_tl_bench.leaderboard.measured import MeasuredRecord, choice_of, row_options, searched
from spectral_tl_bench.leaderboard.text import as_json
from spectral_tl_bench.results.schema import ScoreBlock

_WHOLE, _REAL, _TEXT = pa.int64(), pa.float64(), pa.string()
_SCORES = {
    **dict.fromkeys(("miou", "oa", "mean_f1", "kappa"), _REAL),
    "worst_domain": _TEXT,
    **dict.fromkeys(("worst_domain_miou", "release_miou", "release_inflation"), _REAL),
    **dict.fromkeys(("iou", "per_domain"), _TEXT),
}
_LONG = {
    **dict.fromkeys((
        "track", "dataset", "benchmark", "benchmark_version", "gap", "method", "family", "options", "options_digest",
        "backbone", "pretrained", "backbone_digest", "protocol", "settings", "settings_digest",
    ), _TEXT),
    "seed": _WHOLE,
    "status": _TEXT,
    **{f"{checkpoint}_{name}": kind for checkpoint in CHECKPOINTS for name, kind in _SCORES.items()},
    "drop_from_in_domain": _REAL,
    "selected_step": _WHOLE,
    "selected_value": _REAL,
    **dict.fromkeys(("trainable", "decoder", "parameters"), _WHOLE),
    **dict.fromkeys(("seconds_train", "seconds_evaluate", "seconds_total", "peak_memory_mb"), _REAL),
    "device": _TEXT,
    **dict.fromkeys(("chips_train", "chips_validation", "chips_target", "majority_class"), _WHOLE),
    **dict.fromkeys(
        ("split_hash", "manifest_hash", "target_hash", "fingerprint", "error_kind", "error_message"), _TEXT
    ),
    "tuning_search": _TEXT,
    "tuning_draws": _WHOLE,
    "tuning_choice": _TEXT,
}  # fmt: skip
COLUMNS = tuple(_LONG)
"""Columns of the long table; lists and mappings are JSON, scores are fractions of 1."""
_TYPES = _LONG | dict.fromkeys(
    (
        "rank",
        "index",
        "places",
        "trainable_min",
        "trainable_max",
        "decoder_max",
        "truth_pixels",
        "predicted_pixels",
        "variants",
    ),
    _WHOLE,
)


def analysis_tables(analysis: Analysis) -> dict[str, pd.DataFrame]:
    """The frames of an analysis with the name of the board as first column: rows, cells, classes, domains."""
    frames = {
        "rows": analysis.rows,
        "cells": analysis.entries,
        "classes": analysis.classes,
        "domains": analysis.domains,
    }
    return {name: frame.assign(board=analysis.board.track)[["board", *frame.columns]] for name, frame in frames.items()}


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """CSV in UTF-8 with Unix line ends: what ``to_csv`` gives, in less time."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows(zip(*(known_values(values) for _, values in frame.items()), strict=True))
    return stream.getvalue().encode()


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Parquet whose types do not depend on which values are missing; the same frame gives the same bytes."""
    arrays = {
        str(name): pa.array(values, type=_arrow_type(str(name), values), from_pandas=True)
        for name, values in frame.items()
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays), stream, compression="zstd")
    return stream.getvalue()


def _arrow_type(name: str, values: pd.Series) -> pa.DataType:
    if pd.api.types.is_bool_dtype(values):
        return pa.bool_()
    # the name before the values: whole numbers become floats where one is missing
    return _TYPES[name] if name in _TYPES else _REAL if pd.api.types.is_float_dtype(values) else _TEXT


def long_table(board: Board) -> pd.DataFrame:
    """One row per benchmark, row of the board and seed; missing and failed cells included, floors last.

    Args:
        board: A track's board.

    Returns:
        A frame of plain Python values with the columns ``COLUMNS``, empty where there is nothing to say.
    """
    loss = drops(board.records)
    lines: list[Fields] = []
    for group in board.groups().values():
        siblings = {seed: run for by_seed in group.values() for seed, run in by_seed.items()}
        methods = {seed: method_fields(run) for seed, run in siblings.items()}
        for name in board.columns:
            about = _about(board, name)
            for seed in sorted(siblings):
                run = group.get(name, {}).get(seed)
                facts = {"status": "missing"} if run is None else run_fields(run, loss)
                lines.append({**about, **methods[seed], **facts})
    for floor in floors(board.records):
        facts = {"method": FLOOR, "family": "floor", "status": "completed", "majority_class": floor.majority_class}
        scores = _scores("selected", floor.scores)
        lines.extend({**_about(board, floor.benchmark), **facts, **scores, "seed": seed} for seed in floor.seeds)
    return pd.DataFrame([[line.get(name) for name in COLUMNS] for line in lines], columns=list(COLUMNS), dtype=object)


def _about(board: Board, benchmark: str) -> Fields:
    names = {"dataset", "benchmark", "benchmark_version", "gap"}
    return {"track": board.track, **board.known[benchmark].model_dump(include=names)}


def method_fields(measured: MeasuredRecord) -> Fields:
    """What was run, apart from the benchmark."""
    record, (method, backbone, options, backbone_digest, protocol, settings) = measured.record, measured.key
    return {
        "method": method,
        "family": record.family,
        "options": as_json(row_options(record)),
        "options_digest": options,
        "backbone": backbone,
        "pretrained": record.backbone.pretrained if record.backbone else None,
        "backbone_digest": backbone_digest,
        "protocol": protocol,
        "settings": as_json(searched(record)[1]),
        "settings_digest": settings,
        "seed": record.seed,
    }


def run_fields(measured: MeasuredRecord, loss: Mapping[str, float]) -> Fields:
    """What came of a run; ``loss`` holds the drop by fingerprint, see ``board.drops``."""
    record = measured.record
    names = ("status", "majority_class", "fingerprint", "peak_memory_mb", "device")
    line: Fields = {name: getattr(record, name) for name in names}
    line |= {"drop_from_in_domain": loss.get(record.fingerprint), "target_hash": measured.target or None}
    for checkpoint, scores in measured.blocks.items():
        line |= _scores(checkpoint, scores)
    if record.tuning is not None:
        line |= {"tuning_search": record.tuning.search, "tuning_draws": len(record.tuning.draws)}
        line |= {"tuning_choice": choice_of(record)}
    if record.selection is not None:
        line |= {"selected_step": record.selection.step, "selected_value": record.selection.value}
    if record.parameters is not None:
        line |= {"parameters": record.parameters.total, "trainable": record.parameters.trainable}
        line |= {"decoder": record.parameters.decoder}
    if record.data is not None:
        line |= {"split_hash": record.data.split_hash, "manifest_hash": record.data.manifest_hash}
    parts = {"seconds": record.seconds, "chips": record.data and record.data.chips, "error": record.error}
    for name, part in parts.items():
        line |= {f"{name}_{key}": value for key, value in part} if part is not None else {}
    return line


def _scores(checkpoint: str, scores: ScoreBlock) -> Fields:
    values = {
        **vars(scores),
        "worst_domain_miou": scores.per_domain[scores.worst_domain],
        "release_inflation": None if scores.release_miou is None else scores.release_miou - scores.miou,
        "iou": as_json(scores.iou),
        "per_domain": as_json(scores.per_domain),
    }
    return {f"{checkpoint}_{name}": values[name] for name in _SCORES}
