"""How far apart chips lie on the Earth, and which of them share ground, whatever their CRSs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from spectral_tl_bench.data.ground import BOX, EARTH, Floats, Ints, degrees, horizontal, outline
from spectral_tl_bench.data.placement import LOCAL_CRS

SEMI_MAJOR, ECCENTRICITY_SQUARED = 6_378_137.0, 0.00669437999014
"""Of WGS 84; metres."""
TOUCHING = 1e-4
"""Footprints that come this near, as a share of their size, touch: their sides are not straight in every CRS."""
ROUNDING = 1e-6
"""Footprints that overlap by less, as a share of their size, do not share ground."""
CLOSEST, AT_ONCE = 64, 10_000


@dataclass(frozen=True)
class Footprints:
    """Outlines of chips on the Earth.

    Attributes:
        points: (N, 8, 3) Earth-centred, in metres; NaN where the chip's position on the Earth is not known.
    """

    points: Floats

    @functools.cached_property
    def middle(self) -> Floats:
        """(N, 3)."""
        return self.points.mean(axis=1)

    @functools.cached_property
    def radius(self) -> Floats:
        """(N,) From the middle to the farthest corner, and a hair more: nothing is farther, rounded or not."""
        return (1 + ROUNDING) * np.linalg.norm(self.points - self.middle[:, None], axis=2).max(axis=1, initial=0.0)

    def __getitem__(self, chips: Ints | NDArray[np.bool_]) -> Footprints:
        return Footprints(self.points[chips])

    def __len__(self) -> int:
        return len(self.points)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) Whether the position is known."""
        return np.isfinite(self.middle[:, 0])


def footprints(frame: pd.DataFrame) -> Footprints:
    """The footprints of chips, from rows of a chip index."""
    import pyproj

    points, box = np.full((len(frame), 8, 3), np.nan), frame[BOX].to_numpy(dtype=float)
    for crs in frame["crs"].unique():
        chips, found = np.flatnonzero(frame["crs"] == crs), horizontal(crs)
        if found is None:
            continue
        try:
            lon, lat = degrees(found, outline(box[chips]), "EPSG:4326")
        except pyproj.exceptions.ProjError:  # another body than the Earth
            continue
        there = np.isfinite(lon).all(axis=1)
        points[chips[there]] = _earth_centred(lon[there], lat[there])
    return Footprints(points)


def _earth_centred(lon: Floats, lat: Floats) -> Floats:
    lon, lat = np.radians(lon), np.radians(lat)
    normal = SEMI_MAJOR / np.sqrt(1 - ECCENTRICITY_SQUARED * np.sin(lat) ** 2)
    flat = normal * np.cos(lat)
    return np.stack([flat * np.cos(lon), flat * np.sin(lon), (1 - ECCENTRICITY_SQUARED) * normal * np.sin(lat)], -1)


def polygons(one: Footprints, other: Footprints) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Each pair of footprints on a plane along the line between their middles, level where it is halfway."""
    halfway, along = (one.middle + other.middle) / 2, other.middle - one.middle
    up = _unit(halfway)
    same = ~along.any(axis=1)
    along[same] = np.cross(up[same], np.eye(3)[np.abs(up[same]).argmin(axis=1)])
    along = _unit(along)
    plane = np.stack([along, _unit(np.cross(up, along))], axis=1)
    flat = [np.einsum("npx,nax->npa", part.points - halfway[:, None], plane) for part in (one, other)]
    return shapely.polygons(flat[0]), shapely.polygons(flat[1])


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def near(one: Footprints, other: Footprints, apart: float) -> tuple[Ints, Ints, Floats]:
    """Pairs that may be no more than ``apart`` metres from each other, with the least that their distance can be."""
    from scipy.spatial import cKDTree

    reach = apart + one.radius + other.radius.max(initial=0.0)
    found = cKDTree(other.middle).query_ball_point(one.middle, reach)
    counts = np.array([len(partners) for partners in found], dtype=np.int64)
    chip = np.repeat(np.arange(len(one)), counts)
    partner = np.fromiter(chain.from_iterable(found), dtype=np.int64, count=int(counts.sum()))
    least = np.linalg.norm(one.middle[chip] - other.middle[partner], axis=1) - one.radius[chip] - other.radius[partner]
    kept = least <= apart
    return chip[kept], partner[kept], least[kept]


def distance(one: Footprints, other: Footprints) -> float:
    """Metres along the Earth between the nearest chips of two groups; 0 where any touch or share ground.

    Chips whose position is not known are not for this.
    """
    from scipy.spatial import cKDTree

    apart, nearest = cKDTree(other.middle).query(one.middle)
    first = np.argsort(apart, kind="stable")[:CLOSEST]
    best = _least(one[first], other[nearest[first]])
    if best > 0:
        # Only chips whose middles are near enough can come nearer than what is found already.
        able = np.flatnonzero(apart <= best + one.radius + other.radius.max())
        chip, partner, least = near(one[able], other, best)
        order = np.argsort(least, kind="stable")
        for start in range(0, len(order), AT_ONCE):
            pairs = order[start : start + AT_ONCE]
            if least[pairs[0]] >= best:
                break
            best = min(best, _least(one[able[chip[pairs]]], other[partner[pairs]]))
    return float(2 * EARTH * np.arcsin(min(1.0, best / (2 * EARTH))))


def _least(one: Footprints, other: Footprints) -> float:
    apart = shapely.distance(*polygons(one, other))
    return float(np.where(apart <= TOUCHING * (one.radius + other.radius), 0.0, apart).min())


def shared_across(frame: pd.DataFrame) -> Ints:
    """Pairs (2, P) of chips of different CRSs that share ground, each pair in both orders.

    Args:
        frame: Rows of a chip index. Of chips whose position is not known there are no pairs.
    """
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    if frame["crs"].nunique() == 1:
        return pairs[0]
    everywhere = footprints(frame)
    groups = [np.flatnonzero((frame["crs"] == crs) & everywhere.known) for crs in frame["crs"].unique()]
    for number, here in enumerate(groups):
        for there in groups[:number]:
            if not len(here) or not len(there):
                continue
            chip, partner, _ = near(everywhere[here], everywhere[there], 0.0)
            chip, partner = here[chip], there[partner]
            real = shapely.intersects(*polygons(shrunk(everywhere[chip]), shrunk(everywhere[partner])))
            pairs += [np.stack([chip[real], partner[real]]), np.stack([partner[real], chip[real]])]
    return np.concatenate(pairs, axis=1)


def shrunk(chips: Footprints) -> Footprints:
    """Footprints, smaller by what rounding makes of a length: those of neighbours do not share ground."""
    return Footprints(chips.middle[:, None] + (1 - ROUNDING) * (chips.points - chips.middle[:, None]))


def distances_note(frame: pd.DataFrame, role: pd.Series) -> str:
    """One line on how far validation and target are from training.

    Args:
        frame: Rows of a chip index.
        role: Role by chip name, of all chips of the frame.
    """
    everywhere, roles = footprints(frame), role.reindex(frame.index).to_numpy()
    train, parts = roles == "train", {}
    for name in ("validation", "target"):
        chosen = roles == name
        if not (everywhere.known[train].all() and everywhere.known[chosen].all()):
            local = (frame["crs"][train | chosen] == LOCAL_CRS).any()
            parts[name] = "not known, because " + (
                "chips have no CRS" if local else "the CRS does not say where on the Earth chips lie"
            )
        elif chosen.any():
            parts[name] = in_words(distance(everywhere[train], everywhere[chosen]))
    return "distances between the nearest chips: " + "; ".join(
        f"training and {name} {words}" for name, words in parts.items()
    )


def in_words(metres: float) -> str:
    """A distance to be read, in metres below a kilometre."""
    if metres == 0:
        return "0 m apart (they touch or share ground)"
    return f"{max(1, round(metres))} m apart" if metres < 999.5 else f"{metres / 1000:,.1f} km apart"
