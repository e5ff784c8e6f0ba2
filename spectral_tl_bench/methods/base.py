"""The contract between the suite and a method: what it is told, and what it is asked for.

A method answers two questions: which module maps normalised chips to class logits (``build``), and in which
stages that module is trained (``stages``, with a default). Everything else (data, splits, selection,
evaluation, records) belongs to the suite, so that all methods get the same of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.models.backbones import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = dict[str, "Tensor"]
"""``image`` (B, C, H, W) float32, normalised by the source training statistics; ``domain`` (B,) int64, the index
of the source domain; in labelled stages ``mask`` (B, H, W) int64 with classes 0..K-1 and void ``VOID``."""

Loss = Callable[["nn.Module", Batch], "Tensor"]
"""Maps (module, batch) to a scalar loss."""


class Budget(BaseModel):
    """How much training a method may use; every method of a comparison gets the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(45_000, ge=0, description="optimiser steps with labels")
    pretrain_steps: int = Field(
        25_000, ge=0, description="optimiser steps without labels, for methods that have such a stage"
    )
    batch_size: int = Field(32, ge=1, description="windows per step")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW learning rate where a method does not set its own")
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"


@dataclass(frozen=True)
class Task:
    """What a method is told about the benchmark. Nothing of the target is in here, by design.

    Attributes:
        benchmark: Benchmark id.
        bands: Band names, in the order of the image channels.
        wavelengths: Centre wavelengths in micrometres, one per band (a time series repeats them per date).
        gsd: Ground sampling distance in metres.
        classes: Class names; logits have one channel for each, void has none.
        domains: Names of the source domains; ``batch["domain"]`` indexes them.
        window: Side of the square training and evaluation windows, in pixels.
        budget: Training budget.
        backbone: The backbone chosen for this run.
    """

    benchmark: str
    bands: tuple[str, ...]
    wavelengths: tuple[float, ...]
    gsd: float
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    window: int
    budget: Budget
    backbone: Backbone

    @property
    def num_bands(self) -> int:
        """Number of image channels C."""
        return len(self.bands)

    @property
    def num_classes(self) -> int:
        """Number of logit channels K."""
        return len(self.classes)


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        name: Shown in progress and stored in the record.
        steps: Optimiser steps.
        labelled: Whether batches carry ``mask``. An unlabelled stage never sees a label.
        loss: Loss of a batch; by default ``segmentation_loss`` (cross-entropy without void).
        trainable: Chooses by parameter name what this stage trains; by default every parameter whose
            ``requires_grad`` was set when the module was built.
        learning_rate: Overrides the budget's.
        options: Free-form facts about the stage that the record should keep.
    """

    name: str
    steps: int
    labelled: bool = True
    loss: Loss | None = None
    trainable: Callable[[str], bool] | None = None
    learning_rate: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def with_steps(self, steps: int) -> Stage:
        """The same stage with another length."""
        return replace(self, steps=steps)


class Method(BaseModel, ABC):
    """Base class of all methods. Fields are the method's options: typed, validated, kept in the record.

    A whole method::

        class PixelMLP(Method):
            \"\"\"Two 1x1 convolutions: looks at one pixel's spectrum at a time.\"\"\"

            family = "floor"
            hidden: int = 64

            def build(self, task: Task) -> nn.Module:
                return nn.Sequential(
                    nn.Conv2d(task.num_bands, self.hidden, 1), nn.GELU(),
                    nn.Conv2d(self.hidden, task.num_classes, 1),
                )

    and in its ``pyproject.toml``::

        [project.entry-points."spectral_tl_bench.methods"]
        pixel-mlp = "my_package:PixelMLP"
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: ClassVar[str] = "other"
    """Group on the board, for example ``peft``, ``full``, ``floor``."""
    reference: ClassVar[str] = ""
    """Paper or source, shown in listings."""

    @abstractmethod
    def build(self, task: Task) -> nn.Module:
        """The module that maps images (B, C, H, W), normalised, to logits (B, K, H, W).

        Parameters that must not train have ``requires_grad=False`` when this returns. The global random
        state is seeded before the call.
        """

    def stages(self, task: Task) -> list[Stage]:
        """The training stages, in order; the last one's checkpoint is selected on source validation."""
        return [Stage("segment", task.budget.steps)]


__all__ = ["VOID", "Backbone", "Batch", "Budget", "Loss", "Method", "Stage", "Task"]
