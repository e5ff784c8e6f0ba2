"""A method on trial: tasks for it, modules that it builds, and one short training that several checks look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectral_tl_bench.authoring.watching import (
    Watched,
    batch_of,
    contradictions,
    declared_in,
    every_value,
    solved,
    train_a_little,
)
from spectral_tl_bench.inspect.invented import invented_task
from spectral_tl_bench.methods.adapters_io import changeable
from spectral_tl_bench.methods.base import Batch, Budget, Method, Task
from spectral_tl_bench.models.backbones import Backbone
from spectral_tl_bench.results.schema import Record

BANDS, CLASSES, DOMAINS = 13, 5, 2
"""Of the task in memory that most checks use."""

TINY = {"width": 32, "depth": 2, "heads": 2, "patch": 8}
"""Sizes of the backbone ``compact`` for checks: a method is looked at, not measured."""


@dataclass
class Trained:
    """A module after a few steps of every stage.

    Attributes:
        values: Its parameters and buffers.
        seen: What each stage trained by gradients did.
        wrong: Where stages did not do what they say.
        covered: Parameters that some stage trains.
        declared: Parameters that required a gradient when the module was built.
        kept: Names of what a run stores.
    """

    module: nn.Module
    values: dict[str, Tensor]
    seen: dict[str, Watched]
    wrong: list[str]
    covered: set[str]
    declared: set[str]
    kept: set[str]


@dataclass(frozen=True)
class Ran:
    """A finished run.

    Attributes:
        weights: What its file of trained weights holds.
        opened: Files of the target that were opened on the way of the method or of training.
    """

    record: Record
    weights: dict[str, Tensor]
    opened: list[str]


@dataclass
class Trial:
    """A method with its options, and what the checks share.

    Attributes:
        name: Entry-point name, by itself or with a preset.
        window: Side of windows in pixels, for most checks.
        backbone_name: Name of the backbone, as a run is told.
        weights: Pretrained weights of it.
        folder: An empty folder for what runs leave.
        ran: The run of the method, once it is made.
    """

    name: str
    options: dict[str, Any]
    method: Method
    backbone: Backbone
    window: int = 32
    backbone_name: str = "compact"
    backbone_sizes: dict[str, int] = field(default_factory=dict)
    weights: str | None = None
    folder: Path = Path("runs")
    ran: Ran | None = None
    _first: Trained | None = field(init=False, default=None)

    def task(self, bands: int = BANDS, window: int | None = None) -> Task:
        """What the method is told, without any data."""
        return invented_task(
            replace(self.backbone, seed=0),
            bands=bands,
            classes=CLASSES,
            window=window or self.window,
            budget=Budget(steps=3, pretrain_steps=3, batch_size=2, learning_rate=1e-3),
            benchmark="check-method",
            domains=[f"domain {number + 1}" for number in range(DOMAINS)],
        )

    def build(self, task: Task | None = None, seed: int = 0) -> nn.Module:
        """A module, after the global random state has been seeded as a run does it."""
        with seeded(seed):
            return self.method.build(task or self.task())

    def images(self, task: Task, count: int = 2, seed: int = 1) -> Tensor:
        """Noise (B, C, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, task.num_bands, task.window, task.window, generator=generator)

    def batch(self, task: Task, labelled: bool, count: int = 2) -> Batch:
        """A batch as stages get it."""
        with seeded(2):
            batch = batch_of(self.images(task, count), task.num_classes, len(task.domains))
        if not labelled:
            del batch["mask"]
        if self.method.target_images:
            batch["target_image"] = self.images(task, count, seed=3)
        return batch

    def train(self, seed: int = 0, bands: int = BANDS, batch: int = 2, steps: int = 3) -> Trained:
        """Build a module and take it through a few steps of every stage."""
        task = self.task(bands)
        module = self.build(task, seed)
        declared = declared_in(module)
        done = Trained(module, {}, {}, [], set(), declared, changeable(module))
        for number, stage in enumerate(self.method.stages(task)):
            if stage.steps < 1:
                continue
            with seeded(100 + seed + number):
                if stage.fit is not None:
                    given = [self.batch(task, stage.labelled)]
                    named, wrong = solved(module, stage, declared, given)
                    done.covered |= named
                    done.wrong += wrong
                    continue
                seen = train_a_little(
                    module, stage, task.num_bands, task.num_classes, task.window, declared=declared, batch=batch,
                    steps=steps, domains=len(task.domains), target_images=self.method.target_images,
                )  # fmt: skip
            done.seen[stage.name] = seen
            done.covered |= seen.chosen
            done.wrong += list(contradictions(module, stage, seen, declared))
        done.values = every_value(module)
        return done

    def first(self) -> Trained:
        """The training with seed 0, done once."""
        if self._first is None:
            self._first = self.train()
        return self._first


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global random state of PyTorch from a seed, and as it was afterwards."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@torch.no_grad()
def predict(module: nn.Module, images: Tensor) -> Any:
    """What a module gives in evaluation mode."""
    return module.eval()(images)
