"""SpectralGPT: a vision transformer with a token for every place and every group of three bands.

Architecture and weights: Hong et al., SpectralGPT, IEEE TPAMI 2024. Tokens lie on a grid of t groups, h rows and w
columns, group by group. The blocks are timm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.models.backbones.grouped import GroupedPatchEmbed, GroupedTransformer
from spectral_tl_bench.models.backbones.networks import vit
from spectral_tl_bench.models.backbones.spec import BackboneSpec
from spectral_tl_bench.models.patch_embedding import GROUP, bands_in_groups


class GroupedProjection(nn.Conv3d):
    """One filter for every group of three bands: images to a grid of t * h rows, one group below the other.

    Args:
        width: Token width D.
        patch: Patch side in pixels.
        bands: The channels that are read, in order; three for each of the t groups.
    """

    bands: Tensor

    def __init__(self, width: int, patch: int, bands: Sequence[int]) -> None:
        super().__init__(1, width, (GROUP, patch, patch), stride=(GROUP, patch, patch))
        self.register_buffer("bands", torch.tensor(bands), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, t * H / patch, W / patch)."""
        return super().forward(images[:, self.bands][:, None]).flatten(2, 3)


class SpectralGpt(GroupedTransformer):
    """timm's transformer on tokens in groups; ``patch_embed`` is a ``GroupedPatchEmbed``.

    Positions are the sum of a table of places and a table of groups. Maps are the mean over the groups.

    Args:
        **options: Those of ``VisionTransformer``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(class_token=False, pos_embed="none", **options)
        embed = cast(GroupedPatchEmbed, self.patch_embed)
        places = embed.grid_size[0] * embed.grid_size[1]
        self.pos_embed_spatial = nn.Parameter(torch.empty(1, places, self.embed_dim))
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, embed.groups, self.embed_dim))
        for table in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(table, std=0.02)

    def _pos_embed(self, x: Tensor) -> Tensor:
        table = self.pos_embed_spatial[:, None] + self.pos_embed_temporal[:, :, None]
        return self.pos_drop(x + table.flatten(1, 2))


def spectral_gpt(spec: BackboneSpec, in_chans: int, image_size: int) -> SpectralGpt:
    """SpectralGPT for the bands at ``spec.wavelengths``."""
    nearest = spec.patch_embedding == "nearest"
    bands = bands_in_groups(spec.wavelengths or (0.0,) * in_chans, spec.card.bands, nearest)

    def embed(img_size: int, patch_size: int, embed_dim: int, **_more: Any) -> GroupedPatchEmbed:
        filters = GroupedProjection(embed_dim, patch_size, bands)
        return GroupedPatchEmbed(img_size, patch_size, len(bands) // GROUP, filters)

    return vit(spec, in_chans, image_size, kind=SpectralGpt, embed_layer=embed)


def spectral_gpt_names(_spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SpectralGPT's checkpoint: queries, keys and values become one layer, positions are resized.

    The table of places is resized by bicubic interpolation, as that of every backbone, and the table of groups by
    linear interpolation.
    """
    joined: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.rpartition(".")[0].endswith((".attn.k", ".attn.v")):
            continue
        owner, _, kind = name.rpartition(".")
        if not owner.endswith(".attn.q"):
            joined[name] = value
            continue
        parts = [state.get(f"{owner[:-1]}{part}.{kind}") for part in "qkv"]
        if all(part is not None for part in parts):
            joined[f"{owner[:-1]}qkv.{kind}"] = torch.cat(cast(list[Tensor], parts))
    return joined | _resized(network, joined)


def _resized(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    target = network.state_dict()
    found: dict[str, Tensor] = {}
    for name in ("pos_embed_spatial", "pos_embed_temporal"):
        table, wanted = state.get(name), target[name]
        if table is None or table.ndim != 3 or table.shape == wanted.shape or table.shape[-1] != wanted.shape[-1]:
            continue  # another shape is reported
        if name == "pos_embed_temporal":
            rows = functional.interpolate(table.float().transpose(1, 2), size=wanted.shape[1], mode="linear")
            found[name] = rows.transpose(1, 2).to(table.dtype)
        elif (side := round(table.shape[1] ** 0.5)) ** 2 == table.shape[1]:
            grid = cast(Any, network).patch_embed.grid_size
            found[name] = resample_abs_pos_embed(table, list(grid), [side, side], num_prefix_tokens=0)
    return found
