"""Decoders that look at the last feature map alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spectral_tl_bench.models.decoders.head import Head, convolution
from spectral_tl_bench.models.decoders.neck import four


class Linear(Head):
    """A linear classifier of tokens: 1x1 convolution on the last map, bilinear upsampling; nothing else.

    Args:
        width: Channels of the maps, one number or four.
        num_classes: Number of logit channels.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int) -> None:
        super().__init__(four(width)[-1], num_classes, dropout=0.0)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w), of which the last counts."""
        return self.classify(features[-1], image_size)


class FCN(Head):
    """Two 3x3 convolutions on the last map, as the head of fully convolutional networks (Long et al., CVPR 2015).

    Args:
        width: Channels of the maps, one number or four.
        num_classes: Number of logit channels.
        channels: Inner channels.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__(channels, num_classes)
        self.convolutions = nn.Sequential(convolution(four(width)[-1], channels), convolution(channels, channels))

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w), of which the last counts."""
        return self.classify(self.convolutions(features[-1]), image_size)
