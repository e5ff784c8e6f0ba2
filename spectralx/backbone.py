"""What SpectralX needs of a timm vision transformer: its patch embedding, prefix tokens, positions, rotary tables."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional

from spectralx.masked import Mask
from spectralx.positions import Grid


def check_backbone(backbone: nn.Module) -> None:
    """Refuses what is no timm vision transformer with one token per patch.

    Raises:
        TypeError: If a part is missing, or the rotary positions differ from block to block.
    """
    parts = ("patch_embed", "blocks", "norm", "embed_dim", "num_prefix_tokens")
    if missing := [name for name in parts if not hasattr(backbone, name)]:
        raise TypeError(
            f"{type(backbone).__name__} has no {', '.join(missing)}: expected timm's VisionTransformer or Eva"
        )
    if getattr(backbone, "rope_mixed", False):
        raise TypeError(f"{type(backbone).__name__} has rotary positions of its own in every block: not supported")


def token_side(backbone: nn.Module) -> int:
    """Pixels per side of what a token covers: the patch, or fewer where the backbone enlarges images before it."""
    embed = cast(Any, backbone).patch_embed
    return int(getattr(embed, "token_side", embed.patch_size[0]))


def own_tokens(backbone: nn.Module, images: Tensor) -> Tensor:
    """Tokens (B, L, D) by the backbone's own patch embedding, for images (B, C, H, W) of any size."""
    embed, side = cast(Any, backbone).patch_embed, token_side(backbone)
    if side != (patch := int(embed.patch_size[0])):
        size = tuple(length // side * patch for length in images.shape[-2:])
        images = functional.interpolate(images, size=size, mode="bicubic", align_corners=False)
    return embed.norm(embed.proj(images).flatten(2).transpose(1, 2))


def with_prefix(backbone: nn.Module, tokens: Tensor, position: Tensor | None, grid: Grid) -> Tensor:
    """Adds positions to patch tokens (B, L, D) and puts class and register tokens in front.

    Args:
        tokens: Patch tokens.
        position: (L, D) to add to the patch tokens, while prefix tokens get none; None for the backbone's own table,
            if it has one, interpolated where the grid is another.
        grid: Rows and columns of the tokens.

    Returns:
        (B, prefix + L, D).
    """
    part = cast(Any, backbone)
    own = (getattr(part, "cls_token", None), getattr(part, "reg_token", None))
    prefix = [token.expand(len(tokens), -1, -1) for token in own if token is not None]
    if position is not None:
        return torch.cat([*prefix, tokens + position], dim=1)
    table = getattr(part, "pos_embed", None)
    if table is None:
        return torch.cat([*prefix, tokens], dim=1)
    without = bool(getattr(part, "no_embed_class", False))
    built = tuple(part.patch_embed.grid_size)
    if built != grid:
        leading = 0 if without else part.num_prefix_tokens
        table = resample_abs_pos_embed(table, new_size=list(grid), old_size=list(built), num_prefix_tokens=leading)
    if without:
        return torch.cat([*prefix, tokens + table], dim=1)
    return torch.cat([*prefix, tokens], dim=1) + table


def rotary_table(backbone: nn.Module, grid: Grid, mask: Mask | None) -> Tensor | None:
    """The rotary positions of the patches that a mask leaves, or of all; None for a backbone without.

    Returns:
        (L, R), or (B, 1, V, R) with a mask, as timm's attention takes them.
    """
    rope = getattr(backbone, "rope", None)
    if rope is None:
        return None
    table = cast(Any, rope).get_embed(shape=list(grid))
    if mask is None:
        return table
    return table.expand(len(mask.visible), -1, -1).gather(1, mask.visible[..., None].expand(-1, -1, table.shape[-1]))[
        :, None
    ]


def is_rotary(backbone: nn.Module) -> bool:
    """Whether positions are rotary, given to the attention of every block."""
    return getattr(backbone, "rope", None) is not None


def computes_positions(backbone: nn.Module) -> bool:
    """Whether a backbone makes its positions as it runs, and does not use the table it has from timm (Scale-MAE)."""
    own = getattr(type(backbone), "_pos_embed", None)
    return own is not None and not own.__module__.startswith("timm.")


def norm_before(backbone: nn.Module, tokens: Tensor) -> Tensor:
    """The norm in front of the first block, where the backbone has one."""
    norm = getattr(backbone, "norm_pre", None)
    return tokens if norm is None else norm(tokens)
