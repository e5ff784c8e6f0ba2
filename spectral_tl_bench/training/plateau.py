"""Training until source validation no longer gains: when the rate falls, and when training stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.callbacks import Callback

from spectral_tl_bench.data.shares import agreed
from spectral_tl_bench.methods.budget import Plateau
from spectral_tl_bench.training.task import VALIDATION_METRIC
from spectral_tl_bench.training.trained import Convergence

NUMERICS_VERSION = 1
"""Raised by hand whenever training until a plateau may lead to other weights."""

FALL = 0.1
"""What the rate is multiplied with at a plateau."""
PLATEAUS = 2
"""Training stops at this one."""


def plateaus(trace: Sequence[tuple[int, float]], rule: Plateau, after: int = 0) -> tuple[int, ...]:
    """The steps of a trace at which a plateau is found; what comes after the last one is not looked at.

    Args:
        trace: (step, value) of each validation.
        rule: What a plateau is.
        after: Validations of earlier steps are no part of one.
    """
    best, waited, found = -float("inf"), 0, list[int]()
    for step, value in trace:
        gained = value >= best + rule.gain and value > best
        best, waited = (value, 0) if gained else (best, waited + (step >= after))
        if waited == rule.patience:
            found, waited = [*found, step], 0
        if len(found) == PLATEAUS:
            break
    return tuple(found)


@dataclass
class UntilPlateau(Callback):
    """Sets the rate of every step, and stops the stage at the second plateau.

    Attributes:
        rule: What a plateau is.
        warm: Steps in which the rate rises.
        after: Validations of earlier steps are no part of a plateau.
        trace: (step, value) of each validation.
    """

    rule: Plateau
    warm: int
    after: int = 0
    trace: list[tuple[int, float]] = field(default_factory=list)

    @property
    def plateaus(self) -> tuple[int, ...]:
        """Those that were found."""
        return plateaus(self.trace, self.rule, self.after)

    def convergence(self, step: int) -> Convergence:
        """How the stage has ended at a step."""
        found = self.plateaus
        return Convergence(len(found) == PLATEAUS, step, found)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Set the rate. A scheduler would set that of a step before the validation ahead of it has a value."""
        factor = FALL ** len(self.plateaus) * min(1.0, (batch_idx + 1) / max(1, self.warm))
        for optimiser in trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Note the value; several processes take the first one's."""
        value = agreed(float(trainer.callback_metrics[VALIDATION_METRIC]))
        self.trace.append((trainer.global_step, value))
        if len(self.plateaus) == PLATEAUS:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"trace": list(self.trace)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The validations before training was cut off."""
        self.trace = [(int(step), float(value)) for step, value in state_dict["trace"]]
