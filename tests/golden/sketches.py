"""A few numbers that say of many whether they have changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FREQUENCIES = (0.7311, 1.9147, 2.6533)
FLOOR = 1e-6
"""Of the largest norm: what lies below is rounding around zero."""


def sketch(values: Any) -> list[float]:
    """Root mean square, and three sums with weights that differ from place to place, so that order counts.

    Args:
        values: Tensor or array of any shape.
    """
    flat = np.asarray(
        values.detach().cpu().double() if isinstance(values, Tensor) else values, dtype=np.float64
    ).ravel()
    places = np.arange(1, len(flat) + 1)
    root = math.sqrt(max(1, len(flat)))
    sums = [float(np.cos(frequency * places) @ flat) / root for frequency in FREQUENCIES]
    return [float(np.sqrt(np.mean(flat**2))) if len(flat) else 0.0, *sums]


def positions(values: Any) -> list[int]:
    """Sum, and a sum with weights by place, of whole numbers; exact."""
    flat = np.asarray(values).astype(np.int64).ravel()
    weights = (np.arange(len(flat), dtype=np.int64) * 7919) % 1009 + 1
    return [int(flat.sum()), int((flat * weights).sum())]


def norms(tensors: Mapping[str, Tensor]) -> list[float]:
    """Logarithms of the norms of tensors, in the order of their names."""
    found = [float(tensors[name].detach().double().norm()) for name in sorted(tensors)]
    floor = FLOOR * max([*found, 1e-30])
    return [math.log(max(value, floor)) for value in found]


def by_kind(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors joined over blocks and layers: names that differ in numbers alone become one."""
    found: dict[str, list[Tensor]] = {}
    for name, value in tensors:
        kind = ".".join(part for part in name.split(".") if not part.isdigit())
        found.setdefault(kind, []).append(value.detach().double().flatten())
    return {kind: torch.cat(values) for kind, values in found.items()}


def without_dropout(module: nn.Module) -> list[float]:
    """Switches dropout off, and gives the rates that it had, in the order of the layers; rates of 0 are left out.

    Its chance is drawn by another library on Intel's processors than elsewhere.
    """
    rates = []
    for child in module.modules():
        if isinstance(child, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            rates += [float(child.p)] if child.p and child.training else []
            child.p = 0.0
    return rates


def calmed(module: nn.Module) -> None:
    """Gives norms over groups and batches a larger epsilon, so that they do not blow rounding up.

    Two values, as behind the pooling of ``upernet`` or in a small batch, are normalised to plus and minus one: to
    signs, which turn with the last digit where the values are close.
    """
    for child in module.modules():
        if isinstance(child, nn.GroupNorm | nn.BatchNorm2d):
            child.eps = 0.1


def shaken(module: nn.Module) -> None:
    """Adds noise to all parameters, so that what starts at zero has an effect."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
