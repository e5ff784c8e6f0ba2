"""Mean, interquartile mean and mean rank of complete rows over the benchmarks with a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectral_tl_bench.leaderboard.statistics import aggregate
from spectral_tl_bench.leaderboard.statistics.intervals import Estimate, combine, unknown
from spectral_tl_bench.leaderboard.statistics.scores import RowScores

UNKNOWN = (float("nan"), float("nan"))


def seed_table(found: Mapping[str, RowScores], benchmarks: Sequence[str]) -> aggregate.Scores:
    """Scores (seeds, benchmarks) of a complete row, which has the same seeds on all benchmarks.

    The majority class may have others, where records are missing; its means over seeds are one line then.
    """
    seeds = sorted(found[benchmarks[0]].seeds)
    if any(found[name].seeds.keys() != set(seeds) for name in benchmarks):
        return np.array([[found[name].miou for name in benchmarks]])
    return np.array([[found[name].seeds[seed].miou for name in benchmarks] for seed in seeds])


def over_seeds(tables: Mapping[str, aggregate.Scores], ranked: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Columns of the rows table by row name.

    Args:
        tables: mIoU (seeds, benchmarks) of complete rows.
        ranked: Rows that are ranked among each other, which leaves the majority class out.
    """
    columns: dict[str, dict[str, Any]] = {}
    means = {}
    for name, scores in tables.items():
        samples = scores[None]
        if len(scores) > 1:
            samples = aggregate.resample(scores, aggregate.seed_draws(len(scores), scores.shape[1], name=name))
        means[name] = samples.mean(axis=1)
        mean_low, mean_high = _interval(aggregate.mean(samples))
        iqm_low, iqm_high = _interval(aggregate.interquartile_mean(samples))
        iqm = float(aggregate.interquartile_mean(scores))
        columns[name] = {
            "mean_low": mean_low, "mean_high": mean_high, "iqm": iqm, "iqm_low": iqm_low, "iqm_high": iqm_high
        }  # fmt: skip
    if not ranked:
        return columns
    ranks = aggregate.mean_ranks(np.stack([tables[name].mean(axis=0) for name in ranked]))
    shape = (aggregate.REPETITIONS, *means[ranked[0]].shape[1:])
    drawn = aggregate.mean_ranks(np.stack([np.broadcast_to(means[name], shape) for name in ranked], axis=1))
    for position, name in enumerate(ranked):
        low, high = aggregate.percentile_interval(drawn[:, position]) if len(tables[name]) > 1 else UNKNOWN
        columns[name] |= {"mean_rank": float(ranks[position]), "mean_rank_low": low, "mean_rank_high": high}
    return columns


def over_places(value: float, found: Sequence[RowScores]) -> Estimate:
    """The mean over benchmarks with its uncertainty over places."""
    if not found:
        return unknown(value, "not complete")
    return combine(value, [(1 / len(found), one.draws, one.estimate) for one in found])


def _interval(values: Any) -> tuple[float, float]:
    return aggregate.percentile_interval(values) if len(values) > 1 else UNKNOWN
