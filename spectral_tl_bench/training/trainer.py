"""Lightning's trainer, as a stage needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.training.hardware import Hardware


def make_trainer(
    hardware: Hardware, steps: int, callbacks: Sequence[Callback], folder: Path, validate_every: int | None
) -> Trainer:
    """A trainer for one stage.

    What Lightning does by itself in a SLURM job (signals, requeueing, ranks of tasks) stays off, whatever runs it.

    Args:
        hardware: Device and precision.
        steps: Optimiser steps.
        callbacks: A ``ModelCheckpoint`` among them is used.
        folder: Where checkpoints go.
        validate_every: Steps between validations; None for none.

    Raises:
        UserError: If the precision cannot be had.
    """
    trainer = Trainer(
        accelerator=hardware.accelerator, devices=1, precision=hardware.precision, plugins=[LightningEnvironment()],
        max_steps=steps, max_epochs=1, callbacks=list(callbacks),
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        val_check_interval=validate_every, limit_val_batches=None if validate_every else 0, default_root_dir=folder,
    )  # fmt: skip
    if trainer.precision != hardware.precision:
        raise UserError(
            f"--precision {hardware.precision} would be {trainer.precision} here", fix="ask for what can be had"
        )
    return trainer
