"""How far classes, bands and the spectra of classes are apart on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.data.audit.facts import BandShift, ClassShift, Priors

FEWEST = 200
"""Pixels of a class on each side from which its spectra can be compared."""

Array = NDArray[Any]


def compare_priors(names: Sequence[str], one: Array, other: Array, pixels: tuple[float, float] | None = None) -> Priors:
    """The class shares of two sides.

    Args:
        names: Of the classes.
        one: Labelled pixels (K,) of a side.
        other: Of the other.
        pixels: All pixels of both sides.
    """
    from scipy.spatial.distance import jensenshannon

    labelled = None
    if pixels is not None and all(pixels):
        labelled = float(one.sum()) / pixels[0], float(other.sum()) / pixels[1]
    if not one.sum() or not other.sum():  # nothing is absent from a side that is not there
        return Priors(
            one=_whole(one), other=_whole(other), jensen_shannon=None, only_one=(), only_other=(), labelled=labelled
        )
    apart = float(np.nan_to_num(jensenshannon(one, other, base=2)))  # rounding may go below 0 under its root
    return Priors(
        one=_whole(one),
        other=_whole(other),
        jensen_shannon=apart,
        only_one=tuple(name for name, here, there in zip(names, one, other, strict=True) if here and not there),
        only_other=tuple(name for name, here, there in zip(names, one, other, strict=True) if there and not here),
        labelled=labelled,
    )


def _whole(pixels: Array) -> tuple[int, ...]:
    return tuple(map(int, pixels))


def compare_bands(one: Array, other: Array) -> tuple[BandShift | None, ...]:
    """The distributions of each band's values on two sides; None where a side has none.

    Args:
        one: (N, C), NaN where nothing is measured.
        other: (M, C).
    """
    from scipy.stats import wasserstein_distance

    found: list[BandShift | None] = []
    for here, there in zip(one.T.astype(np.float64), other.T.astype(np.float64), strict=True):
        here, there = here[np.isfinite(here)], there[np.isfinite(there)]  # noqa: PLW2901
        if not len(here) or not len(there):
            found.append(None)
            continue
        apart, std = float(wasserstein_distance(here, there)), float(here.std())
        constant = std <= 1e-9 * max(1e-12, float(np.abs(here).max()))
        shift = float(there.mean() - here.mean())
        found.append(BandShift(wasserstein=apart, in_std=None if constant else apart / std, mean_shift=shift))
    return tuple(found)


def shift_by_shares(pixels: tuple[Array, Array], count: Array, total: Array) -> Array:
    """What the class shares of the other side alone would shift the mean of each band by.

    Args:
        pixels: Labelled pixels (K,) of both sides.
        count: Measured pixels (K, C) of the first side.
        total: Sums of their values.

    Returns:
        (C,): the mean of the first side's classes with the shares of the second, less that with its own, over the
        classes that the first side has; NaN where no class is left.
    """
    means, shifts = _mean(total, count), np.full(count.shape[1], np.nan)
    for band, known in enumerate(np.isfinite(means).T):
        one, other = (np.where(known, side, 0).astype(np.float64) for side in pixels)
        if one.sum() and other.sum():
            shifts[band] = (other / other.sum() - one / one.sum()) @ np.where(known, means[:, band], 0.0)
    return shifts


def compare_classes(
    names: Sequence[str], pixels: tuple[Array, Array], source: tuple[Array, Array, Array], target: tuple[Array, ...]
) -> tuple[ClassShift, ...]:
    """The mean spectra of each class on both sides.

    Args:
        names: Of the classes.
        pixels: Labelled pixels (K,) of both sides.
        source: Measured pixels, sums and sums of squares (K, C).
        target: Likewise.
    """
    shifts = []
    for number, name in enumerate(names):
        both = int(pixels[0][number]), int(pixels[1][number])
        if min(both) < FEWEST:
            shifts.append(ClassShift(name=name, pixels=both))
            continue
        count, total, square = (part[number] for part in source)
        here, there = _mean(total, count), _mean(target[1][number], target[0][number])
        std = np.sqrt(np.maximum(_mean(square, count) - here**2, 0))
        usable = np.isfinite(here) & np.isfinite(there) & (std > 1e-9 * np.maximum(np.abs(here), 1e-12))
        in_std = np.abs(there - here)[usable] / std[usable]
        known = np.isfinite(here) & np.isfinite(there)
        lengths = np.linalg.norm(here[known]) * np.linalg.norm(there[known])
        angle = float(np.degrees(np.arccos(np.clip(here[known] @ there[known] / lengths, -1, 1)))) if lengths else None
        shifts.append(ClassShift(
            name=name, pixels=both, source=_listed(here), target=_listed(there),
            in_std=float(in_std.mean()) if usable.any() else None,
            angle=angle,
            band=int(np.flatnonzero(usable)[in_std.argmax()]) if usable.any() else None,
        ))  # fmt: skip
    return tuple(shifts)


def _mean(total: Array, count: Array) -> Array:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _listed(values: Array) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)
