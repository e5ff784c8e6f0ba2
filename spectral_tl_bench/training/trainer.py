"""Lightning's trainer, as a stage needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from spectral_tl_bench.data.shares import mine
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.loggers import CellLogs


class JoinedProcesses(LightningEnvironment):
    """The group of processes that this one has joined; a group of one, by default. SLURM and torchrun are not asked."""

    def __init__(self, devices: int = 1) -> None:
        super().__init__()
        self.devices = devices

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    def world_size(self) -> int:
        """Number of processes."""
        return mine().size

    def global_rank(self) -> int:
        """Number of this process."""
        return mine().rank

    def local_rank(self) -> int:
        """Its number on its node."""
        return mine().rank % self.devices

    def node_rank(self) -> int:
        """Number of its node."""
        return mine().rank // self.devices

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def set_global_rank(self, rank: int) -> None:
        """Known already."""


def make_trainer(
    hardware: Hardware,
    steps: int,
    callbacks: Sequence[Callback],
    folder: Path,
    validate_every: int | None,
    sync_statistics: bool = False,
    logs: CellLogs | None = None,
) -> Trainer:
    """A trainer for one stage.

    What Lightning does by itself in a SLURM job (signals, requeueing, ranks of tasks) stays off, whatever runs it.

    Args:
        steps: Optimiser steps.
        callbacks: A ``ModelCheckpoint`` among them is used.
        folder: Where checkpoints go.
        validate_every: Steps between validations; None for none.
        sync_statistics: Whether several devices share the batch statistics of normalisation layers.

    Raises:
        UserError: If the precision cannot be had.
    """
    together = mine().size > 1
    environment = JoinedProcesses(hardware.devices if together else 1)
    where: dict[str, Any] = {"plugins": [environment]}
    if together:
        # Methods may leave parameters without a gradient in a step. Buffers are made equal where they are used.
        ddp = DDPStrategy(cluster_environment=environment, find_unused_parameters=True, broadcast_buffers=False)
        where = {"strategy": ddp, "num_nodes": hardware.nodes, "sync_batchnorm": sync_statistics}
    trainer = Trainer(
        accelerator=hardware.accelerator, devices=hardware.devices if together else 1, precision=hardware.precision,
        use_distributed_sampler=False, **where,
        max_steps=steps, max_epochs=1, callbacks=[*callbacks, *([logs] if logs else [])],
        logger=logs.loggers if logs else False, log_every_n_steps=logs.every if logs else None,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        val_check_interval=validate_every, limit_val_batches=None if validate_every else 0, default_root_dir=folder,
    )  # fmt: skip
    if trainer.precision != hardware.precision:
        raise UserError(
            f"--precision {hardware.precision} would be {trainer.precision} here", fix="ask for what can be had"
        )
    return trainer
