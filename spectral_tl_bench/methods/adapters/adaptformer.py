"""AdaptFormer: a bottleneck beside the MLP of every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.bottleneck import Bottleneck
from spectral_tl_bench.methods.adapters.method import AdapterMethod

Layernorm = Literal["none", "in", "out", "block"]


class BesideMlp(nn.Module):
    """``ls(mlp(norm2(x))) + s * up(relu(down(x)))``: takes the place of a block's MLP, its norm and its layer scale.

    The norm moves in here because the adapter reads the tokens in front of it. The published blocks have no layer
    scale, which would shrink the adapter to next to nothing in models such as DINOv2: it moves in here, too, to the
    MLP that it belongs to.

    Args:
        block: timm ``Block`` or ``EvaBlock``, whose norm and layer scale are taken away.
        scale: Factor s.
        layernorm: ``in`` gives the adapter a LayerNorm of its own in front, ``out`` one behind the factor, ``none``
            neither; ``block`` lets it read what the block's norm gives.
    """

    def __init__(self, block: nn.Module, adapter: Bottleneck, scale: float, layernorm: Layernorm = "none") -> None:
        super().__init__()
        parts = cast(Any, block)
        self.norm2, self.mlp, self.scale, self.layernorm = parts.norm2, parts.mlp, scale, layernorm
        self.adapter: Any = adapter
        if layernorm in ("in", "out"):
            adapter.norm = nn.LayerNorm(adapter.down.in_features)
        self.gamma: nn.Parameter | None = getattr(block, "gamma_2", None)  # EvaBlock
        self.layer_scale: nn.Module = getattr(block, "ls2", nn.Identity())
        parts.norm2 = nn.Identity()
        if hasattr(block, "gamma_2"):
            parts.gamma_2 = None
        if hasattr(block, "ls2"):
            parts.ls2 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens (B, N, D), not normalised, to what the block adds to them."""
        hidden = self.norm2(x)
        out = self.layer_scale(self.mlp(hidden))
        if self.gamma is not None:
            out = self.gamma * out
        return out + self.branch(hidden if self.layernorm == "block" else x)

    def branch(self, x: Tensor) -> Tensor:
        """What the adapter makes of tokens (B, N, D)."""
        if self.layernorm == "in":
            x = self.adapter.norm(x)
        added = self.scale * self.adapter(x)
        return self.adapter.norm(added) if self.layernorm == "out" else added


def add_adaptformer(
    backbone: nn.Module, bottleneck: int = 64, scale: float = 0.1, dropout: float = 0.0, layernorm: Layernorm = "none"
) -> nn.Module:
    """Puts an AdaptFormer bottleneck beside the MLP of every block.

    Args:
        backbone: timm vision transformer; changed in place.
        bottleneck: Inner width.
        scale: Factor of the adapter's output.
        dropout: Share of inner values dropped in training.
        layernorm: Where the adapter has a LayerNorm; see ``BesideMlp``.

    Raises:
        MethodError: If a block has no MLP after a norm of its own, ``x + mlp(norm2(x))``.
    """
    parts = cast(Any, backbone)
    for block in parts.blocks:
        scaled = hasattr(block, "ls2") or hasattr(block, "gamma_2")
        if not (scaled and hasattr(block, "mlp") and hasattr(block, "norm2")):
            raise MethodError(f"AdaptFormer does not know the blocks of this backbone: {type(block).__name__}")
        block.mlp = BesideMlp(block, Bottleneck(parts.embed_dim, bottleneck, dropout=dropout), scale, layernorm)
    return backbone


class AdaptFormer(AdapterMethod):
    """AdaptFormer: a bottleneck beside the MLP of every block, ``x' = x + MLP(LN x) + s up(ReLU(down(x)))``.

    ``up`` starts at zero, so that an untrained adapter changes nothing. Both layers have a bias. The branch reads the
    tokens in front of the block's LayerNorm, without a norm of its own, as the released code is run.
    """

    numerics_version = 2

    reference: ClassVar[str] = "Chen et al., AdaptFormer, NeurIPS 2022, section 3.2"
    source_code: ClassVar[str] = "github.com/ShoufaChen/AdaptFormer; settings of main_image.py, revision not noted"
    places: ClassVar[str] = "beside the MLP of every block"
    starts: ClassVar[str] = "down uniform (He et al., as in nn.Linear), up and biases 0: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (
        "The equation of the paper puts the block's LayerNorm in front of the branch: -o layernorm=block.",
        *AdapterMethod.differs,
        "A backbone with layer scale keeps it to the MLP; the source's blocks have none.",
    )
    later: ClassVar[Mapping[str, Any]] = {"layernorm": "block"}
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"bottleneck": (8, 16, 32, 64)}

    bottleneck: int = Field(64, ge=1, description="inner width (paper: 64)")
    scale: float = Field(0.1, gt=0, description="factor s of the adapter's output (paper: 0.1)")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of inner values dropped in training (code: 0.1)")
    layernorm: Layernorm = Field(
        "none", description="LayerNorm of the branch: none, its own in front or behind, or the block's (code: none)"
    )

    def insert(self, backbone: nn.Module) -> nn.Module:
        """One bottleneck per block."""
        return add_adaptformer(backbone, self.bottleneck, self.scale, self.dropout, self.layernorm)
