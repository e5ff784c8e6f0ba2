"""Intervals, p values, sums over targets, Holm's correction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spectral_tl_bench.leaderboard.statistics.intervals import MIN_EFFECTIVE, Estimate, combine, estimate, holm


def normal(seed: int, scale: float = 1.0) -> np.ndarray:
    """Draws with the standard deviation ``scale``."""
    found = np.random.default_rng(seed).normal(size=1000)
    return scale * (found - found.mean()) / found.std(ddof=1)


def test_of_a_mean_it_is_the_t_interval():
    """Draws of a mean of equal places have its standard error."""
    sample = np.random.default_rng(0).normal(0.5, 0.1, 12)
    draws = normal(1, stats.sem(sample))
    low, high = estimate(sample.mean(), draws, 12, 12.0).interval(0, 1)
    expected = stats.t.interval(0.95, 11, sample.mean(), stats.sem(sample))
    assert (low, high) == pytest.approx(expected, rel=1e-9)
    found = estimate(sample.mean() - 0.4, draws, 12, 12.0)
    assert found.p_value() == pytest.approx(stats.ttest_1samp(sample, 0.4).pvalue, rel=1e-9)


def test_p_is_below_5_percent_just_where_the_interval_leaves_zero_out():
    for value in np.linspace(-0.1, 0.1, 41):
        found = estimate(float(value), normal(2, 0.02), 9, 7.3)
        low, high = found.interval(-1, 1)
        assert (found.p_value() < 0.05) == (not low <= 0 <= high)


def test_no_difference_at_all_and_a_certain_one():
    same, certain = estimate(0.0, np.zeros(1000), 8, 8.0), estimate(0.1, np.full(1000, 0.1), 8, 8.0)
    assert same.p_value() == 1 and same.interval(-1, 1) == (0, 0)
    assert certain.p_value() < 1e-12 and certain.interval(-1, 1) == pytest.approx((0.1, 0.1))


def test_intervals_end_where_scores_do():
    assert estimate(0.02, normal(3, 0.1), 20, 20.0).interval(0, 1)[0] == 0
    assert estimate(0.98, normal(3, 0.1), 20, 20.0).interval(0, 1)[1] == 1


@pytest.mark.parametrize(("places", "effective", "reason"), [
    (1, 1.0, "1 place; an interval needs at least 5"),
    (4, 4.0, "4 places; an interval needs at least 5"),
    (20, MIN_EFFECTIVE - 0.1, "20 places count as 4.9 of equal size"),
])  # fmt: skip
def test_too_few_places_are_not_estimable(places, effective, reason):
    found = estimate(0.5, normal(0), places, effective)
    assert not found.estimable and found.reason.startswith(reason) and found.value == 0.5
    assert all(math.isnan(end) for end in found.interval(0, 1)) and math.isnan(found.p_value())
    assert estimate(0.5, normal(0), places, MIN_EFFECTIVE).estimable


def test_draws_without_pixels_are_left_out():
    draws = normal(0)
    some = np.concatenate([draws, [np.nan]])
    assert estimate(0.5, some, 9, 9.0).error == pytest.approx(estimate(0.5, draws, 9, 9.0).error)


def test_a_sum_over_targets():
    a, b = (estimate(value, normal(seed, 0.01), 10, 10.0) for seed, value in ((1, 0.5), (2, 0.3)))
    draws = normal(1, 0.01), normal(2, 0.01)
    drop = combine(0.2, [(1.0, draws[0], a), (-1.0, draws[1], b)])
    assert drop.error == pytest.approx(math.hypot(a.error, b.error), rel=0.05)  # independent
    assert drop.freedom == pytest.approx(18, rel=0.1)  # Satterthwaite: two equal variances with 9 each
    both = combine(0.4, [(0.5, draws[0], a), (0.5, draws[0], a)])
    assert both.error == pytest.approx(a.error)  # the same places twice say nothing more
    assert both.freedom == pytest.approx(9)
    assert combine(0.4, [(0.25, draws[0], a)] * 4).freedom == pytest.approx(9)
    assert (
        combine(0.2, [(1.0, draws[0], a), (-1.0, draws[1], Estimate(0.3, math.nan, math.nan, "why"))]).reason == "why"
    )
    certain = estimate(0.0, np.zeros(1000), 8, 8.0)
    assert combine(0.0, [(0.5, np.zeros(1000), certain)] * 2).p_value() == 1


def test_holm_by_hand():
    """Sorted p: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04, not below the one before."""
    found = holm([0.03, 0.01, math.nan, 0.04, 0.005])
    assert found == pytest.approx([0.06, 0.03, math.nan, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
