"""HyperT: attribute tokens from an image with any number of bands (SpectralX, ISPRS J. 239, 2026)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx import positions
from spectralx.attention import AttentionBlock, BatchNorm2d, CrossAttention, largest_divisor
from spectralx.positions import Grid, resized, resized_rows


class Attributes(NamedTuple):
    """Attribute features of an image: A attributes at P positions, seen both ways.

    Attributes:
        spatial: (B, P, A), one row per position.
        spectral: (B, A, P), one row per attribute.
    """

    spatial: Tensor
    spectral: Tensor


class Stem(nn.Module):
    """Convolutions from the image down to the attribute map.

    A 1x1 convolution, then for every stride-2 step but the last a residual 3x3 convolution and a 2x2 convolution
    with stride 2, then a 3x3 convolution with stride 2.

    Args:
        bands: Image channels C.
        widths: Channels, one more than there are stride-2 steps.
    """

    def __init__(self, bands: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.mix = nn.Conv2d(bands, widths[0], 1)
        inner = list(pairwise(widths[:-1]))
        self.residuals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), BatchNorm2d(width), nn.GELU()) for width, _ in inner
        )
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, wider, 2, stride=2), BatchNorm2d(wider)) for width, wider in inner
        )
        self.last = nn.Conv2d(widths[-2], widths[-1], 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, widths[-1], H / 2**steps, W / 2**steps)."""
        x = self.mix(images)
        for residual, reduce in zip(self.residuals, self.reductions, strict=True):
            x = reduce(x + residual(x))
        return self.last(x)


class AttributePerception(nn.Module):
    """Relates places to each other, and attributes to each other, on one attribute map.

    Args:
        attributes: Channels A of the map.
        size: Rows and columns of the map; P = rows * columns.
        wavelengths: Centre wavelengths of the bands in micrometres.
        gsd: Ground sampling distance in metres.
        heads: Most heads.
        window: Largest side of the windows of spatial attention.
        mlp: Hidden width of the MLPs, relative to the token width.
    """

    position_spatial: Tensor
    position_spectral: Tensor

    def __init__(
        self, attributes: int, size: Grid, wavelengths: Sequence[float], gsd: float, heads: int, window: int, mlp: float
    ) -> None:
        super().__init__()
        rows, columns = size
        self.window = (rows, columns, largest_divisor(math.gcd(rows, columns), window))
        self.spatial = AttentionBlock(attributes, heads, mlp)
        self.spectral = AttentionBlock(rows * columns, heads, mlp)
        encodings = {
            "position_spatial": positions.spatial(attributes, rows, columns, gsd),
            "position_spectral": positions.spectral(rows * columns, wavelengths, attributes),
        }
        for name, encoding in encodings.items():
            self.register_buffer(name, encoding, persistent=False)

    def forward(self, attribute_map: Tensor) -> Attributes:
        """Maps (B, A, rows, columns) to attribute features."""
        rows = attribute_map.flatten(2)
        spatial = self.spatial(rows.transpose(1, 2), self.window)
        spectral = self.spectral(rows)
        return Attributes(spatial + self.position_spatial, spectral + self.position_spectral)


class AttributeMatch(nn.Module):
    """Collects attributes into one token per patch: the first half tells of places, the second of spectra.

    Args:
        grid: Patches from north to south and from west to east; L of them.
        width: Token width D, even.
        attributes: Number A of attributes.
        places: Number P of positions of the attribute map.
        query_std: Standard deviation of the learned queries at the start.
    """

    def __init__(self, grid: Grid, width: int, attributes: int, places: int, query_std: float) -> None:
        super().__init__()
        self.grid = grid
        tokens, half = grid[0] * grid[1], width // 2
        self.query_spatial = nn.Parameter(torch.randn(tokens, half) * query_std)
        self.query_spectral = nn.Parameter(torch.randn(tokens, half) * query_std)
        self.attend_spatial = CrossAttention(attributes, half)
        self.attend_spectral = CrossAttention(places, half)
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, attributes: Attributes, grid: Grid | None = None) -> Tensor:
        """Tokens (B, L, D); for another ``grid`` than the own, the queries are interpolated to it."""
        spatial, spectral = (
            resized_rows(queries, self.grid, grid or self.grid) for queries in (self.query_spatial, self.query_spectral)
        )
        spatial = self.attend_spatial(spatial[None], attributes.spatial) + spatial
        spectral = self.attend_spectral(spectral[None], attributes.spectral) + spectral
        joined = self.norm(torch.cat([spatial, spectral], dim=-1))
        return self.fc2(functional.gelu(self.fc1(joined)))


class HyperTokenizer(nn.Module):
    """The whole of HyperT: stem, attribute perception, attribute match.

    The attribute map has ``cells`` x ``cells`` places per patch of the size that it is built for. Images of other
    sizes work too: their attribute map is resized to that size, and the queries to their token grid.

    Args:
        bands: Image channels C.
        wavelengths: Centre wavelengths in micrometres.
        grid: Patches per side, or rows and columns of them; L in all.
        patch: Patch side in pixels.
        width: Token width D, even.
        cells: Places per patch side of the attribute map.
        gsd: Ground sampling distance in metres.
        widths: Channels of the stem; see ``stem_widths``.
        heads: Most heads in a perception block.
        window: Largest side of the windows of spatial attention.
        mlp: Hidden width of the perception MLPs, relative to the token width.
        query_std: Standard deviation of the queries at the start.
        token_scale: Fixed factor on the tokens.

    Raises:
        ValueError: If the stem does not have one width per step and one more, or ends in an unusable one.
    """

    statistics_drift = False
    """Whether batch statistics are meant to move although the weights are frozen."""

    def __init__(
        self,
        bands: int,
        wavelengths: Sequence[float],
        grid: int | Grid,
        patch: int,
        width: int,
        *,
        cells: int = 2,
        gsd: float = 10.0,
        widths: Sequence[int] | None = None,
        heads: int = 8,
        window: int = 14,
        mlp: float = 4.0,
        query_std: float = 0.1,
        token_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.token_scale = token_scale
        widths = tuple(widths or stem_widths(width, patch, cells))
        steps = stem_steps(patch, cells)
        if len(widths) != steps + 1:
            raise ValueError(f"stem widths are {widths}, expected {steps + 1} of them for patches of {patch} px")
        if widths[-1] % 4:
            raise ValueError(f"the last stem width is {widths[-1]}, expected a multiple of 4 for the position encoding")
        rows, columns = (grid, grid) if isinstance(grid, int) else grid
        self.patch, self.size = patch, (cells * rows, cells * columns)
        self.attributes = widths[-1]
        self.places = self.size[0] * self.size[1]
        self.stem = Stem(bands, widths)
        self.perception = AttributePerception(self.attributes, self.size, wavelengths, gsd, heads, window, mlp)
        self.match = AttributeMatch((rows, columns), width, self.attributes, self.places, query_std)

    def forward(self, images: Tensor) -> tuple[Tensor, Attributes]:
        """Maps images (B, C, H, W) to tokens (B, L, D) and attribute features."""
        # Resized too for patch sides that are no power of two, such as 14.
        attributes = self.perception(resized(self.stem(images), self.size))
        grid = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        return self.token_scale * self.match(attributes, grid), attributes


def stem_steps(patch: int, cells: int = 2) -> int:
    """Number of stride-2 steps after which a patch is at least ``cells`` places wide (3 for 16 px, 2 for 8 px)."""
    return max(1, int(math.log2(max(1, patch // cells))))


def stem_widths(width: int, patch: int, cells: int = 2) -> tuple[int, ...]:
    """Stem channels for a token width: the last is half of it, each earlier one half of the next, at least 8."""
    steps = stem_steps(patch, cells)
    last = max(8, width // 2 // 4 * 4)
    return tuple(max(8, last >> (steps - step)) for step in range(steps + 1))


class LowRankPatchPath(nn.Module):
    """Patch embedding in two thin strided convolutions, beside another embedding, and a scale on the sum.

    Args:
        bands: Image channels C.
        width: Token width D.
        patch: Patch side in pixels; split into two factors, 4 and 4 for 16.
        rank: Channels between the two.
    """

    def __init__(self, bands: int, width: int, patch: int, rank: int = 16) -> None:
        super().__init__()
        second = largest_divisor(patch, math.isqrt(patch))
        first = patch // second
        self.down = nn.Conv2d(bands, rank, first, stride=first)
        self.up = nn.Conv2d(rank, width, second, stride=second)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Adds the path over images (B, C, H, W) to tokens (B, L, D) and scales the channels of the sum."""
        return (tokens + self.up(self.down(images)).flatten(2).transpose(1, 2)) * self.scale
