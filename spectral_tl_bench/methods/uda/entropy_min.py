"""Entropy minimisation: predictions on target images are made sharp."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from spectral_tl_bench.methods.base import Batch, Recipe, Stage, Task
from spectral_tl_bench.methods.budget import FINE_TUNING
from spectral_tl_bench.methods.losses import labelled_cross_entropy
from spectral_tl_bench.methods.options import WithDecoder
from spectral_tl_bench.models.segmenter import build_segmenter


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the predictions of all pixels, in parts of the largest there can be: ADVENT, equations 2 and 3.

    Args:
        logits: (B, K, H, W), K >= 2.
    """
    logs = logits.float().log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1).mean() / math.log(logits.shape[1])


class EntropyMin(WithDecoder):
    """Full fine-tuning, and the entropy of the predictions on target images beside the loss: MinEnt of ADVENT.

    A training step has one forward pass of source windows and one of as many target windows, which train backbone and
    decoder alike. Layers with batch statistics, where a backbone has any, see both.
    """

    numerics_version = 1

    family: ClassVar[str] = "uda"
    recipe: ClassVar[Recipe] = FINE_TUNING
    reference: ClassVar[str] = "Vu et al., ADVENT, CVPR 2019, sec. 3.1 (direct entropy minimisation)"
    source_code: ClassVar[str] = "valeoai/ADVENT, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "Any backbone of the suite with one decoder stands for DeepLab-v2; there is no second output with a loss.",
        "Optimiser, rate and windows are those of the benchmark, the same for every method, in place of SGD with a "
        "polynomial decay.",
        "Neither class-ratio priors nor the adversarial variant are there.",
    )
    target_images: ClassVar[bool] = True

    weight: float = Field(0.001, ge=0, description="multiple of the entropy on target images, which is 1 at most")

    def build(self, task: Task) -> nn.Module:
        """Everything trains."""
        return build_segmenter(task, self.decoder)

    def stages(self, task: Task) -> list[Stage]:
        """One, with both losses."""

        def outputs(module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            added = self.weight * entropy(module(batch["target_image"]))
            return module(batch["image"]), added  # last, since objectives look at the last features

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            logits, added = outputs(module, batch)
            return labelled_cross_entropy(logits, batch["mask"]) + added

        return [Stage("segment", task.budget.steps, loss=loss, outputs=outputs)]
