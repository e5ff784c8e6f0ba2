"""How fast a stage trains, how long it waits for data, and what it draws where that can be read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from spectral_tl_bench.training.trained import StageSummary

WAITING = "share_waiting_for_data"
MUCH = 0.1
"""From this share of its time on, a training that waits for data is told what helps."""

POWERCAP = Path("/sys/class/powercap")


class StepClock(Callback):
    """Measures a stage from outside: no step waits for the device because of it.

    Args:
        batch_size: Windows per step, over all devices.
    """

    def __init__(self, batch_size: int, device: torch.device) -> None:
        self.batch_size, self.device = batch_size, device
        self._start = self._since = 0.0
        self._steps, self._waited, self._aside = 0, 0.0, 0.0
        self._validated = False
        self._energy: dict[str, float] = {}
        self.facts: dict[str, float] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Start."""
        self._energy = energy(self.device)
        self._start = self._since = time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """A batch is there."""
        gap = time.monotonic() - self._since
        if self._validated or getattr(pl_module, "validated_aside", False):
            self._aside += gap
        else:
            self._waited += gap
        self._validated = False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """From here on the next batch is waited for."""
        self._steps += 1
        self._since = time.monotonic()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """What comes until the next batch is validation."""
        self._validated = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Sum up."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # once
        now = time.monotonic()
        if self._validated or getattr(pl_module, "validated_aside", False):
            self._aside += now - self._since
        seconds = now - self._start - self._aside
        if not self._steps or seconds <= 0:
            return
        self.facts = {
            "windows_per_second": round(self._steps * self.batch_size / seconds, 2),
            WAITING: round(min(1.0, self._waited / seconds), 4),
        }
        for name, value in energy(self.device).items():
            if value >= self._energy.get(name, float("inf")):  # a counter of the CPU begins anew when it is full
                self.facts[name] = round(value - self._energy[name], 1)


def waiting_line(stages: Iterable[StageSummary], workers: int, packed: bool) -> str:
    """How much of its training a cell has waited for data, and what helps where that is much; empty if unknown.

    Args:
        stages: Of the training.
        workers: Readers of batches.
        packed: Whether all chips are read from a pack.
    """
    known = [(stage.seconds, stage.measured[WAITING]) for stage in stages if WAITING in stage.measured]
    seconds = sum(duration for duration, _ in known)
    if seconds <= 0:
        return ""
    share = sum(duration * part for duration, part in known) / seconds
    line = f"waited for data in {share:.0%} of the training time"
    if share <= MUCH:
        return line
    on_disk = "the packed chips on a local disk" if packed else "`stbench data pack`, the data on a local disk"
    return f"{line}; what helps: more --workers (now {workers}), {on_disk}"


def energy(device: torch.device) -> dict[str, float]:
    """Counters of energy in joules that can be read here: of the GPU, or of all packages of the CPU."""
    if device.type == "cuda":
        with contextlib.suppress(Exception):  # no pynvml, an older card, no permission
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            return {"gpu_joules": pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3}
        return {}
    with contextlib.suppress(OSError, ValueError):
        counters = sorted(POWERCAP.glob("intel-rapl:[0-9]*/energy_uj"))
        packages = [path for path in counters if path.parent.name.count(":") == 1]
        if packages:
            return {"cpu_joules": sum(int(path.read_text()) for path in packages) / 1e6}
    return {}
