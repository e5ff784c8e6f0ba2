"""Pixels counted place by place: all that the bootstrap needs to know about one cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Place = tuple[str, str]
"""Domain and site. The site is a city, a site of a table, or a block of ground."""


@dataclass(frozen=True, eq=False)
class PlaceCounts:
    """Pixel counts of one checkpoint by place and class.

    Attributes:
        places: The places, sorted.
        right: True positives (P, K).
        union: True positives, false positives and false negatives together (P, K).
        truth: Ground truth pixels (P, K).
    """

    places: tuple[Place, ...]
    right: NDArray[np.int64]
    union: NDArray[np.int64]
    truth: NDArray[np.int64]

    def within(self, domain: str) -> PlaceCounts:
        """The places of one domain alone."""
        chosen = [number for number, place in enumerate(self.places) if place[0] == domain]
        places = tuple(self.places[number] for number in chosen)
        return PlaceCounts(places, self.right[chosen], self.union[chosen], self.truth[chosen])


def count_places(domains: Sequence[str], sites: Sequence[str], matrices: NDArray[np.int64]) -> PlaceCounts:
    """Add the chips of each place up.

    Args:
        matrices: Confusion matrices (chips, K, K), rows ground truth.

    Returns:
        Counts by place, none of which depends on the order of the chips.
    """
    labels = list(zip(domains, sites, strict=True))
    places = sorted(set(labels))
    numbers = {place: number for number, place in enumerate(places)}
    rows = np.array([numbers[label] for label in labels], dtype=np.intp)
    right = np.diagonal(matrices, axis1=1, axis2=2)
    truth, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    sums = np.zeros((len(places), 3, matrices.shape[1]), dtype=np.int64)
    np.add.at(sums, rows, np.stack([right, truth + predicted - right, truth], axis=1))
    return PlaceCounts(tuple(places), sums[:, 0], sums[:, 1], sums[:, 2])


def mean_iou(right: ArrayLike, union: ArrayLike) -> NDArray[np.float64]:
    """The mIoU that ``evaluation.metrics.MIOU_RULE`` defines, over the last axis; NaN where no class occurs at all.

    Args:
        right: True positives (..., K).
        union: True positives, false positives and false negatives together (..., K).
    """
    bottom = np.asarray(union, dtype=np.float64)
    occurs = bottom > 0
    iou = np.divide(np.asarray(right, dtype=np.float64), bottom, out=np.zeros_like(bottom), where=occurs)
    classes = occurs.sum(axis=-1)
    return np.divide(iou.sum(axis=-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0)


def effective_places(truth: ArrayLike) -> float:
    """How many places of equal size would say as much.

    A class of which one place holds nearly all pixels is known from that place alone, however many others there are.
    For each class this is Kish's effective sample size (sum n)^2 / sum n^2 over the places' pixels n; mIoU is the
    mean over classes, and so is this.

    Args:
        truth: Ground truth pixels (P, K) by place and class.

    Returns:
        From 1 to P; 0 where nothing is labelled.
    """
    pixels = np.asarray(truth, dtype=np.float64)
    pixels = pixels[:, pixels.sum(axis=0) > 0]
    if not pixels.size:
        return 0.0
    return float((pixels.sum(axis=0) ** 2 / (pixels**2).sum(axis=0)).mean())
