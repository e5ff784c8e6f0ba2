"""Numbers over several benchmarks and seeds, as ``rliable`` has them.

Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021: the interquartile
mean, the probability of improvement, and the bootstrap stratified by benchmark, which draws seeds only. Such an
interval says what other seeds would have given on the same benchmarks and pixels; it does not speak of other places.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.files import digest, seed_from
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.leaderboard.statistics.entry import Entry

REPETITIONS = 2000
_BLOCK = 100  # of them are ranked together, which a core's cache holds
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
    return np.moveaxis(_ranks(np.moveaxis(-scores, -2, -1)), -1, -2).mean(axis=-1)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the last axis, 1 the smallest and ties shared, as ``scipy.stats``, whose import takes a second."""
    order = np.argsort(values, axis=-1)  # ties share a rank, whichever of them comes first
    ordered = np.take_along_axis(values, order, axis=-1)
    place = np.broadcast_to(np.arange(values.shape[-1]), values.shape)
    new = np.ones(values.shape, dtype=bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=-1)
    ends = np.ones(values.shape, dtype=bool)
    ends[..., :-1] = new[..., 1:]
    last = np.flip(np.minimum.accumulate(np.flip(np.where(ends, place, values.shape[-1]), -1), axis=-1), -1)
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return ranks


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


def seed_table(entries: Sequence[Entry]) -> Scores:
    """Scores (seeds, benchmarks) of a complete row, which has the same seeds on all benchmarks.

    The majority class may have others, where records are missing; its means over seeds are one line then.
    """
    if any(entry.seeds.keys() != entries[0].seeds.keys() for entry in entries):
        return np.array([[entry.miou for entry in entries]])
    return np.array(list(zip(*(entry.values for entry in entries), strict=True)))


def over_seeds(
    tables: Mapping[str, Scores], ranked: Sequence[str], kept: Kept | None = None
) -> dict[str, dict[str, float]]:
    """Mean, interquartile mean and mean rank of rows with their intervals, as columns by row name.

    Args:
        tables: mIoU (seeds, benchmarks) of complete rows.
        ranked: Rows that are ranked among each other, which leaves the majority class out.
        kept: Numbers of earlier reports.
    """
    columns: dict[str, dict[str, float]] = {}
    means = {}
    for name, scores in tables.items():
        samples = scores[None]
        if len(scores) > 1:
            samples = resample(scores, seed_draws(len(scores), scores.shape[1], name=name))
        means[name] = samples.mean(axis=1)
        alone = functools.partial(_alone, scores, samples)
        columns[name] = dict(kept.numbers(f"seeds {name} {digest(scores.tolist())}", alone)) if kept else alone()
    if not ranked:
        return columns
    ranks = mean_ranks(np.stack([tables[name].mean(axis=0) for name in ranked]))
    shape = (REPETITIONS, *means[ranked[0]].shape[1:])
    samples_of = [np.broadcast_to(means[name], shape) for name in ranked]
    blocks = range(0, REPETITIONS, _BLOCK)
    drawn = np.concatenate([
        mean_ranks(np.stack([samples[start : start + _BLOCK] for samples in samples_of], axis=1)) for start in blocks
    ])  # fmt: skip
    for position, name in enumerate(ranked):
        columns[name]["mean_rank"] = float(ranks[position])
        if len(tables[name]) > 1:
            columns[name] |= _ends("mean_rank", drawn[:, position])
    return columns


def _alone(scores: Scores, samples: Scores) -> dict[str, float]:
    """What a row has without regard to others."""
    columns = {"iqm": float(interquartile_mean(scores))}
    if len(scores) > 1:
        for statistic, values in (("mean", mean(samples)), ("iqm", interquartile_mean(samples))):
            columns |= _ends(statistic, values)
    return columns


def _ends(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip((f"{name}_low", f"{name}_high"), percentile_interval(values), strict=True))
