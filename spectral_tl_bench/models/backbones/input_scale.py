"""How large an image is before its backbone: how many pixels of the sensor a token covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.spec import BackboneSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

NUMERICS_VERSION = 1
"""Of all that stands around a network, where one of ``LATER_FACTS`` says that something does: raised by hand whenever
what it is given may change, or what becomes of its levels (``input_norm``, composites, ``level_norm``, too)."""

AUTO = "auto"
"""The rule of ``automatic_scale``."""

COARSEST = 160.0
"""Metres on the ground that a token may cover by the rule: a patch of 16 px at 10 m, as Sentinel-2 models have it."""

FINEST_OF_PYRAMID = 8
"""How often the finest map of a pyramid goes into the side that windows must be multiples of: strides 32 and 4."""

NEAR = 0.005
"""Relative difference up to which a scale counts as the one that makes tokens of whole pixels: 5.33 as 16 / 3."""

DIGITS = 4
"""Decimals of a scale in records."""

Spec = TypeVar("Spec", bound=BackboneSpec)


def read_scale(text: str) -> str | float:
    """A scale as a user writes it: ``auto``, or a number of at least 1.

    Raises:
        UserError: If it is neither.
    """
    if text == AUTO:
        return AUTO
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 1 <= scale < float("inf"):
        raise UserError(f"--input-scale {text!r} is no scale", expected="auto, or a number from 1 on, such as 3.5")
    return scale


def scaled(spec: Spec, scale: float) -> Spec:
    """The backbone before which images are enlarged.

    Args:
        scale: Side of the enlarged image relative to that of the image, at least 1.

    Raises:
        UserError: If a token would not cover a whole number of pixels; the nearest scale is named.
    """
    token = max(1, round(spec.patch / scale))
    if abs(spec.patch / token - scale) > NEAR * scale:
        raise UserError(
            f"--input-scale {scale:g}: a token of {spec.name} would cover {spec.patch / scale:.4g} px",
            expected=f"a scale that makes of its {spec.patch} px a whole number from 1 on",
            fix=f"--input-scale {spec.patch / token:.6g}, with which it covers {token} px",
        )
    return replace(spec, input_scale=round(spec.patch / token, DIGITS))


def automatic_scale(spec: BackboneSpec, gsd: float | None, whole_chips: bool = False) -> float:
    """The scale with which a token covers at most 160 m on the ground.

    1 where it does so already, or where nothing is known of the ground, or where windows are whole chips, whose sides
    need not fit. Otherwise a token, or a cell of a pyramid's finest map, is made to cover the largest power of two of
    pixels with which it stays within 160 m, and one pixel at least.

    Args:
        gsd: Ground sampling distance in metres.
        whole_chips: Whether windows are whole chips.
    """
    parts = FINEST_OF_PYRAMID if spec.kind == "pyramid" else 1
    cell = spec.patch / parts
    if not gsd or whole_chips or cell * gsd <= COARSEST:
        return 1.0
    wanted = 1
    while 2 * wanted * gsd <= COARSEST:
        wanted *= 2
    return cell / wanted


def chosen_scale(spec: Spec, chosen: str | None, gsd: float | None, whole_chips: bool = False) -> Spec:
    """The backbone with the scale that a user chose, by default with that of the rule.

    Args:
        chosen: As ``read_scale`` takes it; None for ``auto``.
        gsd: Ground sampling distance in metres.
        whole_chips: Whether windows are whole chips.

    Raises:
        UserError: If it is no scale, or none for this backbone.
    """
    scale = read_scale(AUTO if chosen is None else chosen)
    return scaled(spec, automatic_scale(spec, gsd, whole_chips) if isinstance(scale, str) else scale)


def check_window(spec: BackboneSpec, window: int) -> None:
    """Refuse a window that has no whole number of tokens.

    Raises:
        UserError: If it has not; the nearest one below is named.
    """
    if window % spec.token:
        what = f"patch of {spec.name} ({spec.patch} px)"
        if spec.token != spec.patch:
            what = f"{spec.token} px that a token of {spec.name} covers with --input-scale {spec.input_scale:g}"
        raise UserError(
            f"a window of {window} px is not a multiple of the {what}",
            fix=f"choose --window {window // spec.token * spec.token or spec.token}",
        )


def cost_factor(spec: BackboneSpec, window: int) -> float:
    """Operations of the blocks on a window relative to those at scale 1, in linear layers and attention.

    L tokens of width D cost 12 L D^2 + 2 L^2 D multiplications in a block; convolutions and windowed attention grow
    with L alone.

    Args:
        window: Side of the window in pixels.
    """
    tokens, plain = ((window / side) ** 2 for side in (spec.token, spec.patch))
    if spec.kind == "pyramid":
        return tokens / plain
    return tokens * (6 * spec.width + tokens) / (plain * (6 * spec.width + plain))


def enlarged(images: Tensor, token: int, patch: int) -> Tensor:
    """Images (B, C, H, W) whose tokens of ``token`` px become patches of ``patch`` px, by bicubic interpolation.

    Bicubic, since bilinear interpolation leaves the grid of the original pixels as creases, which filters see.
    """
    from torch.nn import functional

    if token == patch:
        return images
    size = tuple(side // token * patch for side in images.shape[-2:])
    return functional.interpolate(images, size=size, mode="bicubic", align_corners=False)


@dataclass(eq=False)
class Enlarge:
    """Hook in front of a patch embedding; an object rather than a closure, so that it can be copied."""

    token: int
    patch: int

    def __call__(self, _patch_embed: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The images (B, C, H, W), enlarged."""
        return (enlarged(inputs[0], self.token, self.patch), *inputs[1:])


@dataclass(eq=False)
class TokensOf:
    """Takes the place of timm's ``dynamic_feat_size``: rows and columns of the tokens of images before enlargement."""

    token: int

    def __call__(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns for a height and width in pixels."""
        return size[0] // self.token, size[1] // self.token


def enlarge_before(network: nn.Module, spec: BackboneSpec) -> None:
    """Make a network that was built for enlarged images take images as they are; it enlarges them itself.

    Args:
        network: Changed in place, where ``spec.input_scale`` is not 1.
    """
    if spec.token == spec.patch:
        return
    parts = cast(Any, network)
    if spec.kind == "pyramid":
        parts.enlarge = Enlarge(spec.token, spec.patch)
        return
    parts.patch_embed.register_forward_pre_hook(Enlarge(spec.token, spec.patch), prepend=True)
    parts.patch_embed.dynamic_feat_size = TokensOf(spec.token)
    parts.patch_embed.token_side = spec.token
