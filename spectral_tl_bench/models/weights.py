"""What can be told of any module's weights."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

State = dict[str, Tensor]
"""Tensors by name."""


def save_tensors(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as a safetensors file.

    Args:
        state: Tensors by name, on any device.
        metadata: For its header.

    Raises:
        OSError: If there is no room, or the file cannot be written; the library has an error of its own for that.
    """
    # Clones, since safetensors refuses shared memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        found = re.search(r"(?:os error|code:) (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


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
