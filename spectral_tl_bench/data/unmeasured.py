"""Which values of a file are no measurements: one rule for images and labels.

A value is unmeasured where it is not finite, where it is its band's nodata value, and where a mask (inside the file or
beside it) or an alpha band hides it. Nodata 0 is a measurement, too, in many products (cirrus under a clear sky): in
some bands of a pixel it is taken for one, in all bands it is not, unless the benchmark says otherwise (``nodata_in``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

Mask = np.ndarray[Any, Any]


class Unmeasured(NamedTuple):
    """What a file does not measure.

    Attributes:
        values: bool (C, H, W); None where all is measured.
        reasons: Pixels by reason: ``not finite``, ``nodata``, ``mask``; a pixel may have several.
        zeros: Pixels with the nodata value 0 in some bands, which were taken for data.
    """

    values: Mask | None
    reasons: dict[str, int]
    zeros: int


def data_bands(source: Any, wanted: int) -> list[int]:
    """The numbers of a file's bands without an alpha band, where there is one band more than ``wanted``."""
    bands = list(range(1, source.count + 1))
    if source.count == wanted + 1 and source.colorinterp[-1] is ColorInterp.alpha:
        return bands[:-1]
    return bands  # a band that the benchmark names is data, whatever GDAL makes of the fourth one


def unmeasured(
    source: Any, bands: Sequence[int], pixels: np.ndarray[Any, Any], nodata_in: Literal["any", "all"] | None,
    window: Window | None = None,
) -> Unmeasured:  # fmt: skip
    """What of an open raster is unmeasured.

    Args:
        bands: Numbers of the bands that were read.
        pixels: Their values (C, H, W), as stored.
        nodata_in: Whether a nodata value counts in every band by itself, or only where all bands have it; None:
            0 only in all bands, any other value in each.
        window: Which part of the raster was read; by default all of it.
    """
    found: dict[str, Mask] = {}
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):  # methods get float32, in which 1e300 is infinite
            found["not finite"] = ~np.isfinite(pixels.astype(np.float32, copy=False))
    nodata, zeros = _nodata(source, bands, pixels, nodata_in)
    if nodata is not None:
        found["nodata"] = nodata
    hidden = _hidden(source, bands, window)
    if hidden is not None:
        found["mask"] = np.broadcast_to(hidden, pixels.shape)
    found = {reason: mask for reason, mask in found.items() if mask.any()}
    if not found:
        return Unmeasured(None, {}, zeros)
    reasons = {reason: int(mask.any(axis=0).sum()) for reason, mask in found.items()}
    return Unmeasured(np.logical_or.reduce(list(found.values())), reasons, zeros)


def _nodata(
    source: Any, bands: Sequence[int], pixels: np.ndarray[Any, Any], nodata_in: Literal["any", "all"] | None
) -> tuple[Mask | None, int]:
    declared = [source.nodatavals[band - 1] for band in bands]
    if all(value is None for value in declared):
        return None, 0
    equal = np.stack([_equal(layer, value) for layer, value in zip(pixels, declared, strict=True)])
    everywhere = np.broadcast_to(equal.all(axis=0), equal.shape)
    if nodata_in == "any":
        return equal, 0
    if nodata_in == "all":
        return everywhere, 0
    zero = np.array([value == 0 for value in declared])[:, None, None]
    counted = np.where(zero, everywhere, equal)
    return counted, int((equal & ~counted).any(axis=0).sum())


def _equal(layer: np.ndarray[Any, Any], value: float | None) -> Mask:
    if value is None or not np.isfinite(value):  # what is not finite counts anyway
        return np.zeros(layer.shape, dtype=bool)
    if layer.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return layer == layer.dtype.type(value)
    limits = np.iinfo(layer.dtype)
    whole = int(value)
    if whole != value or not limits.min <= whole <= limits.max:
        return np.zeros(layer.shape, dtype=bool)
    return layer == whole


def _hidden(source: Any, bands: Sequence[int], window: Window | None) -> Mask | None:
    """Where masks hide pixels (C or 1, H, W). GDAL lets one kind of mask win; nodata values are looked at anyway."""
    alphas = [number for number, colour in enumerate(source.colorinterp, start=1) if colour is ColorInterp.alpha]
    layers: list[Mask | None] = []
    all_flags = source.mask_flag_enums  # made anew each time it is asked for
    for band in bands:
        flags = all_flags[band - 1]
        named = MaskFlags.alpha in flags and set(alphas) <= set(bands)  # a band of the benchmark, and no alpha
        if MaskFlags.all_valid in flags or named or flags == [MaskFlags.nodata]:
            layers.append(None)
        else:
            mask = source.read_masks(band, window=window) == 0
            if MaskFlags.per_dataset in flags:
                return mask[None]
            layers.append(mask)
    if all(layer is None for layer in layers):
        return None
    nothing = np.zeros(next(layer.shape for layer in layers if layer is not None), dtype=bool)
    return np.stack([nothing if layer is None else layer for layer in layers])
