"""Which chips of two sides share ground, which touch, and how far the others are apart."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from spectral_tl_bench.data.audit.facts import Ground, SharedGround
from spectral_tl_bench.data.distances import ROUNDING, TOUCHING, Footprints, footprints, near, polygons, shrunk
from spectral_tl_bench.data.ground import BOX, EARTH, Floats, full_turn
from spectral_tl_bench.data.placement import LOCAL_CRS

WORST = 10
"""Pairs that are named."""
QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
AT_ONCE = 20_000

Bools = NDArray[np.bool_]


def compare_ground(one: pd.DataFrame, other: pd.DataFrame, what: str = "chips") -> Ground:
    """How the chips of a side lie to those of another.

    Args:
        one: Rows of a chip index.
        other: Likewise; distances are those from each of these to the nearest of ``one``.
        what: What the rows are, in words.
    """
    if not len(one) or not len(other):
        return Ground(unknown="one side has no chips", what=what)
    here, there = footprints(one), footprints(other)
    lost = int((~here.known).sum() + (~there.known).sum())
    if lost:
        local = (one["crs"] == LOCAL_CRS).any() or (other["crs"] == LOCAL_CRS).any()
        why = "chips have no CRS" if local else "the CRS does not say where on the Earth chips lie"
        return Ground(unknown=f"not known, because {why} ({lost} of {len(one) + len(other)})", what=what)
    pairs = _pairs(one, other, here, there)
    sharing, touching = pairs["km2"] > 0, pairs["touch"]
    apart, partner = nearest(there, here)
    apart[np.unique(pairs["other"][sharing | touching])] = 0.0
    closest = int(apart.argmin())
    order = np.argsort(-pairs["share"], kind="stable")[: min(WORST, int(sharing.sum()))]
    names = one.index.astype(str), other.index.astype(str)
    return Ground(
        what=what,
        sharing=int(sharing.sum()),
        shared_km2=float(pairs["km2"].sum()),
        adjacent=int(touching.sum()),
        touching=len(np.unique(pairs["other"][sharing | touching])),
        nearest_m={name: float(np.quantile(apart, at)) for name, at in QUANTILES.items()},
        nearest_pair=(names[0][partner[closest]], names[1][closest]),
        worst=tuple(
            SharedGround(
                one=names[0][pairs["one"][pair]], other=names[1][pairs["other"][pair]],
                km2=float(pairs["km2"][pair]), share=float(pairs["share"][pair]),
            )
            for pair in order
        ),
    )  # fmt: skip


def _pairs(one: pd.DataFrame, other: pd.DataFrame, here: Footprints, there: Footprints) -> dict[str, NDArray]:
    """Pairs that share ground or touch: numbers of both, square kilometres, share of the smaller one, and touching."""
    chip, partner, _ = near(here, there, 2 * TOUCHING * float(max(here.radius.max(), there.radius.max())))
    area, touch = np.zeros(len(chip)), np.zeros(len(chip), dtype=bool)
    smaller = np.ones(len(chip))
    crs = one["crs"].to_numpy(dtype=object)[chip]
    same = crs == other["crs"].to_numpy(dtype=object)[partner]
    boxes = one[BOX].to_numpy(dtype=float)[chip], other[BOX].to_numpy(dtype=float)[partner]
    for start in range(0, len(chip), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        first, second = here[chip[part]], there[partner[part]]
        flat = polygons(first, second)
        smaller[part] = np.minimum(*map(shapely.area, flat))
        crossed = shapely.intersects(*polygons(shrunk(first), shrunk(second)))
        area[part] = np.where(crossed, shapely.area(shapely.intersection(*flat)), 0.0)
        touch[part] = shapely.distance(*flat) <= TOUCHING * (first.radius + second.radius)
    # The boxes of one CRS say exactly who shares ground; what is straight there need not be so on a plane.
    for name in set(crs[same]):
        those = np.flatnonzero(same & (crs == name))
        shared, size = _shared(boxes[0][those], boxes[1][those], full_turn(name))
        real = (shared > ROUNDING * size).all(axis=1)
        part_of = np.where(real, np.prod(shared / size, axis=1), 0.0)
        area[those] = part_of * smaller[those]
        touch[those] = (shared >= -TOUCHING * size).all(axis=1)
    kept = (area > 0) | touch
    touch &= area == 0
    return {
        "one": chip[kept], "other": partner[kept], "km2": area[kept] / 1e6,
        "share": (area / smaller)[kept], "touch": touch[kept],
    }  # fmt: skip


def _shared(boxes: Floats, others: Floats, turn: float) -> tuple[Floats, Floats]:
    """Width and height (N, 2) of what boxes of one CRS share, negative where they do not; and of the smaller box."""
    moved = others.copy()
    if turn:
        moved[:, [0, 2]] += turn * np.round((boxes[:, :1] - others[:, :1]) / turn)
    shared = np.minimum(boxes[:, 2:], moved[:, 2:]) - np.maximum(boxes[:, :2], moved[:, :2])
    return shared, np.minimum(boxes[:, 2:] - boxes[:, :2], moved[:, 2:] - moved[:, :2])


def nearest(chips: Footprints, others: Footprints) -> tuple[Floats, NDArray[np.int64]]:
    """Metres along the Earth (N,) from each chip to the nearest of others, and the number of that one."""
    from scipy.spatial import cKDTree

    tree = cKDTree(others.middle)
    _, partner = tree.query(chips.middle)
    best = _apart(chips, others[partner])
    # Only those whose middles are near enough can come nearer than what is found already.
    reach = best + chips.radius + others.radius.max()
    for start in range(0, len(chips), 256):
        part = np.arange(start, min(start + 256, len(chips)))
        found = tree.query_ball_point(chips.middle[part], reach[part], return_sorted=True)
        chip = np.repeat(part, [len(partners) for partners in found])
        able = np.fromiter(chain.from_iterable(found), dtype=np.int64, count=len(chip))
        least = np.linalg.norm(chips.middle[chip] - others.middle[able], axis=1)
        nearer = least - chips.radius[chip] - others.radius[able] < best[chip]
        chip, able = chip[nearer], able[nearer]
        apart = _apart(chips[chip], others[able])
        for number in np.argsort(-apart, kind="stable"):  # the nearest comes last, and stays
            if apart[number] < best[chip[number]]:
                best[chip[number]], partner[chip[number]] = apart[number], able[number]
    return 2 * EARTH * np.arcsin(np.minimum(1.0, best / (2 * EARTH))), partner


def _apart(chips: Footprints, others: Footprints) -> Floats:
    apart = np.concatenate([
        shapely.distance(*polygons(chips[part], others[part]))
        for start in range(0, len(chips), AT_ONCE)
        if len(part := np.arange(start, min(start + AT_ONCE, len(chips))))
    ] or [np.zeros(0)])  # fmt: skip
    return np.where(apart <= TOUCHING * (chips.radius + others.radius), 0.0, apart)


def shared_faults(ground: Ground, sides: str) -> list[str]:
    """What is wrong with two sides that must not share ground: a line, or nothing; ``sides`` are their names."""
    if not ground.sharing:
        return []
    worst = ground.worst[0]
    return [
        f"{sides} share ground: {ground.sharing} pairs of {ground.what}, {ground.shared_km2:.6g} km2, "
        f"{worst.one} and {worst.other} most"
    ]
