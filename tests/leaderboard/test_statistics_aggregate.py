"""Means over benchmarks and seeds, against rliable where it is installed and against other formulas."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from scipy import stats

from spectral_tl_bench.leaderboard.statistics import aggregate


def scores(seed: int, seeds: int = 3, benchmarks: int = 8) -> np.ndarray:
    """With ties between two such tables: two digits only."""
    return np.random.default_rng(seed).uniform(0.3, 0.6, (seeds, benchmarks)).round(2)


@pytest.mark.parametrize(("seeds", "benchmarks"), [(3, 8), (1, 8), (5, 3), (2, 1)])
def test_the_interquartile_mean_is_a_trimmed_mean(seeds, benchmarks):
    found = scores(1, seeds, benchmarks)
    assert aggregate.interquartile_mean(found) == pytest.approx(stats.trim_mean(found, 0.25, axis=None))
    assert aggregate.mean(found) == pytest.approx(found.mean())


def test_the_probability_of_improvement_is_mann_whitney():
    first, second = scores(1), scores(2, seeds=4)
    first[0, 0] = second[0, 0]
    expected = [stats.mannwhitneyu(a, b)[0] / (len(a) * len(b)) for a, b in zip(first.T, second.T, strict=True)]
    assert aggregate.probability_of_improvement(first, second) == pytest.approx(np.mean(expected))
    assert aggregate.probability_of_improvement(first, first) == 0.5
    assert aggregate.probability_of_improvement(first + 1, second) == 1
    assert aggregate.probability_of_improvement(first, second + 1) == 0


def test_mean_ranks_by_hand():
    table = np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.6]])
    assert aggregate.mean_ranks(table).tolist() == [(1 + 2.5) / 2, (2 + 2.5) / 2, (3 + 1) / 2]


def test_samples_draw_seeds_within_each_benchmark():
    table = scores(3)
    chosen = aggregate.seed_draws(3, 8, repetitions=500, name="row")
    samples = aggregate.resample(table, chosen)
    assert samples.shape == (500, 3, 8)
    for benchmark in range(8):
        assert set(np.unique(samples[:, :, benchmark])) == set(table[:, benchmark])
    assert not np.array_equal(chosen[..., 0], chosen[..., 1])  # every benchmark by itself
    assert np.array_equal(chosen, aggregate.seed_draws(3, 8, repetitions=500, name="row"))
    assert not np.array_equal(chosen, aggregate.seed_draws(3, 8, repetitions=500, name="other"))
    assert aggregate.mean(samples)[7] == pytest.approx(samples[7].mean())
    assert aggregate.interquartile_mean(samples)[7] == pytest.approx(aggregate.interquartile_mean(samples[7]))


def test_the_interval_of_a_mean_is_about_that_of_its_standard_error():
    table = scores(4, seeds=30, benchmarks=4)
    low, high = aggregate.percentile_interval(aggregate.mean(aggregate.resample(table, aggregate.seed_draws(30, 4))))
    error = np.sqrt((table.var(axis=0, ddof=1) / 30).sum()) / 4
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert low < table.mean() < high


def test_the_numbers_are_those_of_rliable():
    metrics = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    first, second = scores(5), scores(6)
    assert aggregate.mean(first) == pytest.approx(metrics.aggregate_mean(first))
    assert aggregate.interquartile_mean(first) == pytest.approx(metrics.aggregate_iqm(first))
    theirs = metrics.probability_of_improvement(first, second)
    assert aggregate.probability_of_improvement(first, second) == pytest.approx(theirs)


def test_the_intervals_are_those_of_rliable():
    """From the same resampled seeds."""
    try:
        library, metrics = (importlib.import_module(f"rliable.{name}") for name in ("library", "metrics"))
    except (ImportError, TypeError) as error:  # the arch that rliable 1.2 asks for does not know pandas 3
        pytest.skip(f"rliable cannot be imported: {error}")
    first, repetitions = scores(5), 300
    np.random.seed(7)  # the generator that rliable draws from
    _, intervals = library.get_interval_estimates(
        {"row": first},
        lambda x: np.array([metrics.aggregate_mean(x), metrics.aggregate_iqm(x)]),
        reps=repetitions,
    )
    np.random.seed(7)
    chosen = np.stack([np.random.choice(3, (3, 8), replace=True) for _ in range(repetitions)])
    samples = aggregate.resample(first, chosen)
    ours = [aggregate.percentile_interval(one(samples)) for one in (aggregate.mean, aggregate.interquartile_mean)]
    np.testing.assert_allclose(np.array(ours).T, intervals["row"], rtol=0, atol=1e-12)
