"""Fourth step of a cell: its record, with weights, predictions and evidence beside it."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectral_tl_bench.data.units import summary
from spectral_tl_bench.files import write_bytes, write_text
from spectral_tl_bench.methods.adapters_io import Use, card_of, save_adapter
from spectral_tl_bench.objectives.registry import split_objectives
from spectral_tl_bench.results.model_card import CARD_FILE, model_card
from spectral_tl_bench.results.predictions import draw_chips, predictions_png
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, WEIGHTS_FILE, read_record, record_folder, write_record
from spectral_tl_bench.runner.build import BuiltRun
from spectral_tl_bench.runner.test import TestedModel
from spectral_tl_bench.training.trained import TrainedModel

ERROR_FILE = "error.txt"


@dataclass(frozen=True)
class Clock:
    """When the steps of a cell were over, in seconds on the monotonic clock."""

    trained: float
    tested: float


def measured_fields(built: BuiltRun, trained: TrainedModel, clock: Clock) -> dict[str, Any]:
    """The fields of a record that are measured. What a run took from elsewhere costs what it cost there."""
    first = built.first.seconds_elsewhere if built.first is not None else 0.0
    before = first + built.inputs.training.elsewhere + trained.earlier
    after = built.inputs.testing.elsewhere
    cell, device = built.cell, built.hardware.device
    cuda = device.type == "cuda"
    stages = [asdict(stage) for stage in trained.stages]
    if stages and built.hardware.precision != "32-true":
        stages[-1]["options"]["tested_in"] = "32-true"  # what Lightning does not run is computed in float32
    step, value = trained.selected[0], trained.selected_value
    ending = {"convergence": asdict(trained.convergence)} if trained.convergence else {}
    return {
        "majority_class": built.images.majority_class,
        "parameters": {"total": built.total, "trainable": built.trainable, "decoder": built.decoder},
        "stages": stages,
        "seconds": {
            "train": clock.trained - built.started + before,
            "evaluate": clock.tested - clock.trained + after,
            "total": clock.tested - built.started + before + after,
        },
        "peak_memory_mb": torch.cuda.max_memory_allocated() / 2**20 if cuda else _peak_memory(),
        "device": built.hardware.name,
        "selection": {
            "metric": cell.protocol.selection.name,
            "step": step,
            "value": value,
            "trace": trained.trace,
            **ending,
        },
    }


def write(
    built: BuiltRun, trained: TrainedModel, tested: TestedModel, fields: Mapping[str, Any], clock: Clock
) -> Record:
    """Store a finished cell. The record comes last: the cell counts as finished from then on.

    Args:
        fields: What is known about the cell before anything is measured.
        clock: When its steps were over.

    Raises:
        OSError: If there is no room, or it cannot be written; then there is no new record.
    """
    cell, out = built.cell, built.workplace.out
    folder = record_folder(out, cell.opened.benchmark.id, cell.method_name, fields["fingerprint"])
    use = _use(built, fields["fingerprint"])
    card = card_of(split_objectives(cell.method_name)[0], cell.method, cell.task()).usable(use)
    state = {name: value for name, value in trained.selected[1].items() if name in built.changeable}
    save_adapter(built.module, folder / WEIGHTS_FILE, card, state)
    file, sha256, content = predictions_png(cell.opened.benchmark, tested.predictions)
    write_bytes(folder / file, content)
    pictures = {"file": file, "sha256": sha256, "chips": list(tested.predictions)}
    measured = measured_fields(built, trained, clock)
    if trained.resumed:
        measured["environment"] = {**fields["environment"], "resumed": str(trained.resumed)}
    stored = write_record(out, {**fields, **measured, "pictures": pictures, "status": "completed"}, tested.evidence)
    _clear_older(folder, file)
    record = read_record(stored)
    try:
        write_text(folder / CARD_FILE, model_card(record, cell.opened.benchmark))
        draw_chips(record, out, cell.opened.benchmark, tested.target)
    except OSError as error:  # the result is stored, and the next one of these chips draws them
        built.workplace.say(f"{cell.title} | its card and its chips are not drawn: {error.strerror or error}")
    return record


def _use(built: BuiltRun, fingerprint: str) -> Use:
    """What it takes to apply the weights to images of one's own."""
    cell = built.cell
    statistics, training = built.images.statistics, cell.opened.index.frame.loc[built.split.chips("train")]
    mean, std, low = (
        tuple(np.nan_to_num(values).tolist()) for values in (statistics.mean, statistics.std, summary(training).low)
    )
    return Use(
        benchmark=cell.opened.benchmark, track=cell.opened.track, protocol=cell.protocol.name,
        settings=cell.settings.model_dump(mode="json"), mean=mean, std=std, low=low, fingerprint=fingerprint,
    )  # fmt: skip


def write_failure(out: Path, fields: Mapping[str, Any], failure: Mapping[str, str], trace: str = "") -> Path | None:
    """Store that a cell has failed.

    Args:
        out: Root of the record store.
        fields: What is known about the cell before anything is measured.
        failure: ``kind`` and ``message`` of what ended it.
        trace: The traceback, which is stored beside the record.

    Returns:
        Path of the record; None where it cannot be written.
    """
    try:
        stored = write_record(out, {**fields, "status": "failed", "error": dict(failure)})
        if trace:
            write_text(stored.parent / ERROR_FILE, trace)
    except OSError:
        return None
    return stored


def clear_unfinished(folder: Path) -> None:
    """Remove what a cell has left that could not be stored as a whole; a folder with a record stays as it is."""
    if not folder.is_dir() or (folder / RECORD_FILE).exists():
        return
    for path in folder.iterdir():
        if path.name in (WEIGHTS_FILE, CARD_FILE) or path.name.startswith(("pictures-", "evidence")):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there is something else in it
        for empty in (folder, *folder.parents[:2]):
            empty.rmdir()


def _clear_older(folder: Path, picture: str) -> None:
    """Remove what a run of the same cell has left before."""
    (folder / ERROR_FILE).unlink(missing_ok=True)
    for path in folder.glob("pictures-*.png"):
        if path.name != picture:
            path.unlink(missing_ok=True)


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
