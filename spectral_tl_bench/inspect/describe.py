"""What a method is, without training it: its options, its stages, and its parameters part by part.

Parameters are counted on PyTorch's meta device, which knows shapes and holds no numbers, so that the largest
backbone takes a second on a laptop.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic.fields import FieldInfo
from torch import nn

from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.inspect.invented import invented_task
from spectral_tl_bench.methods.base import Backbone, Budget, Method, Part, Recipe, Stage, Task
from spectral_tl_bench.methods.parts import in_decoder, part_of
from spectral_tl_bench.methods.registry import distribution_of, make_method
from spectral_tl_bench.models.backbones.input_scale import check_window

DEFAULT_WINDOW = 224
"""Side of the windows in the published settings, pixels."""


@dataclass(frozen=True)
class Option:
    """One option: its type and limits, its default, and the value that it has here."""

    name: str
    type: str
    default: str
    value: str
    description: str


@dataclass(frozen=True)
class StageCount:
    """One stage: optimiser steps under each training budget, and how many parameters it trains.

    A stage in closed form is one step under any budget. ``learning_rate`` is the stage's own, None for the budget's.
    """

    name: str
    labelled: bool
    steps: Mapping[str, int]
    trainable: int
    closed_form: bool = False
    learning_rate: float | None = None


@dataclass(frozen=True)
class PartCount:
    """One part of the module.

    Attributes:
        kind: ``encoder`` or ``decoder``.
        counted: Whether the method's publication counts it.
        whole: Whether it counts all of it, also what cannot have a gradient.
        trainable: Parameters that any stage trains.
        stages: Names of the stages that train some of it.
    """

    name: str
    kind: str
    counted: bool
    whole: bool
    trainable: int
    total: int
    stages: tuple[str, ...]

    @property
    def frozen(self) -> int:
        """Parameters that no stage trains."""
        return self.total - self.trainable

    @property
    def published(self) -> int:
        """What this part adds to the number of trainable parameters as the method's publication counts."""
        if not self.counted or self.kind == "decoder":
            return 0
        return self.total if self.whole and self.trainable else self.trainable


@dataclass(frozen=True)
class Source:
    """What a method or an objective says about where it comes from.

    Attributes:
        code: Repository and revision that were read.
        places: Where in the backbone it acts.
        starts: How its own parameters start.
        differs: What is not as in the source.
    """

    code: str
    places: str
    starts: str
    differs: tuple[str, ...]

    @classmethod
    def of(cls, kind: type) -> Source:
        """The facts of a class, empty where it declares none."""
        code, places, starts = (getattr(kind, name, "") for name in ("source_code", "places", "starts"))
        return cls(code, places, starts, tuple(getattr(kind, "differs", ())))


@dataclass(frozen=True)
class Description:
    """All there is to show about a method on one backbone.

    Attributes:
        chosen: Options that leave a choice to backbone or budget: by option, what each budget makes of it. The first
            is what is counted.
    """

    method: str
    summary: str
    family: str
    reference: str
    source: Source
    package: tuple[str, str]
    presets: Mapping[str, Mapping[str, Any]]
    backbone: Backbone
    bands: int
    classes: int
    window: int
    options: tuple[Option, ...]
    chosen: Mapping[str, Mapping[str, str]]
    stages: tuple[StageCount, ...]
    parts: tuple[PartCount, ...]
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def sums(self) -> dict[str, int]:
        """Parameters of the whole module; ``published`` leaves out decoders and what the publication does not count."""
        return {
            "total": sum(part.total for part in self.parts),
            "trainable": sum(part.trainable for part in self.parts),
            "trainable_decoders": sum(part.trainable for part in self.parts if part.kind == "decoder"),
            "trainable_without_decoders": sum(part.trainable for part in self.parts if part.kind != "decoder"),
            "trainable_published": sum(part.published for part in self.parts),
        }

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        parts = [{**asdict(part), "frozen": part.frozen} for part in self.parts]
        return {**asdict(self), "backbone": self.backbone.facts(), "parts": parts, "sums": self.sums}


def describe(
    name: str,
    options: Mapping[str, Any],
    backbone: Backbone,
    budgets: Mapping[str, Budget],
    *,
    bands: int = 13,
    classes: int = 9,
    window: int | None = None,
) -> Description:
    """Describe a method.

    Args:
        name: Entry-point name, by itself or with a preset.
        options: Values by option name.
        budgets: Training budgets by name, for the lengths of the stages.
        window: Side of the windows in pixels; by default the multiple of the patch nearest below 224.

    Raises:
        UserError: If a name, an option or the window is wrong, or the method cannot be built.
    """
    method = make_method(name, dict(options))
    if window is None:
        window = max(1, DEFAULT_WINDOW // backbone.token) * backbone.token
    tasks = {
        budget: invented_task(backbone, bands=bands, classes=classes, window=window, budget=given)
        for budget, given in budgets.items()
    }
    first, given = next(iter(tasks.values())), method
    choices = {budget: given.resolved(task) for budget, task in tasks.items()}
    method = given.resolved(first)
    module = build_on_meta(name, method, first)
    declared = {key for key, parameter in module.named_parameters() if parameter.requires_grad}
    stages = {budget: {stage.name: stage for stage in method.stages(task)} for budget, task in tasks.items()}
    names = dict.fromkeys(stage for plan in stages.values() for stage in plan)
    chosen, counts = {}, []
    for stage_name in names:
        stage = next(plan[stage_name] for plan in stages.values() if stage_name in plan)
        chosen[stage_name] = _trained(module, stage, declared)
        steps = {budget: plan[stage_name].steps if stage_name in plan else 0 for budget, plan in stages.items()}
        trainable = sum(p.numel() for key, p in module.named_parameters() if key in chosen[stage_name])
        counts.append(
            StageCount(stage_name, stage.labelled, steps, trainable, stage.fit is not None, stage.learning_rate)
        )
    kind = type(method)
    return Description(
        method=name, summary=(inspect.getdoc(kind) or "").partition("\n")[0], family=kind.family,
        reference=kind.reference, source=Source.of(kind), package=distribution_of(name), presets=kind.presets,
        backbone=backbone, bands=bands, classes=classes, window=window,
        options=tuple(_option(key, field, getattr(method, key)) for key, field in kind.model_fields.items()),
        chosen={
            key: {budget: value_text(getattr(choice, key)) for budget, choice in choices.items()}
            for key in kind.model_fields if getattr(method, key) != getattr(given, key)
        },
        stages=tuple(counts), parts=tuple(count_parts(module, method.parts(), chosen)), recipe=kind.recipe,
    )  # fmt: skip


def build_on_meta(name: str, method: Method, task: Task) -> nn.Module:
    """The method's module without numbers in it; with numbers, where the method cannot do without.

    Args:
        name: The method's name, for messages.

    Raises:
        UserError: If the window does not suit the backbone, or the method cannot be built.
    """
    check_window(task.backbone, task.window)
    try:
        try:
            with torch.device("meta"):
                return method.build(task)
        except (RuntimeError, TypeError):  # it looks at values, for example to make a table
            return method.build(task)
    except UserError:
        raise
    except Exception as error:  # whatever a method raises
        raise MethodError(
            f"method {name!r} cannot be built: {type(error).__name__}: {error}",
            where=f"backbone {task.backbone.name}, {task.num_bands} bands, windows of {task.window} px",
        ) from error


def count_parts(module: nn.Module, parts: Sequence[Part], stages: Mapping[str, set[str]]) -> list[PartCount]:
    """Count a module's parameters part by part.

    Args:
        parts: Groups of parameters; what none of them contains goes by module name.
        stages: Names of the parameters that each stage trains.

    Returns:
        Parts with parameters, the given ones in their order, then the others in the order of the module.
    """
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    trained: set[str] = set().union(*stages.values())
    groups: dict[str, list[str]] = {part.name: [] for part in parts}
    rest: list[str] = []
    for name in sizes:
        part = part_of(name, parts)
        (rest if part is None else groups[part.name]).append(name)
    known = {part.name: part for part in parts}
    label = _by_module(rest, trained)
    for name in rest:
        groups.setdefault(label(name), []).append(name)
    counts = []
    for name, members in groups.items():
        part = known.get(name) or Part(name, lambda _: True, kind="decoder" if in_decoder(name, ()) else "encoder")
        if members:
            within = tuple(stage for stage, chosen in stages.items() if not chosen.isdisjoint(members))
            trainable = sum(sizes[member] for member in members if member in trained)
            total = sum(sizes[member] for member in members)
            counts.append(PartCount(name, part.kind, part.counted, part.whole, trainable, total, within))
    return counts


def _by_module(names: Sequence[str], trained: set[str]) -> Callable[[str], str]:
    """Labels names by their top-level module; one of which only some trains, by the modules in it."""
    states: dict[str, set[bool]] = {}
    for name in names:
        states.setdefault(name.split(".")[0], set()).add(name in trained)

    def label(name: str) -> str:
        steps = name.split(".")
        return ".".join(steps[: 2 if len(states[steps[0]]) > 1 else 1])

    return label


def _trained(module: nn.Module, stage: Stage, declared: set[str]) -> set[str]:
    if stage.trainable is None:
        return declared
    return {name for name, _ in module.named_parameters() if stage.trainable(name)}


def _option(name: str, field: FieldInfo, value: Any) -> Option:
    default = "required" if field.is_required() else value_text(field.get_default(call_default_factory=True))
    limits = [
        f", {sign} {getattr(limit, key)}"
        for limit in field.metadata
        for key, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(limit, key, None) is not None
    ]
    return Option(
        name, "".join([type_text(field.annotation), *limits]), default, value_text(value), field.description or ""
    )


def value_text(value: Any) -> str:
    """A value as ``--option`` takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def type_text(annotation: Any) -> str:
    """A type annotation in words, for example ``paper | released`` or ``int | none``."""
    if get_origin(annotation) is Literal:
        return " | ".join(value_text(value) for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(type_text(member) for member in get_args(annotation))
    plain = {types.NoneType: "none", bool: "true | false", str: "text"}
    if annotation in plain:
        return plain[annotation]
    return annotation.__name__ if inspect.isclass(annotation) and not get_args(annotation) else str(annotation)
