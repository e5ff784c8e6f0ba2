"""One cell of a run: one benchmark, one method, one seed; from chips to a stored record."""

from __future__ import annotations

import gc
import platform
import resource
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, SourceData, TargetImages
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.files import seed_from, write_bytes, write_text
from spectral_tl_bench.methods.adapters_io import card_of, changeable, save_adapter
from spectral_tl_bench.models.weights import State
from spectral_tl_bench.objectives.registry import split_objectives
from spectral_tl_bench.results.predictions import chips_to_show, draw_chips, predictions_png
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, read_record, record_folder, verify, write_record
from spectral_tl_bench.runner.definitions import Cell, OpenBenchmark, Outcome
from spectral_tl_bench.runner.facts import common_fields
from spectral_tl_bench.runner.kept_features import on_features
from spectral_tl_bench.runner.seeds import order_seed, weight_seed
from spectral_tl_bench.runner.stages import prepare
from spectral_tl_bench.training.fit import Fitted, Hardware, fit, load_state
from spectral_tl_bench.training.progress import Say

WEIGHTS_FILE = "selected.safetensors"
ERROR_FILE = "error.txt"


def run_cell(cell: Cell, out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool = False) -> Outcome:
    """Run one cell, or find its finished record.

    A method that raises ends its own cell: the failure is stored as a record, with the traceback beside it.

    Args:
        cell: What to run.
        out: Root of the record store.
        hardware: Device and precision.
        workers: Reader processes.
        say: Prints one line.
        fresh: Run again even where a finished record exists.

    Returns:
        The outcome.
    """
    split = cell.split()
    fingerprint = cell.fingerprint(split)
    path = record_folder(out, cell.opened.benchmark.id, cell.method_name, fingerprint) / RECORD_FILE
    found = None if fresh else _finished(cell, path, say)
    if found is not None and found.scores is not None:
        return Outcome(cell, "found", path, found.scores.selected.miou)
    fields = common_fields(cell, split, fingerprint)
    try:
        result, evidence, trained, shown = _measure(cell, split, hardware, workers, say)
    except UserError as error:
        stored = write_record(out, {**fields, "status": "failed", "error": _failure(error)})
        return Outcome(cell, "refused", stored, None, str(error))
    except Exception as error:  # whatever a method raises; its own cell ends, the others go on
        stored = write_record(out, {**fields, "status": "failed", "error": _failure(error)})
        log = stored.parent / ERROR_FILE
        write_text(log, traceback.format_exc())
        message = f"{type(error).__name__}: {_short(error)}\n  where: {log} holds the traceback"
        return Outcome(cell, "failed", stored, None, message)
    # The record comes last: a cell counts as finished from then on.
    card = card_of(split_objectives(cell.method_name)[0], cell.method, cell.task())
    save_adapter(trained.module, path.parent / WEIGHTS_FILE, card, trained.state)
    file, sha256, content = predictions_png(cell.opened.benchmark, shown.predictions)
    write_bytes(path.parent / file, content)
    result["pictures"] = {"file": file, "sha256": sha256, "chips": list(shown.predictions)}
    stored = write_record(out, {**fields, **result, "status": "completed"}, evidence)
    (stored.parent / ERROR_FILE).unlink(missing_ok=True)
    for picture in stored.parent.glob("pictures-*.png"):
        if picture.name != file:
            picture.unlink(missing_ok=True)  # of a run before
    record = read_record(stored)
    draw_chips(record, out, cell.opened.benchmark, shown.target)
    return Outcome(cell, "done", stored, record.scores.selected.miou if record.scores else None)


def _finished(cell: Cell, path: Path, say: Say) -> Record | None:
    """The record of a finished cell, if it holds all that is asked for; one that is damaged does not count."""
    if not path.is_file():
        return None
    try:
        found = read_record(path)
        if found.scores is None or (cell.oracle and found.scores.oracle is None):
            return None
        verify(found)
    except RecordError as error:
        say(f"{cell.title} | its record cannot be used and is made again: {_short(error)} ({path})")
        return None
    return found


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["(no message)"])[0][:300]


def _failure(error: Exception) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": str(error)[:4000]}


@dataclass(frozen=True)
class _Trained:
    """What the method built, and the selected weights of what training can change in it."""

    module: nn.Module
    state: State


@dataclass(frozen=True)
class _Shown:
    """Predictions of the selected checkpoint on a few chips, and the target that they are of."""

    predictions: dict[str, Any]
    target: EvaluationData


def _measure(
    cell: Cell, split: SplitTable, hardware: Hardware, workers: int, say: Say
) -> tuple[dict[str, Any], pd.DataFrame, _Trained, _Shown]:
    started = time.monotonic()
    benchmark, settings, index = cell.opened.benchmark, cell.settings, cell.opened.index
    loading = LoaderSettings(settings.window, settings.stride, settings.budget.batch_size, workers)
    source = _source(cell, split, loading)
    task = cell.task()
    seed = weight_seed(benchmark.id, cell.method_name, cell.seed)
    fixed = cell.method.fixed_features()
    if fixed is not None and fixed.head_seed:
        seed = seed_from(seed, "head", fixed.head_seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    module = built = cell.method.build(task)
    kept = changeable(module)
    declared = {parameter for parameter in module.parameters() if parameter.requires_grad}
    trainable = sum(parameter.numel() for parameter in declared)
    total = sum(parameter.numel() for parameter in module.parameters())
    hardware = replace(hardware, precision=settings.precision, compile=settings.compile)
    stages = cell.method.stages(task)
    first = prepare(cell, split, module, source, hardware, say)
    features = on_features(cell, split, module, source, hardware, say)
    if features is not None:
        module, source = features.source()
    work = Path(tempfile.mkdtemp(prefix="stbench-"))
    try:
        fitted = fit(
            module, stages, source, settings.budget, task.num_classes, folder=work,
            validations=settings.validations, weight_seed=seed, hardware=hardware, say=say, title=cell.title,
            keep_all=cell.oracle, done=first.summary(stages[0].options) if first else None,
            carried=first.carried if first else frozenset(), objectives=cell.objectives,
        )  # fmt: skip
        trained = time.monotonic()
        device = hardware.device
        target = pixels = EvaluationData(benchmark, index, split.chips("target"), loading, source.statistics)
        if features is not None:
            target = features.target(target)
            fitted.stages[-1].options.update(features.facts())
        shown = _Shown(dict.fromkeys(chips_to_show(index.frame.loc[split.chips("target")])), pixels)
        evidence = _evaluate_checkpoints(cell, fitted, source, target, task.num_classes, device, say, shown.predictions)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        gc.collect()  # Lightning's trainers hold their modules in cycles; many cells may follow in this process
    finished = time.monotonic()
    elsewhere = first.seconds_elsewhere if first else 0.0
    later = 0.0
    if features is not None:
        elsewhere, later = elsewhere + features.training.elsewhere, features.testing.elsewhere
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_memory()
    result = {
        "majority_class": source.majority_class,
        "parameters": {"total": total, "trainable": trainable},
        "stages": [asdict(stage) for stage in fitted.stages],
        "seconds": {
            "train": trained - started + elsewhere,
            "evaluate": finished - trained + later,
            "total": finished - started + elsewhere + later,
        },
        "peak_memory_mb": memory,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " CPU",
        "selection": {
            "step": fitted.selected[0],
            "value": fitted.selected_value,
            "trace": fitted.trace,
        },
    }
    if first is not None:
        kept |= first.carried
    trained_state = {name: x for name, x in fitted.selected[1].items() if name in kept}
    return result, evidence, _Trained(built, trained_state), shown


def _source(cell: Cell, split: SplitTable, loading: LoaderSettings) -> SourceData:
    """What training sees; target images are there only for methods that ask for them, whose results stand apart."""
    benchmark, index = cell.opened.benchmark, cell.opened.index
    source = SourceData(benchmark, index, split, loading, order_seed(benchmark.id, cell.seed))
    if cell.method.target_images:
        chips = split.chips("target")
        source.target_images = TargetImages(benchmark, index, chips, loading, source.statistics)
    return source


def _evaluate_checkpoints(
    cell: Cell, fitted: Fitted, source: SourceData, target: EvaluationData, classes: int, device: torch.device,
    say: Say, shown: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """The target is opened here, after training and selection are over.

    Fills ``shown`` with the selected checkpoint's predictions of the chips that it names.
    """
    normalise = source.normaliser()
    done: dict[tuple[int, bool], pd.DataFrame] = {}

    def show(chip: str, prediction: Any) -> None:
        if chip in shown and shown[chip] is None:  # the selected checkpoint comes first
            shown[chip] = prediction

    def table(step: int, state: State, averaged: bool = False) -> pd.DataFrame:
        key = (step, averaged)
        if key not in done:
            load_state(fitted.module, state)
            what = "the average up to step" if averaged else "step"
            say(f"{cell.title} | testing {what} {step} on {len(target.rows)} target chips")
            done[key] = evaluate(fitted.module, normalise, target, classes, device, on_chip=show)
        return done[key]

    parts = [
        table(*fitted.selected, averaged=fitted.averaged is not None).assign(checkpoint="selected"),
        table(*fitted.last).assign(checkpoint="last"),
    ]
    if cell.oracle:
        tables = [table(step, state) for step, state in fitted.all_states()]
        best = max([*tables, *done.values()], key=lambda part: score(sum(part["matrix"])).miou)
        parts.append(best.assign(checkpoint="oracle"))
    return pd.concat(parts, ignore_index=True)


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


__all__ = ["Cell", "OpenBenchmark", "Outcome", "Say", "run_cell"]
