"""Counts by place, the mIoU rule on sums, effective places, and what a draw is."""

from __future__ import annotations

import numpy as np
import pytest

from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.leaderboard.statistics.entry import DRAWS, miou_draws, place_weights, strata
from spectral_tl_bench.results.places import PlaceCounts, count_places, effective_places, mean_iou


def matrices(seed: int, chips: int = 6, classes: int = 4) -> np.ndarray:
    """Confusion matrices; the last class is never true and never predicted."""
    found = np.random.default_rng(seed).integers(0, 50, (chips, classes, classes))
    found[:, -1, :] = found[:, :, -1] = 0
    return found


def test_counts_by_place_are_those_of_the_chips_whatever_their_order():
    chips = matrices(0)
    domains, sites = ["b", "a", "b", "a", "b", "a"], ["1", "1", "2", "1", "1", "2"]
    counts = count_places(domains, sites, chips)
    assert counts.places == (("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"))  # the same site name in two domains
    together = chips[0] + chips[4]
    assert counts.right[2].tolist() == np.diag(together).tolist()
    assert counts.truth[2].tolist() == together.sum(axis=1).tolist()
    assert counts.union[2].tolist() == (together.sum(axis=0) + together.sum(axis=1) - np.diag(together)).tolist()
    order = [5, 3, 0, 1, 4, 2]
    other = count_places([domains[n] for n in order], [sites[n] for n in order], chips[order])
    assert other.places == counts.places
    assert np.array_equal(other.right, counts.right) and np.array_equal(other.union, counts.union)
    assert counts.within("b").places == (("b", "1"), ("b", "2"))
    assert counts.within("b").right.tolist() == counts.right[2:].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_mean_iou_is_the_rule_of_the_metrics(seed):
    total = matrices(seed).sum(axis=0)
    right = np.diag(total)
    union = total.sum(axis=0) + total.sum(axis=1) - right
    assert float(mean_iou(right, union)) == pytest.approx(score(total).miou, abs=1e-15)
    assert np.isnan(mean_iou(np.zeros(3), np.zeros(3)))


def test_effective_places():
    assert effective_places(np.full((7, 3), 10)) == pytest.approx(7)
    assert effective_places(np.array([[10, 0], [0, 5], [0, 0]])) == 1  # every class in one place only
    assert effective_places(np.array([[10, 10], [10, 0]])) == pytest.approx(1.5)  # the mean over classes
    assert effective_places(np.array([[10, 0], [10, 0]])) == pytest.approx(2)  # a class without pixels is none
    assert effective_places(np.array([[90], [10]])) == pytest.approx(100**2 / (90**2 + 10**2))
    assert effective_places(np.zeros((4, 2))) == 0


def test_domains_are_strata_unless_they_are_small():
    def names(*sizes):
        return [(f"d{number}", str(place)) for number, size in enumerate(sizes) for place in range(size)]

    assert strata(names(3, 4)) == [[0, 1, 2], [3, 4, 5, 6]]
    assert strata(names(1, 1, 1, 1)) == [[0, 1, 2, 3]]  # cities that are places themselves: as if there were no strata
    assert strata(names(2, 5, 4)) == [[0, 1, 7, 8, 9, 10], [2, 3, 4, 5, 6]]
    assert strata(names(2)) == [[0, 1]]


def test_a_draw_keeps_the_number_of_places_of_every_domain():
    places = [(domain, str(place)) for domain in "ab" for place in range(5)]
    weights = place_weights("D", places)
    assert weights.shape == (DRAWS, 10)
    assert (weights[:, :5].sum(axis=1) == 5).all() and (weights[:, 5:].sum(axis=1) == 5).all()
    assert weights.var() == pytest.approx(1, rel=0.05)  # of 4 draws with probability 1/5 that count 5/4 each


def test_the_error_of_a_mean_over_strata_is_unbiased():
    """Linear in the weights: the variance of draws must be that of textbook stratified sampling."""
    places = [(domain, str(place)) for domain in "abc" for place in range(3)]
    values = np.random.default_rng(0).normal(size=9)
    drawn = place_weights("D", places, draws=20_000) @ values / 9
    expected = sum(values[start : start + 3].var(ddof=1) * 3 for start in (0, 3, 6)) / 81
    assert drawn.var() == pytest.approx(expected, rel=0.05)
    assert (place_weights("D", places[:1]) == 1).all()


def test_draws_depend_on_the_places_of_the_stratum_alone():
    mumbai, others = [("Mumbai", str(n)) for n in range(4)], [("Anzali", str(n)) for n in range(4)]
    alone, both = place_weights("DFC2020", mumbai), place_weights("DFC2020", others + mumbai)
    assert np.array_equal(alone, both[:, 4:])  # a city that two seasons share
    assert not np.array_equal(both[:, :4], both[:, 4:])
    assert not np.array_equal(alone, place_weights("other", mumbai))
    assert np.array_equal(alone, place_weights("DFC2020", mumbai))


def test_the_miou_of_a_draw_is_that_of_its_places():
    chips = matrices(3, chips=5)
    places = ["p", "q", "r", "s", "t"]
    first, second = count_places(["d"] * 5, places, chips), count_places(["d"] * 5, places, matrices(4, chips=5))
    weights = place_weights("D", first.places, draws=20)
    draws = miou_draws(weights, [first, second])
    assert draws.shape == (2, 20)
    for number in range(20):
        total = sum(round(4 * weight / 5) * chip for weight, chip in zip(weights[number], chips, strict=True))
        assert draws[0, number] == pytest.approx(score(total).miou, abs=1e-14)


def test_a_draw_without_pixels_is_nan():
    counts = PlaceCounts((("d", "a"), ("d", "b")), np.array([[1], [0]]), np.array([[2], [0]]), np.array([[2], [0]]))
    draws = miou_draws(np.array([[1.0, 1.0], [0.0, 2.0]]), [counts])
    assert draws[0, 0] == 0.5 and np.isnan(draws[0, 1])
