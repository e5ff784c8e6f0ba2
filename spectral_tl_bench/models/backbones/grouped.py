"""Vision transformers with several tokens per place, one for each group of bands."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


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
