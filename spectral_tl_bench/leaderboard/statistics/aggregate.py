"""Numbers over several benchmarks and seeds, as ``rliable`` has them.

Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021: the interquartile
mean, the probability of improvement, and the bootstrap stratified by benchmark, which draws seeds only. Such an
interval says what other seeds would have given on the same benchmarks and pixels; it does not speak of other places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from spectral_tl_bench.files import seed_from

REPETITIONS = 2000
Scores = NDArray[np.float64]
"""(seeds, benchmarks) or, where several samples are handled at once, (..., seeds, benchmarks)."""


def mean(scores: Scores) -> NDArray[np.float64]:
    """Mean over seeds and benchmarks."""
    return scores.mean(axis=(-2, -1))


def interquartile_mean(scores: Scores) -> NDArray[np.float64]:
    """Mean of the middle half of all seeds and benchmarks together: a quarter is cut off at either end."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def probability_of_improvement(first: Scores, second: Scores) -> NDArray[np.float64]:
    """How often a run of the first method beats one of the second on the same benchmark; a tie counts one half."""
    difference = first[..., :, None, :] - second[..., None, :, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-3, -2, -1))


def mean_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each row on each benchmark by its mean over seeds, 1 the best and ties shared, averaged.

    Args:
        scores: (..., rows, benchmarks), means over seeds.
    """
    return rankdata(-scores, axis=-2).mean(axis=-1)


def seed_draws(seeds: int, benchmarks: int, repetitions: int = REPETITIONS, name: str = "") -> NDArray[np.intp]:
    """Which seed stands in each place of each sample (repetitions, seeds, benchmarks): every benchmark by itself."""
    rng = np.random.default_rng(seed_from("seeds", name, seeds, benchmarks))
    return rng.integers(0, seeds, (repetitions, seeds, benchmarks))


def resample(scores: Scores, chosen: NDArray[np.intp]) -> Scores:
    """The samples (repetitions, seeds, benchmarks) that ``chosen`` takes from scores (seeds, benchmarks)."""
    return np.take_along_axis(scores[None], chosen, axis=1)


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of bootstrap values, as ``rliable`` takes them."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
