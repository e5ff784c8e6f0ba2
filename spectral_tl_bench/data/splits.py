"""Cutting chips into training, validation and test by place, reproducibly from names.

Neighbouring chips look alike, so a random cut measures memory. Here a part is cut out of the ground: whole
sites, or whole square blocks at one end of each cluster of chips, with the chips in between left out where
enough remain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from spectral_tl_bench.benchmarks import Benchmark, Split
from spectral_tl_bench.data.distances import ROUNDING, distances_note, shared_across
from spectral_tl_bench.data.ground import BOX, CLUSTER_REACH, connected, full_turn, ground_boxes
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.placement import LOCAL_CRS
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import digest, seed_from

TRIALS = 48
"""Seeded candidate cuts, of which the one closest to the wanted share with all classes on both sides is taken."""
BUFFER_COST = 0.35
"""The share of a cluster's training chips that may be left out for a distance of one block."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SplitTable:
    """Which chip does what.

    Attributes:
        role: ``train``, ``validation``, ``target`` or ``buffer`` (used for nothing), by chip name.
        notes: How the cut was made, in words.
        distances: How far validation and target are from training, in words; the last of the notes.
    """

    role: pd.Series
    notes: tuple[str, ...]
    distances: str = ""

    def chips(self, role: str) -> list[str]:
        """The chips of one role, sorted."""
        return sorted(self.role.index[self.role == role])

    @property
    def hash(self) -> str:
        """A hash of who does what, independent of order."""
        return digest(sorted((str(chip), str(role)) for chip, role in self.role.items()))


def make_split(benchmark: Benchmark, index: ChipIndex, seed: int) -> SplitTable:
    """Cut the source into training and validation; for an in-domain reference cut off the test part first.

    The test part of an in-domain reference does not depend on the seed: all seeds are tested on the same ground.

    Args:
        seed: The run's seed; a seed of 0 is a seed like any other.

    Raises:
        DataError: If a side is empty, or the source has a single place, so that nothing can be cut off.
    """
    frame = index.frame
    role = pd.Series("buffer", index=frame.index, dtype=object)
    source = frame[frame["domain"].isin(benchmark.source)]
    notes: list[str] = []
    if benchmark.in_domain and benchmark.split.test is not None:
        test, dropped = cut(source, benchmark.split, benchmark.split.test, seed_from("split", benchmark.id, "test"))
        role[source.index[test]] = "target"
        notes.append(_note("test", source, test, dropped))
        source = source[~test & ~dropped]
    else:
        role[frame.index[frame["domain"].isin(benchmark.target)]] = "target"
    validation, dropped = cut(
        source, benchmark.split, benchmark.split.validation, seed_from("split", benchmark.id, seed)
    )
    role[source.index] = "train"
    role[source.index[validation]] = "validation"
    role[source.index[dropped]] = "buffer"
    notes.append(_note("validation", source, validation, dropped))
    distances = distances_note(frame, role)
    return SplitTable(role, (*notes, distances), distances)


def _note(part: str, frame: pd.DataFrame, chosen: Bools, dropped: Bools) -> str:
    return (
        f"{part}: {int(chosen.sum())} of {len(frame)} chips, cut by place; "
        f"{int(dropped.sum())} chips between it and training are left out"
    )


def cut(frame: pd.DataFrame, split: Split, share: float, seed: int) -> tuple[Bools, Bools]:
    """Cut about ``share`` of the chips out by place.

    Args:
        frame: Rows of a chip index.
        split: What a place is.
        share: Wanted share of the chips.
        seed: Seed of the candidate cuts.

    Returns:
        Two masks over the rows: cut out, and left out because they are too near to what was cut out.

    Raises:
        DataError: If there are fewer than two places.
    """
    rng = np.random.default_rng(seed)
    classes = np.array(frame["class_counts"].tolist(), dtype=np.int64) > 0
    if len(frame) < 2:
        raise DataError(f"the source has {len(frame)} usable chip(s)", expected="at least two, at two places")
    if split.place == "site" or (frame["crs"] == LOCAL_CRS).all():
        sites = frame["site"].to_numpy(dtype=str) if (frame["site"] != "").all() else frame.index.to_numpy(dtype=str)
        if len(np.unique(sites)) < 2:
            raise DataError(
                f"all {len(frame)} source chips are of one site ({sites[0]}), so validation cannot be cut by place",
                expected="at least two sites in the source",
            )
        candidates = (_sites_cut(sites, share, rng) for _ in range(TRIALS))
    else:
        ground = _Ground(frame, split.block)
        if ground.places < 2:
            raise DataError(
                f"all {len(frame)} source chips lie in one block of {split.block:g} m, so nothing can be cut by place",
                expected="at least two blocks in the source",
                fix="make split.block smaller",
            )
        candidates = (ground.cut(share, rng) for _ in range(TRIALS))
    together = _Together(frame)
    best = min(
        (together.leave_out(*pair) for pair in candidates), key=lambda pair: _cost(pair[0], pair[1], classes, share)
    )
    if not best[0].any() or not (~best[0] & ~best[1]).any():
        raise DataError("no cut by place leaves chips on both sides", expected="more places in the source")
    return best


def _cost(chosen: Bools, dropped: Bools, classes: Bools, share: float) -> float:
    kept = ~chosen & ~dropped
    if not chosen.any() or not kept.any():
        return np.inf
    present = classes.any(axis=0)
    missing_kept = (present & ~classes[kept].any(axis=0)).sum()
    missing_chosen = (present & ~classes[chosen].any(axis=0)).sum()
    lost = abs(chosen.mean() - share) + 0.2 * dropped.mean()
    return float(lost + (2.0 * missing_kept + 1.0 * missing_chosen) / max(1, present.sum()))


def _sites_cut(sites: NDArray[np.str_], share: float, rng: np.random.Generator) -> tuple[Bools, Bools]:
    names, inverse, counts = np.unique(sites, return_inverse=True, return_counts=True)
    taken, total = [], 0
    for site in rng.permutation(len(names)):
        # A site that overshoots by more than stopping here would fall short is passed over.
        if total + counts[site] - share * len(sites) <= max(1.0, share * len(sites) - total):
            taken.append(site)
            total += counts[site]
    chosen = np.isin(inverse, taken)
    if chosen.all() or not chosen.any():
        chosen = inverse == int(np.argmin(counts))
    return chosen, np.zeros(len(sites), dtype=bool)


class _Ground:
    """Chips on the ground: clusters of blocks, and the distances between footprints."""

    def __init__(self, frame: pd.DataFrame, block: float) -> None:
        ground = ground_boxes(frame, block)
        self.block, self.box = block, ground.box
        self.own_box = frame[BOX].to_numpy(dtype=float)
        centre = (self.box[:, :2] + self.box[:, 2:]) / 2
        self.cell = np.floor(centre / block).astype(np.int64)
        zone = pd.factorize(ground.system + "|" + frame["domain"].to_numpy(dtype=object))[0]
        self.cluster = connected(np.column_stack([zone * 10_000_000, self.cell]), CLUSTER_REACH)
        self.places = len({(c, *cell) for c, cell in zip(self.cluster, self.cell.tolist(), strict=True)})

    def cut(self, share: float, rng: np.random.Generator) -> tuple[Bools, Bools]:
        chosen = np.zeros(len(self.box), dtype=bool)
        dropped = np.zeros(len(self.box), dtype=bool)
        for cluster in range(int(self.cluster.max()) + 1):
            members = np.flatnonzero(self.cluster == cluster)
            cells, inverse = np.unique(self.cell[members], axis=0, return_inverse=True)
            inverse = inverse.reshape(-1)
            if len(cells) == 1:
                chosen[members] = rng.random() < share
                continue
            angle = rng.uniform(0, 2 * np.pi)
            order = np.argsort(cells @ np.array([np.cos(angle), np.sin(angle)]), kind="stable")
            sizes = np.bincount(inverse, minlength=len(cells))[order]
            ends = np.cumsum(sizes)
            blocks = int(np.argmin(np.abs(ends[:-1] - share * len(members)))) + 1
            part = members[np.isin(inverse, order[:blocks])]
            rest = np.setdiff1d(members, part)
            chosen[part] = True
            gap = _gaps(self.box[rest], self.box[part])
            near = rest[gap < self.block]
            if len(near) > BUFFER_COST * len(rest):
                # No room for a buffer: leave out only what shares ground, which the CRS's own boxes tell exactly.
                near = rest[_gaps(self.own_box[rest], self.own_box[part]) < 0]
            dropped[near] = True
        return chosen, dropped


class _Together:
    """Chips that must not be divided, however a cut was made: they share ground, or the site of a table."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.site = frame["site"].to_numpy(dtype=str)
        overlaps = [shared_across(frame)]
        for crs in set(frame["crs"]) - {LOCAL_CRS}:
            members = np.flatnonzero(frame["crs"] == crs)
            box = frame[BOX].to_numpy(dtype=float)[members]
            tree, turn = shapely.STRtree(shapely.box(*box.T)), full_turn(crs)
            for along in (-turn, 0.0, turn) if turn else (0.0,):
                moved = np.add(box, [along, 0.0, along, 0.0])
                chip, partner = tree.query(shapely.box(*moved.T))
                shared = np.minimum(moved[chip, 2:], box[partner, 2:]) - np.maximum(moved[chip, :2], box[partner, :2])
                # Neighbours whose edges differ by rounding do not share ground.
                real = (shared > ROUNDING * (box[chip, 2:] - box[chip, :2])).all(axis=1)
                overlaps.append(members[np.stack([chip[real], partner[real]])])
        self.chip, self.partner = np.concatenate(overlaps, axis=1)

    def leave_out(self, chosen: Bools, dropped: Bools) -> tuple[Bools, Bools]:
        """The cut, with those chips left out that belong together with one that was cut out."""
        bound = np.zeros_like(chosen)
        bound[self.chip[chosen[self.partner]]] = True
        bound |= (self.site != "") & np.isin(self.site, self.site[chosen])
        return chosen, (dropped | bound) & ~chosen


def _gaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each box to the nearest of ``others`` along the larger axis; negative where they overlap."""
    result = np.full(len(boxes), np.inf)
    for other in others:
        apart_x = np.maximum(boxes[:, 0] - other[2], other[0] - boxes[:, 2])
        apart_y = np.maximum(boxes[:, 1] - other[3], other[1] - boxes[:, 3])
        result = np.minimum(result, np.maximum(apart_x, apart_y))
    return result
