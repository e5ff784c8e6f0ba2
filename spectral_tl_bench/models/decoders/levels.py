"""Decoders without a pyramid: of the last map, of all four joined at the finest size, and of pixels beside either."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.models.decoders.head import Head, convolution
from spectral_tl_bench.models.decoders.neck import four

DROPOUT = 0.2


def joined(features: Sequence[Tensor]) -> Tensor:
    """Four maps as one, (B, sum of D, h, w), at the size of the finest of them."""
    maps = list(features)
    height, width = (max(one.shape[side] for one in maps) for side in (-2, -1))
    return torch.cat(
        [
            one
            if one.shape[-2:] == (height, width)
            else functional.interpolate(one, size=(height, width), mode="bilinear", align_corners=False)
            for one in maps
        ],
        dim=1,
    )


class LinearLevels(Head):
    """A linear classifier of tokens by all four maps: 1x1 convolution, bilinear upsampling; nothing else.

    Args:
        width: Channels of the maps, one number or four.
        num_classes: Number of logit channels.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int) -> None:
        super().__init__(sum(four(width)), num_classes, dropout=0.0)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        return self.classify(joined(features), image_size)


class Light(Head):
    """A 1x1 and a 3x3 convolution of all four maps: the neighbours of a token, at its own size.

    Nothing normalises, so that the size of a pyramid level or of a batch is of no account.

    Args:
        width: Channels of the maps, one number or four.
        num_classes: Number of logit channels.
        channels: Inner channels.
    """

    def __init__(self, width: int | Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__(channels, num_classes, dropout=0.0)
        self.convolutions = nn.Sequential(
            nn.Conv2d(sum(four(width)), channels, 1),
            nn.GELU(),
            nn.Dropout2d(DROPOUT),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
        )

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        return self.classify(self.convolutions(joined(features)), image_size)


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


HIDDEN = 64


class WithPixels(nn.Module):
    """A decoder of maps, and a per-pixel MLP of all bands whose logits are added to its own.

    The backbone sees what its filters let through, at the size of its tokens; the MLP sees every band of every pixel,
    and nothing around it.

    Args:
        maps: The decoder of the maps.
        bands: Image channels C.
    """

    takes_images = True
    """Features have one more entry for it, the last: the normalised images (B, C, H, W)."""

    def __init__(self, maps: nn.Module, bands: int, num_classes: int) -> None:
        super().__init__()
        self.maps = maps
        self.pixels = nn.Sequential(
            nn.Conv2d(bands, HIDDEN, 1), nn.GELU(), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.GELU(),
            nn.Conv2d(HIDDEN, num_classes, 1),
        )  # fmt: skip

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from the maps and, behind them, the images."""
        pixels = self.pixels(features[-1])  # first: an objective aligns what the last classifier is given
        return pixels + self.maps(features[:-1], image_size)


def takes_images(decoder: nn.Module | None) -> bool:
    """Whether a decoder wants the images behind the maps."""
    return bool(getattr(decoder, "takes_images", False))
