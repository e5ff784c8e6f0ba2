"""Decoders that turn four feature maps of a backbone into logits; with one name, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from torch import nn

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.models.decoders.levels import FCN, Light, Linear, LinearLevels, WithPixels, takes_images
from spectral_tl_bench.models.decoders.neck import STRIDES, PyramidNeck, four
from spectral_tl_bench.models.decoders.pyramid import DPT, FPN, UPerNet

if TYPE_CHECKING:
    from spectral_tl_bench.methods.base import Task

DecoderName = Literal["linear", "fcn", "upernet", "fpn", "dpt", "light", "linear-levels", "upernet-small"]
"""Type of an option that chooses a decoder."""

DECODERS: tuple[str, ...] = get_args(DecoderName)
"""``linear``: a 1x1 convolution on the last map; ``fcn``: two 3x3 convolutions on it; ``upernet``, ``fpn``, ``dpt``:
fusions of all four maps. ``light``: a 1x1 and a 3x3 convolution on all four joined; ``linear-levels``: a 1x1
convolution on them; ``upernet-small``: ``upernet`` with few channels."""

NUMERICS_VERSION = 1
"""Raised by hand whenever the weights that a decoder starts with, or what it computes, may change."""

CHANNELS = {"fcn": 512, "upernet": 512, "fpn": 256, "dpt": 256}
"""Inner channels for wide backbones: those of the papers, and for ``fcn`` those of MMSegmentation."""

ALWAYS = {"light": 128, "upernet-small": 64}
"""Inner channels of decoders that have the same on every backbone."""

PLAIN = ("linear", "linear-levels")
"""Decoders without inner channels."""

WIDE, NARROW_CHANNELS = 384, 32


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


def build_decoder(
    width: int | Sequence[int], num_classes: int, channels: int | None = None, kind: str = "upernet",
    bands: int | None = None,
) -> nn.Module:  # fmt: skip
    """A decoder for four feature maps.

    The maps may all have one size, as a plain vision transformer gives them, or fall in size by factors of two, as
    those of a convolutional or hierarchical network; images may have any size.

    Args:
        width: Channels of the maps: one number for all (the token width), or four.
        num_classes: Number of logit channels.
        channels: Inner channels; by default those of ``ALWAYS``, or ``CHANNELS`` for backbones with a map of ``WIDE``
            channels or more, and ``NARROW_CHANNELS`` for smaller ones. Those in ``PLAIN`` have none.
        kind: One of ``DECODERS``, with ``+pixels`` for a pixel path beside it.
        bands: Image channels, which a pixel path needs.

    Returns:
        A module called as ``decoder(features, image_size)``; where it ``takes_images``, these are the last feature.

    Raises:
        UserError: If there is no decoder of that name.
        ValueError: If ``width`` is neither one number nor four, or a pixel path is not told the bands.
    """
    base, pixels = split_pixels(check_name(kind, DECODERS))
    maps = _of_maps(width, num_classes, channels, base)
    if not pixels:
        return maps
    if bands is None:
        raise ValueError(f"decoder {kind!r} needs the number of bands")
    return WithPixels(maps, bands, num_classes)


def _of_maps(width: int | Sequence[int], num_classes: int, channels: int | None, kind: str) -> nn.Module:
    if kind in PLAIN:
        return Linear(width, num_classes) if kind == "linear" else LinearLevels(width, num_classes)
    usual = CHANNELS.get(kind, 0) if max(four(width)) >= WIDE else NARROW_CHANNELS
    inner = channels or ALWAYS.get(kind, usual)
    made = {"fcn": FCN, "upernet": UPerNet, "upernet-small": UPerNet, "fpn": FPN, "dpt": DPT, "light": Light}[kind]
    return made(width, num_classes, inner)


__all__ = [
    "AUTO", "CHANNELS", "DECODERS", "DPT", "FCN", "FPN", "PIXELS", "PLAIN", "STRIDES", "DecoderName", "Light",
    "Linear", "LinearLevels", "PyramidNeck", "UPerNet", "WithPixels", "build_decoder", "check_name", "resolved",
    "split_pixels", "takes_images",
]  # fmt: skip
