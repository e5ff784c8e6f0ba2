"""The bottleneck that several adapters are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """``up(act(down(x)))``, both linear with bias; gives zero as initialised.

    ``down`` starts from a uniform distribution (He et al., as in ``nn.Linear``), ``up`` and the biases at zero.

    Args:
        width: Width D of input and output.
        hidden: Inner width.
        dropout: Share of inner values dropped in training.
    """

    def __init__(
        self, width: int, hidden: int, act: Callable[[Tensor], Tensor] = functional.relu, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.act = act
        self.down = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(hidden, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D)."""
        return self.up(self.dropout(self.act(self.down(x))))
