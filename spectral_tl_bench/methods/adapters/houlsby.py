"""Houlsby adapters: a residual bottleneck after the attention and after the MLP of every block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.bottleneck import Bottleneck
from spectral_tl_bench.methods.adapters.method import AdapterMethod


class ResidualBottleneck(Bottleneck):
    """``x + up(gelu(down(x)))``; near the identity as initialised.

    Weights start from a normal distribution of standard deviation 0.01 cut off at two of them, biases at zero.

    Args:
        width: Width D of input and output.
        hidden: Inner width.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, functional.gelu)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to (..., D)."""
        return x + super().forward(x)


def add_houlsby(backbone: nn.Module, bottleneck: int = 64) -> nn.Module:
    """Puts residual bottlenecks behind attention and MLP of every block, in front of the addition to the tokens.

    They come behind the layer scale, where a backbone has one: what is added to the tokens passes the adapter last.

    Args:
        backbone: timm vision transformer; changed in place.
        bottleneck: Inner width.

    Raises:
        MethodError: If a block has no two branches as timm's ``Block`` and ``EvaBlock`` have.
    """
    parts = cast(Any, backbone)
    for block in parts.blocks:
        for name in ("drop_path1", "drop_path2"):
            if not hasattr(block, name):
                raise MethodError(f"Houlsby adapters do not know the blocks of this backbone: {type(block).__name__}")
            # The last thing that timm calls on either branch, with or without layer scale.
            branch = OrderedDict(
                adapter=ResidualBottleneck(parts.embed_dim, bottleneck), drop_path=getattr(block, name)
            )
            setattr(block, name, nn.Sequential(branch))
    return backbone


class Houlsby(AdapterMethod):
    """Houlsby adapters: a residual bottleneck, ``h + up(GELU(down(h)))``, after attention and MLP of every block.

    Near the identity as initialised, not exactly: the weights have a standard deviation of 0.01 (section 2.1). The
    paper trains the LayerNorms too, and leaves the non-linearity open; GELU is what its released code has.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019, section 2.1"
    places: ClassVar[str] = "after the attention and after the MLP of every block"
    starts: ClassVar[str] = "weights N(0, 0.01^2) cut off at two deviations, biases 0"
    differs: ClassVar[tuple[str, ...]] = (
        "The adapters come behind the layer scale, where a backbone has one; BERT has none.",
        *AdapterMethod.differs,
    )
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"bottleneck": (8, 64, 256)}

    train_norms: bool = Field(True, description="train the LayerNorms of the backbone, as in the paper")
    bottleneck: int = Field(
        64, ge=1, description="inner width; weights start from N(0, 0.01^2) cut off at two deviations (paper)"
    )

    def insert(self, backbone: nn.Module) -> nn.Module:
        """Two bottlenecks per block."""
        return add_houlsby(backbone, self.bottleneck)
