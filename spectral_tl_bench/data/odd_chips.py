"""Single chips whose bands are in another order, or whose values are in another unit, than those of their domain.

A chip is described by the logarithms of its bands' means and deviations, a domain by how these lie and vary together
over its chips: mean and covariance of the chips that lie nearest (after Rousseeuw, J. Am. Stat. Assoc. 79, 1984), so
that some faulty ones do not count. A chip that lies far off may be snow or a lake; one that lies among the others as
soon as two of its bands change places is neither. docs/data.md says how many faults are found, on which real chips.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.units import by_chip

PER_BAND = 2.5
"""Chips of a domain for each band, from which on its covariance says something."""
KEPT, ROUNDS = 0.75, 4
"""The part of the chips by which a domain is described, and how often it is chosen anew."""
FLOOR, SHRUNK = 0.01, 0.002
"""Reflectance that is added before the logarithm; share of the variances alone in the covariance."""
RATIO, BEYOND = 3.0, 2.0
"""Times nearer that a chip has to be when changed, and median distances that it has to gain."""
UNITS = {f"times {factor:g}": (factor, 0.0) for factor in (10.0, 0.1, 100.0, 0.01, 10_000.0, 0.0001)}
UNITS |= {"plus 0.1": (1.0, 0.1), "minus 0.1": (1.0, -0.1)}
"""What the reflectance of a chip may have become; Sentinel-2's offset is 0.1."""

Array = np.ndarray[Any, Any]


class _Domain(NamedTuple):
    """Where the chips of a domain lie, and the inverse of how they vary."""

    middle: Array
    inverse: Array

    def distances(self, features: Array) -> Array:
        """Squared Mahalanobis distances of chips (..., features)."""
        apart = features - self.middle
        return np.einsum("...i,ij,...j->...", apart, self.inverse, apart)


def odd_chips(benchmark: Benchmark, frame: pd.DataFrame) -> dict[str, str]:
    """Chips that lie among the others of their domain once their bands or values are changed, and not as they are.

    Args:
        benchmark: The benchmark.
        frame: Of the index: domain, band_count, band_sum, band_square_sum, band_low, by chip, all of as many bands.

    Returns:
        What each of them looks like, by its name; none of domains with few chips, or of an unknown unit.
    """
    found: dict[str, str] = {}
    if "scale" not in benchmark.sensor.model_fields_set:
        return found
    for _, rows in frame.groupby("domain", sort=True):
        count, (mean, std, _) = by_chip(rows)
        usable = (count > 0).all(axis=1) & (std > 0).any(axis=1)
        if usable.sum() < PER_BAND * mean.shape[1]:
            continue
        values = np.stack([mean, std], axis=1)[usable] * benchmark.sensor.scale
        domain, apart = _describe(_features(values))
        names, usual = rows.index.to_numpy()[usable], float(np.median(apart))
        for number in np.flatnonzero(apart > BEYOND * usual):
            changed = dict(_changes(benchmark, domain, values[number]))
            best = min(changed, key=changed.__getitem__)
            if apart[number] > max(RATIO * changed[best], changed[best] + BEYOND * usual):
                found[str(names[number])] = best
    return found


def _features(values: Array) -> Array:
    """Of means and deviations (..., 2, C), what is compared (..., 2C)."""
    return np.log(np.maximum(values, 0) + FLOOR).reshape(*values.shape[:-2], -1)


def _describe(features: Array) -> tuple[_Domain, Array]:
    """A domain, and how far each of its chips (N, F) lies off."""
    middle = np.median(features, axis=0)
    spread = np.median(np.abs(features - middle), axis=0) + 1e-6
    domain = _Domain(middle, np.diag(1 / spread**2))
    for _ in range(ROUNDS):
        near = features[np.argsort(domain.distances(features), kind="stable")[: int(KEPT * len(features))]]
        covariance = np.cov(near.T)
        own = np.diag(np.diag(covariance))
        covariance += SHRUNK * (own - covariance) + 1e-6 * np.eye(len(covariance))
        domain = _Domain(near.mean(axis=0), np.linalg.inv(covariance))
    return domain, domain.distances(features)


def _changes(benchmark: Benchmark, domain: _Domain, values: Array) -> Iterator[tuple[str, float]]:
    """How far off a chip lies whose means and deviations (2, C) are changed back, by what may have been done to it."""
    bands = values.shape[1]
    orders = {"its bands stand in the reverse order": np.arange(bands)[::-1]}
    for first in range(bands):
        for second in range(first + 1, bands):
            order = np.arange(bands)
            order[[first, second]] = second, first
            one, other = (benchmark.sensor.bands[band].name for band in (first, second))
            orders[f"its bands {one} and {other} have changed places"] = order
    swapped = domain.distances(_features(values[:, np.stack(list(orders.values()))].swapaxes(0, 1)))
    yield from zip(orders, swapped.tolist(), strict=True)
    for name, (factor, offset) in UNITS.items():
        back = np.stack([(values[0] - offset) / factor, values[1] / factor])
        yield f"its values are those of reflectance {name}", float(domain.distances(_features(back)))
