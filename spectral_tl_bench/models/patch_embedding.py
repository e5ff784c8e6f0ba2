"""From the bands that weights were trained on to those of a sensor: the patch embedding by named strategies.

A patch embedding is a convolution with weights W (D, K, p, p) for K pretrained bands. Every strategy that keeps
something of it is a matrix M (C, K) that makes the filter of each of the C new bands from the pretrained ones,
``W'[:, c] = sum_k M[c, k] W[:, k]``, so that the strategies can be compared and looked at by themselves. Where the
columns of M sum to one, ``sum_c W'[:, c] = sum_k W[:, k]``: an image with one value in all bands and pixels gets the
response that the pretrained model gives to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectral_tl_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

RGB = (0.665, 0.560, 0.490)
"""Centre wavelengths of red, green and blue in micrometres, in the order of the channels of RGB models."""

SENTINEL2 = (0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.842, 0.865, 0.945, 1.375, 1.610, 2.190)
"""Centre wavelengths of the 13 bands of Sentinel-2 in micrometres: B1 to B8, B8A, B9 to B12."""

NUMERICS_VERSION = 1
"""Raised by hand whenever a filter that a strategy makes may change."""

STRATEGIES = {
    "random": "drawn at random, nothing is kept",
    "repeat": "pretrained filters in turn, rescaled to keep the response to a constant image",
    "mean": "every band gets the mean filter, rescaled to keep the response to a constant image",
    "wavelength": "filters interpolated by centre wavelength, clamped outside the pretrained range",
    "rgb": "only the bands nearest to red, green and blue are read",
    "lowrank": "rgb with frozen filters, and a trained low-rank path that reads all bands beside it",
    "composites": "pretrained filters for red, green and blue on three bands at a time, in several passes",
    "hypernetwork": "the backbone's own network makes filters from wavelengths",
    "groups": "one filter for every three bands: the pretrained bands where the sensor has them, else all of its bands",
    "nearest": "as groups, of the bands nearest to the pretrained ones, whatever the sensor",
    "own-groups": "pretrained filters for groups of bands, each group where the sensor has all of its bands",
}
"""Name -> what it does."""

OWN = ("hypernetwork", "groups", "nearest", "own-groups")
"""Those that belong to the networks of some backbones, which have no others."""

COMPOSITES = "composites"
"""The one that needs several passes: a method must build its network for it, as ``build_segmenter`` does."""

GROUP = 3
"""Bands that one filter of ``groups`` reads."""

CLOSE = 0.02
"""Micrometres up to which a band of a sensor stands for a pretrained one."""


NEAR_INFRARED, SHORT_WAVE = (0.86, 0.12), (1.61, 0.15)
"""Centre wavelengths of the infrared bands of a composite in micrometres, and how far from them a band may be."""


def check_strategy(name: str) -> str:
    """The name, if there is such a strategy.

    Raises:
        UserError: If there is not.
    """
    if name not in STRATEGIES:
        raise UserError(f"there is no patch embedding {name!r}", expected=nearest(name, STRATEGIES))
    return name


def repeat(bands: int, pretrained: int) -> Tensor:
    """Pretrained filters in turn: ``M[c, k] = 1 / n_k`` where ``k = c mod K``, with n_k the number of such bands.

    With fewer bands than pretrained ones, ``M[c, k] = 1`` where ``c = k mod C``. Columns sum to one.

    Args:
        bands: C.
        pretrained: K.

    Returns:
        (C, K).
    """
    import torch

    band, source = torch.arange(bands)[:, None], torch.arange(pretrained)[None]
    if bands < pretrained:
        return (source % bands == band).float()
    used = (band % pretrained == source).float()
    return used / used.sum(dim=0)


def mean(bands: int, pretrained: int) -> Tensor:
    """The mean filter for every band: ``M[c, k] = 1 / C``. Columns sum to one.

    Args:
        bands: C.
        pretrained: K.

    Returns:
        (C, K).
    """
    import torch

    return torch.full((bands, pretrained), 1.0 / bands)


def wavelength(wavelengths: Sequence[float], pretrained: Sequence[float]) -> Tensor:
    """Linear interpolation by centre wavelength, and the end filters outside the pretrained range.

    For a band at w between the neighbouring pretrained bands a <= w <= b: ``M[c, a] = K / C (b - w) / (b - a)`` and
    ``M[c, b] = K / C (w - a) / (b - a)``. The factor K / C keeps the size of the response when there are more bands;
    for the pretrained bands themselves M is the identity. Rows sum to K / C.

    Args:
        wavelengths: Those of the C bands, in micrometres.
        pretrained: Those of the K pretrained bands, in any order; equal ones share.

    Returns:
        (C, K).
    """
    import torch

    known = sorted(set(pretrained))
    scale = len(pretrained) / len(wavelengths)
    matrix = torch.zeros(len(wavelengths), len(pretrained))
    for band, value in enumerate(wavelengths):
        place = min(max(value, known[0]), known[-1])
        right = next(number for number, centre in enumerate(known) if centre >= place)
        left = right if known[right] == place else right - 1
        share = 0.0 if left == right else (place - known[left]) / (known[right] - known[left])
        for number, part in ((left, 1 - share), (right, share)):
            sources = [k for k, centre in enumerate(pretrained) if centre == known[number]]
            for k in sources:
                matrix[band, k] += scale * part / len(sources)
    return matrix


def rgb(wavelengths: Sequence[float], pretrained: Sequence[float] = RGB) -> Tensor:
    """Only the bands nearest to red, green and blue are read, through the pretrained filters for these colours.

    ``M[c, k] = 1 / n`` if k is the pretrained band nearest to a colour and c one of the n bands nearest to it (a time
    series has one per date); every other entry is zero. Columns sum to one, or to zero where k is no colour.

    Args:
        wavelengths: Those of the C bands, in micrometres.
        pretrained: Those of the K pretrained bands.

    Returns:
        (C, K).
    """
    import torch

    matrix = torch.zeros(len(wavelengths), len(pretrained))
    for colour in RGB:
        source = min(range(len(pretrained)), key=lambda k: abs(pretrained[k] - colour))
        closest = min(abs(value - colour) for value in wavelengths)
        bands = [c for c, value in enumerate(wavelengths) if abs(abs(value - colour) - closest) < 1e-9]
        matrix[bands, source] = 1.0 / len(bands)
    return matrix


def bands_in_groups(wavelengths: Sequence[float], pretrained: Sequence[float], always_nearest: bool) -> list[int]:
    """Which bands of a sensor are read, in order, three by three.

    The bands nearest to the pretrained ones, where each of these has one of its own within 0.02 micrometres and the
    image is no time series. Otherwise all bands in their order, and the last one again until three divide their number.

    Args:
        wavelengths: Those of the C bands, in micrometres.
        pretrained: Those of the K pretrained bands; three divide K.
        always_nearest: Take the nearest ones in any case, some of them several times.

    Returns:
        Numbers below C, a multiple of three of them.
    """
    closest = [min(range(len(wavelengths)), key=lambda c: abs(wavelengths[c] - centre)) for centre in pretrained]
    near = all(abs(wavelengths[c] - centre) <= CLOSE for c, centre in zip(closest, pretrained, strict=True))
    one_date = len(set(wavelengths)) == len(wavelengths)
    if always_nearest or (near and one_date and len(set(closest)) == len(closest)):
        return closest
    count = len(wavelengths)
    return [*range(count), *[count - 1] * (-count % GROUP)]


def in_composites(wavelengths: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Which bands are read as red, green and blue, in one pass after the other: every band once at least.

    First the bands nearest to red, green and blue; then near infrared, short-wave infrared and red, where the sensor
    has the first two; then those that are left, in their order, the last one again where three do not divide them. Of a
    time series, one date after the other.

    Args:
        wavelengths: Those of the C bands, in micrometres.

    Returns:
        Groups of three numbers below C.
    """
    dates = next(
        number for number in range(len(wavelengths), 0, -1)
        if tuple(wavelengths) == tuple(wavelengths[: len(wavelengths) // number]) * number
    )  # fmt: skip
    bands = wavelengths[: len(wavelengths) // dates]
    red, green, blue = (min(range(len(bands)), key=lambda c: abs(bands[c] - colour)) for colour in RGB)
    groups: list[tuple[int, ...]] = [(red, green, blue)]
    infrared = [
        min(range(len(bands)), key=lambda c: abs(bands[c] - centre)) for centre, _ in (NEAR_INFRARED, SHORT_WAVE)
    ]
    if all(abs(bands[c] - at) <= reach for c, (at, reach) in zip(infrared, (NEAR_INFRARED, SHORT_WAVE), strict=True)):
        groups.append((*infrared, red))
    left = [c for c in range(len(bands)) if not any(c in group for group in groups)]
    left += left[-1:] * (-len(left) % GROUP)
    groups += [tuple(left[first : first + GROUP]) for first in range(0, len(left), GROUP)]
    return tuple(tuple(date * len(bands) + c for c in group) for date in range(dates) for group in groups)


def mixing(name: str, wavelengths: Sequence[float], pretrained: Sequence[float]) -> Tensor:
    """The matrix M (C, K) of a strategy.

    Args:
        name: ``repeat``, ``mean``, ``wavelength``, ``rgb``, or ``lowrank``, whose frozen filters are those of ``rgb``.
        wavelengths: Those of the C bands, in micrometres.
        pretrained: Those of the K pretrained bands.

    Raises:
        ValueError: If the strategy has no matrix.
    """
    if name in ("repeat", "mean"):
        return (repeat if name == "repeat" else mean)(len(wavelengths), len(pretrained))
    if name in ("wavelength", "rgb", "lowrank"):
        return (wavelength if name == "wavelength" else rgb)(wavelengths, pretrained)
    raise ValueError(f"patch embedding {name!r} keeps nothing of pretrained filters")


def mixed(weight: Tensor, matrix: Tensor) -> Tensor:
    """New filters from pretrained ones, ``W'[:, c] = sum_k M[c, k] W[:, k]``.

    Args:
        weight: (D, K, p, p).
        matrix: (C, K).

    Returns:
        (D, C, p, p), of the type of ``weight``.
    """
    import torch

    matrix = matrix.to(device=weight.device)
    return torch.einsum("ck,dkhw->dchw", matrix, weight.float()).to(weight.dtype)


def resampled(weight: Tensor, patch: int) -> Tensor:
    """Filters for another patch, by the pseudo-inverse of resizing images (Beyer et al., FlexiViT, CVPR 2023).

    Args:
        weight: (D, K, p, p).
        patch: The other side in pixels.

    Returns:
        (D, K, patch, patch), of which a patch that is resized from the old to the new side has the same response where
        it grows. What is no such weight is given back.
    """
    if weight.ndim != 4 or weight.shape[-1] == patch:
        return weight
    if weight.is_meta:
        return weight.new_empty(*weight.shape[:2], patch, patch)
    from timm.layers import resample_patch_embed

    return resample_patch_embed(weight, [patch, patch])
