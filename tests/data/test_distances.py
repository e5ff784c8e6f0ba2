"""How far apart chips are on the Earth: against geodesics between many points of their outlines."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import rasterio
from pyproj import Transformer
from test_ground import COMPOUND, ENGINEERING, SURVEY_FOOT, UTM_IN_FEET, WGS84, around, grid, warped

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.distances import distance, distances_note, footprints, in_words
from spectral_tl_bench.data.index import LOCAL_CRS, ChipIndex, build_index
from spectral_tl_bench.data.splits import make_split


def between(one: pd.DataFrame, other: pd.DataFrame) -> float:
    return distance(footprints(one), footprints(other))


def points_of(frame: pd.DataFrame, per_side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of many points on the sides of all chips, by pyproj alone."""
    along, lon, lat = np.linspace(0, 1, per_side), [], []
    for row in frame.itertuples():
        x, y = row.xmin + along * (row.xmax - row.xmin), row.ymin + along * (row.ymax - row.ymin)
        sides = [(x, 0 * y + row.ymin), (x, 0 * y + row.ymax), (0 * x + row.xmin, y), (0 * x + row.xmax, y)]
        to = Transformer.from_crs(row.crs, "EPSG:4326", always_xy=True)
        for part in (to.transform(*side) for side in sides):
            lon.append(part[0])
            lat.append(part[1])
    return np.concatenate(lon), np.concatenate(lat)


def by_points(one: pd.DataFrame, other: pd.DataFrame) -> float:
    (lon, lat), (lon2, lat2) = points_of(one), points_of(other)
    first, second = (axis.ravel() for axis in np.meshgrid(np.arange(len(lon)), np.arange(len(lon2))))
    return float(WGS84.inv(lon[first], lat[first], lon2[second], lat2[second])[2].min())


PAIRS = {
    "one zone": (grid((500_000.0, 5_000_000.0), 2, 2), grid((503_000.0, 5_001_000.0), 2, 2)),
    "two zones": (grid((700_000.0, 5_000_000.0), 2, 2), grid((300_000.0, 5_000_000.0), 2, 2, crs="EPSG:32634")),
    "feet and metres": (
        warped(grid((500_000.0, 5_000_000.0), 2, 2), UTM_IN_FEET),
        grid((502_000.0, 5_000_000.0), 2, 2),
    ),
    "state plane and degrees": (
        grid((1_000_000.0, 200_000.0), 2, 2, side=1_000.0, step=1_200.0, crs="EPSG:2263"),
        around(-73.9, 40.5),
    ),
    "degrees at 60 N": (around(10.0, 60.0), around(10.3, 60.1)),
    "across the antimeridian": (around(179.9, -17.0), around(-179.9, -17.0)),
    "across the equator": (around(20.0, -0.05), around(20.1, 0.05)),
    "north and south": (grid((500_000.0, 6_700_000.0), 2, 2), grid((500_000.0, 6_200_000.0), 2, 2, crs="EPSG:32733")),
    "near a pole": (around(0.0, 89.5), around(180.0, 89.5)),
    "web mercator": (
        grid((2_226_000.0, 8_400_000.0), 2, 2, crs="EPSG:3857"),
        grid((2_230_000.0, 8_410_000.0), 2, 2, crs="EPSG:3857"),
    ),
    "northing first and compound": (
        grid((300_000.0, 400_000.0), 2, 2, crs="EPSG:2180"),
        grid((800_000.0, 5_600_000.0), 2, 2, crs=COMPOUND),
    ),
    "large chips": (
        grid((300_000.0, 6_000_000.0), 1, 1, side=100_000.0),
        grid((450_000.0, 6_130_000.0), 1, 1, side=100_000.0),
    ),
    "other side of the Earth": (around(10.0, 20.0), around(-160.0, -30.0)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_distances_are_geodesics_between_the_nearest_footprints(name):
    one, other = PAIRS[name]
    found, true = between(one, other), by_points(one, other)
    assert found == pytest.approx(true, rel=0.004, abs=2.0)
    assert between(other, one) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_of_many_is_found(seed):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(2):
        corners = rng.uniform((400_000, 4_900_000), (600_000, 5_100_000), (60, 2))
        parts = [
            grid(tuple(corner), 1, 1, side=float(rng.uniform(100, 3_000)), seed=n) for n, corner in enumerate(corners)
        ]
        frames.append(pd.concat(parts))
    one, other = (frame[["xmin", "ymin", "xmax", "ymax"]].to_numpy() for frame in frames)
    apart = np.maximum(0, np.maximum(one[:, None, :2] - other[None, :, 2:], other[None, :, :2] - one[:, None, 2:]))
    assert between(*frames) == pytest.approx(float(np.hypot(*np.moveaxis(apart, 2, 0)).min()), rel=0.002, abs=0.5)


def test_chips_corner_to_corner_are_found_to_the_last_bit():
    rng = np.random.default_rng(0)
    for number in range(300):
        x, y, away = rng.uniform(300_000, 700_000), rng.uniform(1e6, 9e6), rng.uniform(10, 1e5)
        one, other = grid((x, y), 1, 1), grid((x + 480 + away, y + 480 + away), 1, 1)
        assert between(one, other) == pytest.approx(away * np.sqrt(2), rel=0.004), number


@pytest.mark.parametrize("crs", ["EPSG:32633", UTM_IN_FEET, "EPSG:4326", "EPSG:3857", COMPOUND])
def test_chips_that_touch_or_overlap_are_0_m_apart_and_others_are_not(crs):
    here = warped(grid((500_000.0, 5_000_000.0), 3, 3, side=480.0, step=480.0), crs)
    for shift, zero in ((1_440.0, True), (1_200.0, True), (0.0, True), (1_445.0, False)):
        there = warped(grid((500_000.0 + shift, 5_000_000.0), 3, 3, side=480.0, step=480.0), crs)
        found = between(here, there)
        assert (found == 0) == zero and found == pytest.approx(max(0.0, shift - 1_440.0), abs=0.2)


def test_neighbours_in_degrees_that_are_set_off_touch():
    here, there = around(10.0, 60.0, side=0.05), around(10.15, 60.02, side=0.05)
    assert between(here, there) == 0.0


def test_ten_thousand_chips_on_each_side_take_no_time():
    one = footprints(grid((500_000.0, 5_000_000.0), 100, 100, side=480.0, step=480.0))
    for gap in (0.0, 480.0, 20_000.0):
        other = footprints(grid((548_000.0 + gap, 5_000_000.0), 100, 100, side=480.0, step=480.0))
        started = time.monotonic()
        assert distance(one, other) == pytest.approx(gap, rel=1e-3)
        assert time.monotonic() - started < 5, "it takes a tenth of a second on a desk"


# ------------------------------------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("metres", "words"),
    [
        (0.0, "0 m apart (they touch or share ground)"), (0.3, "1 m apart"), (9.6, "10 m apart"),
        (480.0, "480 m apart"), (999.4, "999 m apart"), (999.6, "1.0 km apart"), (20_004.0, "20.0 km apart"),
        (1_234_567.0, "1,234.6 km apart"),
    ],
)  # fmt: skip
def test_distances_are_in_metres_below_a_kilometre(metres, words):
    assert in_words(metres) == words


def roles(**frames: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.concat(frames.values())
    return frame, pd.Series([role for role, part in frames.items() for _ in range(len(part))], index=frame.index)


def three(**changes: str) -> tuple[pd.DataFrame, pd.Series]:
    """Training, validation and target 10 and 20 km apart."""
    parts = {
        "train": grid((500_000.0, 5_000_000.0), 1, 1, seed=1),
        "validation": grid((510_480.0, 5_000_000.0), 1, 1, seed=2),
        "target": grid((500_000.0, 5_020_480.0), 1, 1, seed=3),
    }
    return roles(**{role: part.assign(crs=changes.get(role, part["crs"].iloc[0])) for role, part in parts.items()})


def test_the_line_says_both_distances():
    assert distances_note(*three()) == (
        "distances between the nearest chips: training and validation 10.0 km apart; training and target 20.0 km apart"
    )


@pytest.mark.parametrize(
    ("crs", "reason"),
    [
        (LOCAL_CRS, "chips have no CRS"),
        (ENGINEERING, "the CRS does not say where on the Earth chips lie"),
        ("IAU_2015:49900", "the CRS does not say where on the Earth chips lie"),
        ("not a CRS", "the CRS does not say where on the Earth chips lie"),
    ],
)
def test_what_is_not_known_is_said_with_the_reason(crs, reason):
    line = distances_note(*three(target=crs))
    assert (
        "training and validation 10.0 km apart" in line and f"training and target not known, because {reason}" in line
    )
    line = distances_note(*three(train=crs))
    assert line.count(f"not known, because {reason}") == 2 and "apart" not in line


def test_chips_left_out_between_are_for_nothing():
    frame, role = three()
    nearer = grid((500_600.0, 5_000_000.0), 1, 1, seed=9)
    with_buffer = pd.concat([frame, nearer]), pd.concat([role, pd.Series(["buffer"], index=nearer.index)])
    assert distances_note(*with_buffer) == distances_note(frame, role)


def test_the_order_of_roles_and_chips_does_not_matter():
    frame, role = three()
    assert distances_note(frame.iloc[::-1], role) == distances_note(frame, role.sample(frac=1, random_state=3))


# ------------------------------------------------------------------------------------------- in a division


def benchmark(**changes: object):
    base = builtin_benchmarks()["mts12-n2s"].model_dump()
    base |= {"id": "cut", "domains": [{"id": "east"}, {"id": "west"}], "source": ["east"], "target": ["west"]}
    base["split"] = {"block": 2_000.0, "validation": 0.3}
    return type(builtin_benchmarks()["mts12-n2s"]).model_validate({**base, **changes})


def test_a_division_says_how_far_apart_its_parts_are():
    places = [grid((500_000.0 + 30_000 * n, 5_000_000.0), 2, 2, seed=n) for n in range(4)]
    west = grid((500_000.0, 5_050_000.0), 2, 2, domain="west", seed=9)
    for crs in ("EPSG:32633", "EPSG:4326", UTM_IN_FEET):
        frame = pd.concat([part if crs == "EPSG:32633" else warped(part, crs) for part in (*places, west)])
        split = make_split(benchmark(), ChipIndex(None, frame, {}, ()), 0)  # type: ignore[arg-type]
        assert split.notes[-1] == split.distances
        assert "training and validation 28.9 km apart" in split.distances
        train = frame.loc[split.chips("train")]
        for name in ("validation", "target"):
            apart = between(train, frame.loc[split.chips(name)])
            assert f"training and {name} {in_words(apart)}" in split.distances


def test_an_in_domain_reference_says_it_too():
    frame = grid((500_000.0, 5_000_000.0), 14, 14, side=480.0, step=480.0)
    inside = benchmark(gap="none", target=["east"], split={"block": 500.0, "validation": 0.15, "test": 0.3})
    split = make_split(inside, ChipIndex(None, frame, {}, ()), 0)  # type: ignore[arg-type]
    assert split.distances.count("m apart") == 2


def test_seasons_on_the_same_ground_are_0_m_apart():
    east = pd.concat([grid((500_000.0 + 30_000 * n, 5_000_000.0), 2, 2, seed=n) for n in range(4)])
    west = east.assign(domain="west").rename(index=lambda name: f"w{name}")
    split = make_split(benchmark(), ChipIndex(None, pd.concat([east, west]), {}, ()), 0)  # type: ignore[arg-type]
    assert "training and target 0 m apart (they touch or share ground)" in split.distances


def test_chips_without_crs_have_no_known_distance(own_without_crs):
    definition = own_without_crs.benchmark()
    split = make_split(definition, build_index(definition, own_without_crs.root), 0)
    assert split.distances.count("not known, because chips have no CRS") == 2


def test_a_survey_foot_is_not_a_foot():
    assert rasterio.crs.CRS.from_epsg(2263).linear_units_factor[1] == pytest.approx(SURVEY_FOOT, rel=1e-12)
    one, other = (grid((900_000.0 + x, 200_000.0), 1, 1, side=1_000.0, crs="EPSG:2263") for x in (0.0, 1_001_000.0))
    assert between(one, other) == pytest.approx(1e6 * SURVEY_FOOT, rel=3e-3)
