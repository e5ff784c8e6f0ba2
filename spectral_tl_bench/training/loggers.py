"""What training is written down with beside the record: Lightning's loggers, by cell and stage."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from spectral_tl_bench.errors import UserError, nearest

PROJECT = "spectral-tl-bench"
RUN_FILE = "mlflow-run.txt"


def _csv(folder: Path, _title: str) -> Logger:
    return CSVLogger(folder, name="", version="")


def _tensorboard(folder: Path, _title: str) -> Logger:
    return TensorBoardLogger(folder, name="", version="")


def _wandb(folder: Path, title: str) -> Logger:
    folder.mkdir(parents=True, exist_ok=True)
    # Nothing leaves the machine by itself: `wandb sync` uploads, or WANDB_MODE=online.
    offline = os.environ.get("WANDB_MODE", "offline") != "online"
    key = f"{folder.parents[2].name}-{folder.parent.name}"  # of the cell, so that a run that goes on is the same one
    return WandbLogger(name=title, save_dir=folder, project=PROJECT, id=key, resume="allow", offline=offline)


def _mlflow(folder: Path, title: str) -> Logger:
    known, place = folder / RUN_FILE, os.environ.get("MLFLOW_TRACKING_URI")
    folder.mkdir(parents=True, exist_ok=True)
    logger = MLFlowLogger(
        experiment_name=PROJECT, run_name=title, tracking_uri=place or f"sqlite:///{folder.resolve() / 'mlflow.db'}",
        run_id=known.read_text(encoding="utf-8") if known.is_file() else None,
    )  # fmt: skip
    known.write_text(str(logger.run_id), encoding="utf-8")
    return logger


LOGGERS: dict[str, tuple[Callable[[Path, str], Logger], tuple[str, ...]]] = {
    "csv": (_csv, ()),
    "tensorboard": (_tensorboard, ("tensorboard", "tensorboardX")),
    "wandb": (_wandb, ("wandb",)),
    "mlflow": (_mlflow, ("mlflow", "mlflow_skinny")),
}
"""How each is made for a folder and a title, and the packages of which it needs one."""


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that are unknown or not installed.

    Raises:
        UserError: If there is one.
    """
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"--logger {name}: there is none of that name", expected=nearest(name, LOGGERS))
        packages = LOGGERS[name][1]
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            raise UserError(f"--logger {name} needs a package that is not installed", fix=f"pip install {packages[0]}")


class CellLogs(Callback):
    """The loggers of a stage, which begin anew with it and go on where it goes on; notes the learning rate as well.

    Args:
        folder: Of the stage; each logger writes into a folder of its own there.
        title: What is running.
    """

    def __init__(self, names: Sequence[str], folder: Path, title: str, steps: int) -> None:
        self._earlier = {path: path.read_bytes() if path.suffix == ".csv" else b"" for path in _files(folder)}
        self._table = folder / "csv" / "metrics.csv"
        self.loggers = [LOGGERS[name][0](folder / name, title) for name in names]
        self.every = max(1, min(50, steps // 20))

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """Forget what an earlier run has logged, or take up its rows."""
        if trainer.global_step == 0:
            for path in self._earlier if trainer.is_global_zero else ():
                if path.name.startswith("events.out"):
                    path.unlink(missing_ok=True)
        elif self._table in self._earlier:
            self._take_up(self._earlier[self._table].decode(), trainer.global_step)

    def _take_up(self, text: str, step: int) -> None:
        """Put back the rows of before a step, which Lightning's CSV logger has removed."""
        reader = csv.DictReader(text.splitlines())
        rows = [row for row in reader if int(row["step"]) < step]
        for logger in self.loggers:
            if isinstance(logger, CSVLogger):
                logger.experiment.metrics_keys = list(reader.fieldnames or ())
                with self._table.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, fieldnames=logger.experiment.metrics_keys)
                    writer.writeheader()
                    writer.writerows(rows)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """The learning rate, at the rhythm of the loss."""
        if trainer.global_step % self.every == 0:
            rate = float(trainer.optimizers[0].param_groups[0]["lr"])
            for logger in self.loggers:
                logger.log_metrics({"learning_rate": rate}, step=trainer.global_step - 1)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
