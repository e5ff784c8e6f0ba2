"""Masked reconstruction for the miniature alone (He et al., MAE, CVPR 2022): mask, light decoder, error.

SpectralX has its own, in a package that needs nothing of this one, and this one nothing of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn


class Mask(NamedTuple):
    """Which patches are hidden.

    Attributes:
        visible: Indices (B, V) of the patches that stay, in no particular order.
        hidden: (B, L), 1.0 where a patch is hidden.
    """

    visible: Tensor
    hidden: Tensor


def draw_mask(batch: int, patches: int, ratio: float, generator: Generator) -> Mask:
    """Hides the same number of patches in each of ``batch`` images."""
    keep = round(patches * (1 - ratio))
    noise = torch.rand(batch, patches, generator=generator)
    visible = noise.argsort(dim=1)[:, :keep]
    return Mask(visible, torch.ones_like(noise).scatter(1, visible, 0.0))


def grid_positions(width: int, side: int) -> Tensor:
    """Sines and cosines of the cells of a square grid (side * side, width); the first half tells the column."""
    quarter = width // 4
    frequencies = 1.0 / 10000.0 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [places.reshape(-1, 1).float() * frequencies for places in (columns, rows)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


def masked_error(predicted: Tensor, images: Tensor, hidden: Tensor, patch: int) -> Tensor:
    """Mean squared error (scalar) on pixels that are normalised per patch, over hidden patches only.

    Args:
        predicted: (B, L, C * patch * patch).
        images: (B, C, H, W).
        hidden: (B, L), 1.0 where a patch counts.
        patch: Patch side in pixels.
    """
    batch, bands, height, width = images.shape
    cells = images.view(batch, bands, height // patch, patch, width // patch, patch)
    target = cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, bands * patch * patch)
    centred = target - target.mean(dim=-1, keepdim=True)
    target = centred * (centred.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()
    error = (predicted - target).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()


class ReconstructionDecoder(nn.Module):
    """Mask tokens in the gaps, a few transformer blocks, pixels of every patch.

    Args:
        width: Token width of the encoder.
        inner: Token width of the decoder, a multiple of 4.
        depth: Blocks.
        side: Patches per side.
        outputs: Values per patch.
    """

    position: Tensor

    def __init__(self, width: int, inner: int, depth: int, side: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.randn(inner) * 0.02)
        heads = max(1, inner // 32)
        self.blocks = nn.Sequential(*(Block(inner, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(inner)
        self.predict = nn.Linear(inner, outputs)
        self.register_buffer("position", grid_positions(inner, side), persistent=False)

    def forward(self, visible: Tensor, mask: Mask) -> Tensor:
        """Predictions (B, L, outputs) from the encoded tokens (B, V, width) of the visible patches."""
        tokens = self.embed(visible)
        full = self.mask_token.expand(*mask.hidden.shape, -1)
        full = full.scatter(1, mask.visible[..., None].expand(-1, -1, tokens.shape[-1]), tokens)
        return self.predict(self.norm(self.blocks(full + self.position)))
