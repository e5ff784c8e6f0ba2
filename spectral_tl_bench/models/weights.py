"""What can be told of any module's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""Tensors by name."""


def weights_digest(module: nn.Module, chosen: Callable[[str], bool]) -> str:
    """A hash of the names, shapes and values that ``chosen`` picks from a module's state."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if chosen(name):
            plain = value.detach().cpu().contiguous()
            total.update(f"{name} {plain.dtype} {tuple(plain.shape)}\0".encode())
            total.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def with_frozen_statistics(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the normalisation layers whose batch statistics training leaves alone.

    These are the frozen ones, unless a module around them declares ``statistics_drift = True``.
    """
    declared = [child for child in module.modules() if getattr(child, "statistics_drift", False)]
    drifting = {layer for child in declared for layer in child.modules()}
    for name, child in module.named_modules():
        own = list(child.parameters(recurse=False))
        frozen = own and not any(parameter.requires_grad for parameter in own)
        if child not in drifting and hasattr(child, "running_mean") and frozen:
            yield name, child
