"""What training leads to: a module, its checkpoints, and how the selected one was found."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spectral_tl_bench.models.weights import State

Checkpoint = tuple[int, State]
"""Step and weights."""


@dataclass(frozen=True)
class Convergence:
    """How training until a plateau ended.

    Attributes:
        converged: Whether source validation stopped gaining; otherwise the steps ran out.
        step: The last step.
        plateaus: Steps at whose validations a plateau was found.
    """

    converged: bool
    step: int
    plateaus: tuple[int, ...]


@dataclass
class StageSummary:
    """What one stage did; ``measured`` says how fast, see ``training.measured``."""

    name: str
    steps: int
    seconds: float
    trainable: int
    options: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)


@dataclass
class TrainedModel:
    """A trained module and its checkpoints.

    Attributes:
        module: The module, holding the last weights.
        trace: (step, value of the validation) of the last stage; one value where it is in closed form.
        selected: Step and weights of the checkpoint that counts, or of an average of weights.
        last: Step and weights at the end of training.
        checkpoints: Files of every validated checkpoint, where all were kept.
        convergence: How training until a plateau ended; None where it had a number of steps.
        averaged: Value of the selected checkpoint, where it is an average.
        settled: Names of weights that a stage has trained or brought; later checkpoints hold them, too.
        earlier: Seconds that training took before it was cut off, where it was.
        resumed: How often it has been taken up again.
    """

    module: nn.Module
    stages: list[StageSummary] = field(default_factory=list)
    trace: list[tuple[int, float]] = field(default_factory=list)
    selected: Checkpoint = (0, {})
    last: Checkpoint = (0, {})
    checkpoints: list[Path] = field(default_factory=list)
    averaged: float | None = None
    convergence: Convergence | None = None
    settled: set[str] = field(default_factory=set)
    earlier: float = 0.0
    resumed: int = 0

    @property
    def selected_value(self) -> float:
        """Value of the selected checkpoint on the validation chips."""
        return dict(self.trace)[self.selected[0]] if self.averaged is None else self.averaged

    def all_states(self) -> Iterator[Checkpoint]:
        """Every kept checkpoint, read one at a time."""
        for path in self.checkpoints:
            yield read_checkpoint(path)

    def settled_state(self) -> State:
        """The weights that earlier stages have trained or brought, as the module holds them."""
        return state_of(self.module, self.settled)

    def settle(self) -> None:
        """Count what the stage at hand trains among the weights that later checkpoints hold."""
        self.settled |= {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}


def state_of(module: nn.Module, names: Collection[str]) -> State:
    """Copies of some tensors of a module, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items() if name in names}


def load_state(module: nn.Module, state: State) -> None:
    """Put a checkpoint's weights into the module they came from.

    Raises:
        RuntimeError: If the checkpoint holds names that the module does not have.
    """
    unexpected = module.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise RuntimeError(f"the checkpoint holds unknown weights: {unexpected[:3]}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Step and weights of a file that Lightning wrote."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = {name.removeprefix("module."): value for name, value in content["state_dict"].items()}
    return int(content["global_step"]), state
