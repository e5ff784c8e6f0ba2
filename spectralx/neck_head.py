"""The model's own segmentation decoder: a neck that makes a pyramid, and a UPerNet head (Xiao et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx.attention import BatchNorm2d

SCALES = (4.0, 2.0, 1.0, 0.5)
"""Sizes of the pyramid levels relative to the token grid."""

POOLS = (1, 2, 3, 6)
"""Sides of the pooled maps of the pyramid pooling module."""


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing of (B, C, h, w) to ``size``."""
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class PyramidNeck(nn.Module):
    """Turns four maps of one size into four of different sizes: 1x1 convolution, resizing, 3x3 convolution.

    Args:
        width: Channels, of what comes in as of what goes out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in SCALES)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in SCALES)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps four (B, width, h, w) to sizes 4h, 2h, h and h/2."""
        levels = []
        for feature, lateral, smooth, scale in zip(features, self.lateral, self.smooth, SCALES, strict=True):
            size = [max(1, int(side * scale)) for side in feature.shape[-2:]]
            levels.append(smooth(resize(lateral(feature), size)))
        return levels


class UPerHead(nn.Module):
    """UPerNet: pyramid pooling on the coarsest level, a top-down pyramid, fusion at the finest.

    Args:
        width: Channels of each level.
        channels: Inner channels.
        num_classes: Logit channels K.
        dropout: Share of channels dropped in training before the last layer.
        eps: Epsilon of the batch norms.
    """

    def __init__(self, width: int, channels: int, num_classes: int, dropout: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        levels = len(SCALES)
        self.pools = nn.ModuleList(_convolution(width, channels, 1, eps) for _ in POOLS)
        self.pooled = _convolution(width + len(POOLS) * channels, channels, 3, eps)
        self.lateral = nn.ModuleList(_convolution(width, channels, 1, eps) for _ in range(levels - 1))
        self.smooth = nn.ModuleList(_convolution(channels, channels, 3, eps) for _ in range(levels - 1))
        self.fuse = _convolution(levels * channels, channels, 3, eps)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, h, w) of the size of the first, finest level."""
        laterals = [lateral(level) for lateral, level in zip(self.lateral, pyramid[:-1], strict=True)]
        merged = self._pool(pyramid[-1])
        outputs = [merged]
        for lateral, smooth in zip(reversed(laterals), reversed(self.smooth), strict=True):
            merged = lateral + resize(merged, lateral.shape[-2:])
            outputs.insert(0, smooth(merged))
        finest = outputs[0].shape[-2:]
        fused = self.fuse(torch.cat([resize(output, finest) for output in outputs], dim=1))
        return self.classify(self.dropout(fused))

    def _pool(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        pooled = [
            resize(convolution(functional.adaptive_avg_pool2d(x, side)), size)
            for side, convolution in zip(POOLS, self.pools, strict=True)
        ]
        return self.pooled(torch.cat([x, *pooled], dim=1))


class NeckAndHead(nn.Module):
    """Neck and head behind the decoder contract of ``SpectralX``.

    Args:
        width: Token width of the backbone.
        num_classes: Logit channels K.
        channels: Inner channels of the head.
        eps: Epsilon of the head's batch norms.
    """

    def __init__(self, width: int, num_classes: int, channels: int = 512, eps: float = 1e-5) -> None:
        super().__init__()
        self.neck = PyramidNeck(width)
        self.head = UPerHead(width, channels, num_classes, eps=eps)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        return resize(self.head(self.neck(features)), image_size)


def _convolution(inputs: int, outputs: int, side: int, eps: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False), BatchNorm2d(outputs, eps=eps), nn.ReLU()
    )
