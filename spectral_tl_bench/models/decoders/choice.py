"""Names of decoders: with a pixel path, and ``auto``, which backbone and budget turn into one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectral_tl_bench.errors import MethodError, nearest

if TYPE_CHECKING:
    from spectral_tl_bench.methods.base import Task

AUTO = "auto"
PIXELS = "+pixels"
"""Behind the name of a decoder: a per-pixel MLP of all bands is added to it."""

HEAVY, LIGHT = "upernet", "light"
WIDE_TOKENS, WIDE_PYRAMID, LONG = 768, 1024, 10_000


def split_pixels(name: str) -> tuple[str, bool]:
    """The decoder of the maps, and whether a pixel path stands beside it."""
    return name.removesuffix(PIXELS), name.endswith(PIXELS)


def resolved(name: str, task: Task) -> str:
    """The decoder that a name stands for: ``auto`` is ``upernet`` or ``light``, others are themselves.

    ``upernet`` has tens of millions of weights. It is for backbones that have more, tokens at least 768 wide or a
    pyramid whose last map has at least 1024 channels, and for budgets that can train it, 10,000 labelled steps.

    Args:
        name: Name of a decoder, with or without ``+pixels``.
    """
    base, pixels = split_pixels(name)
    if base != AUTO:
        return name
    backbone = task.backbone
    wide = backbone.width >= (WIDE_TOKENS if backbone.kind == "vit" else WIDE_PYRAMID)
    chosen = HEAVY if wide and task.budget.steps >= LONG else LIGHT
    return chosen + PIXELS if pixels else chosen


def check_name(name: str, known: Sequence[str]) -> str:
    """The name of a decoder, unchanged.

    Args:
        name: With or without ``+pixels``.
        known: Names of decoders.

    Raises:
        MethodError: If there is no such decoder.
    """
    base, pixels = split_pixels(name)
    if base not in known:
        fix = f"use one of these names, or one with {PIXELS}" if pixels or "+" in name else None
        raise MethodError(f"there is no decoder {name!r}", expected=nearest(base, known), fix=fix)
    return name
