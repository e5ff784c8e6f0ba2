"""AdaptFormer: a bottleneck beside the MLP of every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from pydantic import Field
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.bottleneck import Bottleneck
from spectral_tl_bench.methods.adapters.method import AdapterMethod


class BesideMlp(nn.Module):
    """``ls(mlp(x)) + s * up(relu(down(x)))``: takes the place of a block's MLP and of the layer scale behind it.

    The published blocks have no layer scale, which would shrink the adapter to next to nothing in models such as
    DINOv2. Therefore it moves in here, to the MLP that it belongs to.

    Args:
        block: timm ``Block`` or ``EvaBlock``, whose layer scale is taken away.
        adapter: The bottleneck.
        scale: Factor s.
    """

    def __init__(self, block: nn.Module, adapter: Bottleneck, scale: float) -> None:
        super().__init__()
        parts = cast(Any, block)
        self.mlp, self.adapter, self.scale = parts.mlp, adapter, scale
        self.gamma: nn.Parameter | None = getattr(block, "gamma_2", None)  # EvaBlock
        self.layer_scale: nn.Module = getattr(block, "ls2", nn.Identity())
        if hasattr(block, "gamma_2"):
            parts.gamma_2 = None
        if hasattr(block, "ls2"):
            parts.ls2 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps normalised tokens (B, N, D) to what the block adds to its tokens."""
        out = self.layer_scale(self.mlp(x))
        if self.gamma is not None:
            out = self.gamma * out
        return out + self.scale * self.adapter(x)


def add_adaptformer(backbone: nn.Module, bottleneck: int = 64, scale: float = 0.1, dropout: float = 0.0) -> nn.Module:
    """Puts an AdaptFormer bottleneck beside the MLP of every block.

    Args:
        backbone: timm vision transformer; changed in place.
        bottleneck: Inner width.
        scale: Factor of the adapter's output.
        dropout: Share of inner values dropped in training.

    Returns:
        The backbone.

    Raises:
        MethodError: If a block has no MLP after a norm of its own, ``x + mlp(norm2(x))``.
    """
    parts = cast(Any, backbone)
    for block in parts.blocks:
        scaled = hasattr(block, "ls2") or hasattr(block, "gamma_2")
        if not (scaled and hasattr(block, "mlp") and hasattr(block, "norm2")):
            raise MethodError(f"AdaptFormer does not know the blocks of this backbone: {type(block).__name__}")
        block.mlp = BesideMlp(block, Bottleneck(parts.embed_dim, bottleneck, dropout=dropout), scale)
    return backbone


class AdaptFormer(AdapterMethod):
    """AdaptFormer: a bottleneck beside the MLP of every block, ``x' = x + MLP(LN x) + s up(ReLU(down(LN x)))``.

    ``up`` starts at zero, so that an untrained adapter changes nothing. Both layers have a bias. The LayerNorm is the
    block's own, as the equation has it.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Chen et al., AdaptFormer, NeurIPS 2022, section 3.2"
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"bottleneck": (8, 16, 32, 64)}

    bottleneck: int = Field(64, ge=1, description="inner width (paper: 64)")
    scale: float = Field(0.1, gt=0, description="factor s of the adapter's output (paper: 0.1)")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of inner values dropped in training")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One bottleneck per block."""
        return add_adaptformer(backbone, self.bottleneck, self.scale, self.dropout)
