"""How adapters are put into a timm vision transformer, and what of it is frozen.

What acts inside a block takes the place of one of its children; what acts between blocks is one module,
``backbone.adapter``, that hooks call. Frozen weights keep their names in the second case, and the parameters of every
adapter have ``.adapter.`` in theirs in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError

MARK = ".adapter."
"""Part of the name of every adapter parameter of a segmenter, and of no other."""

PARTS = ("patch_embed", "blocks", "embed_dim", "num_prefix_tokens", "forward_intermediates")


def check_vit(backbone: nn.Module, name: str = "", grouped: bool = False) -> None:
    """Refuses what is not a timm vision transformer with one sequence of tokens.

    Args:
        name: How it is called in the message; by default its class.
        grouped: Whether the method can do with several tokens per place, one for each group of bands.

    Raises:
        MethodError: If a part is missing, or there are more tokens per place than the method can do with.
    """
    missing = [part for part in PARTS if not hasattr(backbone, part)]
    if not missing and not hasattr(cast(Any, backbone).patch_embed, "dynamic_feat_size"):
        missing = ["patch_embed.dynamic_feat_size"]
    if missing:
        raise MethodError(
            f"this method needs a plain vision transformer: {name or type(backbone).__name__} has no "
            f"{', '.join(missing)}",
            expected="equal blocks, through which one sequence of tokens passes",
            fix="choose another backbone, such as vit-large",
        )
    if not grouped and groups_of(backbone) > 1:
        raise MethodError(
            f"{name or type(backbone).__name__} has {groups_of(backbone)} tokens for every place, one for each group "
            "of bands, and this method makes or adds one for all bands",
            expected="one token for every place",
            fix="choose another backbone, such as vit-large",
        )


def groups_of(backbone: nn.Module) -> int:
    """Tokens per place of a backbone: more than one where bands are read in groups."""
    return int(getattr(cast(Any, backbone).patch_embed, "groups", 1))


def check_free_sequence(backbone: nn.Module) -> None:
    """Refuses backbones whose attention samples the grid of tokens, for methods that add tokens or leave some out.

    Raises:
        MethodError: If it does.
    """
    if any(getattr(module, "samples_grid", False) for module in backbone.modules()):
        raise MethodError(
            "the backbone's attention samples the grid of tokens, to which no token can be added, and none left out",
            expected="attention to all tokens, which HyperSIGMA has under names that end in -global",
            fix="choose another backbone",
        )


def freeze(backbone: nn.Module, patch_embed: bool, norms: bool) -> None:
    """Freezes a backbone, before adapters are put into it.

    Args:
        backbone: Changed in place.
        patch_embed: Keep training the patch embedding, or what of it trains as it was built.
        norms: Keep training every LayerNorm outside the patch embedding.
    """
    embed = cast(Any, backbone).patch_embed
    wanted = [parameter for parameter in embed.parameters() if parameter.requires_grad and patch_embed]
    backbone.requires_grad_(False)
    for module in set(backbone.modules()) - set(embed.modules()):
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(norms)
    for parameter in wanted:
        parameter.requires_grad_(True)


class BlockAdapter(nn.Module):
    """Base class of adapters that refine the patch tokens after every block."""

    def refine(self, tokens: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:
        """Refines the output of a block.

        Args:
            tokens: Patch tokens (B, h * w, D), row by row.
            grid: Rows h and columns w of the token grid.

        Returns:
            (B, h * w, D).
        """
        raise NotImplementedError

    forward = refine


@dataclass(eq=False)
class TokenGrid:
    """Rows and columns of the tokens of the images that are passing through a backbone."""

    shape: tuple[int, int] = (0, 0)

    def __call__(self, patch_embed: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Hook in front of the patch embedding: notes the grid of its images (B, C, H, W)."""
        height, width = inputs[0].shape[-2:]
        self.shape = cast(Any, patch_embed).dynamic_feat_size((height, width))


@dataclass(eq=False)
class _AfterBlock:
    """Hook behind a block. An object rather than a closure, so that a deep copy calls the copy of the adapter."""

    adapter: BlockAdapter
    layer: int
    prefix: int
    grid: TokenGrid
    groups: int = 1

    def __call__(self, _block: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        rows, columns = self.grid.shape
        if output.shape[1] - self.prefix != self.groups * rows * columns:
            raise ValueError(
                f"{output.shape[1]} tokens, {self.prefix} of them in front, for a grid of {rows} x {columns}: "
                "adapters on patch tokens need all of them"
            )
        patches = output[:, self.prefix :]
        maps = patches.reshape(-1, rows * columns, patches.shape[-1]) if self.groups > 1 else patches
        refined = self.adapter(maps, self.layer, (rows, columns)).reshape(patches.shape)
        if not self.prefix:
            return refined
        return torch.cat([output[:, : self.prefix].to(refined.dtype), refined], dim=1)


def after_blocks(backbone: nn.Module, adapter: BlockAdapter) -> nn.Module:
    """Lets an adapter refine the patch tokens after every block; class and register tokens pass by.

    Where there are several tokens per place, the tokens of each group of bands are a map of their own to the adapter.

    Args:
        backbone: timm vision transformer; changed in place: the adapter becomes its ``adapter``.
        adapter: The adapter, one module for all blocks.
    """
    parts, grid = cast(Any, backbone), TokenGrid()
    parts.patch_embed.register_forward_pre_hook(grid, prepend=True)  # of images before they are enlarged
    parts.adapter = adapter
    for layer, block in enumerate(parts.blocks):
        block.register_forward_hook(_AfterBlock(adapter, layer, parts.num_prefix_tokens, grid, groups_of(backbone)))
    return backbone
