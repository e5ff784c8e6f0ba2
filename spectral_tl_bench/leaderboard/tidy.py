"""Records as tidy frames: one row for each, or for each class, domain or place of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.leaderboard.board import drops
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.measured import MeasuredRecord, measure_record
from spectral_tl_bench.leaderboard.table import method_fields, run_fields
from spectral_tl_bench.results.places import mean_iou
from spectral_tl_bench.results.schema import Record

_SCORES = (
    "miou", "oa", "mean_f1", "kappa", "worst_domain", "worst_domain_miou", "release_miou", "release_inflation",
)  # fmt: skip
_WHOLE = (
    "seed", "step", "trainable", "decoder", "parameters", "chips_train", "chips_validation", "chips_target", "index",
    "truth_pixels", "predicted_pixels", "places",
)  # fmt: skip
_TEXT = ("worst_domain", "backbone", "pretrained", "device", "error_kind", "error_message", "tuning_choice")
NAMES = ("track", "benchmark", "method", "backbone", "protocol", "row", "seed", "fingerprint")
"""What tells a record, and the row of the board that it counts for, in every frame."""
RECORD = (
    "track", "dataset", "benchmark", "benchmark_version", "gap", "method", "family", "options", "backbone",
    "pretrained", "protocol", "settings", "row", "seed", "status", *_SCORES, "last_miou", "oracle_miou", "validation",
    "step", "drop_from_in_domain", "trainable", "decoder", "parameters", "seconds_train", "seconds_evaluate",
    "seconds_total", "peak_memory_mb", "device", "chips_train", "chips_validation", "chips_target", "tuning_choice",
    "error_kind", "error_message", "created", "fingerprint", "record",
)  # fmt: skip
CLASS = (*NAMES, "index", "class", "iou", "truth_pixels", "predicted_pixels")
DOMAIN = (*NAMES, "domain", "miou", "places", "truth_pixels")
PLACE = (*NAMES, "domain", "place", "miou", "truth_pixels")


def results_frame(records: Iterable[Record], per: str = "record") -> pd.DataFrame:
    """Stored records, their scores computed from the evidence.

    Args:
        records: Stored records; failed ones are in the frame of records alone.
        per: What a row is of: ``record``, ``class``, ``domain`` or ``place``, the last three of the selected
            checkpoint.

    Returns:
        A frame with the columns ``RECORD``, ``CLASS``, ``DOMAIN`` or ``PLACE``, sorted by what tells records. Scores
        are fractions of 1, options and settings JSON; what is not known is missing.

    Raises:
        UserError: If a row cannot be of that.
        RecordError: If the evidence of a record is missing or was changed.
    """
    if per not in _FRAMES:
        raise UserError(f"there is no frame per {per!r}", expected=f"one of {', '.join(_FRAMES)}",
                        fix=nearest(per, _FRAMES))  # fmt: skip
    columns, lines = _FRAMES[per]
    measured = [measure_record(record) for record in records]
    measured.sort(key=lambda run: (*map(str, list(_names(run).values())[:-2]), run.record.seed, run.record.fingerprint))
    frame = pd.DataFrame(list(lines(measured)), columns=list(columns))
    kinds = dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(frame.columns[_real(frame)], "float64")
    texts = {name: "" for name in _TEXT if name in frame}
    return frame.astype({name: kinds[name] for name in frame if name in kinds}).fillna(texts)


def _real(frame: pd.DataFrame) -> list[bool]:
    ends = ("miou", "inflation", "oa", "f1", "kappa", "iou", "domain_miou", "in_domain", "train", "evaluate", "total",
            "_mb", "validation")  # fmt: skip
    return [str(name).endswith(ends) and not str(name).startswith("chips_") for name in frame]


def _names(run: MeasuredRecord) -> Fields:
    record = run.record
    return {
        "track": record.board, "benchmark": record.benchmark, "method": record.method,
        "backbone": record.backbone.name if record.backbone else "", "protocol": record.protocol, "row": run.row,
        "seed": record.seed, "fingerprint": record.fingerprint,
    }  # fmt: skip


def _records(runs: list[MeasuredRecord]) -> Iterator[Fields]:
    loss = drops(runs)
    for run in runs:
        fields = {**_names(run), **method_fields(run), **run_fields(run, loss)}
        fields |= run.record.model_dump(include={"dataset", "benchmark_version", "gap", "created"})
        fields |= {name: fields.get(f"selected_{name}") for name in _SCORES}
        yield {
            **fields, "validation": fields.get("selected_value"), "step": fields.get("selected_step"),
            "record": run.record.path,
        }  # fmt: skip


def _classes(runs: list[MeasuredRecord]) -> Iterator[Fields]:
    for run in runs:
        if run.places is None:
            continue
        right, union, truth = (part.sum(axis=0) for part in (run.places.right, run.places.union, run.places.truth))
        for index, (name, iou) in enumerate(zip(run.record.classes, run.blocks["selected"].iou, strict=True)):
            said = int(union[index] - truth[index] + right[index])
            yield {
                **_names(run), "index": index, "class": name, "iou": iou, "truth_pixels": int(truth[index]),
                "predicted_pixels": said,
            }  # fmt: skip


def _domains(runs: list[MeasuredRecord]) -> Iterator[Fields]:
    for run in runs:
        for domain, matrix in sorted(run.matrices.items()):
            places = run.places.within(domain).places if run.places is not None else ()
            miou = run.blocks["selected"].per_domain[domain]
            yield {
                **_names(run), "domain": domain, "miou": miou, "places": len(places), "truth_pixels": int(matrix.sum()),
            }  # fmt: skip


def _places(runs: list[MeasuredRecord]) -> Iterator[Fields]:
    for run in runs:
        if run.places is None:
            continue
        values = mean_iou(run.places.right, run.places.union)
        pixels = run.places.truth.sum(axis=1)
        for (domain, place), miou, count in zip(run.places.places, np.asarray(values).tolist(), pixels, strict=True):
            yield {**_names(run), "domain": domain, "place": place, "miou": miou, "truth_pixels": int(count)}


_Lines = Callable[[list[MeasuredRecord]], Iterator[Fields]]
_FRAMES: Mapping[str, tuple[tuple[str, ...], _Lines]] = {
    "record": (RECORD, _records),
    "class": (CLASS, _classes),
    "domain": (DOMAIN, _domains),
    "place": (PLACE, _places),
}
