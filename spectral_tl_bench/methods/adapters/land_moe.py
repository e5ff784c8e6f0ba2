"""Land-MoE: low-rank token experts mixed per image, then a learned filter over spatial frequencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from spectral_tl_bench.methods.adapters.frequency import modulate
from spectral_tl_bench.methods.adapters.method import AdapterMethod
from spectral_tl_bench.methods.adapters.place import BlockAdapter, after_blocks
from spectral_tl_bench.methods.adapters.tokens import LowRankTokens
from spectral_tl_bench.methods.base import Batch, Stage, Task
from spectral_tl_bench.methods.losses import labelled_cross_entropy

Ranks = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given),
]
"""Whole numbers above 0; as text, with commas."""


def imbalance(shares: Tensor) -> Tensor:
    """How unevenly experts are used: squared coefficient of variation of their importance (Shazeer et al., ICLR 2017).

    Args:
        shares: Gates (B, E), each row adds up to one.

    Returns:
        Scalar, 0 where all experts have the same sum of gates over the batch, E - 1 where one has all.
    """
    importance = shares.float().sum(dim=0)
    return importance.var(correction=0) / importance.mean().square()


class LandMoeAdapter(BlockAdapter):
    """``filter_i(f + s W_f(sum_e g_e softmax(f T_e^T / sqrt D)[1:] W_t(T_e[1:]) + f))`` with ``T_e = A_e B_e``.

    The gates g of a block are the softmax of a linear map of the mean patch token: one set per image. ``W_t``, ``W_f``
    and s are shared by all blocks and experts; filters start at one everywhere.

    Args:
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
        self._noted: list[Tensor] | None = None

    @contextmanager
    def noting(self) -> Iterator[list[Tensor]]:
        """Inside, the gates (B, E) of every block are collected; afterwards the module holds none of them."""
        noted: list[Tensor] = []
        self._noted = noted
        try:
            yield noted
        finally:
            self._noted = None

    def refine(self, tokens: Tensor, layer: int, grid: tuple[int, int]) -> Tensor:
        """Patch tokens (B, h * w, D), refined and filtered."""
        outputs = torch.stack([expert(tokens, layer, self.token_to_feature) for expert in self.experts], dim=-1)
        shares = self.gates[layer](tokens.mean(dim=1)).float().softmax(dim=-1)
        if self._noted is not None:
            self._noted.append(shares)
        shares = shares.to(outputs.dtype)
        mixed = (outputs @ shares[:, None, :, None])[..., 0]
        # W_f is linear and the gates add up to one: mixing before it is the same as after it.
        return modulate(tokens + self.scale * self.delta(mixed + tokens), grid, self.filters[layer])

    forward = refine


class LandMoe(AdapterMethod):
    """Land-MoE: a mixture of low-rank token experts of different ranks per image, then a filter over frequencies.

    From the paper: experts are low-rank tokens of different ranks, gated per instance, and the refined features are
    modulated in the frequency domain by learned filters, between the blocks of a frozen backbone; a loss keeps the
    experts in balance. Our reading, as its text leaves these open: an expert refines as Rein does, with ``W_t``,
    ``W_f`` and the scale shared by all blocks and experts; the gate is the softmax of a linear map of the mean patch
    token; filters are real gains per block, channel and distance from frequency zero, starting at one; it acts after
    every block, the last one too; ranks 4, 8 and 16; the balance is the mean over blocks of ``imbalance``.

    Untrained it adds a thousandth of a random linear map: little, but not nothing.
    """

    numerics_version = 2

    reference: ClassVar[str] = "Chen et al., Land-MoE, 2025, arXiv 2505.14088 (our reading)"
    places: ClassVar[str] = "after every block, on patch tokens"
    starts: ClassVar[str] = "tokens as in Rein, W_t, W_f and gates as in nn.Linear, filters 1 everywhere, s 0.001"
    differs: ClassVar[tuple[str, ...]] = (
        "Not checked against the code: form of the gate and of the filters, sharing of W_t, W_f and the scale, ranks.",
        "The balancing loss is the squared coefficient of variation of the experts' importance with weight 0.01; form "
        "and weight were not checked against the code.",
        "Of load there is none to balance: the gates are dense, every image uses all experts.",
        *AdapterMethod.differs,
    )
    later: ClassVar[Mapping[str, Any]] = {"balance": 0.0}
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"balance": (0.001, 0.01, 0.1)}

    tokens: int = Field(100, ge=2, description="learned tokens per expert and block (as in Rein)")
    ranks: Ranks = Field((4, 8, 16), min_length=1, description="ranks of the experts, such as 4,8,16")
    frequencies: int = Field(8, ge=2, description="distances from frequency zero at which the filters are learned")
    scale: float = Field(0.001, gt=0, description="value at which the learned scale starts (as in Rein)")

    balance: float = Field(0.01, ge=0, description="weight in the loss of the experts' balance (our choice)")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One adapter behind all blocks."""
        parts = cast(Any, backbone)
        adapter = LandMoeAdapter(
            len(parts.blocks), parts.embed_dim, parts.patch_embed.patch_size,
            self.tokens, self.ranks, self.frequencies, self.scale,
        )  # fmt: skip
        return after_blocks(backbone, adapter)

    def stages(self, task: Task) -> list[Stage]:
        """One stage, whose loss holds the balance of the experts."""
        if not self.balance:
            return super().stages(task)
        return [Stage("segment", task.budget.steps, loss=self._loss, outputs=self._outputs)]

    def _loss(self, module: nn.Module, batch: Batch) -> Tensor:
        logits, balance = self._outputs(module, batch)
        return labelled_cross_entropy(logits, batch["mask"]) + balance

    def _outputs(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        adapter: LandMoeAdapter = cast(Any, module).backbone.adapter
        with adapter.noting() as shares:
            logits = module(batch["image"])
        return logits, self.balance * torch.stack([imbalance(one) for one in shares]).mean()
