"""A few training steps of a stage, and what they did to every parameter and batch statistic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spectral_tl_bench.methods.base import Batch, Budget, Stage
from spectral_tl_bench.training.task import StageTask

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass
class Watched:
    """What some steps did, as names.

    Attributes:
        parameters: All parameters.
        chosen: Parameters that the stage names.
        reached: Parameters that had a gradient other than zero in some step.
        touched: Parameters that had any gradient, if only zeros.
        changed: Parameters and buffers whose values are no longer the same, bit by bit.
        ran: Normalisation layers with batch statistics that were called.
        moved: Those of them whose statistics changed.
        odd: Buffers that changed otherwise.
    """

    parameters: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)


def every_value(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, also of those that no file would keep."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach().clone() for name, value in tensors}


def batch_of(images: Tensor, classes: int) -> Batch:
    """Images with labels drawn by chance."""
    size = (len(images), *images.shape[2:])
    return {
        "image": images,
        "mask": torch.randint(0, classes, size),
        "domain": torch.zeros(len(images), dtype=torch.long),
    }


def train_a_little(module: nn.Module, stage: Stage, bands: int, classes: int, size: int = 32, **more: Any) -> Watched:
    """Trains a module as the suite does.

    Args:
        module: The method's module, as it was built or as an earlier stage left it.
        stage: What to train.
        bands: Image channels.
        classes: Number of classes.
        size: Side of the images in pixels.
        **more: ``batch`` (images per step, 2), ``steps`` (3), ``declared`` (names that required a gradient when the
            module was built; by default those that do now).
    """
    batch, steps = more.pop("batch", 2), more.pop("steps", 3)
    declared = more.pop("declared", None) or {n for n, p in module.named_parameters() if p.requires_grad}
    assert not more
    named = dict(module.named_parameters())
    norms = {name: child for name, child in module.named_modules() if hasattr(child, "running_mean")}
    seen, before = Watched(parameters=set(named)), every_value(module)
    hooks = [
        child.register_forward_hook(lambda _child, _inputs, _output, name=name: seen.ran.add(name))
        for name, child in norms.items()
    ]
    task = StageTask(module, nn.Identity(), stage, Budget(learning_rate=1e-3), declared, None, None, classes)
    seen.chosen = {name for name, parameter in named.items() if parameter.requires_grad}
    optimiser = task.configure_optimizers()
    for step in range(steps):
        module.zero_grad(set_to_none=True)
        task.training_step(batch_of(torch.randn(batch, bands, size, size), classes), step).backward()
        for name, parameter in named.items():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
                seen.touched.add(name)
                if parameter.grad.any():
                    seen.reached.add(name)
        optimiser.step()
    for hook in hooks:
        hook.remove()
    after = every_value(module)
    seen.changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    own = {f"{name}.{statistic}" for name in norms for statistic in STATISTICS}
    seen.odd = seen.changed - seen.parameters - own
    seen.moved = {name for name in norms if any(f"{name}.{statistic}" in seen.changed for statistic in STATISTICS)}
    assert all(f"{name}.{statistic}" in seen.changed for name in seen.moved for statistic in STATISTICS)
    return seen


def trained_norms(seen: Watched) -> set[str]:
    """Normalisation layers with batch statistics that ran and whose own parameters the stage trains."""
    return {name for name in seen.ran if f"{name}.weight" in seen.chosen}
