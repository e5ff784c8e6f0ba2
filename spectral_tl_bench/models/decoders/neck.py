"""From four feature maps to a pyramid, whatever the patch or the strides of the backbone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

STRIDES = (4, 8, 16, 32)
"""Pixels per cell of the four pyramid levels, whatever the patch of the backbone."""


def four(numbers: int | Sequence[int]) -> tuple[int, ...]:
    """One number per map: the same for all, or those given.

    Raises:
        ValueError: If there are not four.
    """
    values = (numbers,) * len(STRIDES) if isinstance(numbers, int) else tuple(numbers)
    if len(values) != len(STRIDES):
        raise ValueError(f"a decoder takes {len(STRIDES)} feature maps, got channels for {len(values)}: {values}")
    return values


class PyramidNeck(nn.Module):
    """Makes a feature pyramid from four maps, of one size as plain vision transformers have them, or of several.

    Each map gets a 1x1 convolution and is resized to a stride of 4, 8, 16 and 32 pixels; for a patch of 16 these
    are the factors 4, 2, 1 and 1/2 of the token grid (SpectralX, ISPRS J. 239, 2026, neck). A map that has its
    stride already keeps its size.

    Args:
        width: Channels of the incoming maps, one number or four.
        channels: Channels of the outgoing maps, one number or four.
        doubling: Make each level exactly twice as large as the next, for decoders that upsample by 2; by default the
            sizes are rounded up one by one. Both are the same where 32 divides the image.
    """

    def __init__(self, width: int | Sequence[int], channels: int | Sequence[int], doubling: bool = False) -> None:
        super().__init__()
        self.doubling = doubling
        self.projections = nn.ModuleList(
            nn.Conv2d(incoming, outgoing, 1) for incoming, outgoing in zip(four(width), four(channels), strict=True)
        )

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Maps four (B, width, h, w) to (B, channels, H/4, W/4) ... (B, channels, H/32, W/32)."""
        levels = []
        for projection, feature, stride in zip(self.projections, features, STRIDES, strict=True):
            last = STRIDES[-1]
            size = [-(-side // last) * (last // stride) if self.doubling else -(-side // stride) for side in image_size]
            levels.append(functional.interpolate(projection(feature), size=size, mode="bilinear", align_corners=False))
        return levels
