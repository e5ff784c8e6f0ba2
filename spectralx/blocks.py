"""Transformer blocks in timm's two layouts, with experts beside the two linear layers of their MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from spectralx.aomoa import AoMoA

MakeAdapter = Callable[[int, int], AoMoA]
"""Makes the experts beside a linear layer with given input and output widths."""


class MlpAdapter(nn.Module):
    """The experts of one block.

    Args:
        block: The block, with ``mlp.fc1`` and ``mlp.fc2``.
        make: Makes the experts beside a linear layer with given input and output widths.
    """

    def __init__(self, block: nn.Module, make: MakeAdapter) -> None:
        super().__init__()
        mlp = cast(Any, block).mlp
        self.fc1 = make(mlp.fc1.in_features, mlp.fc1.out_features)
        self.fc2 = make(mlp.fc2.in_features, mlp.fc2.out_features)


def check_block(block: nn.Module) -> None:
    """Raises TypeError if experts cannot stand beside the MLP of a block."""
    scales = ("gamma_1", "gamma_2") if hasattr(block, "gamma_1") else ("ls1", "ls2")
    parts = ("norm1", "attn", "drop_path1", "norm2", "mlp", "drop_path2", *scales)
    mlp = getattr(block, "mlp", None)
    missing = [name for name in parts if not hasattr(block, name)]
    missing += [f"mlp.{name}" for name in ("fc1", "act", "drop1", "norm", "fc2", "drop2") if not hasattr(mlp, name)]
    if missing:
        raise TypeError(
            f"{type(block).__name__} has no {', '.join(missing)}: expected timm's Block or EvaBlock with a plain Mlp"
        )


def _scaled(block: nn.Module, number: int, x: Tensor) -> Tensor:
    """The layer scale of a block's first or second half."""
    if hasattr(block, "gamma_1"):
        gamma = getattr(block, f"gamma_{number}")
        return x if gamma is None else gamma * x
    return getattr(block, f"ls{number}")(x)


def run_block(
    block: nn.Module, x: Tensor, adapter: nn.Module | None, rotary: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Runs one block on tokens.

    Args:
        block: A timm ``Block`` or ``EvaBlock``.
        x: (B, N, D).
        adapter: An ``MlpAdapter``, or None for the plain block.
        rotary: Rotary positions for the attention, where the backbone has them.

    Returns:
        Tokens (B, N, D) and a scalar balance loss.
    """
    positions = {} if rotary is None else {"rope": rotary}
    if adapter is None:
        return block(x, **positions), x.new_zeros((), dtype=torch.float32)
    part, mlp, beside = cast(Any, block), cast(Any, block).mlp, cast(MlpAdapter, adapter)
    x = x + part.drop_path1(_scaled(block, 1, part.attn(part.norm1(x), **positions)))
    hidden = part.norm2(x)
    added, first = beside.fc1(hidden)
    hidden = mlp.norm(mlp.drop1(mlp.act(mlp.fc1(hidden) + added)))
    added, second = beside.fc2(hidden)
    hidden = mlp.drop2(mlp.fc2(hidden) + added)
    return x + part.drop_path2(_scaled(block, 2, hidden)), first + second
