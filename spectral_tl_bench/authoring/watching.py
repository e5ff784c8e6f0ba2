"""A few training steps of a stage, and what they did to every parameter and batch statistic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spectral_tl_bench.methods.base import Batch, Budget, Stage
from spectral_tl_bench.training.task import StageTask, trained_parameters

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

SHOWN = 4
"""Names in a message before it says how many more there are."""


@dataclass
class Watched:
    """What some steps did, as names.

    Attributes:
        chosen: Parameters that the stage names.
        reached: Parameters that had a gradient other than zero in some step.
        touched: Parameters that had any gradient, if only zeros.
        changed: Parameters and buffers whose values are no longer the same, bit by bit.
        ran: Normalisation layers with batch statistics that were called.
        moved: Those of them whose statistics changed.
        partly: Those of ``moved`` of which one statistic or more stayed.
        odd: Buffers that changed otherwise.
        infinite: Parameters whose gradient had an entry that is no finite number.
        losses: The loss of every step.
    """

    parameters: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    partly: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    infinite: set[str] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)


def every_value(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, also of those that no file would keep."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach().clone() for name, value in tensors}


def declared_in(module: nn.Module) -> set[str]:
    """Names of the parameters that require a gradient."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Names of what is not the same, bit by bit; NaN is the same as NaN."""
    return {
        name for name in before.keys() | after.keys()
        if name not in before or name not in after or not same(before[name], after[name])
    }  # fmt: skip


def same(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree in shape, type and every value; NaN is the same as NaN."""
    if tensor.shape != other.shape or tensor.dtype != other.dtype:
        return False
    return bool(((tensor == other) | ((tensor != tensor) & (other != other))).all())  # noqa: PLR0124


def batch_of(images: Tensor, classes: int, domains: int = 1) -> Batch:
    """Images with labels drawn by chance; domains take turns."""
    size = (len(images), *images.shape[2:])
    return {
        "image": images,
        "mask": torch.randint(0, classes, size),
        "domain": torch.arange(len(images)) % domains,
    }


def train_a_little(module: nn.Module, stage: Stage, bands: int, classes: int, size: int = 32, **more: Any) -> Watched:
    """Trains a module as the suite does, on images that are drawn by chance.

    Args:
        module: The method's module, as it was built or as an earlier stage left it.
        size: Side of the images in pixels.
        **more: ``batch`` (images per step, 2), ``steps`` (3), ``declared`` (names that required a gradient when the
            module was built; by default those that do now), ``domains`` (1), ``target_images`` (whether batches carry
            such, False).
    """
    batch, steps, domains = more.pop("batch", 2), more.pop("steps", 3), more.pop("domains", 1)
    declared, target_images = more.pop("declared", None) or declared_in(module), more.pop("target_images", False)
    if more:
        raise TypeError(f"unknown arguments: {', '.join(more)}")
    named = dict(module.named_parameters())
    norms = {name: child for name, child in module.named_modules() if hasattr(child, "running_mean")}
    seen, before = Watched(parameters=set(named)), every_value(module)
    hooks = [
        child.register_forward_hook(lambda _child, _inputs, _output, name=name: seen.ran.add(name))
        for name, child in norms.items()
    ]
    task = StageTask(module, nn.Identity(), stage, Budget(learning_rate=1e-3), declared, None, None, classes)
    task.log = lambda *_, **__: None  # there is no trainer to log to
    seen.chosen = {name for name, parameter in named.items() if parameter.requires_grad}
    optimiser = task.configure_optimizers()
    optimiser = optimiser["optimizer"] if isinstance(optimiser, dict) else optimiser
    for step in range(steps):
        module.zero_grad(set_to_none=True)
        given = batch_of(torch.randn(batch, bands, size, size), classes, domains)
        if not stage.labelled:
            del given["mask"]
        if target_images:
            given["target_image"] = torch.randn(batch, bands, size, size)
        loss = task.training_step(given, step)
        loss.backward()
        seen.losses.append(float(loss.detach()))
        _note_gradients(seen, named)
        optimiser.step()
        task.on_train_batch_end(None, given, step)
    for hook in hooks:
        hook.remove()
    after = every_value(module)
    seen.changed = differing(before, after)
    own = {f"{name}.{statistic}" for name in norms for statistic in STATISTICS}
    seen.odd = seen.changed - seen.parameters - own
    moving = {name: [f"{name}.{statistic}" in seen.changed for statistic in STATISTICS] for name in norms}
    seen.moved = {name for name, flags in moving.items() if any(flags)}
    seen.partly = {name for name in seen.moved if not all(moving[name])}
    return seen


def _note_gradients(seen: Watched, named: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in named.items():
        if parameter.grad is None:
            continue
        seen.touched.add(name)
        if not parameter.grad.isfinite().all():
            seen.infinite.add(name)
        if parameter.grad.any():
            seen.reached.add(name)


def trained_norms(seen: Watched) -> set[str]:
    """Normalisation layers with batch statistics that ran and whose own parameters the stage trains."""
    return {name for name in seen.ran if {f"{name}.weight", f"{name}.bias"} & seen.chosen}


def contradictions(module: nn.Module, stage: Stage, seen: Watched, declared: set[str]) -> Iterator[str]:
    """Where what a stage trained is not what it says; nothing where the two agree.

    Args:
        stage: A stage that is trained by gradients.
        seen: What some of its steps did.
        declared: Parameters that required a gradient when the module was built.
    """
    expected = trained_parameters(module, stage, declared)
    exempt = {name for name in expected if name.startswith(tuple(stage.unreached))}
    statistics = trained_norms(seen)
    wrong = {
        "`trainable` chooses what the module does not declare": expected - declared,
        "declared trainable, but no gradient reaches it": expected - exempt - seen.reached,
        "said to be out of reach of gradients, but reached": exempt & seen.reached,
        "frozen, but has a gradient": seen.touched - expected,
        "frozen, but changed": (seen.changed & seen.parameters) - expected,
        "said to be out of reach of gradients, but changed": seen.changed & exempt,
        "declared trainable, but did not change": (expected - exempt - seen.changed) & seen.reached,
        "batch statistics of a trained layer that stayed": statistics - seen.moved,
        "only some batch statistics changed": seen.partly,
        "a gradient that is no finite number": seen.infinite,
        "buffers of the backbone that changed": {name for name in seen.odd if name.startswith("backbone.")},
    }
    if not stage.options.get("drifting_statistics"):
        wrong["batch statistics of a frozen layer that moved"] = seen.moved - statistics
    for text, names in wrong.items():
        if names:
            yield f"stage {stage.name!r}: {text}: {listed(names)}"


def solved(
    module: nn.Module, stage: Stage, declared: set[str], batches: list[Batch]
) -> tuple[set[str], list[str]]:  # fmt: skip
    """Runs a stage in closed form; what it names is what it changes.

    Returns:
        The parameters that it names, and where what it did is not what it says.

    Raises:
        ValueError: If the stage is not in closed form.
    """
    if stage.fit is None:
        raise ValueError(f"stage {stage.name!r} is not in closed form")
    expected = trained_parameters(module, stage, declared)
    before = every_value(module)
    module.eval()
    with torch.no_grad():
        stage.fit(module, batches)
    changed = differing(before, every_value(module))
    parameters = {name for name, _ in module.named_parameters()}
    wrong = {
        "`trainable` chooses what the module does not declare": expected - declared,
        "declared trainable, but did not change": expected - changed,
        "not among what it names, but changed": (changed & parameters) - expected,
    }
    problems = [f"stage {stage.name!r}: {text}: {listed(names)}" for text, names in wrong.items() if names]
    if not changed:
        problems.append(f"stage {stage.name!r} changed nothing")
    return expected, problems


def listed(names: set[str]) -> str:
    """Names in order, the first few of them."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
