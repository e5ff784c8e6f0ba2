"""Where and how a run computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from spectral_tl_bench.errors import UserError

FEATURE_LIMIT = 50.0
"""Room for kept features where the user sets no other, in GiB."""


CHECKPOINT_EVERY = 600.0
"""Seconds between two checkpoints where the user sets no other."""


@dataclass(frozen=True)
class Hardware:
    """How to compute.

    Attributes:
        accelerator: Kind of device, as Lightning names it.
        precision: Of training; like ``compile`` it changes results a little and is one of the run's settings.
        compile: Whether training steps are compiled.
        feature_limit: Room for kept features, in GiB; 0 keeps none. It changes no result.
        threads: Computing threads on the CPU; 0 leaves it to the cell: one where chips are small, so that its result
            depends neither on the machine's cores nor on what runs beside it, else what PyTorch is set to.
        wait_for_room: Minutes to wait for room where a finished result cannot be stored.
        checkpoint_every: Seconds between two checkpoints, from which a cell goes on that was cut off; 0 keeps none.
        checkpoint_steps: Steps between two, in place of the time; for tests.
    """

    accelerator: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    feature_limit: float = FEATURE_LIMIT
    threads: int = 0
    wait_for_room: float = 0.0
    checkpoint_every: float = CHECKPOINT_EVERY
    checkpoint_steps: int = 0

    @property
    def device(self) -> torch.device:
        """Where to compute what Lightning does not run."""
        cuda = torch.cuda.is_available() and self.accelerator in ("auto", "gpu", "cuda")
        return torch.device("cuda" if cuda else "cpu")


@contextlib.contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Compute with so many threads on the CPU, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def checked_hardware(
    accelerator: str, feature_limit: float = FEATURE_LIMIT, threads: int = 0, precision: str = "32-true",
    wait_for_room: float = 0.0, checkpoint_every: float = CHECKPOINT_EVERY,
) -> Hardware:  # fmt: skip
    """The hardware by the name of its accelerator.

    Args:
        accelerator: Kind of device.
        feature_limit: Room for kept features, in GiB.
        threads: Computing threads on the CPU; 0 leaves it to each cell.
        precision: What the settings will ask for.
        wait_for_room: Minutes to wait for room where a finished result cannot be stored.
        checkpoint_every: Seconds between two checkpoints; 0 keeps none.

    Raises:
        UserError: If a GPU is asked for and PyTorch sees none, or the device cannot compute in the precision.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("--accelerator gpu, but PyTorch sees no GPU here", fix="use --accelerator auto or cpu")
    hardware = Hardware(
        accelerator, feature_limit=feature_limit, threads=threads, wait_for_room=wait_for_room,
        checkpoint_every=checkpoint_every,
    )  # fmt: skip
    cuda = hardware.device.type == "cuda"
    if precision == "16-mixed" and not cuda:  # Lightning would take bf16-mixed, and the record say 16-mixed
        raise UserError("--precision 16-mixed needs a GPU", fix="use --precision bf16-mixed or 32-true on a CPU")
    if precision == "bf16-mixed" and cuda and not torch.cuda.is_bf16_supported():
        raise UserError(f"--precision bf16-mixed: {torch.cuda.get_device_name()} has no bfloat16", fix="use 32-true")
    return hardware
