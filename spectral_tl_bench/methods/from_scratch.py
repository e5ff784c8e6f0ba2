"""Convolutional networks of the literature with random weights, by segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import segmentation_models_pytorch as smp
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.methods.base import Method, Part, Task

STAGES = 4
"""Stages of a ResNet after its first convolution, which counts as the first level."""


class BatchNorm2d(nn.BatchNorm2d):
    """Uses the running statistics where a batch has a single value per channel, and hence no variance.

    That is so behind a global pooling when a batch holds one image, where ``nn.BatchNorm2d`` raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


class AnySize(nn.Module):
    """Runs a network on images of any size: they are continued by their border pixels to a multiple of ``stride``.

    Args:
        network: Maps (B, C, H, W) to (B, K, H, W) where ``stride`` divides H and W.
        stride: In pixels.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network, self.stride = network, stride

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K, H, W)."""
        height, width = images.shape[-2:]
        right, below = -width % self.stride, -height % self.stride
        if right or below:
            images = functional.pad(images, (0, right, 0, below), mode="replicate")
        return self.network(images)[..., :height, :width]


class FromScratch(Method):
    """A network with a ResNet encoder; everything trains, from random weights. The chosen backbone is not used."""

    family: ClassVar[str] = "scratch"
    uses_backbone: ClassVar[bool] = False

    encoder: Literal["resnet18", "resnet34", "resnet50"] = Field("resnet34", description="encoder (He et al., 2016)")
    encoder_depth: int = Field(5, ge=3, le=5, description="times that the encoder halves the image; 5 is the whole")

    def parts(self) -> list[Part]:
        """Encoder and decoder; a segmentation head is part of the latter."""
        return [
            Part("encoder", lambda name: name.startswith("network.encoder.")),
            Part("decoder", lambda _: True, kind="decoder"),
        ]

    def _finish(self, network: nn.Module) -> nn.Module:
        encoder: Any = network.encoder
        for stage in range(self.encoder_depth, STAGES + 1):
            delattr(encoder, f"layer{stage}")  # what a shallower encoder leaves out would only be counted
        _tolerate_one(network)
        return AnySize(network, 2**self.encoder_depth)


class UNet(FromScratch):
    """U-Net with a ResNet encoder, from scratch."""

    numerics_version = 1

    reference: ClassVar[str] = (
        "Ronneberger et al., U-Net, MICCAI 2015; encoder and defaults of segmentation-models-pytorch"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": 64}
    }

    decoder_channels: int = Field(
        256, ge=16, description="channels of the coarsest decoder block; halved in every next"
    )

    def build(self, task: Task) -> nn.Module:
        """Everything trains."""
        channels = [max(16, self.decoder_channels >> level) for level in range(self.encoder_depth)]
        network = smp.Unet(
            self.encoder, encoder_depth=self.encoder_depth, encoder_weights=None, decoder_channels=channels,
            in_channels=task.num_bands, classes=task.num_classes,
        )  # fmt: skip
        return self._finish(network)


class DeepLabV3Plus(FromScratch):
    """DeepLabV3+ with a ResNet encoder at an output stride of 16, from scratch."""

    numerics_version = 1

    reference: ClassVar[str] = "Chen et al., ECCV 2018; encoder and defaults of segmentation-models-pytorch"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": 64}
    }

    decoder_channels: int = Field(256, ge=1, description="channels of pyramid pooling and decoder")

    def build(self, task: Task) -> nn.Module:
        """Everything trains."""
        network = smp.DeepLabV3Plus(
            self.encoder, encoder_depth=self.encoder_depth, encoder_weights=None, encoder_output_stride=16,
            decoder_channels=self.decoder_channels, in_channels=task.num_bands, classes=task.num_classes,
        )  # fmt: skip
        return self._finish(network)


def _tolerate_one(module: nn.Module) -> None:
    """Let fresh batch norms train on one value per channel, which image pooling gives for a batch of one."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, BatchNorm2d(child.num_features, child.eps, child.momentum))
        else:
            _tolerate_one(child)
