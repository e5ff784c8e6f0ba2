"""Earth-Adapter: bottlenecks after every block, in the first ones also on low and high frequencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_tl_bench.methods.adapters.bottleneck import Bottleneck
from spectral_tl_bench.methods.adapters.frequency import split_frequencies
from spectral_tl_bench.methods.adapters.method import AdapterMethod
from spectral_tl_bench.methods.adapters.place import BlockAdapter, after_blocks


class FrequencyMixture(nn.Module):
    """Three bottlenecks, on tokens and on their low and high frequencies, mixed by a router token by token.

    Args:
        width: Token width D.
        hidden: Inner width of the bottlenecks.
        cutoff: Side of the square of low frequencies, relative to the shorter side of the grid.
    """

    def __init__(self, width: int, hidden: int = 64, cutoff: float = 0.3) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.experts = nn.ModuleList(Bottleneck(width, hidden) for _ in range(3))
        self.router = nn.Linear(width, 3)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Maps patch tokens (B, h * w, D) to what is to be added to them."""
        parts = (tokens, *split_frequencies(tokens, grid, self.cutoff))
        outputs = torch.stack([expert(part) for expert, part in zip(self.experts, parts, strict=True)], dim=-1)
        shares = self.router(tokens).float().softmax(dim=-1).to(outputs.dtype)
        return (outputs @ shares[..., None])[..., 0]


class EarthAdapterModule(BlockAdapter):
    """``f + s_i * mixture_i(f)`` in the first blocks, ``f + s_i * up(relu(down(f)))`` in the others.

    Args:
        depth: Number of blocks.
        width: Token width D.
        hidden: Inner width of the bottlenecks.
        early: Number of blocks with a mixture.
        cutoff: Side of the square of low frequencies, relative to the shorter side of the grid.
        scale: Value at which the scales s_i start.
    """

    def __init__(
        self, depth: int, width: int, hidden: int = 64, early: int = 3, cutoff: float = 0.3, scale: float = 0.1
    ) -> None:
        super().__init__()
        self.early = min(early, depth)
        self.mixtures = nn.ModuleList(FrequencyMixture(width, hidden, cutoff) for _ in range(self.early))
        self.bottlenecks = nn.ModuleList(Bottleneck(width, hidden) for _ in range(depth - self.early))
        self.scale = nn.Parameter(torch.full((depth,), scale))

    def refine(self, tokens: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:
        """Patch tokens (B, h * w, D) with their refinement added."""
        if layer < self.early:
            added = self.mixtures[layer](tokens, grid)
        else:
            added = self.bottlenecks[layer - self.early](tokens)
        return tokens + self.scale[layer] * added

    forward = refine


class EarthAdapter(AdapterMethod):
    """Earth-Adapter: bottlenecks after every block, in the first three on tokens, low and high frequencies.

    ``f + s_i sum_k router(f)_k up_k(ReLU(down_k(f_k)))`` with f_k the tokens and the two parts of their 2-D Fourier
    spectrum; elsewhere one bottleneck on the tokens. ``up`` starts at zero here, so that an untrained adapter changes
    nothing; the square of low frequencies is rounded to whole frequencies of either sign, so that both parts are real.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Hu et al., Earth-Adapter, 2025, arXiv 2504.06220"
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"bottleneck": (16, 32, 64), "cutoff": (0.2, 0.3, 0.5)}

    bottleneck: int = Field(64, ge=1, description="inner width (paper: 64)")
    early: int = Field(3, ge=0, description="number of first blocks that split frequencies (paper: 3)")
    cutoff: float = Field(
        0.3, ge=0, le=1, description="side of the square of low frequencies over the grid's shorter side (paper: 0.3)"
    )
    scale: float = Field(0.1, gt=0, description="value at which the scale of each block starts (paper: 0.1)")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One adapter behind all blocks."""
        parts = cast(Any, backbone)
        adapter = EarthAdapterModule(
            len(parts.blocks), parts.embed_dim, self.bottleneck, self.early, self.cutoff, self.scale
        )
        return after_blocks(backbone, adapter)
