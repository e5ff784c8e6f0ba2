"""Progress for people: loss, validation mIoU and time left, as lines that survive in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import Callback

from spectral_tl_bench.console import clock, in_percent
from spectral_tl_bench.pulse import at, beat
from spectral_tl_bench.training.task import VALIDATION_METRIC

Say = Callable[[str], None]


class ProgressLines(Callback):
    """Says a line at every validation, and at least every ``interval`` seconds.

    Args:
        title: What is running.
        interval: Seconds between lines.
        value: What the value of a validation is called.
    """

    def __init__(self, say: Say, title: str, steps: int, interval: float = 20.0, value: str = "validation") -> None:
        self.say, self.title, self.steps, self.interval, self.value = say, title, steps, interval, value
        self.started = self.last = time.monotonic()
        self.before = 0  # steps of a part of training that was cut off
        self.loss: float | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Start the clock when training starts, not when the callback is made."""
        self.started, self.before = time.monotonic(), trainer.global_step
        self.last = self.started

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """A sign of life, and a line when the last one is long ago."""
        beat()
        at(self.title.rpartition(" | ")[2], trainer.global_step, self.steps)
        if time.monotonic() - self.last > self.interval:
            self._line(trainer, None)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """A line with the value of the validation."""
        value = trainer.callback_metrics.get(VALIDATION_METRIC)
        self._line(trainer, None if value is None else float(value))

    def _line(self, trainer: Any, value: float | None) -> None:
        self.last = time.monotonic()
        done = trainer.global_step
        loss = trainer.callback_metrics.get("train_loss")
        left = (self.last - self.started) / max(1, done - self.before) * (self.steps - done)
        parts = [f"{self.title} {done}/{self.steps}"]
        if loss is not None:
            parts.append(f"loss {float(loss):.3f}")
        if value is not None:
            parts.append(f"{self.value} {in_percent(value)}")
        parts.append(f"{clock(left)} left")
        self.say(" | ".join(parts))


class LossTrace(Callback):
    """Keeps the training loss at evenly spread steps, the last one included.

    Args:
        points: How many values to keep at most; each of them waits for the device.
    """

    def __init__(self, steps: int, points: int = 50) -> None:
        self.steps, self.every = steps, max(1, -(-steps // points))
        self.values: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Note the loss when its time has come."""
        step = trainer.global_step
        if step % self.every == 0 or step == self.steps:
            self.values.append((step, float(trainer.callback_metrics["train_loss"])))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The values before training was cut off."""
        self.values = [(int(step), float(value)) for step, value in state_dict["values"]]
