"""The patch embedding ``lowrank``: frozen filters for red, green and blue, and a trained path for all bands."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.pyramid import stem_of
from spectral_tl_bench.models.backbones.spec import BackboneSpec

RANK = 16
"""Channels of the low-rank path between its two convolutions (Scheibenreif et al., CVPR 2024)."""


class FrozenFilters(nn.Module):
    """A patch convolution whose weights are no parameters, so that no method can train them.

    Args:
        layer: The convolution, stride = kernel.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.stride = layer.stride
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, h, w)."""
        return functional.conv2d(images, self.weight, self.bias, self.stride)


class LowRankStem(nn.Module):
    """``W x + up(down(x))``: frozen filters, and two thin strided convolutions over all bands.

    Args:
        layer: The convolution that already reads all bands.
        rank: Channels between the two convolutions.
    """

    def __init__(self, layer: nn.Conv2d, rank: int = RANK) -> None:
        super().__init__()
        self.frozen = FrozenFilters(layer)
        patch = layer.kernel_size[0]
        second = max(side for side in range(1, math.isqrt(patch) + 1) if patch % side == 0)
        first = patch // second  # 4 and 4 for a patch of 16
        down = nn.Conv2d(layer.in_channels, rank, first, stride=first)
        up = nn.Conv2d(rank, layer.out_channels, second, stride=second)
        self.path = nn.Sequential(OrderedDict(down=down, up=up))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, h, w)."""
        return self.frozen(images) + self.path(images)


def low_rank_stem(spec: BackboneSpec, network: nn.Module) -> None:
    """Put a ``LowRankStem`` in the place of the patch convolution.

    Raises:
        UserError: If the first layer is not a convolution over patches.
    """
    owner, leaf = stem_of(network)
    layer = cast(nn.Module, getattr(owner, leaf))
    if not isinstance(layer, nn.Conv2d) or layer.stride != layer.kernel_size:
        raise UserError(
            f"patch embedding 'lowrank' needs a convolution over patches, {spec.name} begins with another layer",
            fix="choose another --patch-embedding",
        )
    setattr(owner, leaf, LowRankStem(layer))
