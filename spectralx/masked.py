"""Stage 1: hide most patches, reconstruct their pixels in all bands (He et al., MAE, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn

from spectralx import positions
from spectralx.attention import largest_divisor
from spectralx.blocks import MakeAdapter, MlpAdapter, run_block
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
        generator: Source of chance on that device; by default the global one.
    """
    keep = min(max(1, round(patches * (1 - ratio))), patches - 1)
    noise = torch.rand(batch, patches, device=device, generator=generator)
    visible = noise.argsort(dim=1)[:, :keep]
    return Mask(visible, torch.ones_like(noise).scatter(1, visible, 0.0))


def hide_pixels(images: Tensor, hidden: Tensor, patch: int) -> Tensor:
    """Sets hidden patches (B, L) of images (B, C, H, W) to zero, so that no part of the model can see them."""
    return images * (1.0 - hidden_pixels(hidden, images.shape[-2:], patch)).to(images.dtype)


def hidden_pixels(hidden: Tensor, size: Sequence[int], patch: int) -> Tensor:
    """Hidden patches (B, L) as a map (B, 1, H, W) of ``size``."""
    cells = hidden.view(-1, 1, size[0] // patch, size[1] // patch)
    return cells.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


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


def unpatchify(patches: Tensor, shape: torch.Size, patch: int) -> Tensor:
    """Images of ``shape`` (B, C, H, W) from their patches (B, L, C * patch * patch); undoes ``patchify``."""
    batch, bands, height, width = shape
    cells = patches.view(batch, height // patch, width // patch, bands, patch, patch)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, bands, height, width)


class TokenDecoder(nn.Module):
    """Mask tokens in the gaps, and transformer blocks with experts; what makes pixels of tokens is for subclasses.

    Args:
        width: Token width of the encoder.
        inner: Token width of the decoder, a multiple of 4.
        grid: Patches per side, or rows and columns of them.
        resolution: Factor on positions; see ``positions.spatial``.
        make_adapter: None for no experts.
        eps: Epsilon of the LayerNorms; by default timm's in the blocks, and torch's behind them.
    """

    position: Tensor

    def __init__(
        self,
        width: int,
        inner: int,
        depth: int,
        grid: int | Grid,
        resolution: float,
        make_adapter: MakeAdapter | None,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.randn(inner) * 0.02)
        norms = {} if eps is None else {"norm_layer": partial(nn.LayerNorm, eps=eps)}
        heads = largest_divisor(inner, max(1, inner // 32))
        self.blocks = nn.ModuleList(Block(inner, heads, qkv_bias=True, **norms) for _ in range(depth))
        self.adapters = nn.ModuleList(MlpAdapter(block, make_adapter) for block in self.blocks if make_adapter)
        self.norm = nn.LayerNorm(inner, eps=eps or 1e-5)
        self.resolution = resolution
        self.grid = (grid, grid) if isinstance(grid, int) else grid
        self.register_buffer("position", positions.spatial(inner, *self.grid, resolution), persistent=False)

    def decode(self, embedded: Tensor, mask: Mask, prefix: int, grid: Grid | None = None) -> tuple[Tensor, Tensor]:
        """Tokens of all patches (B, L, inner), normalised, and a scalar balance loss.

        Args:
            embedded: Prefix tokens and tokens of the visible patches (B, prefix + V, inner).
            prefix: Tokens that belong to no patch, which get no position.
            mask: Which patches are visible.
            grid: Rows and columns of the whole image's patches, if they are others than this module was built for.
        """
        position = self.position
        if grid is not None and grid != self.grid:
            position = positions.spatial(position.shape[-1], *grid, self.resolution, device=position.device)
        tokens = mask.spread(embedded[:, prefix:], self.mask_token) + position
        if prefix:
            tokens = torch.cat([embedded[:, :prefix], tokens], dim=1)
        balance = tokens.new_zeros((), dtype=torch.float32)
        for index, block in enumerate(self.blocks):
            tokens, extra = run_block(block, tokens, self.adapters[index] if len(self.adapters) else None)
            balance = balance + extra
        return self.norm(tokens[:, prefix:]), balance

    def error(self, predicted: Any, images: Tensor, hidden: Tensor) -> Tensor:
        """Loss of what ``forward`` predicts of images (B, C, H, W), whose hidden patches (B, L) are 1.0."""
        raise NotImplementedError

    def picture(self, predicted: Any, images: Tensor) -> Tensor:
        """What ``forward`` predicts as images (B, C, H, W), in the unit of the true ones."""
        raise NotImplementedError


class ReconstructionDecoder(TokenDecoder):
    """Light decoder: a linear layer makes the pixels of every patch, normalised as in ``masked_error``.

    Args:
        width: Token width of the encoder.
        inner: Token width of the decoder, a multiple of 4.
        grid: Patches per side, or rows and columns of them.
        bands: Image channels C.
        patch: Patch side in pixels.
        resolution: Factor on positions; see ``positions.spatial``.
        make_adapter: None for no experts.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        depth: int,
        grid: int | Grid,
        bands: int,
        patch: int,
        resolution: float,
        make_adapter: MakeAdapter | None,
    ) -> None:
        super().__init__(width, inner, depth, grid, resolution, make_adapter)
        self.patch = patch
        self.predict = nn.Linear(inner, bands * patch * patch)

    def forward(self, tokens: Tensor, mask: Mask, prefix: int, grid: Grid | None = None) -> tuple[Tensor, Tensor]:
        """Predictions (B, L, C * patch * patch) and a scalar balance loss.

        Args:
            tokens: Encoded prefix tokens, which are not used, and visible patches (B, prefix + V, width).
            mask: Which patches are visible.
            prefix: Number of prefix tokens.
            grid: Rows and columns of the whole image's patches, if they are others than this module was built for.
        """
        decoded, balance = self.decode(self.embed(tokens[:, prefix:]), mask, 0, grid)
        return self.predict(decoded), balance

    def error(self, predicted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error on the hidden patches (B, L) of images (B, C, H, W)."""
        return masked_error(predicted, images, hidden, self.patch)

    def picture(self, predicted: Tensor, images: Tensor) -> Tensor:
        """Predicted images (B, C, H, W), with the mean and spread of the true patches."""
        patches = patchify(images, self.patch).float()
        mean = patches.mean(dim=-1, keepdim=True)
        spread = ((patches - mean).square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        return unpatchify(predicted.float() * spread + mean, images.shape, self.patch)
