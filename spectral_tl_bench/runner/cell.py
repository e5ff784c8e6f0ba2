"""One cell of a run, from chips to a stored record: build -> train -> test -> write."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from spectral_tl_bench.errors import RecordError, StorageError, UserError
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, read_record, record_folder, verify
from spectral_tl_bench.runner.build import BuiltRun, Workplace, build
from spectral_tl_bench.runner.definitions import Cell, OpenBenchmark, Outcome
from spectral_tl_bench.runner.facts import common_fields
from spectral_tl_bench.runner.rescue import bring_home, write_or_rescue
from spectral_tl_bench.runner.test import TestedModel, test
from spectral_tl_bench.runner.train import train
from spectral_tl_bench.runner.write import ERROR_FILE, Clock, write_failure
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.trained import TrainedModel


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
    fields = common_fields(cell, split, cell.identity(split))
    path = record_folder(out, cell.opened.benchmark.id, cell.method_name, fields["fingerprint"]) / RECORD_FILE
    try:
        finished = None if fresh else _finished(cell, path, fields, say)
        if finished is None and not fresh and bring_home(out, fields, say):
            finished = _finished(cell, path, fields, say)
    except StorageError as error:
        return Outcome(cell, "failed", None, None, str(error))
    if finished is not None and finished.scores is not None:
        return Outcome(cell, "found", path, finished.scores.selected.miou)
    try:
        built, trained, tested, clock = _measure(cell, Workplace(out, hardware, workers, say))
    except UserError as error:
        return Outcome(cell, "refused", write_failure(out, fields, error), None, str(error))
    except Exception as error:  # whatever a method raises; its own cell ends, the others go on
        stored = write_failure(out, fields, error, traceback.format_exc())
        log = f"{stored.parent / ERROR_FILE} holds the traceback" if stored else f"{out}, which has no room for more"
        message = f"{type(error).__name__}: {_short(error)}\n  where: {log}"
        return Outcome(cell, "failed", stored, None, message)
    try:
        record = write_or_rescue(built, trained, tested, fields, clock)
    except StorageError as error:
        return Outcome(cell, "failed", None, None, str(error))
    return Outcome(cell, "done", record.path, record.scores.selected.miou if record.scores else None)


def _measure(cell: Cell, workplace: Workplace) -> tuple[BuiltRun, TrainedModel, TestedModel, Clock]:
    """The first three steps, in which a method may raise."""
    built = build(cell, cell.split(), workplace)
    folder = Path(tempfile.mkdtemp(prefix="stbench-"))
    try:
        trained = train(built, folder)
        end_of_training = time.monotonic()
        tested = test(built, trained)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        gc.collect()  # Lightning's trainers hold their modules in cycles; many cells may follow in this process
    return built, trained, tested, Clock(end_of_training, time.monotonic())


def _finished(cell: Cell, path: Path, fields: dict[str, Any], say: Say) -> Record | None:
    """The record of a finished cell, if it holds all that is asked for; one that is damaged does not count."""
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        if record.scores is None or (cell.oracle and record.scores.oracle is None):
            return None
        verify(record)
    except RecordError as error:
        say(f"{cell.title} | its record cannot be used and is made again: {_short(error)} ({path})")
        return None
    if record.environment.get("method code") != fields["environment"]["method code"] and not _is_ours(cell):
        say(
            f"{cell.title} | found, but the method's code has changed since, and its version has not: "
            "raise it (or numerics_version), or run with --fresh"
        )
    return record


def _is_ours(cell: Cell) -> bool:
    """Whether golden cases watch over the method's numbers."""
    return type(cell.method).__module__.partition(".")[0] in ("spectral_tl_bench", "spectralx")


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["(no message)"])[0][:300]


__all__ = ["Cell", "OpenBenchmark", "Outcome", "Say", "run_cell"]
