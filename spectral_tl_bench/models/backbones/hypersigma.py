"""HyperSIGMA: a vision transformer over places, one over bands, and their fusion.

Architecture and weights: Wang et al., HyperSIGMA, IEEE TPAMI 2025. The spatial encoder is a plain transformer without
class token. Fine-tuned, most of its blocks look at a few sampled places only; and a second transformer, whose tokens
are bands, can weigh the channels of its maps.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.networks import vit
from spectral_tl_bench.models.backbones.spec import BackboneSpec

POINTS = 8
"""Places that a token looks at in sparse attention, per head, as in the authors' code for tasks."""

SPECTRAL_SIDE, SPECTRAL_TOKENS = 64, 100
"""Pixels per side of the image, and number of bands, to which the spectral branch pools."""

INNER = 128
"""Width between the spectral branch and the channel weights."""

NORM = partial(nn.LayerNorm, eps=1e-6)
"""That of timm's transformers."""

SPECTRAL = "spectral."
"""In front of the names of the spectral branch."""


class SparseAttention(nn.Module):
    """Attention of every token to a few places around it, which it chooses itself.

    Offsets come from the token's query, one per head and point, in cells of the grid; keys and values are sampled
    there by bilinear interpolation, with zeros outside of the grid.

    Args:
        attention: timm's attention, whose layers are taken over.
        grid: Rows h and columns w of the tokens.
    """

    samples_grid = True
    """Every token has its place on the grid: none can be added or left out."""

    def __init__(self, attention: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        parts = cast(Any, attention)
        self.grid, self.points = grid, POINTS
        self.num_heads, self.scale = parts.num_heads, parts.scale
        self.qkv, self.proj, self.proj_drop = parts.qkv, parts.proj, parts.proj_drop
        self.sampling_offsets = nn.Linear(parts.qkv.in_features, self.num_heads * self.points * 2)
        nn.init.trunc_normal_(self.sampling_offsets.weight, std=0.02)
        nn.init.zeros_(self.sampling_offsets.bias)

    def forward(self, x: Tensor, **_timms: Any) -> Tensor:
        """Tokens (B, h * w, D) to (B, h * w, D).

        Raises:
            ValueError: If tokens were added or left out.
        """
        batch, count, width = x.shape
        rows, columns = self.grid
        if count != rows * columns:
            raise ValueError(f"sparse attention got {count} tokens, expected a grid of {rows} x {columns}")
        qkv = self.qkv(x).reshape(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.flatten(1, 2).unbind(0)  # (B * heads, h * w, D / heads) each
        both = torch.cat([keys, values], dim=-1).transpose(1, 2).unflatten(2, self.grid)
        merged = queries.unflatten(0, (batch, self.num_heads)).transpose(1, 2).flatten(2)
        offsets = self.sampling_offsets(merged).reshape(batch, count, self.num_heads, self.points, 2)
        places = self._places(offsets.transpose(1, 2).flatten(0, 1))
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            sampled = functional.grid_sample(both.to(wide), places.to(wide), align_corners=False)
        keys, values = sampled.to(queries.dtype).chunk(2, dim=1)  # (B * heads, D / heads, h * w, points)
        scores = torch.einsum("nlc,nclp->nlp", queries * self.scale, keys).float().softmax(dim=-1)
        found = torch.einsum("nlp,nclp->nlc", scores.to(values.dtype), values)
        joined = found.unflatten(0, (batch, self.num_heads)).transpose(1, 2).reshape(batch, count, width)
        return self.proj_drop(self.proj(joined))

    def _places(self, offsets: Tensor) -> Tensor:
        """Offsets (N, h * w, points, 2) in cells, x before y, to places from -1 to 1 over the grid."""
        rows, columns = self.grid
        down = (torch.arange(rows, device=offsets.device) + 0.5).repeat_interleave(columns)
        right = (torch.arange(columns, device=offsets.device) + 0.5).repeat(rows)
        cells = torch.stack([right, down], dim=-1)[:, None] + offsets.float()
        return 2 * cells / torch.tensor([columns, rows], device=offsets.device) - 1


def make_sparse(blocks: nn.Module, depth: int, grid: tuple[int, int]) -> None:
    """Gives the blocks sparse attention, all but the last one of every quarter of the network.

    Args:
        blocks: Blocks from the first on.
        depth: Number of blocks of the whole network.
        grid: Rows and columns of the tokens.
    """
    interval = max(1, depth // 4)  # 3, 6, 8 for base, large, huge
    for number, block in enumerate(cast(nn.Sequential, blocks)):
        if (number + 1) % interval:
            cast(Any, block).attn = SparseAttention(cast(Any, block).attn, grid)


class SpectralBranch(nn.Module):
    """The spectral encoder up to one of its blocks: images to a number for each of 100 (pooled) bands.

    Args:
        width: Token width D.
        depth: Number of blocks of the whole encoder.
        level: The last block (0-based) that runs; later ones are not built.
    """

    def __init__(self, width: int, heads: int, depth: int, level: int) -> None:
        super().__init__()
        self.spat_map = nn.Linear(SPECTRAL_SIDE**2, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=NORM) for _ in range(level + 1)))
        side = round(SPECTRAL_TOKENS**0.5)
        make_sparse(self.blocks, depth, (side, side))
        self.l1 = nn.Linear(width, INNER)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, 100)."""
        pooled = functional.adaptive_avg_pool2d(images, SPECTRAL_SIDE).flatten(2)
        tokens = functional.adaptive_avg_pool1d(pooled.transpose(1, 2), SPECTRAL_TOKENS).transpose(1, 2)
        return self.l1(self.blocks(self.spat_map(tokens))).mean(dim=-1)


class Fused(VisionTransformer):
    """The spatial encoder, whose maps the spectral branch weighs channel by channel: ``map * (1 + s)``."""

    def add_spectral(self, spec: BackboneSpec) -> None:
        """Builds the branch, and the layers that make channel weights s of each level from what it gives."""
        self.levels = sorted(set(spec.levels))
        self.spectral = SpectralBranch(spec.width, spec.heads, spec.depth, self.levels[0])
        self.channel_weights = nn.ModuleList(
            nn.Sequential(nn.Linear(SPECTRAL_TOKENS, INNER), nn.ReLU(), nn.Linear(INNER, spec.width), nn.Sigmoid())
            for _ in self.levels
        )

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        **options: Any,
    ) -> Any:
        """As timm's method of this name; maps of the levels are weighed.

        Raises:
            ValueError: If ``indices`` are no list of levels.
        """
        if not isinstance(indices, list) or not set(indices) <= set(self.levels):
            raise ValueError(f"the fused network gives maps after blocks {self.levels}, not after {indices}")
        last, maps = super().forward_intermediates(x, indices=indices, norm=norm, output_fmt=output_fmt, **options)
        bands = self.spectral(x)
        weighed = []
        for level, one in zip(sorted(set(indices)), maps, strict=True):
            scale = 1 + self.channel_weights[self.levels.index(level)](bands)
            weighed.append(one * (scale[:, :, None, None] if output_fmt == "NCHW" else scale[:, None]))
        return weighed if intermediates_only else (last, weighed)


def hypersigma_global(spec: BackboneSpec, in_chans: int, image_size: int) -> VisionTransformer:
    """The spatial encoder as it was pretrained: every block looks at all places."""
    return vit(spec, in_chans, image_size, class_token=False)


def hypersigma(spec: BackboneSpec, in_chans: int, image_size: int) -> VisionTransformer:
    """The spatial encoder as it is fine-tuned."""
    network = hypersigma_global(spec, in_chans, image_size)
    make_sparse(network.blocks, spec.depth, network.patch_embed.grid_size)
    return network


def hypersigma_fused(spec: BackboneSpec, in_chans: int, image_size: int) -> Fused:
    """Both encoders."""
    network = vit(spec, in_chans, image_size, kind=Fused, class_token=False)
    make_sparse(network.blocks, spec.depth, network.patch_embed.grid_size)
    network.add_spectral(spec)
    return network


def hypersigma_names(spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """HyperSIGMA's checkpoints: timm's names; tables of positions give way to zeros.

    The pretraining never adds the table to the tokens, so that the file's is the noise of its start. Of the spectral
    encoder, what comes after the branch's last block is left out, with its position table.

    Raises:
        UserError: If a file is that of the other encoder: their blocks have the same names and shapes.
    """
    _check_encoders(spec, state)
    target = network.state_dict()
    kept = {
        name: value
        for name, value in state.items()
        if name in target or not name.startswith((f"{SPECTRAL}blocks.", f"{SPECTRAL}norm.", f"{SPECTRAL}pos_embed"))
    }
    kept = {name: value for name, value in kept.items() if not _of_pretraining(name)}
    if "pos_embed" in state:
        kept["pos_embed"] = torch.zeros_like(target["pos_embed"], device=state["pos_embed"].device)
    return kept


def _check_encoders(spec: BackboneSpec, state: dict[str, Tensor]) -> None:
    if "spat_map.weight" in state:
        mistake, place = "the file holds the spectral encoder", 0
    elif spec.files and f"{SPECTRAL}spat_map.weight" not in state:
        mistake, place = "the second file does not hold the spectral encoder", -1
    else:
        return
    raise UserError(
        f"these are not the weights of {spec.name}: {mistake}",
        where=spec.weights and spec.weights.paths[place],
        expected=spec.card.how,
    )


def _of_pretraining(name: str) -> bool:
    """Whether a tensor of the spectral file belongs to its decoder; that of the spatial file is known as such."""
    return name.startswith((f"{SPECTRAL}decoder", f"{SPECTRAL}mask_token"))
