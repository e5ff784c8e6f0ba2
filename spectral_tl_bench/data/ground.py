"""Chips in metres on the ground, whatever the units of their CRS.

A block of ground is a square of metres. Where the coordinates of a CRS are metres, they are taken as they are, and
where they are feet or kilometres, they are converted. Degrees, and projections that stretch the ground (web mercator
far from the equator), become the metres of the UTM zone in the middle of the chips that lie together.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.data.placement import LOCAL_CRS
from spectral_tl_bench.errors import DataError

SCALE_ERROR = 0.02
"""Up to this share, what a projection makes of a length is taken for the length: grids of continents stay below."""
CLUSTER_REACH = 4
"""Blocks this many steps apart belong to one cluster of chips."""
EARTH = 6_371_000.0
"""Radius in metres, where a sphere is near enough."""

BOX = ["xmin", "ymin", "xmax", "ymax"]
NORTH, SOUTH = 61, 62
"""Numbers of the two polar zones, after the sixty of UTM."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GroundBoxes:
    """Footprints in metres.

    Attributes:
        box: (N, 4) xmin, ymin, xmax, ymax. Chips without a CRS keep their places on the local grid.
        system: (N,) What these coordinates belong to; only those of one system can be compared.
    """

    box: Floats
    system: NDArray[np.object_]


def ground_boxes(frame: pd.DataFrame, block: float) -> GroundBoxes:
    """The footprints of chips in metres.

    Args:
        frame: Rows of a chip index.
        block: Side of a block in metres: chips of one domain that lie near each other by this measure get one system.

    Raises:
        DataError: If a CRS does not say where on the Earth the chips lie.
    """
    box, system = np.array(frame[BOX], dtype=float), np.array(frame["crs"], dtype=object)
    number, groups = pd.factorize(pd.MultiIndex.from_frame(frame[["crs", "domain"]]))
    for group, (crs, _) in enumerate(groups):
        if crs != LOCAL_CRS:
            chips = np.flatnonzero(number == group)
            box[chips], system[chips] = _in_metres(crs, box[chips], block)
    return GroundBoxes(box, system)


def blocks(frame: pd.DataFrame, block: float) -> dict[str, str]:
    """The name of the block of ground that each chip lies in, by chip; chips that lie nowhere on the Earth have none.

    Args:
        frame: Rows of a chip index.
        block: Side of a block in metres.
    """
    frame = frame[[horizontal(crs) is not None for crs in frame["crs"]]]
    if frame.empty:
        return {}
    ground = ground_boxes(frame, block)
    corner = (ground.box[:, :2] + ground.box[:, 2:]) / 2 // block
    places = zip(frame.index, frame["domain"], ground.system, corner, strict=True)
    return {chip: f"{domain}/{system}/{east:.0f}/{north:.0f}" for chip, domain, system, (east, north) in places}


@functools.cache
def horizontal(crs: str) -> Any:
    """The pyproj CRS of the plane or globe that x and y belong to; None where they have no place on the Earth.

    Args:
        crs: An authority's code or WKT, as in a chip index. Heights of compound CRSs and shifts of bound ones go.
    """
    import pyproj

    if crs == LOCAL_CRS:
        return None
    try:
        found = pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError:
        return None
    while found.is_bound or found.is_compound:
        found = found.source_crs if found.is_bound else found.sub_crs_list[0]
    return found if found.is_projected or found.is_geographic else None


def full_turn(crs: str) -> float:
    """How far apart in x two names of the same place are: 360 in degrees, 0 in a plane."""
    found = horizontal(crs)
    return 2 * np.pi / found.axis_info[0].unit_conversion_factor if found is not None and found.is_geographic else 0.0


def outline(box: Floats) -> Floats:
    """The corners of boxes and the middles of their sides (N, 8, 2), around from the lower left."""
    low, high = box[:, :2], box[:, 2:]
    steps = np.array([[0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [1, 2], [0, 2], [0, 1]]) / 2
    return low[:, None] * (1 - steps) + high[:, None] * steps


def _in_metres(crs: str, box: Floats, block: float) -> tuple[Floats, NDArray[np.object_]]:
    found = horizontal(crs)
    if found is None:
        raise DataError(
            f"the CRS of {len(box)} chips does not say where on the Earth they lie, so there are no blocks in metres",
            where=" ".join(crs.split())[:120],
            expected="a geographic or projected CRS",
            fix="give the images their CRS, or cut by the sites of a table: split.place: site",
        )
    lon, lat = degrees(found, outline(box))
    if not np.isfinite(lon).all():
        raise DataError(
            f"{int((~np.isfinite(lon)).any(axis=1).sum())} of {len(box)} chips lie where their CRS has no ground",
            where=" ".join(crs.split())[:120],
            fix="mend the geotransform or the CRS of the images",
        )
    if found.is_projected:
        unit = float(found.axis_info[0].unit_conversion_factor)
        if _true_to_scale(found.get_geod(), lon, lat, box * unit):
            return (box if unit == 1 else np.round(box * unit, 6)), np.full(len(box), crs, dtype=object)
    return _in_zones(crs, found.get_geod(), lon, lat, block)


def _in_zones(crs: str, ellipsoid: Any, lon: Floats, lat: Floats, block: float) -> tuple[Floats, NDArray[np.object_]]:
    """Boxes in the zone in the middle of the chips that lie together, or each in its own where that is too far off."""
    middle = on_sphere(lon, lat).mean(axis=1)
    group = connected(np.floor(middle / (2 * CLUSTER_REACH * block)).astype(np.int64), 1)
    sums = np.zeros((int(group.max()) + 1, 3))
    np.add.at(sums, group, middle)
    zone = _zone_at(sums)[group]
    metres = _zone_boxes(zone, ellipsoid, lon, lat)
    _, _, true = ellipsoid.inv(lon[:, 7], lat[:, 7], lon[:, 3], lat[:, 3])
    far = np.isin(group, group[~(np.abs(metres[:, 2] - metres[:, 0] - true) <= SCALE_ERROR * true)])
    if far.any():
        zone[far] = _zone_at(middle[far])
        metres[far] = _zone_boxes(zone[far], ellipsoid, lon[far], lat[far])
    return metres, np.array([f"{crs} in {_zone_name(number)}" for number in zone], dtype=object)


def degrees(found: Any, points: Floats, to: str | None = None) -> tuple[Floats, Floats]:
    """Longitude and latitude of points (..., 2) in a CRS; inf where there are none.

    Args:
        found: A pyproj CRS.
        points: x and y.
        to: A geographic CRS; by default one on the CRS's own datum, so that no shift between datums takes part.
    """
    lon, lat = _into_degrees(found, to).transform(points[..., 0], points[..., 1])
    none = ~(np.isfinite(lon) & (np.abs(lat) <= 90 + 1e-6))
    return np.where(none, np.inf, lon), np.where(none, np.inf, np.clip(lat, -90, 90))


@functools.cache
def _into_degrees(found: Any, to: str | None) -> Any:
    """The transformer of ``degrees``: making one takes longer than thousands of points."""
    import pyproj
    from pyproj.crs import GeographicCRS

    return pyproj.Transformer.from_crs(found, to or GeographicCRS(datum=found.datum), always_xy=True)


def _true_to_scale(ellipsoid: Any, lon: Floats, lat: Floats, box: Floats) -> bool:
    """Whether sides and diagonals of all chips are as long as their coordinates say."""
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    diagonal = np.hypot(width, height)
    for start, stop, said in ((7, 3, width), (1, 5, height), (0, 4, diagonal), (6, 2, diagonal)):
        _, _, true = ellipsoid.inv(lon[:, start], lat[:, start], lon[:, stop], lat[:, stop])
        if not (np.abs(said - true) <= SCALE_ERROR * true).all():
            return False
    return True


def on_sphere(lon: Floats, lat: Floats) -> Floats:
    """Points (..., 3) on a sphere of ``EARTH``, from degrees."""
    lon, lat = np.radians(lon), np.radians(lat)
    return EARTH * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _zone_at(sphere: Floats) -> Ints:
    """The number of the zone at points (N, 3)."""
    lon = np.degrees(np.arctan2(sphere[:, 1], sphere[:, 0]))
    lat = np.degrees(np.arctan2(sphere[:, 2], np.hypot(sphere[:, 0], sphere[:, 1])))
    zone = np.floor((lon + 180) / 6).astype(np.int64) % 60 + 1
    return np.where(lat > 84, NORTH, np.where(lat < -80, SOUTH, zone))


def _zone_name(number: int) -> str:
    return {NORTH: "UPS north", SOUTH: "UPS south"}.get(number, f"UTM {number}")


@functools.cache
def _into_zone(number: int, a: float, b: float) -> Any:
    """From degrees to the metres of a zone, by its definition: PROJ's ``utm`` refuses spheres."""
    import pyproj

    if number in (NORTH, SOUTH):
        zone = f"+proj=stere +lat_0={90 if number == NORTH else -90} +k_0=0.994 +x_0=2000000 +y_0=2000000"
    else:
        zone = f"+proj=tmerc +lon_0={6 * number - 183} +k_0=0.9996 +x_0=500000"
    return pyproj.Transformer.from_pipeline(
        f"+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step {zone} +a={a!r} +b={b!r}"
    )


def _zone_boxes(zone: Ints, ellipsoid: Any, lon: Floats, lat: Floats) -> Floats:
    """Outlines in degrees (N, 8) as boxes in their zones: as large as the chip, around its middle.

    A box around all of a chip that stands askew in the zone would be larger than the chip, and overlap its neighbours.
    """
    points = np.empty((*lon.shape, 2))
    for number in np.unique(zone):
        chips = zone == number
        into = _into_zone(int(number), ellipsoid.a, ellipsoid.b)
        points[chips] = np.stack(into.transform(lon[chips], lat[chips]), axis=-1)
    south, east, north, west = (points[:, side] for side in (1, 3, 5, 7))
    with np.errstate(invalid="ignore"):  # a zone at the other end of the Earth has no place for the chip
        middle = (south + east + north + west) / 4
        half = np.stack([np.hypot(*(east - west).T), np.hypot(*(north - south).T)], axis=1) / 2
        # To the millimetre: rounding on the way must not decide on which side of a block's edge a chip lies.
        return np.round(np.concatenate([middle - half, middle + half], axis=1), 3)


def connected(cell: Ints, steps: int) -> Ints:
    """Number the groups of cells that hang together, in the order in which they appear.

    Args:
        cell: (N, D) whole numbers.
        steps: How far apart, along every axis, cells may be that hang together.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    cells, inverse = np.unique(cell, axis=0, return_inverse=True)
    links = cKDTree(cells).query_pairs(steps, p=np.inf, output_type="ndarray")
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(cells), len(cells)))
    group = connected_components(graph, directed=False)[1][inverse.reshape(-1)]
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.reshape(-1)].astype(np.int64)
