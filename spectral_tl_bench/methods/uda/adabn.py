"""AdaBN: batch statistics of the target in a network that was trained on the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import Batch, Stage, Task
from spectral_tl_bench.methods.from_scratch import UNet


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The layers that keep batch statistics.

    Raises:
        MethodError: If there are none: transformers normalise tokens, the decoders of the suite groups of channels.
    """
    found = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    ]
    if not found:
        raise MethodError(
            "adabn: the network has no batch normalisation, so there are no statistics to take from the target",
            expected="layers that keep batch statistics, as in a U-Net with a ResNet encoder",
        )
    return found


def adapt(module: nn.Module, batches: Iterable[Batch]) -> None:
    """Set the statistics of all batch normalisations to plain means over batches of target images.

    Args:
        module: In evaluation mode; no parameter changes.
        batches: With ``target_image``.

    Raises:
        MethodError: If the module has no batch normalisation.
    """
    layers = batch_norms(module)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    try:
        for batch in batches:
            module(batch["target_image"])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


class AdaBn(UNet):
    """Adaptive batch normalisation: the row ``unet``, with batch statistics taken from target images at the end.

    Trains on the source and selects by source validation as ``unet`` does, on the same windows. In closed form, mean
    and variance of every batch normalisation of the selected network are then computed from target windows, as many as
    lie in the source training chips, drawn at random. No weight changes: it is the floor of what target images give.
    """

    numerics_version = 1

    family: ClassVar[str] = "uda"
    reference: ClassVar[str] = "Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, 2016"
    source_code: ClassVar[str] = ""
    differs: ClassVar[tuple[str, ...]] = (
        "Statistics are means over batches of target windows, each normalised by its own batch; the paper takes them "
        "over all target images, layer by layer.",
        "The network is a U-Net: vision transformers have no batch normalisation, and the decoders of the suite "
        "normalise over groups of channels. The chosen backbone is not used.",
    )
    target_images: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": UNet.presets["small"]}

    def build(self, task: Task) -> nn.Module:
        """Everything trains, on the source."""
        module = super().build(task)
        batch_norms(module)
        return module

    def stages(self, task: Task) -> list[Stage]:
        """Training on the source, then statistics of the target."""
        return [
            Stage("segment", task.budget.steps),
            Stage("statistics", 1, fit=adapt, trainable=lambda _: False),
        ]
