"""Where and how a run computes."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from spectral_tl_bench.data.shares import mine
from spectral_tl_bench.errors import UserError

FEATURE_LIMIT = 50.0
"""Room for kept features where the user sets no other, in GiB."""


CHECKPOINT_EVERY = 600.0
"""Seconds between two checkpoints where the user sets no other."""


@dataclass(frozen=True)
class Meeting:
    """Where the nodes meet that train a cell together.

    Attributes:
        address: Name or address of the first node.
        port: Port there.
        key: What messages are signed with.
    """

    address: str
    port: int
    key: str = field(repr=False)


@dataclass(frozen=True)
class Hardware:
    """How to compute.

    Attributes:
        accelerator: Kind of device, as Lightning names it.
        precision: Of training; like ``compile`` it changes results a little and is one of the run's settings.
        feature_limit: Room for kept features, in GiB; 0 keeps none. It changes no result.
        threads: Computing threads on the CPU; 0 leaves it to the cell: one where chips are small, so that its result
            depends neither on the machine's cores nor on what runs beside it, else what PyTorch is set to.
        wait_for_room: Minutes to wait for room where a finished result cannot be stored.
        checkpoint_every: Seconds between two checkpoints, from which a cell goes on that was cut off; 0 keeps none.
        checkpoint_steps: Steps between two, in place of the time; for tests.
        devices: Devices of each node that a cell is trained on, a process each.
        passes: Forward and backward passes in which each device goes through its part of a batch.
        on_oom: What happens where the memory for a step runs out: the cell fails, or is run in more passes.
        loggers: What training is written down with, by name.
        log_dir: Root of that; None for the folder of the cell.
        meeting: Where several nodes meet; None where there is one.
    """

    accelerator: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    feature_limit: float = FEATURE_LIMIT
    threads: int = 0
    wait_for_room: float = 0.0
    checkpoint_every: float = CHECKPOINT_EVERY
    checkpoint_steps: int = 0
    devices: int = 1
    nodes: int = 1
    passes: int = 1
    on_oom: Literal["fail", "split"] = "fail"
    loggers: tuple[str, ...] = ()
    log_dir: Path | None = None
    meeting: Meeting | None = None

    @property
    def name(self) -> str:
        """What the device is called."""
        cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if cuda else f"{platform.machine()} CPU"

    @property
    def device(self) -> torch.device:
        """Where to compute what Lightning does not run."""
        cuda = torch.cuda.is_available() and self.accelerator in ("auto", "gpu", "cuda")
        if cuda and mine().size > 1:
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cuda" if cuda else "cpu")

    @property
    def processes(self) -> int:
        """How many processes train a cell together."""
        return self.devices * self.nodes

    def facts(self) -> dict[str, str]:
        """What a record says about it among its surroundings; nothing about what is usual."""
        facts = {"devices": self.processes, "nodes": self.nodes, "micro-batches": self.passes}
        return {name: str(number) for name, number in facts.items() if number > 1}


@contextlib.contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Compute with so many threads on the CPU, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chosen_gpus(text: str) -> list[str]:
    """The GPUs that a user names, as ``CUDA_VISIBLE_DEVICES`` does; numbers are those that PyTorch sees here.

    Args:
        text: Numbers or UUIDs with commas between them; empty for no choice.

    Raises:
        UserError: If one is not there, or is named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    number = torch.cuda.device_count() if names else 0
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    for name in names:
        if name.isdigit() and int(name) < number:
            continue
        if number == 0 or name.isdigit() or not name.startswith(("GPU-", "MIG-")):
            seen = f"PyTorch sees {number} GPUs here" if number else "PyTorch sees no GPU here"
            raise UserError(
                f"--gpus names {name!r}, but {seen}",
                expected=f"numbers from 0 to {number - 1}, or UUIDs" if number else "",
                fix="" if number else "leave out --gpus",
            )
    if len(set(names)) < len(names):
        raise UserError(f"--gpus {text} names a GPU twice")
    return [visible[int(name)] if name.isdigit() and int(name) < len(visible) else name for name in names]


def checked_hardware(
    accelerator: str, feature_limit: float = FEATURE_LIMIT, threads: int = 0, precision: str = "32-true",
    wait_for_room: float = 0.0, checkpoint_every: float = CHECKPOINT_EVERY, devices: int = 1, nodes: int = 1,
) -> Hardware:  # fmt: skip
    """The hardware by the name of its accelerator.

    Args:
        feature_limit: Room for kept features, in GiB.
        threads: Computing threads on the CPU; 0 leaves it to each cell.
        precision: What the settings will ask for.
        wait_for_room: Minutes to wait for room where a finished result cannot be stored.
        checkpoint_every: Seconds between two checkpoints; 0 keeps none.
        devices: Devices of each node that a cell is trained on.

    Raises:
        UserError: If a GPU is asked for and PyTorch sees none, there are fewer than that, or the device cannot compute
            in the precision.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("--accelerator gpu, but PyTorch sees no GPU here", fix="use --accelerator auto or cpu")
    hardware = Hardware(
        accelerator, feature_limit=feature_limit, threads=threads, wait_for_room=wait_for_room,
        checkpoint_every=checkpoint_every, devices=devices, nodes=nodes,
    )  # fmt: skip
    cuda = hardware.device.type == "cuda"
    if cuda and devices > 1 and devices > torch.cuda.device_count():
        raise UserError(f"--devices {devices}, but PyTorch sees {torch.cuda.device_count()} GPUs here")
    if precision == "16-mixed" and not cuda:  # Lightning would take bf16-mixed, and the record say 16-mixed
        raise UserError("--precision 16-mixed needs a GPU", fix="use --precision bf16-mixed or 32-true on a CPU")
    if precision == "bf16-mixed" and cuda and not torch.cuda.is_bf16_supported():
        raise UserError(f"--precision bf16-mixed: {torch.cuda.get_device_name()} has no bfloat16", fix="use 32-true")
    return hardware
