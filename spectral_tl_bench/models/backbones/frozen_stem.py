"""The patch embedding ``lowrank``: frozen filters for red, green and blue, and a trained path for all bands."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.pyramid import stem_of
from spectralx.hyper_tokenizer import LowRankPatchPath

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
        self.path = LowRankPatchPath(layer.in_channels, layer.out_channels, layer.kernel_size[0], rank)
        # SLR's scale of the sum belongs to that method.
        del self.path.scale
        self.path.register_buffer("scale", layer.weight.new_ones(layer.out_channels), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, h, w)."""
        embedded = self.frozen(images)
        tokens = self.path(images, embedded.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(embedded.shape)


def low_rank_stem(spec: Backbone, network: nn.Module) -> None:
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
