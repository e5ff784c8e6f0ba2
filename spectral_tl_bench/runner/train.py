"""Second step of a cell: the module goes through the stages of its method."""

from __future__ import annotations

from pathlib import Path

from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.results.store import record_folder
from spectral_tl_bench.runner.build import BuiltRun
from spectral_tl_bench.training.checkpoints import CheckpointStore
from spectral_tl_bench.training.train import FirstStageDone, TrainingRun
from spectral_tl_bench.training.train import train as train_module
from spectral_tl_bench.training.trained import TrainedModel


def _logs(built: BuiltRun) -> Path | None:
    """Where the cell's loggers write: beside its record, or in a folder of the same name below the user's."""
    if not built.hardware.loggers:
        return None
    cell = built.cell
    root, fingerprint = built.hardware.log_dir or built.workplace.out, cell.identity(built.split).fingerprint
    return record_folder(root, cell.opened.benchmark.id, cell.method_name, fingerprint) / "logs"


def train(
    built: BuiltRun, folder: Path, store: CheckpointStore | None = None, target: EvaluationData | None = None
) -> TrainedModel:
    """Train a built cell; nothing of the target is open yet, unless the protocol selects on it.

    Args:
        folder: For checkpoints; it must last until testing is over.
        store: Where those are kept from which training goes on after it was cut off; None keeps none.
        target: From ``runner.test.leaked``.

    Raises:
        Paused: If somebody has asked for it.
    """
    cell, first, settings = built.cell, built.first, built.cell.settings
    done = FirstStageDone(first.summary(built.stages[0].options), first.carried) if first is not None else None
    return train_module(
        TrainingRun(
            built.trainee, built.stages, built.source, settings.budget, len(cell.opened.benchmark.labels.names),
            settings.validations, built.seed, folder, built.hardware, built.workplace.say, cell.title,
            selection=cell.protocol.selection, target=target, keep_all=cell.oracle, first=done,
            objectives=cell.objectives, store=store, logs=_logs(built),
        )
    )  # fmt: skip
