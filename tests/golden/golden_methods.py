"""Methods for golden runs, installed like anybody's: what they do is known, so that numbers speak of the suite."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.methods.base import Batch, Method, Stage, Task
from spectral_tl_bench.methods.baselines import LinearProbe

ENTRIES = {
    "golden-copies": "golden_methods:Copies",
    "golden-pixels": "golden_methods:Pixels",
    "golden-ramp": "golden_methods:Ramp",
    "golden-script": "golden_methods:Script",
}


class SmallNet(nn.Module):
    """Two convolutions, the second over neighbours.

    In training half of what lies between is left out, by chance that all machines share.
    """

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(bands, 8, 1), nn.Conv2d(8, classes, 3, padding=1)])

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.gelu(self.layers[0](images))
        if self.training:
            hidden = hidden * (torch.rand(hidden.shape[:2]) < 0.5)[:, :, None, None]
        return self.layers[1](hidden)


class Pixels(Method):
    """Trains with the suite's own loss, in two stages if asked to."""

    uses_backbone = False
    numerics_version = 1
    first: int = 0

    def build(self, task: Task) -> nn.Module:
        return SmallNet(task.num_bands, task.num_classes)

    def stages(self, task: Task) -> list[Stage]:
        last = Stage("segment", task.budget.steps)
        if not self.first:
            return [last]
        first = Stage("warm", self.first, labelled=False, loss=spread, trainable=lambda name: "layers.0" in name)
        return [first, last]


def spread(module: nn.Module, batch: Batch) -> Tensor:
    """A loss without labels."""
    return (module(batch["image"]) - 1).square().mean()


class OneNumber(nn.Module):
    """Predicts a class that a weight tells, everywhere."""

    def __init__(self, classes: int, script: tuple[int, ...]) -> None:
        super().__init__()
        self.classes, self.script, self.calls = classes, script, 0
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        step = min(len(self.script), max(1, round(self.weight.item())))
        logits = torch.zeros(len(images), self.classes, *images.shape[-2:])
        logits[:, self.script[step - 1]] = 1
        return logits + 0 * self.weight


class Script(Method):
    """Says the classes of a script, one after the other: every step raises the weight by 1."""

    uses_backbone = False
    numerics_version = 1
    script: str = "0,1,2"

    def build(self, task: Task) -> nn.Module:
        return OneNumber(task.num_classes, tuple(map(int, self.script.split(","))))

    def stages(self, task: Task) -> list[Stage]:
        return [Stage("segment", task.budget.steps, loss=lambda module, _: -module.weight, learning_rate=1.0)]


class Ramp(Method):
    """One weight, gradients that rise and fall, and steps so long that every setting of the optimiser shows."""

    uses_backbone = False
    numerics_version = 1

    def build(self, task: Task) -> nn.Module:
        module = OneNumber(task.num_classes, (0,))
        nn.init.constant_(module.weight, 500.0)
        return module

    def stages(self, task: Task) -> list[Stage]:
        return [Stage("segment", task.budget.steps, loss=ramp, learning_rate=100.0)]


def ramp(module: nn.Module, _: Batch) -> Tensor:
    """A gradient of 2 + sin(2 step)."""
    module.calls += 1
    return (2 + math.sin(2.0 * module.calls)) * module.weight


class Copies(LinearProbe):
    """A linear probe on kept features in all symmetries of the square."""

    numerics_version = 1
    cache: bool = True
    cache_copies: Literal[1, 8] = 8
