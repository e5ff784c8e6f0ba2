"""Methods that are wrong, each in one way; installed as a package by the tests, and never otherwise."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import rasterio
import torch
from torch import nn
from torch.nn import functional

from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.methods.base import Method, Stage
from spectral_tl_bench.methods.losses import segmentation_loss


class Net(nn.Module):
    """What all of them start from; there is nothing wrong with it."""

    def __init__(self, bands, classes, width=8):
        super().__init__()
        self.inner = nn.Conv2d(bands, width, 1)
        self.outer = nn.Conv2d(width, classes, 1)

    def features(self, images):
        return functional.gelu(self.inner(images))

    def forward(self, images):
        return self.outer(self.features(images))


class Right(Method):
    """Nothing is wrong."""

    net: ClassVar[type[nn.Module]] = Net
    uses_backbone: ClassVar[bool] = False

    def build(self, task):
        return self.net(task.num_bands, task.num_classes)


class Adapts(Right):
    """Nothing is wrong here either: it says that it needs images of the target."""

    target_images = True

    def stages(self, task):
        def loss(module, batch):
            gap = module(batch["target_image"]).mean((0, 2, 3)) - module(batch["image"]).mean((0, 2, 3))
            return segmentation_loss(module, batch) + gap.square().sum()

        return [Stage("segment", task.budget.steps, loss=loss)]


class AdaptsInSecret(Adapts):
    target_images = False


class OneClassTooMany(Right):
    def build(self, task):
        return Net(task.num_bands, task.num_classes + 1)


class FirstBands(Right):
    def build(self, task):
        return Net(13, task.num_classes)


class FixedPositions(Right):
    class net(Net):  # noqa: N801
        def __init__(self, bands, classes):
            super().__init__(bands, classes)
            self.positions = nn.Parameter(torch.zeros(1, 8, 32, 32))

        def features(self, images):
            return super().features(images) + self.positions


class PooledBatchNorm(Right):
    class net(Net):  # noqa: N801
        def __init__(self, bands, classes):
            super().__init__(bands, classes)
            self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

        def features(self, images):
            found = super().features(images)
            return found + self.pooled(found)


class BatchMean(Right):
    class net(Net):  # noqa: N801
        def features(self, images):
            return super().features(images - images.mean(dim=0, keepdim=True))


class TimeOfDay(Right):
    def build(self, task):
        generator = torch.Generator()
        generator.seed()
        net = Net(task.num_bands, task.num_classes)
        with torch.no_grad():
            net.inner.weight += 0.1 * torch.randn(net.inner.weight.shape, generator=generator)
        return net


MEMORY: list[torch.Tensor] = []


class Remembers(Right):
    """Starts from what an earlier run in the same process has learned."""

    def stages(self, task):
        def begin(module, step, steps):
            if MEMORY:
                with torch.no_grad():
                    module.outer.bias += MEMORY[-1]
            MEMORY.append(module.outer.bias.detach().clone())

        return [Stage("segment", task.budget.steps, after_step=begin)]


SEEN: list[torch.Tensor] = []


class RemembersTheTarget(Right):
    """Keeps what it was tested on, for the next run."""

    class net(Net):  # noqa: N801
        def forward(self, images):
            if not self.training:
                SEEN.append(images.mean())
            return super().forward(images)

    def stages(self, task):
        def loss(module, batch):
            return segmentation_loss(module, batch) * (1 + sum(SEEN[-1:]) ** 2)

        return [Stage("segment", task.budget.steps, loss=loss)]


class SecretBackbone(Method):
    """Moves frozen weights beside the optimiser."""

    def build(self, task):
        net = Net(task.num_bands, task.num_classes)
        net.backbone = nn.Conv2d(8, 8, 1).requires_grad_(False)
        inner = net.features
        net.features = lambda images: net.backbone(inner(images))
        return net

    def stages(self, task):
        def sneak(module, step, steps):
            module.backbone.weight.data.mul_(0.9)

        return [Stage("segment", task.budget.steps, after_step=sneak)]


class Decoration(Right):
    class net(Net):  # noqa: N801
        def __init__(self, bands, classes):
            super().__init__(bands, classes)
            self.unused = nn.Linear(3, 3)


class WrongExcuse(Right):
    """Says that no gradient reaches what is reached."""

    def stages(self, task):
        return [Stage("segment", task.budget.steps, unreached={"outer.": "a guess"})]


class PlainTensor(Right):
    class net(Net):  # noqa: N801
        def __init__(self, bands, classes):
            super().__init__(bands, classes)
            self.centre = torch.zeros(1, 8, 1, 1)

        def features(self, images):
            found = super().features(images)
            if self.training and found.device.type == "cpu":
                self.centre = 0.9 * self.centre + found.detach().mean(dim=(0, 2, 3), keepdim=True)
            return found - self.centre.to(found.device)


class MadeOnTheCpu(Right):
    class net(Net):  # noqa: N801
        def features(self, images):
            return super().features(images) * torch.full((8, 1, 1), 0.5)


class HardCodedCuda(Right):
    class net(Net):  # noqa: N801
        def forward(self, images):
            return super().forward(images.cuda())


class CudaIfThere(Right):
    def build(self, task):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return Net(task.num_bands, task.num_classes).to(device)


class SetsSeed(Right):
    def build(self, task):
        torch.manual_seed(0)
        return super().build(task)


class SetsNumpySeed(Right):
    def stages(self, task):
        np.random.seed(3)
        return super().stages(task)


class SetsCudnn(Right):
    def build(self, task):
        torch.backends.cudnn.benchmark = True
        return super().build(task)


class SetsEnvironment(Right):
    def build(self, task):
        os.environ["MY_METHOD_WAS_HERE"] = "1"
        return super().build(task)


class NotANumber(Right):
    class net(Net):  # noqa: N801
        def forward(self, images):
            return super().forward(images).log()


class Overflows(Right):
    """Good for noise, not for saturated pixels."""

    class net(Net):  # noqa: N801
        def forward(self, images):
            return super().forward(images) + 0 * (2 * images.amax(dim=1, keepdim=True)).exp()


class Dropout(Right):
    class net(Net):  # noqa: N801
        def features(self, images):
            return functional.dropout(super().features(images), 0.5)


class AdaptsToTheTarget(Right):
    class net(Net):  # noqa: N801
        def __init__(self, bands, classes):
            super().__init__(bands, classes)
            self.norm = nn.BatchNorm2d(8)

        def features(self, images):
            return self.norm.train()(super().features(images))


class MeanOverNothing(Right):
    def stages(self, task):
        def loss(module, batch):
            return functional.cross_entropy(module(batch["image"]), batch["mask"], ignore_index=255)

        return [Stage("segment", task.budget.steps, loss=loss)]


class ForgotVoid(Right):
    def stages(self, task):
        def loss(module, batch):
            return functional.cross_entropy(module(batch["image"]), batch["mask"])

        return [Stage("segment", task.budget.steps, loss=loss)]


class NoLabelsAtTheEnd(Right):
    def stages(self, task):
        return [Stage("pretrain", task.budget.steps, labelled=False, loss=lambda m, b: m(b["image"]).mean())]


class StrangeOption(Right):
    thing: Any = object()


class ReadsLabels(Right):
    """Opens labels of the target where a user keeps the data."""

    def stages(self, task):
        def loss(module, batch):
            total = segmentation_loss(module, batch)
            for path in sorted(Path(os.environ.get("STBENCH_DATA", "nowhere")).rglob("test/*_label.mat"))[:1]:
                total = total * (1 + path.read_bytes()[-1] / 256)
            return total

        return [Stage("segment", task.budget.steps, loss=loss)]


class ReadsLabelsAtTheTest(Right):
    """Opens them when the target is predicted."""

    class net(Net):  # noqa: N801
        def forward(self, images):
            for path in sorted(Path(os.environ.get("STBENCH_DATA", "nowhere")).rglob("test/*_label.mat"))[:1]:
                path.read_bytes()
            return super().forward(images)


class ReadsImages(Right):
    """Opens images of the target without having said so; GDAL opens them, not Python."""

    def build(self, task):
        net = super().build(task)
        for path in sorted(Path(os.environ.get("STBENCH_DATA", "nowhere")).rglob("test/*.tif"))[:1]:
            with rasterio.open(path) as file:
                net.inner.bias.data[0] = float(file.read().mean() % 1)
        return net


class FindsTheIndex(Right):
    """Opens nothing, but finds counts of the target's labels in the memory of the process."""

    def stages(self, task):
        def loss(module, batch):
            total = segmentation_loss(module, batch)
            for one in gc.get_objects():
                if type(one) is ChipIndex:
                    counts = np.sum(one.frame.loc[one.frame["image"].str.contains("test"), "class_counts"].tolist(), 0)
                    total = total * (1 + float(counts[0]) / (1 + counts.sum()))
            return total

        return [Stage("segment", task.budget.steps, loss=loss)]
