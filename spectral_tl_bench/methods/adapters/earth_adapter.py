"""Earth-Adapter: bottlenecks after every block, in the first or last ones also on low and high frequencies."""

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
    """``f + s_i * mixture_i(f)`` in the first and last blocks, ``f + s_i * up(relu(down(f)))`` in the others.

    Args:
        width: Token width D.
        hidden: Inner width of the bottlenecks.
        early: Number of first blocks with a mixture.
        cutoff: Side of the square of low frequencies, relative to the shorter side of the grid.
        scale: Value at which the scales s_i start.
        late: Number of last blocks with a mixture.
    """

    def __init__(
        self, depth: int, width: int, hidden: int = 64, early: int = 6, cutoff: float = 0.3, scale: float = 0.1,
        late: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        split = [layer for layer in range(depth) if layer < early or layer >= depth - late]
        self.place = {layer: number for number, layer in enumerate(split)}
        plain = [layer for layer in range(depth) if layer not in self.place]
        self.plain = {layer: number for number, layer in enumerate(plain)}
        self.mixtures = nn.ModuleList(FrequencyMixture(width, hidden, cutoff) for _ in split)
        self.bottlenecks = nn.ModuleList(Bottleneck(width, hidden) for _ in plain)
        self.scale = nn.Parameter(torch.full((depth,), scale))

    def refine(self, tokens: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:
        """Patch tokens (B, h * w, D) with their refinement added."""
        if layer in self.place:
            added = self.mixtures[self.place[layer]](tokens, grid)
        else:
            added = self.bottlenecks[self.plain[layer]](tokens)
        return tokens + self.scale[layer] * added

    forward = refine


class EarthAdapter(AdapterMethod):
    """Earth-Adapter: bottlenecks after every block, in the first six on tokens, low and high frequencies.

    ``f + s_i sum_k router(f)_k up_k(ReLU(down_k(f_k)))`` with f_k the tokens and the two parts of their 2-D Fourier
    spectrum; elsewhere one bottleneck on the tokens. ``up`` starts at zero here, so that an untrained adapter changes
    nothing; the square of low frequencies is rounded to whole frequencies of either sign, so that it has its centre at
    frequency zero on grids of any size, and both parts are real.

    The source has other blocks and widths in each of its settings, which are the presets. The default is the one that
    two of the four share (``r2u``, ``vi2p``); choosing among them by the results on a target would be a choice on it.
    """

    numerics_version = 2

    reference: ClassVar[str] = "Hu et al., Earth-Adapter, 2025, arXiv 2504.06220"
    source_code: ClassVar[str] = "the release of the paper: its four settings; revision not noted"
    places: ClassVar[str] = "after every block, on patch tokens; frequencies in the first or last blocks"
    starts: ClassVar[str] = "down and router as in nn.Linear, up and biases of the bottlenecks 0, scales 0.1"
    differs: ClassVar[tuple[str, ...]] = (
        "Layers are counted from either end of 24 blocks (0 to 5; 21 to 23; 18 to 23); in shallower backbones the same "
        "number of blocks splits frequencies, at most all.",
        "The width of u2r is read as that of p2vi, 24: not checked against the code.",
        "The band's square is rounded to whole frequencies of either sign; how the code rounds was not checked.",
        "That up starts at zero was not checked against the code.",
        *AdapterMethod.differs,
    )
    later: ClassVar[Mapping[str, Any]] = {"late": 0}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "r2u": {"early": 6, "late": 0, "bottleneck": 64},
        "vi2p": {"early": 6, "late": 0, "bottleneck": 64},
        "u2r": {"early": 0, "late": 3, "bottleneck": 24},
        "p2vi": {"early": 0, "late": 6, "bottleneck": 24},
    }
    """The settings of the source: rural to urban and back (LoveDA), Vaihingen to Potsdam and back."""
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"bottleneck": (16, 24, 32, 64), "cutoff": (0.2, 0.3, 0.5)}

    bottleneck: int = Field(64, ge=1, description="inner width (source: 64 with early, 24 with late blocks)")
    early: int = Field(6, ge=0, description="number of first blocks that split frequencies (source: 6 or 0)")
    late: int = Field(0, ge=0, description="number of last blocks that split frequencies (source: 0, 3 or 6)")
    cutoff: float = Field(
        0.3, ge=0, le=1, description="side of the square of low frequencies over the grid's shorter side (paper: 0.3)"
    )
    scale: float = Field(0.1, gt=0, description="value at which the scale of each block starts (paper: 0.1)")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One adapter behind all blocks."""
        parts = cast(Any, backbone)
        adapter = EarthAdapterModule(
            len(parts.blocks), parts.embed_dim, self.bottleneck, self.early, self.cutoff, self.scale, self.late
        )
        return after_blocks(backbone, adapter)
