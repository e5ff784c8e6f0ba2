"""Targets drawn from a world whose true mIoU is known, to see how often intervals hold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectral_tl_bench.leaderboard.statistics.entry import miou_draws, place_weights
from spectral_tl_bench.leaderboard.statistics.intervals import MIN_EFFECTIVE, estimate, over_seeds
from spectral_tl_bench.results.places import PlaceCounts, effective_places, mean_iou


@dataclass(frozen=True)
class World:
    """Two methods and the places that they may be tested on.

    Within a place all pixels of a class share their fate: a place is easy or hard, a class looks there as it does
    elsewhere or not. So thousands of pixels say little more than one number per place and class would.

    Attributes:
        classes: K.
        evenness: How evenly the classes are spread over places (shape of a gamma distribution; below 1 most of a
            class lies in few places).
        sizes: Standard deviation of the logarithm of a place's number of pixels.
        difficulty: Standard deviation of the logit of the share of pixels that are right, between places.
        domains: Number of domains, which differ in their classes and in difficulty; 1 for none.
        gap: How much domains differ.
        runs: Standard deviation of the logit of the share of pixels that are right, between runs of a method, of all
            classes and again of each.
    """

    classes: int = 8
    evenness: float = 3.0
    sizes: float = 0.5
    difficulty: float = 0.6
    domains: int = 1
    gap: float = 0.6
    runs: float = 0.0

    def draw(
        self, rng: np.random.Generator, targets: int, places: int, seeds: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Right and union pixels (methods, targets, places, K), and ground truth pixels (targets, places, K).

        Places are dealt out to the domains in turn. Where runs differ, pixels have an axis of seeds behind the methods.
        """
        fixed = np.random.default_rng(0)  # the same world every time
        shape = (targets, places, self.classes)
        often = np.sort(fixed.dirichlet(np.full(self.classes, 2.0)))[::-1] * self.classes
        skill = fixed.normal(0.8, 0.8, self.classes)
        confusion = fixed.dirichlet(np.full(self.classes, 0.7), self.classes)
        np.fill_diagonal(confusion, 0)
        confusion /= confusion.sum(axis=1, keepdims=True)
        domain = np.arange(places) % self.domains
        spread = self.gap if self.domains > 1 else 0.0
        composition = fixed.lognormal(0, spread, (self.domains, self.classes))[domain]
        skill = skill + fixed.normal(0, spread, (self.domains, 1))[domain]

        pixels = rng.gamma(self.evenness * often, size=shape) * composition
        pixels *= rng.lognormal(11, self.sizes, (*shape[:2], 1)) / pixels.sum(axis=-1, keepdims=True)
        truth = np.floor(pixels)
        first = skill + rng.normal(0, self.difficulty, (*shape[:2], 1)) + rng.normal(0, self.difficulty, shape)
        second = first + 0.3 + rng.normal(0, self.difficulty / 2, shape)
        logits = np.stack([first, second])
        if self.runs:
            shape = (2, seeds, targets, 1)
            luck = rng.normal(0, self.runs, (*shape, 1)) + rng.normal(0, self.runs, (*shape, self.classes))
            logits = logits[:, None] + luck
        right = np.floor(truth / (1 + np.exp(-logits)))
        missed = truth - right
        return right, truth + np.floor(missed @ confusion), truth

    def true_miou(self) -> np.ndarray:
        """The mIoU (2,) of both methods over as good as all places that there are."""
        sums = 0.0
        for part in range(10):
            right, union, _ = self.draw(np.random.default_rng([1, part]), 1, 12_000)
            sums = sums + np.stack([right[:, 0].sum(axis=1), union[:, 0].sum(axis=1)])
        return mean_iou(*sums)

    def true_difference(self) -> float:
        """The difference that many runs of both methods have on as good as all places that there are."""
        found = []
        for part in range(60):
            right, union, _ = self.draw(np.random.default_rng([3, part]), 1, 2_000, 20)
            found.append(mean_iou(right[:, :, 0].sum(axis=2), union[:, :, 0].sum(axis=2)).mean(axis=1))
        first, second = np.mean(found, axis=0)
        return float(first - second)


@dataclass(frozen=True)
class Coverage:
    """Shares of targets: that an interval was given for, and of these, that it held the truth."""

    estimable: float
    score: float
    difference: float
    percentile: float


def coverage(world: World, places: int, targets: int = 1000) -> Coverage:
    """How often the intervals of a score and of a paired difference hold the truth, over many targets."""
    right, union, truth = world.draw(np.random.default_rng([2, places]), targets, places)
    names = tuple((f"domain {number % world.domains}", f"site {number:03d}") for number in range(places))
    weights = place_weights("world", names)
    true = world.true_miou()
    effective = [effective_places(one) for one in truth]
    chosen = [number for number in range(targets) if effective[number] >= MIN_EFFECTIVE]
    held = []
    for start in range(0, len(chosen), 50):
        part = chosen[start : start + 50]
        draws = np.stack([
            miou_draws(weights, [PlaceCounts(names, right[method, n], union[method, n], truth[n]) for n in part])
            for method in (0, 1)
        ])  # fmt: skip
        value = mean_iou(right[:, part].sum(axis=2), union[:, part].sum(axis=2))
        low, high = np.percentile(draws[0], (2.5, 97.5), axis=1)
        for position, number in enumerate(part):
            score = estimate(value[0, position], draws[0, position], places, effective[number]).interval(0, 1)
            difference = estimate(
                value[0, position] - value[1, position], draws[0, position] - draws[1, position], places,
                effective[number],
            ).interval(-1, 1)  # fmt: skip
            held.append((
                score[0] <= true[0] <= score[1],
                difference[0] <= true[0] - true[1] <= difference[1],
                low[position] <= true[0] <= high[position],
            ))  # fmt: skip
    found = np.mean(held, axis=0) if held else np.full(3, np.nan)
    return Coverage(len(chosen) / targets, *map(float, found))


def coverage_of_methods(world: World, places: int, seeds: int, targets: int = 1000) -> tuple[float, float]:
    """How often the interval over places alone, and that over places and seeds, hold the difference of two methods."""
    right, union, truth = world.draw(np.random.default_rng([4, places, seeds]), targets, places, seeds)
    names = tuple(("domain", f"site {number:03d}") for number in range(places))
    weights, true = place_weights("world", names), world.true_difference()
    miou = mean_iou(right.sum(axis=3), union.sum(axis=3))
    held = []
    for number in range(targets):
        effective = effective_places(truth[number])
        if effective < MIN_EFFECTIVE:
            continue
        a, b = (
            miou_draws(weights, [PlaceCounts(names, right[m, s, number], union[m, s, number], truth[number])
                                 for s in range(seeds)]).mean(axis=0)
            for m in (0, 1)
        )  # fmt: skip
        by_seed = miou[0, :, number] - miou[1, :, number]
        alone = estimate(float(by_seed.mean()), a - b, places, effective)
        both = over_seeds(alone, [(1.0, by_seed)])
        held.append([low <= true <= high for low, high in (alone.interval(-1, 1), both.interval(-1, 1))])
    return tuple(map(float, np.mean(held, axis=0)))
