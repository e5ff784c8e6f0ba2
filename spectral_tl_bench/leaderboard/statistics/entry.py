"""Entries: what a row of a board has on one benchmark, its records merged over seeds, ready for the bootstrap."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.statistics.intervals import Estimate, deviation, estimate, too_few, unknown
from spectral_tl_bench.results.places import Place, PlaceCounts, effective_places, mean_iou

T = TypeVar("T")
OTHER_PIXELS = "not evaluated on the same target pixels"
Target = tuple[str, tuple[Place, ...], bytes]


@dataclass(frozen=True, eq=False)
class SeedScore:
    """One completed record.

    Attributes:
        target: Equal where two records were evaluated on the same pixels, in the same places.
        counts: Its pixel counts by place.
        source: What the counts are of, as a name.
    """

    target: Target
    counts: PlaceCounts
    source: str


@dataclass(frozen=True, eq=False)
class Entry:
    """One row's place on one benchmark.

    Attributes:
        dataset: Name of the dataset, which places are named within.
        seeds: Its completed records by seed.
        domain: Empty for the whole target, else the only domain of it that counts.
        kept: Draws and numbers of earlier reports.
    """

    dataset: str
    seeds: dict[int, SeedScore]
    domain: str = ""
    kept: Kept | None = None

    def only(self, seeds: Collection[int]) -> Entry:
        """The same with some of the seeds."""
        return self if set(seeds) == set(self.seeds) else replace(self, seeds={s: self.seeds[s] for s in seeds})

    def within(self, domain: str) -> Entry:
        """The part of the target in one domain; of it nothing is kept, but by who asks for it."""
        return (
            self
            if all(place[0] == domain for part in self.counts for place in part.places)
            else replace(self, domain=domain, kept=None)
        )

    @cached_property
    def target(self) -> Target | None:
        """What all seeds were evaluated on; None where they differ."""
        targets = {score.target for score in self.seeds.values()}
        return targets.pop() if len(targets) == 1 else None

    @cached_property
    def counts(self) -> list[PlaceCounts]:
        """Counts by place, in the order of the seeds."""
        counts = [self.seeds[seed].counts for seed in sorted(self.seeds)]
        return [part.within(self.domain) for part in counts] if self.domain else counts

    @cached_property
    def effective(self) -> float:
        """Effective number of places, see ``effective_places``."""
        return _effective(self.target, self.domain) if self.target is not None else 0.0

    @cached_property
    def _counted(self) -> tuple[int, list[float], float]:
        """Number of places, mIoU by seed, and their mean."""

        def count() -> tuple[int, list[float], float]:
            values = [float(mean_iou(part.right.sum(axis=0), part.union.sum(axis=0))) for part in self.counts]
            return min(len(part.places) for part in self.counts), values, float(np.mean(values))

        return self.once("counted", count)

    @property
    def places(self) -> int:
        """Number of places; of the seed with the fewest, where they differ."""
        return self._counted[0]

    @property
    def values(self) -> list[float]:
        """The mIoU over all places by seed, in the order of the seeds."""
        return self._counted[1]

    @property
    def miou(self) -> float:
        """Mean over seeds."""
        return self._counted[2]

    @cached_property
    def draws(self) -> NDArray[np.float64]:
        """Bootstrap draws (B,) of the mean over seeds; all NaN where the seeds have different targets."""
        if self.target is None:
            return np.full(DRAWS, np.nan)
        return self.kept.draws(self._source, self._draw) if self.kept else self._draw()

    @cached_property
    def _source(self) -> str:
        """A digest of all that draws and numbers depend on."""
        parts = [self.dataset, self.domain, *(self.seeds[seed].source for seed in sorted(self.seeds))]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def _draw(self) -> NDArray[np.float64]:
        if self.target is None:
            raise ValueError("seeds with different targets cannot be drawn together")
        weights = _weights(self.dataset, self.target[1])
        if self.domain:
            weights = weights[:, _chosen(self.target, self.domain)]
        return miou_draws(weights, self.counts).mean(axis=0)

    @cached_property
    def estimate(self) -> Estimate:
        """The mIoU with its uncertainty over places."""
        if self.target is None:
            return unknown(self.miou, f"the seeds were {OTHER_PIXELS}")
        if reason := too_few(self.places, self.effective):  # which saves the draws
            return unknown(self.miou, reason)
        # the draws of one domain are never asked for again
        error = self.once("deviation", lambda: deviation(self._draw() if self.domain else self.draws))
        return Estimate(self.miou, error, self.effective - 1)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Numbers that depend on ``name`` and the records alone: made once, where earlier reports are kept."""
        return self.kept.numbers(f"{name} {self._source}", make) if self.kept else make()


def seed_score(measured: MeasuredRecord) -> SeedScore:
    """A completed record as the bootstrap sees it."""
    counts = measured.places
    if counts is None:
        raise ValueError(f"{measured.record.method} on {measured.record.benchmark} has no evidence")
    source = measured.record.evidence.sha256 if measured.record.evidence else measured.record.fingerprint
    return SeedScore((measured.target, counts.places, counts.truth.tobytes()), counts, source)


def floor_entries(records: Iterable[MeasuredRecord], kept: Kept | None = None) -> dict[str, Entry]:
    """The majority class by benchmark: what always saying the source's most frequent class gives on each seed."""
    entries: dict[str, Entry] = {}
    for run in records:
        majority = run.record.majority_class
        if not run.completed or majority is None:
            continue
        seeds = entries.setdefault(run.record.benchmark, Entry(run.record.dataset, {}, kept=kept)).seeds
        if run.record.seed not in seeds:
            score = seed_score(run)
            seeds[run.record.seed] = SeedScore(
                score.target, _constant(score.counts, majority), f"class {majority} on {score.source}"
            )
    return entries


def difference(
    first: Entry | None, second: Entry | None
) -> tuple[int, NDArray[np.float64], Estimate, tuple[float, ...]]:
    """First minus second over the same places and the seeds that both have.

    Returns:
        Number of places, draws (B,) of the difference, the difference with its uncertainty over places, and the
        differences in the order of the seeds. The difference is NaN, and there is none by seed, where the two were not
        evaluated on the same pixels.
    """
    nothing = np.full(1, np.nan)
    if first is None or second is None:
        return 0, nothing, unknown(float("nan"), "not completed by both"), ()
    shared = sorted(first.seeds.keys() & second.seeds.keys())
    if not shared:
        return min(first.places, second.places), nothing, unknown(float("nan"), "no seed in common"), ()
    a, b = first.only(shared), second.only(shared)
    if any(a.seeds[seed].target != b.seeds[seed].target for seed in shared):
        return min(a.places, b.places), nothing, unknown(float("nan"), OTHER_PIXELS), ()
    value, by_seed = a.miou - b.miou, tuple(one - other for one, other in zip(a.values, b.values, strict=True))
    if a.target is None:
        return a.places, nothing, unknown(value, f"the seeds were {OTHER_PIXELS}"), by_seed
    draws = a.draws - b.draws
    return a.places, draws, estimate(value, draws, a.places, a.effective), by_seed


def _constant(counts: PlaceCounts, majority: int) -> PlaceCounts:
    """Counts of a predictor that says ``majority`` everywhere."""
    right = np.zeros_like(counts.truth)
    right[:, majority] = counts.truth[:, majority]
    union = counts.truth.copy()
    union[:, majority] = counts.truth.sum(axis=1)
    return PlaceCounts(counts.places, right, union, counts.truth)


@lru_cache(maxsize=64)
def _weights(dataset: str, places: tuple[Place, ...]) -> NDArray[np.float64]:
    weights = place_weights(dataset, places)
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=1024)
def _effective(target: Target, domain: str) -> float:
    truth = np.frombuffer(target[2], dtype=np.int64).reshape(len(target[1]), -1)
    return effective_places(truth[_chosen(target, domain)] if domain else truth)


def _chosen(target: Target, domain: str) -> list[int]:
    """Numbers of the places in a domain."""
    return [number for number, place in enumerate(target[1]) if place[0] == domain]


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
