"""Decoders that turn four feature maps of a backbone into logits; with one name, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.models.decoders.neck import STRIDES, PyramidNeck, four
from spectral_tl_bench.models.decoders.pyramid import DPT, FPN, UPerNet
from spectral_tl_bench.models.decoders.single import FCN, Linear

DecoderName = Literal["linear", "fcn", "upernet", "fpn", "dpt"]
"""Type of an option that chooses a decoder."""

DECODERS: tuple[str, ...] = get_args(DecoderName)
"""``linear``: a 1x1 convolution on the last map; ``fcn``: two 3x3 convolutions on it; ``upernet``, ``fpn``, ``dpt``:
fusions of all four maps."""

NUMERICS_VERSION = 1
"""Raised by hand whenever the weights that a decoder starts with, or what it computes, may change."""

CHANNELS = {"fcn": 512, "upernet": 512, "fpn": 256, "dpt": 256}
"""Inner channels for wide backbones: those of the papers, and for ``fcn`` those of MMSegmentation."""

WIDE, NARROW_CHANNELS = 384, 32


def build_decoder(
    width: int | Sequence[int], num_classes: int, channels: int | None = None, kind: str = "upernet"
) -> nn.Module:
    """A decoder for four feature maps.

    The maps may all have one size, as a plain vision transformer gives them, or fall in size by factors of two, as
    those of a convolutional or hierarchical network; images may have any size.

    Args:
        width: Channels of the maps: one number for all (the token width), or four.
        num_classes: Number of logit channels.
        channels: Inner channels; by default ``CHANNELS`` for backbones with a map of ``WIDE`` channels or more, and
            ``NARROW_CHANNELS`` for smaller ones. ``linear`` has none.
        kind: One of ``DECODERS``.

    Returns:
        A module called as ``decoder(features, image_size)``.

    Raises:
        UserError: If there is no decoder of that name.
        ValueError: If ``width`` is neither one number nor four.
    """
    if kind not in DECODERS:
        raise UserError(f"there is no decoder {kind!r}", expected=nearest(kind, DECODERS))
    if kind == "linear":
        return Linear(width, num_classes)
    inner = channels or (CHANNELS[kind] if max(four(width)) >= WIDE else NARROW_CHANNELS)
    made = {"fcn": FCN, "upernet": UPerNet, "fpn": FPN, "dpt": DPT}[kind]
    return made(width, num_classes, inner)


__all__ = [
    "CHANNELS",
    "DECODERS",
    "DPT",
    "FCN",
    "FPN",
    "STRIDES",
    "DecoderName",
    "Linear",
    "PyramidNeck",
    "UPerNet",
    "build_decoder",
]
