"""How well a linear classifier of single pixels tells two sides apart, on places that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.data.audit.facts import Told
from spectral_tl_bench.files import seed_from

FOLDS = 5
PENALTY = 1e-3
"""Weight of the squared coefficients, per pixel."""
DEALS = 19
"""Times that places are dealt out to the sides at random: by chance, one in 20 lies above all of these."""
PER_CHIP, DEALT = 256, 5_000
"""Pixels of a chip that are taken, and of all chips for each deal: more of the same places say hardly more."""

Array = NDArray[Any]


def tell_apart(pixels: tuple[Array, Array], chips: tuple[Array, Array], places: tuple[Array, Array]) -> Told:
    """Train on some places of both sides and test on the others, each place once.

    All chips of a place, and all pixels of a chip, are in one fold: neighbours look alike, and who has seen one of
    them would know the side of the others.

    Args:
        pixels: (N, C) and (M, C) of both sides, NaN where nothing is measured.
        chips: Number of each pixel's chip, (N,) and (M,); pixels of a chip follow each other.
        places: Name of each pixel's place.
    """
    counted = len(np.unique(places[0])), len(np.unique(places[1]))
    if min(counted) < 2:
        return Told(unknown=f"a side has fewer than two places ({counted[0]} and {counted[1]})", places=counted)
    values = np.concatenate(pixels)
    values = values[:, np.isfinite(values).any(axis=0)]
    side = np.repeat([False, True], [len(part) for part in pixels])
    # Two sides may have one name for two chips, or for two places.
    chip = np.concatenate([chips[0], chips[1] + (chips[0].max() + 1 if len(chips[0]) else 0)])
    place = np.concatenate([np.array([f"{number} {one}" for one in part]) for number, part in enumerate(places)])
    _, first, order = np.unique(chip, return_index=True, return_inverse=True)
    rank = np.arange(len(chip)) - first[order]  # within its chip, of which every one keeps a pixel
    some = rank % -(-(int(rank.max()) + 1) // PER_CHIP) == 0
    pixel_auc, chip_auc, accuracy, folds = _tested(values[some], side[some], chip[some], place[some])
    few = rank % -(-len(rank) // DEALT) == 0
    dealt = [_tested(values[few], one[few], chip[few], place[few])[:2] for one in _deals(side, place)]
    chance = [(min(areas), max(areas)) for areas in zip(*dealt, strict=True)]
    return Told(
        pixel_auc=pixel_auc, chip_auc=chip_auc, accuracy=accuracy, places=counted, folds=folds,
        pixel_chance=chance[0], chip_chance=chance[1], deals=DEALS,
    )  # fmt: skip


def _deals(side: Array, place: Array) -> Iterator[Array]:
    """Sides of each pixel where the places of both are dealt out at random, as many to each as there are."""
    names, first, number = np.unique(place, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed_from("audit", "deals", *names))
    for _ in range(DEALS):
        yield rng.permutation(side[first])[number]


def _tested(values: Array, side: Array, chip: Array, place: Array) -> tuple[float, float, float, int]:
    """Areas by pixel and by chip, accuracy by chip, and folds, of which each was tested by what the others taught."""
    values = values.astype(np.float64)
    folds = min(FOLDS, *(len(np.unique(place[side == one])) for one in (False, True)))
    fold = np.zeros(len(side), dtype=np.int64)
    for one in (False, True):
        fold[side == one] = _folds(place[side == one], folds)
    score = np.zeros(len(values))
    for number in range(folds):
        tested = fold == number
        score[tested] = _trained(values[~tested], side[~tested].astype(np.float64), values[tested])
    _, first, order = np.unique(chip, return_index=True, return_inverse=True)
    of_chip, second = np.bincount(order, score) / np.bincount(order), side[first]
    right = (of_chip > 0) == second
    accuracy = float((right[second].mean() + right[~second].mean()) / 2)
    return area(score, side), area(of_chip, second), accuracy, folds


def _folds(places: Array, folds: int) -> Array:
    """The fold of each pixel; places are dealt out in an order of their own, the same every time."""
    names, number = np.unique(places, return_inverse=True)
    dealt = np.random.default_rng(seed_from("audit", "folds", *names)).permutation(len(names)) % folds
    return dealt[number]


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
