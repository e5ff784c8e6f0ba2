"""The contract between the suite and an objective: what it is told, and where it may act.

An objective changes how a method is trained, and nothing else: the module, the stages, the data, the selection and
the evaluation stay those of the method and the suite. It acts in labelled stages only, so that a shared first stage
serves runs with and without it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import ConfigDict

from spectral_tl_bench.later_options import LaterOptions
from spectral_tl_bench.methods.base import Batch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Setting:
    """What an objective is told about source and stage. Nothing of the target is in here, by design.

    Attributes:
        domains: Names of the source domains; ``batch["domain"]`` indexes them.
        wavelengths: Centre wavelengths in micrometres, one per band (a time series repeats them per date).
        mean: Mean of each band over the source training chips, in the files' unit.
        std: Standard deviation of each band over the same pixels.
        num_classes: Number of classes.
        steps: Optimiser steps of the stage.
        seed: For the objective's own chance; the same for every method of a benchmark and seed.
    """

    domains: tuple[str, ...]
    wavelengths: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    steps: int
    seed: int


@dataclass(frozen=True)
class DomainLosses:
    """The method's loss of one batch, domain by domain.

    Attributes:
        values: (D,), one per source domain; 0 where a domain has no labelled pixel in the batch.
        present: (D,) bool, whether it has one.
    """

    values: Tensor
    present: Tensor

    def mean(self) -> Tensor:
        """The mean over the domains that are present; zero, with gradients, where none is."""
        return self.values.sum() / self.present.sum().clamp(min=1)


@dataclass(frozen=True)
class Average:
    """Averaged weights.

    Attributes:
        state: The mean of every trained parameter, by name.
        end: The last step whose weights are in it.
        facts: What the record keeps about it.
    """

    state: dict[str, Tensor]
    end: int
    facts: dict[str, Any]


class Averager(Protocol):
    """Averages weights over training steps.

    An attribute ``validations`` above 0 asks for the loss on source validation so many times in the stage, evenly
    spread, once per step at most, the last after its last step; without it, or at 0, the loss comes with the protocol's
    validations. An attribute ``finished`` that becomes true ends the former.

    ``state()`` and ``restore(state)``, as objectives have them, let training go on after it was cut off; without them
    it begins again. Files in the averager's folder are kept and put back by the suite.
    """

    def after_step(self, step: int, weights: dict[str, Tensor]) -> None:
        """Take the trained parameters as they are after a step (1, 2, ...); they change in place later."""

    def after_validation(self, step: int, loss: float) -> None:
        """Take the cross-entropy on source validation after a step."""

    def result(self) -> Average | None:
        """The average, once training is over; None where there is nothing to average."""


class Objective(LaterOptions):
    """Base class of all objectives. Fields are options: typed, validated, kept in the record. All hooks are optional.

    The suite copies an objective for every stage and calls ``begin`` on the copy, so that private attributes hold the
    state of one stage.

    A whole objective::

        class Patient(Objective):
            \"\"\"Trains on the domain that is learned best.\"\"\"

            domains_needed = 2

            def risk(self, losses: DomainLosses) -> Tensor:
                return losses.values.masked_fill(~losses.present, float("inf")).min()

    and in its ``pyproject.toml``::

        [project.entry-points."spectral_tl_bench.objectives"]
        patient = "my_package:Patient"
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: ClassVar[str] = ""
    """Paper or source, shown in listings."""
    source_code: ClassVar[str] = ""
    """Repository and revision that this was compared with, or what it is known from; empty where there is none."""
    differs: ClassVar[tuple[str, ...]] = ()
    """What is done otherwise than in the source, a sentence each."""
    domains_needed: ClassVar[int] = 1
    """With fewer source domains than this the objective has no meaning, and a run is refused."""

    window_by_window: ClassVar[bool] = False
    """Whether its hooks treat each window by itself, so that a batch may be in parts, over devices or passes."""

    numerics_version: ClassVar[int | str | None] = None
    """Raised by hand whenever the numbers of the objective may change; see ``Method.numerics_version``."""

    def needs(self) -> int:
        """How many source domains there must be, where options matter."""
        return self.domains_needed

    def looks_across(self) -> bool:
        """Whether it needs the windows of a batch together."""
        return not self.window_by_window and any(map(self.has, ("augment", "wrap", "risk", "penalty")))

    def wants_balance(self) -> bool:
        """Whether windows are drawn so that each domain comes equally often, instead of in proportion to its chips."""
        return False

    def begin(self, setting: Setting) -> None:
        """Called once before a labelled stage, on a copy of the objective."""

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """Change source training windows before they are normalised.

        Args:
            images: (B, C, H, W) float32 in the files' unit.
            generator: Chance of this step, on the CPU.

        Returns:
            Images of the same shape.
        """
        del generator
        return images

    def wrap(self, module: nn.Module, batch: Batch) -> AbstractContextManager[Any]:
        """A context around a training step's forward pass, to put hooks into the module; it takes them out again.

        Where the loss is computed domain by domain it is entered for each part of the batch.
        """
        del module, batch
        return nullcontext()

    def risk(self, losses: DomainLosses) -> Tensor:
        """What is minimised in place of the method's loss; at most one objective of a run has this hook."""
        raise NotImplementedError

    def penalty(self, module: nn.Module, batch: Batch) -> Tensor:
        """A scalar that is added to the loss, called after the forward pass."""
        raise NotImplementedError

    def average(self, folder: Path) -> Averager | None:
        """Averages weights of the last stage, whose mean then is the selected checkpoint; one objective at most.

        Args:
            folder: An empty folder for what does not fit into memory; removed after training.
        """
        del folder
        return None

    def state(self) -> dict[str, Any]:
        """What the objective remembers from step to step, so that training can go on after it was cut off.

        Tensors, numbers and texts in lists, tuples and mappings; by default the private attributes. A training whose
        objective remembers anything else begins again.
        """
        return dict(self.__pydantic_private__ or {})

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back, after ``begin``; tensors come on the CPU."""
        for name, value in state.items():
            setattr(self, name, value)

    def facts(self) -> dict[str, Any]:
        """What the record should keep of a stage that has ended, as JSON."""
        return {}

    def has(self, hook: str) -> bool:
        """Whether the class brings a hook of its own."""
        return getattr(type(self), hook) is not getattr(Objective, hook)
