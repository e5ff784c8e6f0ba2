"""One cell of a run, from chips to a stored record: build -> train -> test -> write."""

from __future__ import annotations

import functools
import gc
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from spectral_tl_bench import pause
from spectral_tl_bench.data.source import SYNTHETIC
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.endings import LeftError, contained
from spectral_tl_bench.errors import RecordError, StorageError, UserError
from spectral_tl_bench.identity import RunIdentity
from spectral_tl_bench.methods.registry import GROUP as METHODS
from spectral_tl_bench.methods.registry import distribution_of, split_name
from spectral_tl_bench.models.backbones.registry import GROUP as BACKBONES
from spectral_tl_bench.objectives.registry import GROUP as OBJECTIVES
from spectral_tl_bench.plugins import installed, is_ours
from spectral_tl_bench.protocol.names import GROUP as PROTOCOLS
from spectral_tl_bench.provenance import environment
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, mark_tuned, read_record, record_folder, verify
from spectral_tl_bench.runner import checkpoints
from spectral_tl_bench.runner.build import BuiltRun, Workplace, build
from spectral_tl_bench.runner.cell_log import add_to_log, logged
from spectral_tl_bench.runner.definitions import Cell, OpenBenchmark, Outcome
from spectral_tl_bench.runner.lease import BUSY, Lease, who_has
from spectral_tl_bench.runner.memory import explained, with_enough_parts
from spectral_tl_bench.runner.rescue import bring_home, write_or_rescue
from spectral_tl_bench.runner.standing import forget, standing_of
from spectral_tl_bench.runner.test import TestedModel, leaked, test
from spectral_tl_bench.runner.together import together
from spectral_tl_bench.runner.train import train
from spectral_tl_bench.runner.write import ERROR_FILE, Clock, write_failure
from spectral_tl_bench.storage import scratch
from spectral_tl_bench.training.hardware import Hardware, computing_threads
from spectral_tl_bench.training.measured import waiting_line
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.trained import TrainedModel


def run_cell(
    cell: Cell, out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool = False, wait: bool = True
) -> Outcome:
    """Run one cell, or find its finished record.

    A method that raises ends its own cell: the failure is stored as a record, with the traceback beside it.

    Args:
        out: Root of the record store.
        workers: Readers: processes, or threads where all chips are packed.
        fresh: Run again even where a finished record exists, and from the start.
        wait: Wait where another run has the cell; otherwise the outcome is ``busy``.
    """
    threads = hardware.threads or (1 if cell.opened.is_small else torch.get_num_threads())
    with computing_threads(threads):
        fields, path = facts_of(cell, out, threads)
        if not fresh and (outcome := _found(cell, path, fields, say)):
            checkpoints.forget(out, fields["fingerprint"])  # a run that was killed as it wrote the record has left them
            return outcome
        if pause.asked():
            return _paused(cell)
        with Lease(path.parent) as lease:
            if not lease.take():
                if not wait:
                    return Outcome(cell, BUSY, path, None, who_has(path.parent))
                lease.take_patiently(lambda: say(f"{cell.title} | {who_has(path.parent)} runs it, waiting"))
            try:
                if not fresh:  # another run may have finished it meanwhile
                    outcome = _found(cell, path, fields, _silent)
                    if outcome is None and bring_home(out, fields, say):
                        outcome = _found(cell, path, fields, say)
                    if outcome is not None:
                        return outcome
            except StorageError as error:
                return Outcome(cell, "failed", None, None, str(error))
            if fresh:
                checkpoints.forget(out, fields["fingerprint"])
            with logged(path.parent, say) as say_and_log, standing_of(out, fields) as standing:
                add_to_log(path.parent, f"{cell.title} | {fields['fingerprint']} | {standing.who}")
                outcome = _run(cell, fields, Workplace(out, hardware, workers, say_and_log))
                add_to_log(path.parent, outcome.line)
                if outcome.record is not None:
                    forget(out, path.parent.name)
                else:
                    standing.write(ended=outcome.state if outcome.state == "paused" else _short(outcome.message))
    return outcome


def _run(cell: Cell, fields: dict[str, Any], workplace: Workplace) -> Outcome:
    """The four steps of a cell, whatever happens in them."""
    out = workplace.out
    try:
        with contained():
            measure = functools.partial(_measure, fields=fields)
            built, trained, tested, clock = with_enough_parts(measure, cell, workplace, fields)
    except pause.Paused:
        return _paused(cell)
    except UserError as error:
        _forget_failed(out, fields, error)
        return Outcome(cell, "refused", write_failure(out, fields, _failure(error)), None, str(error))
    except Exception as error:  # whatever a method raises; its own cell ends, the others go on
        _forget_failed(out, fields, error)
        failure = explained(_failure(error), error, cell, fields)
        return fail(cell, out, fields, failure, traceback.format_exc(), "the traceback")
    try:
        record = write_or_rescue(built, trained, tested, fields, clock)
    except StorageError as error:
        return Outcome(cell, "failed", None, None, str(error))
    checkpoints.forget(out, fields["fingerprint"])
    return Outcome(cell, "done", record.path, record.scores.selected.miou if record.scores else None)


def _found(cell: Cell, path: Path, fields: dict[str, Any], say: Say) -> Outcome | None:
    """The outcome of a cell that has a finished record."""
    record = finished(cell, path, fields, say)
    return Outcome(cell, "found", path, record.scores.selected.miou) if record and record.scores else None


def _paused(cell: Cell) -> Outcome:
    """How a cell ends, or does not begin, once somebody has asked for a pause."""
    return Outcome(cell, "paused", None, None, "the same command goes on")


def _forget_failed(out: Path, fields: dict[str, Any], error: Exception) -> None:
    """Have a method that has failed begin anew, and one go on that had no room, in memory or on a disk."""
    without_room = isinstance(error, MemoryError | OSError | StorageError | torch.OutOfMemoryError)
    signs = ("out of memory", "allocate memory", "memory runs out")
    if not without_room and not any(sign in str(error).lower() for sign in signs):
        checkpoints.forget(out, fields["fingerprint"])


def facts_of(cell: Cell, out: Path, threads: int) -> tuple[dict[str, Any], Path]:
    """What is known about a cell before it runs, and where its record is or will be."""
    split = cell.split()
    fields = common_fields(cell, split, cell.identity(split), threads)
    return fields, record_folder(out, cell.opened.benchmark.id, cell.method_name, fields["fingerprint"]) / RECORD_FILE


def fail(cell: Cell, out: Path, fields: dict[str, Any], failure: dict[str, str], log: str, what: str) -> Outcome:
    """Store a failed record, with a log beside it.

    Args:
        out: Root of the record store.
        fields: What is known about the cell, from ``facts_of``.
        failure: ``kind`` and ``message``.
        log: What helps to find out why.
        what: What the log is.
    """
    stored = write_failure(out, fields, failure, log)
    where = f"{stored.parent / ERROR_FILE} holds {what}" if stored else f"{out}, which has no room for more"
    message = f"{failure['kind']}: {_short(failure['message'])}\n  where: {where}"
    return Outcome(cell, "failed", stored, None, message)


def _measure(
    cell: Cell, workplace: Workplace, fields: dict[str, Any]
) -> tuple[BuiltRun, TrainedModel, TestedModel, Clock]:
    """The first three steps, in which a method may raise."""
    try:
        with together(cell, workplace), scratch() as folder:
            built = build(cell, cell.split(), workplace)
            store = checkpoints.cell_store(cell, fields["fingerprint"], workplace.out, built.hardware, workplace.say)
            trained = train(built, folder, store, leaked(built))
            end_of_training = time.monotonic()
            index = cell.opened.index
            if line := waiting_line(trained.stages, workplace.workers, len(index.packed.places) == len(index.frame)):
                workplace.say(f"{cell.title} | {line}")
            tested = test(built, trained)
    finally:
        gc.collect()  # Lightning's trainers hold their modules in cycles; many cells may follow in this process
    return built, trained, tested, Clock(end_of_training, time.monotonic())


def finished(cell: Cell, path: Path, fields: dict[str, Any], say: Say) -> Record | None:
    """The record of a finished cell, if it holds all that is asked for; one that is damaged does not count."""
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        if record.scores is None or (cell.oracle and record.scores.oracle is None):
            return None
        verify(record)
    except RecordError as error:
        say(f"{cell.title} | its record cannot be used and is made again: {_short(str(error))} ({path})")
        return None
    if record.environment.get("method code") != fields["environment"]["method code"] and not _is_ours(cell):
        say(
            f"{cell.title} | found, but the method's code has changed since, and its version has not: "
            "raise it (or numerics_version), or run with --fresh"
        )
    if cell.tuning is not None and record.tuning != cell.tuning:  # from now on it says what it stems from
        return mark_tuned(record, cell.tuning)
    return record


def _is_ours(cell: Cell) -> bool:
    """Whether golden cases watch over the method's numbers."""
    return type(cell.method).__module__.partition(".")[0] in ("spectral_tl_bench", "spectralx")


def is_foreign(cell: Cell) -> bool:
    """Whether code of other packages takes part in a cell."""
    names = {METHODS: [split_name(cell.method_name)[0]], OBJECTIVES: cell.objectives, BACKBONES: [cell.backbone.name],
             PROTOCOLS: [cell.protocol.name]}  # fmt: skip
    return any(
        not is_ours(entry)
        for group, chosen in names.items()
        for name, entry in installed(group).items()
        if name in chosen
    )


def _silent(_line: str) -> None:
    """For what was said before."""


def _short(text: str) -> str:
    return (text.strip().splitlines() or ["(no message)"])[0][:300]


def _failure(error: Exception) -> dict[str, str]:
    kind = error.kind if isinstance(error, LeftError) else type(error).__name__
    return {"kind": kind, "message": str(error)[:4000]}


__all__ = ["Cell", "OpenBenchmark", "Outcome", "Say", "run_cell"]


def data_facts(cell: Cell, split: SplitTable) -> dict[str, Any]:
    """Which pixels the run sees."""
    index, roles = cell.opened.index, ("train", "validation", "target")
    return {
        "kind": cell.opened.source.kind,
        "chips": {role: len(split.chips(role)) for role in roles},
        "split_hash": split.hash,
        "manifest_hash": index.manifest,
        "notes": [*cell.opened.notes, *split.notes],
        "unit": index.unit,
        "unmeasured": {role: int(index.frame.loc[split.chips(role), "nodata_pixels"].sum()) for role in roles},
    }


def common_fields(cell: Cell, split: SplitTable, identity: RunIdentity, threads: int) -> dict[str, Any]:
    """The fields of a record that are known before anything is measured."""
    benchmark = cell.opened.benchmark
    made_with = environment(*distribution_of(cell.method_name), type(cell.method).__module__)
    return {
        "benchmark": benchmark.id,
        "benchmark_version": benchmark.version,
        "dataset": benchmark.dataset,
        "gap": benchmark.gap,
        "method": cell.method_name,
        "family": cell.method.family,
        "options": cell.method.model_dump(mode="json"),
        "objectives": cell.objective_options(),
        "backbone": cell.backbone_facts(),
        "target_images": cell.method.target_images,
        "protocol": cell.settings.protocol,
        "seed": cell.seed,
        "settings": cell.settings.model_dump(mode="json"),
        "track": cell.opened.track,
        "fingerprint": identity.fingerprint,
        "definition": identity.definition,
        "numerics": identity.numerics,
        "given_stage": identity.stage,
        "classes": list(benchmark.labels.names),
        "source_domains": list(benchmark.source),
        "target_domains": list(benchmark.target),
        "environment": {**made_with, "threads": str(threads)},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "statement": SYNTHETIC if cell.opened.track == "sample" else None,
        "data": data_facts(cell, split),
        "tuning": cell.tuning and cell.tuning.model_dump(mode="json"),
    }
