"""The contract between the suite and a method: what it is told, and what it is asked for.

A method answers two questions: which module maps normalised chips to class logits (``build``), and in which
stages that module is trained (``stages``, with a default). Everything else (data, splits, selection,
evaluation, records) belongs to the suite, so that all methods get the same of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ConfigDict

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.later_options import LaterOptions
from spectral_tl_bench.methods.budget import Budget, Plateau, Recipe
from spectral_tl_bench.models.backbones import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch = dict[str, "Tensor"]
"""``image`` (B, C, H, W) float32, normalised by the source training statistics; ``domain`` (B,) int64, the index
of the source domain; in labelled stages ``mask`` (B, H, W) int64 with classes 0..K-1 and void ``VOID``; for methods
with ``target_images`` also ``target_image`` (B, C, H, W), windows of the target, normalised by the source's statistics.
"""

Loss = Callable[["nn.Module", Batch], "Tensor"]
"""Maps (module, batch) to a scalar loss."""

Fit = Callable[["nn.Module", "Iterable[Batch]"], None]
"""Sets a module's parameters and buffers from batches that hold every source training pixel, without an optimiser."""

Outputs = Callable[["nn.Module", Batch], "tuple[Tensor, Tensor]"]
"""Maps (module, batch) to logits (B, K, H, W) and a scalar that is added to their cross-entropy."""

Pictures = Callable[["nn.Module", "Tensor"], "dict[str, Tensor]"]
"""Maps (module, images (B, C, H, W), normalised) to images of the same shape by column title, to be looked at."""


AfterStep = Callable[["nn.Module", int, int], None]
"""Called with (module, optimiser steps that are done, steps of the stage), while gradients are still there."""


@dataclass(frozen=True)
class Memory:
    """What a stage remembers from step to step outside the parameters and buffers of its module.

    With it, training goes on step for step after it was cut off.

    Attributes:
        save: Gives it, from the module: tensors, numbers and texts in lists, tuples and mappings.
        load: Puts it back into a module that was built afresh and may be on another device; tensors come on the CPU.
    """

    save: Callable[[nn.Module], Any]
    load: Callable[[nn.Module, Any], None]

    @classmethod
    def none(cls) -> Memory:
        """For a stage whose ``after_step`` remembers nothing."""
        return cls(lambda _module: None, lambda _module, _state: None)


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
        steps: Optimiser steps; 1 in closed form, or 0 to leave the stage out.
        labelled: Whether batches carry ``mask``. An unlabelled stage never sees a label.
        loss: Loss of a batch; by default ``segmentation_loss`` (cross-entropy without void).
        outputs: For a ``loss`` that is the default and something added, such as a balance loss: gives logits and what
            is added. Objectives that weigh domains then need one forward pass; otherwise one for each domain.
        trainable: Chooses by parameter name what this stage trains; by default every parameter whose
            ``requires_grad`` was set when the module was built.
        learning_rate: Overrides the budget's.
        options: Free-form facts about the stage that the record should keep.
        shared: How the stage is reused by other runs; only a first stage without labels can be.
        pictures: Shows what the stage has learned; drawn now and then while a shared stage is trained.
        after_step: Called after every optimiser step and before validation, for schedules that change weights, such as
            the cutting of ranks.
        memory: What ``after_step``, or the loss, remembers outside the module's parameters and buffers. A stage with
            ``after_step`` and without this begins again where it was cut off.
        plateau_after: Step until which the stage itself changes its module, such as by cutting ranks: where training
            ends at a plateau of source validation, none is seen before.
        unreached: Beginnings of names of parameters that the stage counts as trained but that no gradient can reach,
            each with the reason: published counts may hold such. ``stbench check-method`` refuses any that is not here.
        fit: Makes this a stage in closed form: instead of being trained by gradients, the module is set by this
            function, which is called once. Its batches hold whole windows of the source training chips, side by side,
            without augmentation, so that every labelled pixel comes exactly once; where windows overlap at the rim of
            a chip, a mask holds ``VOID`` for what came before (an image without labels repeats there). They can be
            gone through again. The module is in evaluation mode, and no gradients are kept. It may change its buffers
            and the parameters that ``trainable`` chooses; a stage in closed form may have no parameters at all.

    Raises:
        ValueError: If a stage in closed form has more than one step, a loss or a learning rate, or is shared.
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
    fit: Fit | None = None
    outputs: Outputs | None = None
    after_step: AfterStep | None = None
    memory: Memory | None = None
    unreached: Mapping[str, str] = field(default_factory=dict)
    plateau_after: int = 0

    def __post_init__(self) -> None:
        if self.fit is None:
            return
        if self.steps not in (0, 1):
            raise ValueError(f"stage {self.name!r} is in closed form and has 1 step, or 0, not {self.steps}")
        for name in ("loss", "outputs", "learning_rate", "shared", "pictures", "after_step"):
            if getattr(self, name) is not None:
                raise ValueError(f"stage {self.name!r} is in closed form, where {name} has no meaning")

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
        whole: Whether the publication counts all of the part's parameters, also those that cannot have a gradient.
    """

    name: str
    contains: Callable[[str], bool]
    kind: Literal["encoder", "decoder"] = "encoder"
    counted: bool = True
    whole: bool = False


@dataclass(frozen=True)
class KeptFeatures:
    """A run whose backbone is frozen as a whole, on a fixed set of training windows.

    Its module has a method ``features(images)`` that gives maps (B, D, h, w) as a list, the images among them where
    the decoder looks at pixels, and a submodule called as ``decoder(features, (H, W))`` that makes the logits of them;
    nothing outside the decoder trains. Training windows
    lie side by side over all training chips. The features of all windows, of source and target, are then the same
    for all runs that share backbone, data and window, and are computed once.

    Attributes:
        copies: Of each training window: 1 as it is, 8 with the symmetries of the square.
        dtype: What features are rounded to; they are computed in float32.
        head_seed: Draws other weights and another training of the decoder where it is not 0.
    """

    copies: Literal[1, 8] = 1
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    head_seed: int = 0


class Method(LaterOptions, ABC):
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
        my-mlp = "my_package:PixelMLP"
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: ClassVar[str] = "other"
    """Group on the board, for example ``peft``, ``full``, ``floor``."""
    reference: ClassVar[str] = ""
    """Paper or source, shown in listings."""
    source_code: ClassVar[str] = ""
    """Repository of the source's code and the revision that was read, or whose facts were; empty for none."""
    places: ClassVar[str] = ""
    """Where in the backbone it acts, in a few words; shown beside the source."""
    starts: ClassVar[str] = ""
    """How its own parameters start, in a few words."""
    differs: ClassVar[tuple[str, ...]] = ()
    """What here is not as in the source, a sentence each; also what could not be checked against it."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Sets of options by name: ``--method name@preset`` is the method with these; explicit options win."""

    recipe: ClassVar[Recipe] = Recipe()
    """Learning rate, weight decay and warm-up, where neither budget nor user gives them."""

    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """Options that ``stbench tune`` searches beside the learning rate, with the values to try: the few that the paper
    itself varies. They change no number."""

    uses_backbone: ClassVar[bool] = True
    """Whether ``build`` uses ``task.backbone``. The records of a method that does not name none."""
    target_images: ClassVar[bool] = False
    """Whether training needs the target's images, without labels. Batches of every stage then also carry
    ``target_image``, and the results stand on a board apart (``unlabelled-target``)."""

    numerics_version: ClassVar[int | str | None] = None
    """Raised by hand whenever the numbers of the method may change; each class declares its own. Results of a class
    that declares none belong to the version of its package."""
    seed_name: ClassVar[str] = ""
    """What stands for the class in the seeds of a shared first stage; by default its package and entry-point name. It
    must stay for ever what it was, whatever the class is called and wherever it stands."""

    @abstractmethod
    def build(self, task: Task) -> nn.Module:
        """The module that maps images (B, C, H, W), normalised, to logits (B, K, H, W).

        Parameters that must not train have ``requires_grad=False`` when this returns. The global random
        state is seeded before the call.
        """

    def stages(self, task: Task) -> list[Stage]:
        """The training stages, in order; the last one's checkpoint is selected on source validation."""
        return [Stage("segment", task.budget.steps)]

    def resolved(self, task: Task) -> Self:  # noqa: ARG002
        """The method with values in place of options that leave a choice to backbone or budget.

        Identity and record hold these values; ``build`` and ``stages`` may be asked with either.
        """
        return self

    def kept_features(self) -> KeptFeatures | None:
        """How the method runs on features that are computed once; None (the default) for a run on images."""
        return None

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a hook by its former name, which would otherwise be passed over without a word."""
        super().__init_subclass__(**options)
        if "fixed_features" in vars(cls):
            raise TypeError(f"{cls.__name__}.fixed_features is called kept_features now")

    def parts(self) -> Sequence[Part]:
        """How ``stbench methods show`` groups the parameters; what no part contains goes by module name."""
        return ()


__all__ = [
    "VOID", "AfterStep", "Backbone", "Batch", "Budget", "Fit", "KeptFeatures", "Loss", "Memory", "Method",
    "Outputs", "Part", "Pictures", "Plateau", "Recipe", "Shared", "Stage", "Task",
]  # fmt: skip
