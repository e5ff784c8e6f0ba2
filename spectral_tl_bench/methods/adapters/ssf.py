"""SSF: every layer's output scaled and shifted, channel by channel."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.method import AdapterMethod

MERGEABLE = (nn.Linear, nn.Conv2d, nn.LayerNorm)
"""Layers that a scale and a shift of their output fold into."""


class ScaleShift(nn.Module):
    """``gamma * x + beta``, starting at one and zero.

    Args:
        channels_first: Whether channels are the second dimension rather than the last.
    """

    def __init__(self, width: int, channels_first: bool = False) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width), or (B, width, H, W), to the same."""
        if self.channels_first:
            return self.gamma.view(-1, 1, 1) * x + self.beta.view(-1, 1, 1)
        return self.gamma * x + self.beta


class SsfLayer(nn.Module):
    """A layer with ``ScaleShift`` behind it.

    Args:
        layer: Kept as ``layer``; a linear layer, LayerNorm or 2-D convolution can be merged.
        width: Number of channels that it gives.
        channels_first: Whether channels are the second dimension of its output rather than the last.
    """

    def __init__(self, layer: nn.Module, width: int, channels_first: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.adapter = ScaleShift(width, channels_first)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, scaled and shifted."""
        return self.adapter(self.layer(x))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """One frozen layer of the same kind with the same output, computed in double precision (section 3.3).

        Raises:
            TypeError: If there is no such layer.
        """
        if not isinstance(self.layer, MERGEABLE):
            raise TypeError(f"a scale and shift cannot be folded into {type(self.layer).__name__}")
        layer = cast(Any, copy.deepcopy(self.layer))
        gamma, beta = self.adapter.gamma.double(), self.adapter.beta.double()
        dtype = self.adapter.gamma.dtype
        if layer.weight is None:  # a LayerNorm without weights of its own
            weight, layer.elementwise_affine = gamma, True
        else:
            dtype = layer.weight.dtype
            weight = gamma.view(-1, *[1] * (layer.weight.dim() - 1)) * layer.weight.double()
        bias = beta if layer.bias is None else gamma * layer.bias.double() + beta
        layer.weight, layer.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))
        return layer.requires_grad_(False)


def add_ssf(backbone: nn.Module) -> nn.Module:
    """Puts a scale and shift behind the patch embedding and every linear layer and LayerNorm of the blocks.

    The convolution and the norm of the patch embedding, and a norm in front of the first or behind the last block,
    get one as well, where they are.

    Args:
        backbone: timm vision transformer; changed in place.

    Raises:
        MethodError: If a block has no attention of its own, as those have that make it and the MLP in one layer.
    """
    parts = cast(Any, backbone)
    for block in parts.blocks:
        if not hasattr(block, "attn"):
            raise MethodError(f"SSF does not know the blocks of this backbone: {type(block).__name__}")
    for block in parts.blocks:
        _one_bias(block.attn)
        for owner in list(block.modules()):
            for name, child in list(owner.named_children()):
                _wrap(owner, name, child)
    for owner, name in ((backbone, "norm_pre"), (backbone, "norm"), (parts.patch_embed, "norm")):
        _wrap(owner, name, getattr(owner, name, None))
    if hasattr(parts.patch_embed, "proj"):
        parts.patch_embed.proj = SsfLayer(parts.patch_embed.proj, parts.embed_dim, channels_first=True)
    return backbone


def merge(backbone: nn.Module) -> nn.Module:
    """Folds every scale and shift into the layer in front of it.

    Args:
        backbone: What ``add_ssf`` returned; changed in place.

    Returns:
        The backbone, with the same output. Plain layers take the place of adapted ones; a patch embedding that is more
        than a convolution stays as it is.
    """
    for owner in list(backbone.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, SsfLayer) and isinstance(child.layer, MERGEABLE):
                setattr(owner, name, child.merged())
    return backbone


def _wrap(owner: nn.Module, name: str, layer: nn.Module | None) -> None:
    if isinstance(layer, nn.LayerNorm):
        setattr(owner, name, SsfLayer(layer, layer.normalized_shape[-1]))
    elif isinstance(layer, nn.Linear):
        setattr(owner, name, SsfLayer(layer, layer.out_features))


def _one_bias(attention: nn.Module) -> None:
    """Moves separate biases of query, key and value into the layer that they belong to.

    timm's ``EvaAttention`` takes that layer's weight and applies it by itself where the biases are its own.
    """
    parts = cast(Any, attention)
    if getattr(attention, "q_bias", None) is None or getattr(attention, "qkv", None) is None:
        return
    with torch.no_grad():
        bias = torch.cat([parts.q_bias, parts.k_bias, parts.v_bias])
    parts.qkv.bias = nn.Parameter(bias, requires_grad=False)
    parts.q_bias = parts.k_bias = parts.v_bias = None


class Ssf(AdapterMethod):
    """SSF: ``gamma * x + beta`` per channel after every linear layer, norm and the patch embedding.

    Scales start at one and shifts at zero, so that an untrained adapter changes nothing; trained ones fold into the
    layers (``merge``), so that the result has the cost of the backbone.
    """

    numerics_version = 1

    reference: ClassVar[str] = "Lian et al., Scaling & Shifting Your Features (SSF), NeurIPS 2022, sections 3.2 and 3.3"
    places: ClassVar[str] = "behind the patch embedding and every linear layer and LayerNorm"
    starts: ClassVar[str] = "scales 1, shifts 0: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (
        "Scales start at exactly 1 and shifts at exactly 0; the release draws them near there: not checked against it.",
        *AdapterMethod.differs,
    )

    def insert(self, backbone: nn.Module) -> nn.Module:
        """A scale and a shift behind every layer."""
        return add_ssf(backbone)
