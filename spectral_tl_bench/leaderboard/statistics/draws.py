"""The bootstrap over places: which places each draw holds, and what a method's mIoU is in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.results.places import Place, PlaceCounts, mean_iou

DRAWS = 1000
"""Bootstrap draws. Only their standard deviation is used, which 1000 draws know to within 2 %."""

SMALLEST_STRATUM = 3
"""A domain with fewer places than this is drawn together with another, see ``strata``."""


def strata(places: Sequence[Place]) -> list[list[int]]:
    """Places that are drawn among themselves: those of one domain.

    The target's domains are part of a benchmark's definition, so that every draw keeps the number of places of each.
    Where a domain has too few places to be drawn alone, as where every domain is one city and the city is the place,
    the smallest domains are put together until every stratum has ``SMALLEST_STRATUM`` places.

    Returns:
        Numbers of the places in each stratum.
    """
    by_domain: dict[str, list[int]] = {}
    for number, (domain, _) in enumerate(places):
        by_domain.setdefault(domain, []).append(number)
    groups = [by_domain[domain] for domain in sorted(by_domain)]
    groups.sort(key=len)
    while len(groups) > 1 and len(groups[0]) < SMALLEST_STRATUM:
        groups[:2] = [sorted(groups[0] + groups[1])]
        groups.sort(key=len)
    return sorted(groups)


def place_weights(dataset: str, places: Sequence[Place], draws: int = DRAWS) -> NDArray[np.float64]:
    """With what weight each draw holds each place.

    Of a stratum of n places, n - 1 are drawn with replacement and count n / (n - 1) times each. With n draws the
    variance would be too small by (n - 1) / n in every stratum, which matters where strata are small (Rao and Wu,
    Journal of the American Statistical Association 83, 1988). The random numbers depend on the dataset and the names
    of the stratum's places and on nothing else: all rows of a board get the same draws, and so do two benchmarks in
    the domains that they share, as DFC2020's seasons share cities.

    Returns:
        (draws, P), which add up to n in a stratum.
    """
    weights = np.zeros((draws, len(places)))
    for group in strata(places):
        count = len(group)
        if count == 1:
            weights[:, group] = 1.0
            continue
        rng = np.random.default_rng(seed_from("places", dataset, *("\n".join(places[number]) for number in group)))
        drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=draws)
        weights[:, group] = drawn * (count / (count - 1))
    return weights


def miou_draws(weights: NDArray[np.float64], counts: Sequence[PlaceCounts]) -> NDArray[np.float64]:
    """The mIoU of every draw.

    Args:
        weights: (B, P) from ``place_weights``.
        counts: One or more records, such as the seeds of a row, all over these P places.

    Returns:
        (records, B); NaN where a draw holds no pixel.
    """
    records, (number, classes) = len(counts), counts[0].right.shape
    sums = np.empty((2, records, number, classes))
    for index, seed_counts in enumerate(counts):
        sums[0, index], sums[1, index] = seed_counts.right, seed_counts.union
    right, union = weights @ sums
    return mean_iou(right, union)
