"""VPT: learned prompt tokens in the sequence, in front of the first block or of every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from spectral_tl_bench.methods.adapters.method import AdapterMethod
from spectral_tl_bench.methods.adapters.place import check_free_sequence


class Prompts(nn.Module):
    """Prompt tokens, by layer.

    They start from the uniform distribution between +-sqrt(6 / (3 * patch area + width)), as in the release.

    Args:
        layers: Number of blocks that get prompts of their own.
        count: Prompts p in front of each.
        width: Token width D.
        patch: Height and width of a patch in pixels.
        prefix: Number of class and register tokens, behind which prompts stand.
        dropout: Share of prompt values dropped in training.
    """

    def __init__(
        self, layers: int, count: int, width: int, patch: tuple[int, int], prefix: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.prefix = prefix
        reach = (6 / (3 * patch[0] * patch[1] + width)) ** 0.5
        self.prompts = nn.Parameter(torch.empty(layers, count, width).uniform_(-reach, reach))
        self.dropout = nn.Dropout(dropout)

    def put_in(self, tokens: Tensor, layer: int) -> Tensor:
        """Maps tokens (B, N, D) to (B, N + p, D)."""
        prompts = self.dropout(self.prompts[layer]).to(tokens.dtype).expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, : self.prefix], prompts, tokens[:, self.prefix :]], dim=1)

    def take_out(self, tokens: Tensor) -> Tensor:
        """Maps tokens (B, N + p, D) to (B, N, D)."""
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix + self.prompts.shape[1] :]], dim=1)

    forward = put_in


@dataclass(eq=False)
class _Before:
    """Hook in front of a block. Objects rather than closures, so that a deep copy uses the copy of the prompts."""

    prompts: Prompts
    layer: int

    def __call__(self, _block: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.prompts(inputs[0], self.layer), *inputs[1:])


@dataclass(eq=False)
class _Behind:
    """Hook behind a block."""

    prompts: Prompts

    def __call__(self, _block: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return self.prompts.take_out(output)


class ShallowPrompted(nn.Module):
    """A vision transformer whose prompts stay in the sequence to its end, and are taken out of what it gives.

    Args:
        vit: timm vision transformer, with a hook that puts the prompts in.
    """

    def __init__(self, vit: nn.Module, adapter: Prompts) -> None:
        super().__init__()
        self.vit, self.adapter = vit, adapter
        self.level_norm = getattr(vit, "level_norm", "none")

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """As timm's method of this name, without prompts in the outputs.

        Args:
            images: (B, C, H, W).
            indices: Which blocks' outputs to give.
            norm: Apply the last norm to them.
            output_fmt: ``NCHW`` for maps (B, D, h, w), ``NLC`` for patch tokens (B, h * w, D).
            intermediates_only: Give the list of them alone, without the last tokens (B, N, D).
        """
        parts = cast(Any, self.vit)
        last, taken = parts.forward_intermediates(images, indices=indices, norm=norm, output_fmt="NLC")
        taken = [tokens[:, self.adapter.prompts.shape[1] :] for tokens in taken]  # class and register tokens are gone
        if output_fmt == "NCHW":
            height, width = images.shape[-2:]
            grid = parts.patch_embed.dynamic_feat_size((height, width))
            taken = [tokens.transpose(1, 2).reshape(len(tokens), -1, *grid) for tokens in taken]
        return taken if intermediates_only else (self.adapter.take_out(last), taken)


def add_prompts(backbone: nn.Module, deep: bool, count: int = 50, dropout: float = 0.0) -> nn.Module:
    """Puts prompts into the sequence behind the class and register tokens, with no position.

    Args:
        backbone: timm vision transformer; changed in place.
        deep: Whether every block gets prompts of its own, whose outputs are dropped (VPT-deep); otherwise those in
            front of the first block stay in the sequence (VPT-shallow).
        count: Number of prompts.
        dropout: Share of prompt values dropped in training.

    Returns:
        What takes the backbone's place: itself, or a module around it that takes the prompts out.

    Raises:
        MethodError: If there can be no more tokens in its sequence.
    """
    check_free_sequence(backbone)
    parts = cast(Any, backbone)
    patch, prefix = parts.patch_embed.patch_size, parts.num_prefix_tokens
    layers = len(parts.blocks) if deep else 1
    prompts = Prompts(layers, count, parts.embed_dim, patch, prefix, dropout)
    for layer, block in enumerate(parts.blocks):
        if layer < layers:
            block.register_forward_pre_hook(_Before(prompts, layer))
        if deep:
            block.register_forward_hook(_Behind(prompts))
        attention: Any = getattr(block, "attn", None)
        if hasattr(attention, "num_prefix_tokens"):  # rotary positions are for the tokens behind these
            attention.num_prefix_tokens += count
    if not deep:
        return ShallowPrompted(backbone, prompts)
    parts.adapter = prompts
    return backbone


class VptShallow(AdapterMethod):
    """VPT-shallow: learned prompt tokens in front of the first block, ``[x1, Z1, E1] = L1([x0, P, E0])``.

    They pass all blocks and are taken out of the maps that are decoded. Untrained prompts are random, and attended to:
    the backbone's output is not what it was without them.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Jia et al., Visual Prompt Tuning, ECCV 2022, section 3.2 (shallow)"
    places: ClassVar[str] = "token sequence, in front of the first block"
    starts: ClassVar[str] = "prompts uniform in +-sqrt(6 / (3 patch area + D))"
    differs: ClassVar[tuple[str, ...]] = (
        "Prompts stand behind the class and register tokens, and are taken out of the maps that are decoded.",
        *AdapterMethod.differs,
    )
    search_space: ClassVar[Mapping[str, Sequence[Any]]] = {"prompts": (1, 10, 50, 100)}

    prompts: int = Field(50, ge=1, description="number of prompt tokens, which start as in the release")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of prompt values dropped in training")

    def insert(self, backbone: nn.Module) -> nn.Module:
        """Prompts in front of the first block."""
        return add_prompts(backbone, False, self.prompts, self.dropout)


class VptDeep(VptShallow):
    """VPT-deep: learned prompt tokens of its own for every block, ``[xi, _, Ei] = Li([xi-1, Pi-1, Ei-1])``.

    Untrained prompts are random, and attended to: the backbone's output is not what it was without them.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Jia et al., Visual Prompt Tuning, ECCV 2022, section 3.2 (deep)"
    places: ClassVar[str] = "token sequence, in front of every block"

    def insert(self, backbone: nn.Module) -> nn.Module:
        """Prompts in front of every block, taken out behind it."""
        return add_prompts(backbone, True, self.prompts, self.dropout)
