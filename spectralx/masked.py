"""Stage 1: hide most patches, reconstruct their pixels in all bands (He et al., MAE, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn

from spectralx import positions
from spectralx.aomoa import AoMoA
from spectralx.attention import largest_divisor
from spectralx.blocks import MlpAdapter, run_block
from spectralx.positions import Grid


class Mask(NamedTuple):
    """Which patches are hidden.

    Attributes:
        visible: Indices (B, V) of the patches that stay, in no particular order.
        hidden: (B, L), 1.0 where a patch is hidden.
    """

    visible: Tensor
    hidden: Tensor

    def select(self, tokens: Tensor) -> Tensor:
        """The visible ones (B, V, D) of patch tokens (B, L, D)."""
        return tokens.gather(1, self.visible[..., None].expand(-1, -1, tokens.shape[-1]))

    def spread(self, visible: Tensor, filler: Tensor) -> Tensor:
        """Puts visible tokens (B, V, D) back in their places, with ``filler`` (D,) in the others: (B, L, D)."""
        full = filler.to(visible.dtype).expand(*self.hidden.shape, -1)
        return full.scatter(1, self.visible[..., None].expand(-1, -1, visible.shape[-1]), visible)


def draw_mask(batch: int, patches: int, ratio: float, device: torch.device, generator: Generator | None = None) -> Mask:
    """Hides the same number of patches in every image, at least one, and leaves at least one visible.

    Args:
        batch: Images B.
        patches: Patches per image L, at least 2.
        ratio: Share of patches to hide.
        device: Where the mask is needed.
        generator: Source of chance on that device; by default the global one.

    Returns:
        The mask.
    """
    keep = min(max(1, round(patches * (1 - ratio))), patches - 1)
    noise = torch.rand(batch, patches, device=device, generator=generator)
    visible = noise.argsort(dim=1)[:, :keep]
    return Mask(visible, torch.ones_like(noise).scatter(1, visible, 0.0))


def hide_pixels(images: Tensor, hidden: Tensor, patch: int) -> Tensor:
    """Sets hidden patches (B, L) of images (B, C, H, W) to zero, so that no part of the model can see them."""
    grid = (images.shape[-2] // patch, images.shape[-1] // patch)
    keep = (1.0 - hidden).to(images.dtype).view(-1, 1, *grid)
    return images * keep.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Pixels of every patch: (B, C, H, W) to (B, L, C * patch * patch)."""
    batch, bands, height, width = images.shape
    cells = images.view(batch, bands, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, bands * patch * patch)


def masked_error(predicted: Tensor, images: Tensor, hidden: Tensor, patch: int) -> Tensor:
    """Mean squared error on pixels that are normalised per patch, over hidden patches only.

    Args:
        predicted: (B, L, C * patch * patch).
        images: (B, C, H, W).
        hidden: (B, L), 1.0 where a patch counts.
        patch: Patch side in pixels.

    Returns:
        Scalar.
    """
    target = patchify(images, patch).float()
    centred = target - target.mean(dim=-1, keepdim=True)
    target = centred * (centred.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()
    error = (predicted.float() - target).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()


class ReconstructionDecoder(nn.Module):
    """Light decoder: mask tokens in the gaps, a few transformer blocks with experts, pixels of every patch.

    Args:
        width: Token width of the encoder.
        inner: Token width of the decoder, a multiple of 4.
        depth: Blocks.
        grid: Patches per side, or rows and columns of them.
        outputs: Values per patch.
        resolution: Factor on positions; see ``positions.spatial``.
        make_adapter: Makes the experts beside a linear layer with given input and output widths; None for no experts.
    """

    position: Tensor

    def __init__(
        self,
        width: int,
        inner: int,
        depth: int,
        grid: int | Grid,
        outputs: int,
        resolution: float,
        make_adapter: Callable[[int, int], AoMoA] | None,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.randn(inner) * 0.02)
        heads = largest_divisor(inner, max(1, inner // 32))
        self.blocks = nn.ModuleList(Block(inner, heads, qkv_bias=True) for _ in range(depth))
        self.adapters = nn.ModuleList(MlpAdapter(block, make_adapter) for block in self.blocks if make_adapter)
        self.norm = nn.LayerNorm(inner)
        self.predict = nn.Linear(inner, outputs)
        self.resolution = resolution
        self.grid = (grid, grid) if isinstance(grid, int) else grid
        self.register_buffer("position", positions.spatial(inner, *self.grid, resolution), persistent=False)

    def forward(self, visible: Tensor, mask: Mask, grid: Grid | None = None) -> tuple[Tensor, Tensor]:
        """Predictions (B, L, outputs) from encoded visible tokens (B, V, width), and a scalar balance loss.

        Args:
            visible: Encoded tokens of the visible patches.
            mask: Which they are.
            grid: Rows and columns of the whole image's patches, if they are others than this module was built for.
        """
        position = self.position
        if grid is not None and grid != self.grid:
            position = positions.spatial(position.shape[-1], *grid, self.resolution, device=position.device)
        tokens = mask.spread(self.embed(visible), self.mask_token) + position
        balance = tokens.new_zeros((), dtype=torch.float32)
        for index, block in enumerate(self.blocks):
            tokens, extra = run_block(block, tokens, self.adapters[index] if len(self.adapters) else None)
            balance = balance + extra
        return self.predict(self.norm(tokens)), balance
