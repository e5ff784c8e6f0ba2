"""Vision transformers with several tokens per place, one for each group of bands."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class GroupedPatchEmbed(nn.Module):
    """timm's patch embedding, with ``groups`` tokens per place.

    Args:
        img_size: Side of the images in pixels.
        patch_size: Patch side in pixels.
        groups: Tokens per place.
        proj: Images (B, C, H, W) to (B, D, groups * h, w).
    """

    def __init__(self, img_size: int, patch_size: int, groups: int, proj: nn.Module) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.img_size = (img_size, img_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.groups = groups
        self.num_patches = groups * self.grid_size[0] * self.grid_size[1]
        self.proj = proj
        self.norm = nn.Identity()

    def dynamic_feat_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the places of images of ``size``, in pixels."""
        return size[0] // self.patch_size[0], size[1] // self.patch_size[1]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to tokens (B, groups * h * w, D)."""
        return self.norm(self.proj(images).flatten(2).transpose(1, 2))


class GroupedTransformer(VisionTransformer):
    """timm's transformer on tokens in groups, one group after the other; maps are the mean over the groups.

    ``patch_embed.groups`` is the number of tokens per place.
    """

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        **options: Any,
    ) -> Any:
        """As timm's method of this name, with the mean over the groups for every place.

        Tokens that a method has put in front of the others stay in front in ``NLC``, and have no place in ``NCHW``.
        """
        last, taken = super().forward_intermediates(x, indices=indices, norm=norm, output_fmt="NLC", **options)
        rows, columns = cast(Any, self.patch_embed).dynamic_feat_size((x.shape[-2], x.shape[-1]))
        merged = [self._merged(tokens, rows * columns) for tokens in taken]
        if output_fmt == "NCHW":
            merged = [tokens[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns)) for tokens in merged]
        return merged if intermediates_only else (last, merged)

    def _merged(self, tokens: Tensor, places: int) -> Tensor:
        """Tokens (B, n + t * places, D) to (B, n + places, D)."""
        groups = cast(Any, self.patch_embed).groups
        first = tokens.shape[1] - groups * places
        mean = tokens[:, first:].unflatten(1, (groups, places)).mean(dim=1)
        return torch.cat([tokens[:, :first], mean], dim=1) if first else mean
