"""Low-rank baselines of the field: LoRA with biases, and SLR, beside frozen layers; needs PyTorch only.

Both add ``B(A(x))`` to a frozen linear layer, with a bias in either factor and without the factor alpha / rank of
Hu et al. (ICLR 2022). SLR (Scheibenreif et al., Parameter Efficient Self-Supervised Geospatial Domain Adaptation,
CVPR 2024) also scales the channels of what goes in and of what comes out. Parameters have the names of the SpectralX
release: ``linear``, ``down``, ``up``, ``in_scaler``, ``out_scaler``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from spectralx.hyper_tokenizer import LowRankPatchPath

Kind = Literal["lora", "slr"]

LINEAR_LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""The adapted layers of a transformer block, in timm's names."""


class LoraLinear(nn.Module):
    """``W x + B(A x)``: both factors have a bias; A starts from N(0, 1), B and all biases at zero.

    Args:
        linear: The layer to adapt, kept as ``linear``; its parameters are frozen.
        rank: Width between the factors.

    Raises:
        ValueError: If ``rank`` is below 1.
    """

    def __init__(self, linear: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}, expected 1 or more")
        self.linear = linear.requires_grad_(False)
        device, dtype = linear.weight.device, linear.weight.dtype
        self.down = nn.Linear(linear.in_features, rank, device=device, dtype=dtype)
        self.up = nn.Linear(rank, linear.out_features, device=device, dtype=dtype)
        nn.init.normal_(self.down.weight)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in) to (..., out)."""
        return self.linear(x) + self.up(self.down(x))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One frozen linear layer with the same output."""
        return _linear(*self._joined(), self.linear.weight.dtype)

    def _joined(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the sum, computed in double precision."""
        up = self.up.weight.double()
        weight = self.linear.weight.double() + up @ self.down.weight.double()
        bias = up @ self.down.bias.double() + self.up.bias.double()
        if self.linear.bias is not None:
            bias = bias + self.linear.bias.double()
        return weight, bias


class SlrLinear(LoraLinear):
    """``s_out * (W(s_in * x) + B(A(s_in * x)))`` (Scheibenreif et al., CVPR 2024); scalers start at one.

    Args:
        linear: The layer to adapt; see ``LoraLinear``.
        rank: Width between the factors.
    """

    def __init__(self, linear: nn.Linear, rank: int = 16) -> None:
        super().__init__(linear, rank)
        self.in_scaler = nn.Parameter(torch.ones_like(linear.weight[0]))
        self.out_scaler = nn.Parameter(torch.ones_like(linear.weight[:, 0]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in) to (..., out)."""
        return self.out_scaler * super().forward(self.in_scaler * x)

    def _joined(self) -> tuple[Tensor, Tensor]:
        weight, bias = super()._joined()
        outer = self.out_scaler.double()
        return outer[:, None] * weight * self.in_scaler.double(), outer * bias


class LowRankConv(nn.Module):
    """A frozen patch convolution with the low-rank patch path beside it.

    Args:
        proj: The patch convolution (stride = kernel = patch side), kept as ``proj``; its parameters are frozen.
        rank: Channels of the path between its two convolutions.
        scaled: Whether the channel scale of the sum is trained (SLR); otherwise it stays at one (LoRA).
    """

    def __init__(self, proj: nn.Conv2d, rank: int = 16, scaled: bool = True) -> None:
        super().__init__()
        self.proj = proj.requires_grad_(False)
        self.path = LowRankPatchPath(proj.in_channels, proj.out_channels, proj.kernel_size[0], rank)
        own = next(proj.parameters())  # a layer that makes its filters from wavelengths has no weight
        self.path.to(device=own.device, dtype=own.dtype)
        self.path.scale.requires_grad_(scaled)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to the token grid (B, D, h, w)."""
        embedded = self.proj(images)
        tokens = self.path(images, embedded.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(embedded.shape)


LAYERS: dict[str, type[LoraLinear]] = {"lora": LoraLinear, "slr": SlrLinear}
"""Kind of baseline -> the layer it uses."""


def adapt(
    backbone: nn.Module, kind: Kind = "lora", rank: int = 16, blocks: Collection[int] | None = None, norms: bool = True
) -> nn.Module:
    """Freezes a timm vision transformer and puts a low-rank baseline into it.

    Afterwards these train: the factors (and scalers) at ``LINEAR_LAYERS`` of the chosen blocks, the low-rank patch
    path, and with ``norms`` every LayerNorm, the last one included (24 blocks of width 1024: 49 norms, 100,352
    parameters).

    Args:
        backbone: timm ``VisionTransformer``; changed in place.
        kind: ``lora`` or ``slr``.
        rank: Rank of the factors and of the patch path.
        blocks: Numbers (0-based) of the blocks to adapt; all by default.
        norms: Whether LayerNorms train.

    Raises:
        ValueError: If there is no such kind or block.
        TypeError: If a layer to adapt is missing, or is not a plain ``nn.Linear``.
    """
    if kind not in LAYERS:
        raise ValueError(f"kind is {kind!r}, expected one of {sorted(LAYERS)}")
    parts = cast(Any, backbone)
    chosen = sorted(set(range(len(parts.blocks)) if blocks is None else blocks))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < len(parts.blocks):
        raise ValueError(f"blocks are {chosen}, expected numbers below {len(parts.blocks)}")
    layers = []
    for number in chosen:
        for name in LINEAR_LAYERS:
            owner, _, leaf = f"blocks.{number}.{name}".rpartition(".")
            layer = getattr(backbone.get_submodule(owner), leaf, None)
            if type(layer) is not nn.Linear:
                raise TypeError(f"blocks.{number}.{name} is {type(layer).__name__}, expected nn.Linear")
            layers.append((owner, leaf, layer))
    backbone.requires_grad_(False)
    for owner, leaf, layer in layers:
        setattr(backbone.get_submodule(owner), leaf, LAYERS[kind](layer, rank))
    parts.patch_embed.proj = LowRankConv(parts.patch_embed.proj, rank, scaled=kind == "slr")
    for module in backbone.modules():
        if norms and isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    return backbone


ADDED = re.compile(r"\.(down|up)\.(weight|bias)$|\.(in_scaler|out_scaler)$|\.path\.scale$")
NORMS = re.compile(r"(^|\.)\w*norm\w*\.(weight|bias)$")


def is_added(name: str) -> bool:
    """Whether a parameter of an adapted backbone is of the factors, the scalers or the patch path."""
    return bool(ADDED.search(name))


def is_norm(name: str) -> bool:
    """Whether a parameter of an adapted backbone belongs to one of its LayerNorms."""
    return bool(NORMS.search(name)) and not is_added(name)


def merge(backbone: nn.Module) -> nn.Module:
    """Replaces every adapted linear layer by a plain one with the same output; the patch path stays.

    Args:
        backbone: What ``adapt`` returned; changed in place.
    """
    for owner, leaf, layer in list(_adapted(backbone)):
        setattr(owner, leaf, layer.merged())
    return backbone


def _adapted(module: nn.Module) -> Iterator[tuple[nn.Module, str, LoraLinear]]:
    for owner in list(module.modules()):
        for leaf, child in owner.named_children():
            if isinstance(child, LoraLinear):
                yield owner, leaf, child


def _linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer.requires_grad_(False)
