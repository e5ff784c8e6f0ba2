"""Rein: learned tokens refine the patch tokens after every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_tl_bench.methods.adapters.method import AdapterMethod
from spectral_tl_bench.methods.adapters.place import BlockAdapter, after_blocks
from spectral_tl_bench.methods.adapters.tokens import LowRankTokens


class ReinAdapter(BlockAdapter):
    """``f + s W_f(softmax(f T_i^T / sqrt D)[1:] W_t(T_i[1:]) + f)`` with ``T_i = A_i B_i``.

    ``W_t``, ``W_f`` (linear, with bias) and the scale s are shared by all blocks.

    Args:
        width: Token width D.
        patch: Height and width of a patch in pixels.
        tokens: Learned tokens per block.
        rank: Rank of the tokens.
        scale: Value at which s starts.
    """

    def __init__(
        self, depth: int, width: int, patch: tuple[int, int], tokens: int = 100, rank: int = 16, scale: float = 0.001
    ) -> None:
        super().__init__()
        self.tokens = LowRankTokens(depth, tokens, rank, width, patch)
        self.token_to_feature = nn.Linear(width, width)
        self.delta = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(scale))

    def refine(self, tokens: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:  # noqa: ARG002 - of any grid
        """Patch tokens (B, L, D) with their refinement added."""
        return tokens + self.scale * self.delta(self.tokens(tokens, layer, self.token_to_feature) + tokens)

    forward = refine


class Rein(AdapterMethod):
    """Rein: patch tokens look up learned low-rank tokens after every block and are refined by what they find.

    ``f + s W_f(softmax(f T^T / sqrt D)[1:] W_t(T[1:]) + f)``, ``T = A B`` for each block; ``W_t``, ``W_f`` and s are
    shared by all. Untrained it adds a thousandth of a random linear map: little, but not nothing. The paper's link from
    tokens to the queries of its decoder is left out, as our decoders have no queries.
    """

    numerics_version = 1

    reference: ClassVar[str] = (
        "Wei et al., Stronger, Fewer, & Superior (Rein), CVPR 2024, sections 3.2 and 3.3, low-rank tokens"
    )
    source_code: ClassVar[str] = "the release of the paper: start of the scale and of the tokens; revision not noted"
    places: ClassVar[str] = "after every block, on patch tokens"
    starts: ClassVar[str] = "A, B uniform in +-sqrt(6 / (3 patch area + sqrt(D rank))), W as in nn.Linear, s 0.001"
    differs: ClassVar[tuple[str, ...]] = (
        "The link from tokens to the queries of the decoder is left out: the suite's decoders have no queries.",
        *AdapterMethod.differs,
    )
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"tokens": (50, 100, 150), "rank": (8, 16, 32)}

    tokens: int = Field(100, ge=2, description="learned tokens per block (paper: 100)")
    rank: int = Field(16, ge=1, description="rank of the tokens (paper: 16)")
    scale: float = Field(0.001, gt=0, description="value at which the learned scale starts (release: 0.001)")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One adapter behind all blocks."""
        parts = cast(Any, backbone)
        adapter = ReinAdapter(
            len(parts.blocks), parts.embed_dim, parts.patch_embed.patch_size, self.tokens, self.rank, self.scale
        )
        return after_blocks(backbone, adapter)
