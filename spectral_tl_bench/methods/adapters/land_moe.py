"""Land-MoE: low-rank token experts mixed per image, then a learned filter over spatial frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from spectral_tl_bench.methods.adapters.frequency import modulate
from spectral_tl_bench.methods.adapters.method import AdapterMethod
from spectral_tl_bench.methods.adapters.place import BlockAdapter, after_blocks
from spectral_tl_bench.methods.adapters.tokens import LowRankTokens

Ranks = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given),
]
"""Whole numbers above 0; as text, with commas."""


class LandMoeAdapter(BlockAdapter):
    """``filter_i(f + s W_f(sum_e g_e softmax(f T_e^T / sqrt D)[1:] W_t(T_e[1:]) + f))`` with ``T_e = A_e B_e``.

    The gates g of a block are the softmax of a linear map of the mean patch token: one set per image. ``W_t``, ``W_f``
    and s are shared by all blocks and experts; filters start at one everywhere.

    Args:
        depth: Number of blocks.
        width: Token width D.
        patch: Height and width of a patch in pixels.
        tokens: Learned tokens per expert and block.
        ranks: Rank of each expert.
        frequencies: Distances from frequency zero at which the filters are learned.
        scale: Value at which s starts.
    """

    def __init__(
        self, depth: int, width: int, patch: tuple[int, int], tokens: int = 100, ranks: Sequence[int] = (4, 8, 16),
        frequencies: int = 8, scale: float = 0.001,
    ) -> None:  # fmt: skip
        super().__init__()
        self.experts = nn.ModuleList(LowRankTokens(depth, tokens, rank, width, patch) for rank in ranks)
        self.gates = nn.ModuleList(nn.Linear(width, len(ranks)) for _ in range(depth))
        self.token_to_feature = nn.Linear(width, width)
        self.delta = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.filters = nn.Parameter(torch.zeros(depth, frequencies, width))

    def refine(self, tokens: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:
        """Patch tokens (B, h * w, D), refined and filtered."""
        outputs = torch.stack([expert(tokens, layer, self.token_to_feature) for expert in self.experts], dim=-1)
        shares = self.gates[layer](tokens.mean(dim=1)).float().softmax(dim=-1).to(outputs.dtype)
        mixed = (outputs @ shares[:, None, :, None])[..., 0]
        # W_f is linear and the gates add up to one: mixing before it is the same as after it.
        return modulate(tokens + self.scale * self.delta(mixed + tokens), grid, self.filters[layer])

    forward = refine


class LandMoe(AdapterMethod):
    """Land-MoE: a mixture of low-rank token experts of different ranks per image, then a filter over frequencies.

    From the paper: experts are low-rank tokens of different ranks, gated per instance, and the refined features are
    modulated in the frequency domain by learned filters, between the blocks of a frozen backbone. Our reading, as its
    text leaves these open: an expert refines as Rein does, with ``W_t``, ``W_f`` and the scale shared by all blocks and
    experts; the gate is the softmax of a linear map of the mean patch token; filters are real gains per block, channel
    and distance from frequency zero, starting at one; it acts after every block, the last one too; ranks 4, 8 and 16.

    Untrained it adds a thousandth of a random linear map: little, but not nothing.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Chen et al., Land-MoE, 2025, arXiv 2505.14088 (our reading)"

    tokens: int = Field(100, ge=2, description="learned tokens per expert and block (as in Rein)")
    ranks: Ranks = Field((4, 8, 16), min_length=1, description="ranks of the experts, such as 4,8,16")
    frequencies: int = Field(8, ge=2, description="distances from frequency zero at which the filters are learned")
    scale: float = Field(0.001, gt=0, description="value at which the learned scale starts (as in Rein)")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One adapter behind all blocks."""
        parts = cast(Any, backbone)
        adapter = LandMoeAdapter(
            len(parts.blocks), parts.embed_dim, parts.patch_embed.patch_size,
            self.tokens, self.ranks, self.frequencies, self.scale,
        )  # fmt: skip
        return after_blocks(backbone, adapter)
