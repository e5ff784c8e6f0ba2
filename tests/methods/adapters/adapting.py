"""Small vision transformers, and adapters that are no longer as they were initialised."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spectral_tl_bench.methods.adapters.place import MARK

BANDS, PATCH, GRID, WIDTH = 4, 8, (3, 5), 32
"""Grids are not square unless a test says so."""


def vit(prefix: int = 1, depth: int = 4, grid: tuple[int, int] = GRID, **more: Any) -> VisionTransformer:
    """A frozen transformer with a class token unless ``prefix`` is 0, and registers for the rest of it."""
    torch.manual_seed(0)
    backbone = VisionTransformer(
        img_size=(grid[0] * PATCH, grid[1] * PATCH), patch_size=PATCH, in_chans=BANDS, embed_dim=WIDTH, depth=depth,
        num_heads=2, num_classes=0, global_pool="", class_token=prefix > 0, reg_tokens=max(0, prefix - 1), **more,
    )  # fmt: skip
    assert backbone.num_prefix_tokens == prefix
    backbone.norm = nn.Identity()  # as in the segmenter, which takes block outputs
    return backbone.requires_grad_(False)


def eva(prefix: int = 1, depth: int = 2, **more: Any) -> Eva:
    """The same with rotary positions, a layer scale that is a parameter, and biases of query and value."""
    torch.manual_seed(0)
    backbone = Eva(
        img_size=(GRID[0] * PATCH, GRID[1] * PATCH), patch_size=PATCH, in_chans=BANDS, embed_dim=WIDTH, depth=depth,
        num_heads=2, num_classes=0, global_pool="", class_token=prefix > 0, num_reg_tokens=max(0, prefix - 1),
        use_rot_pos_emb=True, init_values=0.1, **more,
    )  # fmt: skip
    for block in backbone.blocks:
        if block.attn.q_bias is not None:
            nn.init.normal_(block.attn.q_bias)
    backbone.norm = nn.Identity()
    return backbone.requires_grad_(False)


def images(batch: int = 2, grid: tuple[int, int] = GRID) -> Tensor:
    return torch.randn(batch, BANDS, grid[0] * PATCH, grid[1] * PATCH, generator=torch.Generator().manual_seed(3))


def maps(backbone: nn.Module, given: Tensor, **more: Any) -> list[Tensor]:
    """The output of every block, as the segmenter asks for it."""
    return backbone.forward_intermediates(given, norm=False, output_fmt="NCHW", intermediates_only=True, **more)


def adapters(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if MARK in f".{name}"}


def stir(module: nn.Module, size: float = 0.2) -> nn.Module:
    """Changes every adapter parameter at random, always in the same way."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapters(module).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return module
