"""How well a linear classifier of single pixels tells two sides apart, on places that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.data.audit.facts import Told
from spectral_tl_bench.files import seed_from

FOLDS = 5
PENALTY = 1e-3
"""Weight of the squared coefficients, per pixel."""

Array = NDArray[Any]


def tell_apart(pixels: tuple[Array, Array], chips: tuple[Array, Array], places: tuple[Array, Array]) -> Told:
    """Train on some places of both sides and test on the others, each place once.

    All chips of a place, and all pixels of a chip, are in one fold: neighbours look alike, and who has seen one of
    them would know the side of the others.

    Args:
        pixels: (N, C) and (M, C) of both sides, NaN where nothing is measured.
        chips: Number of each pixel's chip, (N,) and (M,).
        places: Name of each pixel's place.
    """
    names = [np.unique(part) for part in places]
    counted = len(names[0]), len(names[1])
    if min(counted) < 2:
        return Told(unknown=f"a side has fewer than two places ({counted[0]} and {counted[1]})", places=counted)
    folds = min(FOLDS, *counted)
    fold = np.concatenate([_folds(part, known, folds) for part, known in zip(places, names, strict=True)])
    values = np.concatenate(pixels).astype(np.float64)
    values = values[:, np.isfinite(values).any(axis=0)]
    side = np.repeat([0.0, 1.0], [len(part) for part in pixels])
    # Two sides may have one name for two chips.
    chip = np.concatenate([chips[0], chips[1] + (chips[0].max() + 1 if len(chips[0]) else 0)])
    score = np.zeros(len(values))
    for number in range(folds):
        tested = fold == number
        score[tested] = _trained(values[~tested], side[~tested], values[tested])
    _, order = np.unique(chip, return_inverse=True)
    total, weight = np.bincount(order, score), np.bincount(order)
    of_chip = np.bincount(order, side) / weight
    right = (total / weight > 0) == (of_chip > 0.5)
    return Told(
        pixel_auc=area(score, side > 0.5),
        chip_auc=area(total / weight, of_chip > 0.5),
        accuracy=float((right[of_chip > 0.5].mean() + right[of_chip < 0.5].mean()) / 2),
        places=counted,
        folds=folds,
    )


def _folds(places: Array, names: Array, folds: int) -> Array:
    """The fold of each pixel; places are dealt out in an order of their own, the same every time."""
    dealt = np.random.default_rng(seed_from("audit", "folds", *names)).permutation(len(names)) % folds
    return dealt[np.searchsorted(names, places)]


def _trained(values: Array, side: Array, tested: Array) -> Array:
    """Scores of a logistic regression, of which each side weighs one half; above 0 is the second side."""
    from scipy.optimize import minimize
    from scipy.special import expit

    count = np.maximum(np.isfinite(values).sum(axis=0), 1)
    mean = np.nansum(values, axis=0) / count
    std = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / count)
    usable = std > 1e-9 * np.maximum(np.abs(mean), 1e-12)
    if not usable.any():
        return np.zeros(len(tested))

    def prepared(part: Array) -> Array:
        return np.nan_to_num((part[:, usable] - mean[usable]) / std[usable], nan=0.0)

    known = prepared(values)
    weight = np.where(side > 0.5, 0.5 / side.sum(), 0.5 / (1 - side).sum())

    def loss(slope: Array) -> tuple[float, Array]:
        logit = known @ slope[1:] + slope[0]
        error = weight * (expit(logit) - side)
        value = float(weight @ (np.logaddexp(0, logit) - side * logit)) + PENALTY * float(slope[1:] @ slope[1:])
        return value, np.concatenate([[error.sum()], known.T @ error + 2 * PENALTY * slope[1:]])

    slope = minimize(loss, np.zeros(known.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return prepared(tested) @ slope[1:] + slope[0]


def area(score: Array, second: Array) -> float:
    """Area under the ROC curve: how often one of the second side has the higher score; ties count one half."""
    from scipy.stats import rankdata

    ones, zeros = int(second.sum()), int((~second).sum())
    return float((rankdata(score)[second].sum() - ones * (ones + 1) / 2) / (ones * zeros))
