"""Are-adapter: attribute features re-weight the tokens of a frozen block (SpectralX, ISPRS J. 239, 2026)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from spectralx.attention import BatchNorm1d, BatchNorm2d, CrossAttention
from spectralx.hyper_tokenizer import Attributes
from spectralx.positions import Grid, resized

Matching = Literal["soft", "hard"]

Sides = tuple[Tensor, Tensor]
"""Keys and values of one kind of attribute features."""


class Media(NamedTuple):
    """Keys and values of the attribute features, the same for all blocks of one forward pass."""

    spatial: Sides
    spectral: Sides


class FeatureMatch(nn.Module):
    """Finds a patch token for every attribute feature.

    ``hard`` takes the token that attends most to the feature; the attention gets no gradient from that. ``soft``
    averages the tokens, each with what it gathered from the features, by their attention to the feature.

    Args:
        feature_width: Width of the attribute features.
        features: Number N of attribute features.
        width: Width of the (half) tokens.
        patches: Number L of patches.
        matching: ``soft`` or ``hard``.
        temperature: Sharpness of ``soft``.
    """

    def __init__(
        self, feature_width: int, features: int, width: int, patches: int, matching: Matching, temperature: float
    ) -> None:
        super().__init__()
        self.matching, self.temperature = matching, temperature
        self.attend = CrossAttention(feature_width, width)
        self.direct = nn.Linear(features, patches)

    def forward(self, tokens: Tensor, media: Sides) -> Tensor:
        """What each feature found, (B, N, width), for half tokens (B, L, width)."""
        log_weights = self.attend.log_weights(tokens, media[0])
        if self.matching == "hard":
            best = log_weights.argmax(dim=1)
            return tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[-1]))
        gathered = tokens + self.attend.attended(log_weights.exp(), media[1])
        shares = (log_weights / self.temperature).softmax(dim=1)
        return shares.to(gathered.dtype).mT @ gathered

    def factors(self, matches: Tensor, refined: Tensor) -> Tensor:
        """One factor per patch (B, L): the mean of refined (B, L, R); ``soft`` adds a linear map of the means found."""
        factors = refined.mean(dim=-1)
        return factors if self.matching == "hard" else factors + self.direct(matches.mean(dim=-1))


class AreAdapter(nn.Module):
    """Multiplies both halves of every patch token by factors read from the matched attributes, and adds them.

    Args:
        width: Token width D, even.
        attributes: Number A of attributes.
        grid: Patches per side, or rows and columns of them; L in all.
        cells: Places of the attribute map per patch side, so that there are ``cells ** 2 * L`` of them.
        matching: ``soft`` or ``hard``; see ``FeatureMatch``.
        temperature: Sharpness of ``soft``.
    """

    def __init__(
        self,
        width: int,
        attributes: int,
        grid: int | Grid,
        matching: Matching = "soft",
        temperature: float = 0.1,
        cells: int = 2,
    ) -> None:
        super().__init__()
        self.grid = rows, columns = (grid, grid) if isinstance(grid, int) else grid
        half, patches, places = width // 2, rows * columns, cells**2 * rows * columns
        inner = max(1, half // 2)
        self.size = (cells * rows, cells * columns)
        self.spatial = FeatureMatch(attributes, places, half, patches, matching, temperature)
        self.spectral = FeatureMatch(places, attributes, half, patches, matching, temperature)
        self.norm = nn.LayerNorm(half)
        self.refine_spatial = nn.Sequential(
            nn.Conv2d(half, inner, 3, stride=cells, padding=1, bias=False),
            BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            BatchNorm2d(inner),
            nn.ReLU(),
        )
        self.refine_spectral = nn.Sequential(
            nn.Conv1d(attributes, patches, 1, bias=False), BatchNorm1d(patches), nn.ReLU()
        )
        self.scale = nn.Parameter(torch.tensor(0.01))

    def media(self, attributes: Attributes) -> Media:
        """Keys and values of attribute features; compute once, use after every block."""
        return Media(
            self.spatial.attend.keys_values(attributes.spatial), self.spectral.attend.keys_values(attributes.spectral)
        )

    def modulation(self, tokens: Tensor, media: Media, grid: Grid | None = None) -> Tensor:
        """What is scaled and added to patch tokens (B, L, D), of the same shape.

        Args:
            tokens: (B, L, D), row by row.
            media: Keys and values of the attribute features of the same images.
            grid: Rows and columns of the tokens, if they are others than this module was built for: the factors are
                then interpolated.
        """
        spatial, spectral = tokens.chunk(2, dim=-1)
        found_spatial = self.spatial(spatial, media.spatial)
        places = self.norm(found_spatial).transpose(1, 2).unflatten(2, self.size)
        refined = self.refine_spatial(places).flatten(2).transpose(1, 2)
        factor_spatial = self._on(grid, self.spatial.factors(found_spatial, refined))
        found_spectral = self.spectral(spectral, media.spectral)
        refined = self.refine_spectral(self.norm(found_spectral))
        factor_spectral = self._on(grid, self.spectral.factors(found_spectral, refined))
        return torch.cat([factor_spatial * spatial, factor_spectral * spectral], dim=-1)

    def _on(self, grid: Grid | None, factors: Tensor) -> Tensor:
        """Factors (B, own L) as (B, L, 1) on a grid."""
        if grid is None or grid == self.grid:
            return factors[..., None]
        return resized(factors.unflatten(1, (1, *self.grid)), grid).flatten(1)[..., None]

    def forward(self, tokens: Tensor, media: Media, grid: Grid | None = None) -> Tensor:
        """Maps patch tokens (B, L, D), without class token, to the same shape; see ``modulation``."""
        return tokens + self.scale * self.modulation(tokens, media, grid)
