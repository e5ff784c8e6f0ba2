"""Learned low-rank tokens that patch tokens attend to: what Rein is made of, and the experts of Land-MoE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LowRankTokens(nn.Module):
    """Tokens ``T_i = A_i B_i`` for every block i.

    Both factors start from the uniform distribution between +-sqrt(6 / (3 * patch area + sqrt(width * rank))), as in
    Rein's release.

    Args:
        count: Tokens per block m; the first one only takes attention away from the others.
        rank: Width between the factors.
        width: Token width D.
        patch: Height and width of a patch in pixels.

    Raises:
        ValueError: If there are fewer than two tokens.
    """

    def __init__(self, depth: int, count: int, rank: int, width: int, patch: tuple[int, int]) -> None:
        super().__init__()
        if count < 2:
            raise ValueError(f"count is {count}, expected 2 or more, as the first token is not looked up")
        reach = math.sqrt(6 / (3 * patch[0] * patch[1] + math.sqrt(width * rank)))
        self.a = nn.Parameter(torch.empty(depth, count, rank).uniform_(-reach, reach))
        self.b = nn.Parameter(torch.empty(depth, rank, width).uniform_(-reach, reach))

    def forward(self, features: Tensor, layer: int, to_features: nn.Module) -> Tensor:
        """What features look up: ``softmax(f T^T / sqrt D)[1:] to_features(T[1:])``.

        Args:
            features: Patch tokens (B, L, D).
            to_features: Maps tokens (m - 1, D) to values of the same shape.

        Returns:
            (B, L, D).
        """
        tokens = self.a[layer] @ self.b[layer]
        similarity = features @ tokens.to(features.dtype).T / math.sqrt(features.shape[-1])
        attention = similarity.float().softmax(dim=-1)[..., 1:]
        values = to_features(tokens[1:])
        return attention.to(values.dtype) @ values
