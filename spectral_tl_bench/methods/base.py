"""The contract between the suite and a method: what it is told, and what it is asked for.

A method answers two questions: which module maps normalised chips to class logits (``build``), and in which
stages that module is trained (``stages``, with a default). Everything else (data, splits, selection,
evaluation, records) belongs to the suite, so that all methods get the same of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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

Pictures = Callable[["nn.Module", "Tensor"], "dict[str, Tensor]"]
"""Maps (module, images (B, C, H, W), normalised) to images of the same shape by column title, to be looked at."""


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
class Shared:
    """How a first stage can be trained once and serve every run that needs the same one.

    The stage is trained in a module that ``method`` builds, without knowing anything of the run that asked for it
    but source, bands, backbone, sizes, budget and seed. What ``carries`` names is then put into the run's own module.

    Attributes:
        method: The method, with every option that does not act in this stage at one fixed value.
        carries: Chooses by name in the module's ``state_dict`` what the stage trains, tracks or draws at random.
        relies_on: Chooses what the stage uses unchanged and does not carry, such as the weights of a frozen backbone.
        free: Options of ``method`` in which a given checkpoint may differ from the run that starts from it, because
            they shape the training and not the module.
    """

    method: Method
    carries: Callable[[str], bool]
    relies_on: Callable[[str], bool]
    free: frozenset[str] = frozenset()


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
        shared: How the stage is reused by other runs; only a first stage without labels can be.
        pictures: Shows what the stage has learned; drawn now and then while a shared stage is trained.
    """

    name: str
    steps: int
    labelled: bool = True
    loss: Loss | None = None
    trainable: Callable[[str], bool] | None = None
    learning_rate: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    shared: Shared | None = None
    pictures: Pictures | None = None

    def with_steps(self, steps: int) -> Stage:
        """The same stage with another length."""
        return replace(self, steps=steps)


@dataclass(frozen=True)
class Part:
    """A group of a method's parameters, for tables.

    Attributes:
        name: Shown in the table.
        contains: Tells of a parameter name whether it belongs to this part; the first part that says yes has it.
        kind: ``decoder`` for what turns features into logits or pixels; sums are given with and without.
        counted: Whether the method's publication includes the part when it counts its parameters.
    """

    name: str
    contains: Callable[[str], bool]
    kind: Literal["encoder", "decoder"] = "encoder"
    counted: bool = True


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
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Sets of options by name: ``--method name@preset`` is the method with these; explicit options win."""

    @abstractmethod
    def build(self, task: Task) -> nn.Module:
        """The module that maps images (B, C, H, W), normalised, to logits (B, K, H, W).

        Parameters that must not train have ``requires_grad=False`` when this returns. The global random
        state is seeded before the call.
        """

    def stages(self, task: Task) -> list[Stage]:
        """The training stages, in order; the last one's checkpoint is selected on source validation."""
        return [Stage("segment", task.budget.steps)]

    def parts(self) -> Sequence[Part]:
        """How ``stbench methods show`` groups the parameters; what no part contains goes by module name."""
        return ()


__all__ = ["VOID", "Backbone", "Batch", "Budget", "Loss", "Method", "Part", "Pictures", "Shared", "Stage", "Task"]
