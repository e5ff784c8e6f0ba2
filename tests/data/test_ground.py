"""Metres on the ground, whatever a CRS counts in: footprints, blocks, cuts, and the names of places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
from pyproj import Geod, Transformer
from tiny import make_request, run_main

from spectral_tl_bench.benchmarks import Split, builtin_benchmarks
from spectral_tl_bench.data.distances import shared_across
from spectral_tl_bench.data.ground import BOX, connected, ground_boxes
from spectral_tl_bench.data.index import LOCAL_CRS, ChipIndex, build_index
from spectral_tl_bench.data.loaders import BandStatistics, EvaluationData, LoaderSettings
from spectral_tl_bench.data.splits import cut, make_split
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.runner.run import plan

FOOT, SURVEY_FOOT = 0.3048, 1200 / 3937
WGS84 = Geod(ellps="WGS84")
COMPOUND = rasterio.crs.CRS.from_user_input("EPSG:32633+5773").to_wkt()
OWN_TM = rasterio.crs.CRS.from_string("+proj=tmerc +lat_0=0 +lon_0=15 +k=0.9999 +x_0=300000 +ellps=GRS80").to_wkt()
UTM_IN_FEET = rasterio.crs.CRS.from_string("+proj=utm +zone=33 +datum=WGS84 +units=ft").to_wkt()
OWN_DEGREES = rasterio.crs.CRS.from_string("+proj=longlat +a=6378000 +b=6356000").to_wkt()
ENGINEERING = 'LOCAL_CS["my field",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


def grid(
    corner: tuple[float, float], columns: int = 3, rows: int = 3, *, side: float = 480.0, step: float = 600.0,
    crs: str = "EPSG:32633", domain: str = "east", seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Rows of an index: squares on a grid in a CRS, each with some of five classes."""
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(columns), np.arange(rows)))
    x, y = corner[0] + column * step, corner[1] + row * step
    frame = pd.DataFrame(
        {"domain": domain, "site": "", "crs": crs, "xmin": x, "ymin": y, "xmax": x + side, "ymax": y + side}
    )
    frame["class_counts"] = np.random.default_rng(seed).integers(0, 3, (len(x), 5)).tolist()
    frame.index = pd.Index([f"{domain}-{seed}-{number:03}" for number in range(len(x))], name="chip")
    return frame


def warped(frame: pd.DataFrame, crs: str) -> pd.DataFrame:
    """The same chips in another CRS: as wide and as high as lines through their middle."""
    to = Transformer.from_crs(frame["crs"].iloc[0], crs, always_xy=True)
    x, y = (
        frame[low].to_numpy() / 2 + frame[high].to_numpy() / 2 for low, high in (("xmin", "xmax"), ("ymin", "ymax"))
    )
    (west, _), (east, _) = to.transform(frame["xmin"].to_numpy(), y), to.transform(frame["xmax"].to_numpy(), y)
    (_, south), (_, north) = to.transform(x, frame["ymin"].to_numpy()), to.transform(x, frame["ymax"].to_numpy())
    return frame.assign(crs=crs, xmin=west, ymin=south, xmax=east, ymax=north)


def around(lon: float, lat: float, side: float = 0.005, **options: object) -> pd.DataFrame:
    """Squares in degrees that touch, around a place."""
    return grid((lon - 1.5 * side, lat - 1.5 * side), side=side, step=side, crs="EPSG:4326", **options)  # type: ignore[arg-type]


def towns(crs: str, east: float = 480_000.0, north: float = 5_000_000.0, count: int = 3) -> pd.DataFrame:
    """Towns of 16 chips, 30 km apart."""
    return pd.concat([grid((east, north + 30_000 * n), 4, 4, crs=crs, seed=n) for n in range(count)])


def cuts(frame: pd.DataFrame, block: float = 1_300.0) -> list[list[list[str]]]:
    split = Split(block=block)
    masks = [cut(frame, split, 0.25, seed) for seed in range(2)]
    return [[list(frame.index[mask]) for mask in pair] for pair in masks]


# ------------------------------------------------------------------------------------------- footprints in metres

METRES = {
    "UTM north": ("EPSG:32633", (412_345.678, 5_000_000.1)),
    "UTM south": ("EPSG:32719", (500_000.0, 6_300_000.0)),
    "UTM far from the middle": ("EPSG:32633", (1_000_000.0, 1_000.0)),
    "Finland": ("EPSG:3067", (400_000.0, 6_700_000.0)),
    "Poland, northing first": ("EPSG:2180", (500_000.0, 400_000.0)),
    "Germany, northing first": ("EPSG:31468", (4_468_000.0, 5_334_000.0)),
    "Europe, northing first": ("EPSG:3035", (4_000_000.0, 2_800_000.0)),
    "North America": ("EPSG:5070", (-2_000_000.0, 2_900_000.0)),
    "compound": (COMPOUND, (500_000.0, 5_000_000.0)),
    "WKT of one's own": (OWN_TM, (300_000.0, 5_000_000.0)),
    "the local grid": (LOCAL_CRS, (0.0, 0.0)),
    "web mercator at the equator": ("EPSG:3857", (1_000_000.0, 0.0)),
}


@pytest.mark.parametrize("name", METRES)
def test_metres_are_taken_as_they_are(name):
    crs, corner = METRES[name]
    frame = grid(corner, crs=crs)
    ground = ground_boxes(frame, 5_120.0)
    np.testing.assert_array_equal(ground.box, frame[BOX])
    assert set(ground.system) == {crs}


@pytest.mark.parametrize(
    ("crs", "unit", "corner"),
    [
        ("EPSG:2263", SURVEY_FOOT, (900_000.0, 200_000.0)),
        ("EPSG:2222", FOOT, (700_000.0, 1_000_000.0)),
        (UTM_IN_FEET, FOOT, (1_640_000.0, 16_400_000.0)),
        (rasterio.crs.CRS.from_string("+proj=utm +zone=33 +units=km").to_wkt(), 1_000.0, (500.0, 5_000.0)),
    ],
    ids=["survey feet", "feet", "WKT in feet", "kilometres"],
)
def test_other_lengths_are_converted_and_nothing_else(crs, unit, corner):
    frame = grid(corner, side=480 / unit, step=480 / unit, crs=crs)
    ground = ground_boxes(frame, 5_120.0)
    np.testing.assert_allclose(ground.box, frame[BOX] * unit, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ground.box[:, 2] - ground.box[:, 0], 480.0, atol=1e-5)
    assert set(ground.system) == {crs}


PLACES = [
    (0.0, 0.0), (15.2, 47.0), (10.0, 60.0), (6.0, 50.0), (18.4, -33.9), (-70.0, -53.0), (179.999, -17.0),
    (-180.0, 65.0), (200.0, 52.0), (25.0, 78.0), (12.0, 84.5), (0.0, 89.9), (140.0, -89.0),
]  # fmt: skip


@pytest.mark.parametrize(("lon", "lat"), PLACES)
def test_degrees_become_metres_wherever_they_are(lon, lat):
    frame = around(lon, lat)
    ground = ground_boxes(frame, 5_120.0)
    assert len(set(ground.system)) == 1, "chips of one place are in one system, across zones and the equator too"
    x, y = frame[["xmin", "xmax"]].mean(axis=1).to_numpy(), frame[["ymin", "ymax"]].mean(axis=1).to_numpy()
    xmin, ymin, xmax, ymax = frame[BOX].to_numpy().T
    np.testing.assert_allclose(ground.box[:, 2] - ground.box[:, 0], WGS84.inv(xmin, y, xmax, y)[2], rtol=0.008)
    np.testing.assert_allclose(ground.box[:, 3] - ground.box[:, 1], WGS84.inv(x, ymin, x, ymax)[2], rtol=0.008)
    middle = (ground.box[:, :2] + ground.box[:, 2:]) / 2
    first = np.zeros(len(x), dtype=int)
    true = WGS84.inv(x[first], y[first], x, y)[2]
    np.testing.assert_allclose(np.hypot(*(middle - middle[first]).T), true, rtol=0.008, atol=0.01)


@pytest.mark.parametrize("lat", [30.0, 60.0, -45.0, 75.0])
def test_web_mercator_is_not_taken_for_the_ground(lat):
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(20.0, lat)
    frame = grid((x, y), crs="EPSG:3857", side=1_000.0, step=1_000.0)
    ground = ground_boxes(frame, 5_120.0)
    np.testing.assert_allclose(ground.box[:, 2] - ground.box[:, 0], 1_000 * np.cos(np.radians(lat)), rtol=0.01)
    assert set(ground.system) == {"EPSG:3857 in UTM 34"}


def test_the_projection_of_modis_is_sheared_and_made_upright():
    crs = rasterio.crs.CRS.from_string("+proj=sinu +lon_0=0 +R=6371007.181 +units=m").to_wkt()
    frame = grid((5_000_000.0, 5_500_000.0), crs=crs)
    ground = ground_boxes(frame, 5_120.0)
    assert all("in UTM" in system for system in ground.system)
    middle = (ground.box[:, :2] + ground.box[:, 2:]) / 2
    to = Transformer.from_crs(crs, pyproj.CRS.from_user_input(crs).geodetic_crs, always_xy=True)
    lon, lat = to.transform(frame[["xmin", "xmax"]].mean(axis=1), frame[["ymin", "ymax"]].mean(axis=1))
    _, _, true = Geod(a=6371007.181, b=6371007.181).inv(lon[0], lat[0], lon[8], lat[8])
    np.testing.assert_allclose(np.hypot(*(middle[8] - middle[0])), true, rtol=0.005)


def test_chips_all_over_a_continent_are_in_several_systems_and_islands_of_chips_in_one_each():
    belt = grid((-9.9, 50.0), 200, 1, side=0.2, step=0.2, crs="EPSG:4326")
    systems = set(ground_boxes(belt, 5_120.0).system)
    assert systems == {f"EPSG:4326 in UTM {zone}" for zone in range(29, 37)}
    islands = pd.concat([around(lon, 50.0, seed=number) for number, lon in enumerate((-0.001, 5.999, 90.001))])
    names = ground_boxes(islands, 5_120.0).system
    assert [len(set(names[start : start + 9])) for start in (0, 9, 18)] == [1, 1, 1] and len(set(names)) == 3


def test_degrees_on_a_datum_of_ones_own_need_no_shift():
    frame = around(15.2, 47.0).assign(crs=OWN_DEGREES)
    ground, usual = ground_boxes(frame, 5_120.0).box, ground_boxes(around(15.2, 47.0), 5_120.0).box
    assert 0 < np.abs(ground - usual).max() < 2_000, "another ellipsoid, and the same place"


@pytest.mark.parametrize("crs", [ENGINEERING, "EPSG:4978", "EPSG:5773", "not a CRS"])
def test_a_crs_without_a_place_on_the_earth_is_refused_in_a_clear_line(crs):
    with pytest.raises(DataError, match="does not say where on the Earth they lie") as caught:
        cut(grid((0.0, 0.0), crs=crs), Split(block=1_000.0), 0.2, 0)
    assert "split.place: site" in str(caught.value) and crs[:8] in str(caught.value)


@pytest.mark.parametrize(("crs", "corner"), [("EPSG:4326", (0.0, 91.0)), ("EPSG:4326", (500_000.0, 5_000_000.0))])
def test_chips_where_there_is_no_ground_are_refused(crs, corner):
    with pytest.raises(DataError, match="9 of 9 chips lie where their CRS has no ground"):
        ground_boxes(grid(corner, side=1.0, step=1.0, crs=crs), 1_000.0)


def test_groups_are_numbered_as_they_appear():
    cells = np.array([[90, 0], [0, 0], [91, 1], [4, 4], [50, 0], [8, 8], [90, 0]])
    assert connected(cells, 4).tolist() == [0, 1, 0, 1, 2, 1, 0]
    assert connected(cells, 3).tolist() == [0, 1, 0, 2, 3, 4, 0]


# ------------------------------------------------------------------------------------------- cuts

SAME = {
    "degrees": ("EPSG:4326", "EPSG:32633", 5_000_000.0),
    "degrees at 60 N": ("EPSG:4326", "EPSG:32633", 6_650_000.0),
    "degrees across the equator": ("EPSG:4326", "EPSG:32633", -40_000.0),
    "degrees beside the antimeridian": ("EPSG:4326", "EPSG:32660", 7_000_000.0),
    "degrees of another datum": ("EPSG:4258", "EPSG:25833", 5_000_000.0),
    "feet": (UTM_IN_FEET, "EPSG:32633", 5_000_000.0),
    "web mercator": ("EPSG:3857", "EPSG:32633", 5_000_000.0),
    "compound": (COMPOUND, "EPSG:32633", 5_000_000.0),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_ground_is_cut_alike_in_every_crs(name):
    crs, utm, north = SAME[name]
    plain = towns(utm, north=north)
    assert cuts(warped(plain, crs)) == cuts(plain)
    assert any(chosen for chosen, _ in cuts(plain))


def test_the_south_is_cut_alike_too():
    plain = towns("EPSG:32719", north=6_300_000.0)
    shifted = cuts(warped(plain, "EPSG:4326"), block=1_250.0)
    # One false northing for both halves of the Earth: it is a whole number of these blocks.
    assert shifted == cuts(plain, block=1_250.0)


def test_a_town_across_two_zones_is_one_cluster_with_a_buffer():
    frame = grid((5.95, 49.95), 20, 20, side=0.005, step=0.005, crs="EPSG:4326")
    chosen, dropped = cut(frame, Split(block=1_000.0), 0.2, 0)
    assert abs(chosen.mean() - 0.2) < 0.05 and dropped.any()
    box = ground_boxes(frame, 1_000.0).box
    train, validation = box[~chosen & ~dropped], box[chosen]
    apart = np.maximum(train[:, None, :2] - validation[None, :, 2:], validation[None, :, :2] - train[:, None, 2:])
    assert apart.max(axis=2).min() >= 1_000.0


def test_a_block_is_named_in_metres_where_chips_have_degrees():
    with pytest.raises(DataError, match="lie in one block of 50000 m"):
        cut(around(24.0, 60.2), Split(block=50_000.0), 0.2, 0)


# ------------------------------------------------------------------------------------------- ground that CRSs share


def overlap_zone() -> pd.DataFrame:
    """A town where two UTM zones meet, half of whose chips are in one and half in the other, on the same ground."""
    one = grid((700_000.0, 5_000_000.0), 6, 6, side=500.0, step=500.0, crs="EPSG:32633", seed=1)
    other = grid((700_200.0, 5_000_200.0), 6, 6, side=500.0, step=500.0, crs="EPSG:32633", seed=2)
    return pd.concat([one, warped(other, "EPSG:32634")])


def divided(frame: pd.DataFrame, train: np.ndarray, validation: np.ndarray) -> int:
    """Pairs of chips of the two sides whose middles are so near in degrees that they share ground."""
    middles = np.empty((len(frame), 2))
    for crs in frame["crs"].unique():
        here = (frame["crs"] == crs).to_numpy()
        part = frame[here]
        to = Transformer.from_crs(crs, "EPSG:32633", always_xy=True)
        middles[here] = np.stack(
            to.transform(part[["xmin", "xmax"]].mean(axis=1), part[["ymin", "ymax"]].mean(axis=1)), axis=1
        )
    return int((np.abs(middles[train][:, None] - middles[validation][None]).max(axis=2) < 450).sum())


@pytest.mark.parametrize("block", [300.0, 1_000.0])
def test_chips_of_two_zones_on_the_same_ground_are_never_divided(block, monkeypatch):
    frame = overlap_zone()

    def count(seed: int) -> int:
        chosen, dropped = cut(frame, Split(block=block), 0.25, seed)
        return divided(frame, ~chosen & ~dropped, chosen)

    assert [count(seed) for seed in range(4)] == [0] * 4
    monkeypatch.setattr("spectral_tl_bench.data.splits.shared_across", lambda _: np.zeros((2, 0), dtype=int))
    assert sum(count(seed) for seed in range(4)) > 0, "else this test would hold without looking across zones"


def test_pairs_across_crss_are_those_that_share_ground():
    frame = overlap_zone()
    chip, partner = shared_across(frame)
    found = set(zip(chip.tolist(), partner.tolist(), strict=True))
    assert found == {(other, one) for one, other in found}
    assert all(frame["crs"].iloc[one] != frame["crs"].iloc[other] for one, other in found)
    expected = set()
    for one in range(36):  # a chip of the first lies under four of the second
        column, row = one % 6, one // 6
        for down, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
            if column - left >= 0 and row - down >= 0:
                expected.add((one, 36 + 6 * (row - down) + column - left))
    assert {pair for pair in found if pair[0] < 36} == expected


def test_chips_that_only_touch_across_crss_share_no_ground():
    one = grid((500_000.0, 5_000_000.0), 1, 4, side=500.0, step=500.0)
    beside = grid((500_500.0, 5_000_000.0), 1, 4, side=500.0, step=500.0, crs=COMPOUND, seed=1)
    assert shared_across(pd.concat([one, beside])).shape == (2, 0)
    nearer = beside.assign(xmin=beside["xmin"] - 1.0)
    assert shared_across(pd.concat([one, nearer])).shape[1] == 2 * 4, "rows only touch"
    assert shared_across(pd.concat([one, beside.assign(crs=LOCAL_CRS)])).shape == (2, 0)


def test_chips_of_one_crs_are_left_to_their_own_boxes():
    assert shared_across(pd.concat([grid((500_000.0, 5_000_000.0)), grid((500_000.0, 5_000_000.0))])).shape == (2, 0)


def test_the_two_names_of_a_place_at_the_antimeridian_are_one_place():
    west = around(180.0, 10.0, seed=1)
    east = around(-180.0, 10.0, seed=2)
    frame = pd.concat([west, east, around(170.0, 10.0, seed=3)])
    for seed in range(4):
        chosen, dropped = cut(frame, Split(block=600.0), 0.3, seed)
        kept = ~chosen & ~dropped
        assert not (chosen[:9] & kept[9:18]).any() and not (chosen[9:18] & kept[:9]).any()


# ------------------------------------------------------------------------------------------- the names of places


def places(frame: pd.DataFrame, block: float = 2_000.0) -> list[str]:
    frame = frame.assign(image="image.tif", label="label.tif", height=48, width=48, band_count=[[1]] * len(frame),
                         band_sum=[[1.0]] * len(frame), band_square_sum=[[1.0]] * len(frame))  # fmt: skip
    benchmark = builtin_benchmarks()["mts12-n2s"].model_copy(update={"split": Split(block=block)})
    index = ChipIndex(Path(), frame, {}, ())
    names = list(frame.index)
    data = EvaluationData(benchmark, index, names, LoaderSettings(16, 8, 1), BandStatistics.of(index, names))
    return [data.site(name) for name in names]


def test_places_in_metres_are_named_as_ever():
    frame = pd.concat([grid((499_000.0, 4_999_000.0)), grid((400_000.0, 1.0), crs="EPSG:32634", seed=1)])
    east, north = ((frame[low] + frame[high]) / 2 // 2_000.0 for low, high in (("xmin", "xmax"), ("ymin", "ymax")))
    expected = [f"east/{crs}/{x:.0f}/{y:.0f}" for crs, x, y in zip(frame["crs"], east, north, strict=True)]
    assert places(frame) == expected and expected[0] == "east/EPSG:32633/249/2499"


def test_places_in_feet_and_degrees_are_blocks_of_metres():
    plain = towns("EPSG:32633", count=2)
    wanted = [name.split("/")[2:] for name in places(plain)]
    for crs, system in ((UTM_IN_FEET, UTM_IN_FEET), ("EPSG:4326", "EPSG:4326 in UTM 33")):
        found = places(warped(plain, crs))
        assert [name.split("/")[-2:] for name in found] == wanted
        assert all(name.startswith(f"east/{system}/") for name in found)


def test_places_that_are_not_known_are_each_chip_or_the_site_of_the_table():
    for crs in (LOCAL_CRS, ENGINEERING):
        frame = grid((0.0, 0.0), crs=crs)
        assert places(frame) == list(frame.index)
        assert places(frame.assign(site="there")) == ["there"] * 9


# ------------------------------------------------------------------------------------------- files and the command


def move(own, crs: str, pixel: tuple[float, float], corner) -> None:
    """Give the files of a data set another georeference; ``corner`` of a chip's name."""
    for folder in ("image", "label"):
        for path in sorted((own.root / folder).glob("*.tif")):
            x, y = corner(path.stem)
            with rasterio.open(path, "r+") as file:
                file.crs = rasterio.crs.CRS.from_user_input(crs)
                file.transform = rasterio.Affine(pixel[0], 0, x, 0, -pixel[1], y)


def spread(unit: tuple[float, float], origin: tuple[float, float]):
    """Sites of two chips side by side, 20 km apart."""

    def corner(name: str) -> tuple[float, float]:
        site = int(name[1]) + (10 if name[0] == "w" else 0)
        return origin[0] + (20_000 * site + 160 * int(name[3])) / unit[0], origin[1]

    return corner


DEGREE = 111_319.49
FILES = {
    "UTM": ("EPSG:32633", (1.0, 1.0), (500_000.0, 5_000_000.0)),
    "feet": ("EPSG:2263", (SURVEY_FOOT, SURVEY_FOOT), (900_000.0, 200_000.0)),
    "degrees": ("EPSG:4326", (DEGREE / 2, DEGREE), (24.0, 60.0)),
    "web mercator": ("EPSG:3857", (0.5, 0.5), (2_671_667.0, 8_399_738.0)),
    "compound": ("EPSG:32633+5773", (1.0, 1.0), (500_000.0, 5_000_000.0)),
    "northing first": ("EPSG:2180", (1.0, 1.0), (300_000.0, 400_000.0)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_run_cuts_files_of_every_crs_alike_and_says_how_far_apart_they_are(own, name):
    crs, unit, origin = FILES[name]
    move(own, crs, (10 / unit[0], 10 / unit[1]), spread(unit, origin))
    for row in own.rows:
        row["place"] = row["name"]
    own.write_table()
    own.definition["split"] = {"place": "grid", "block": 4_000, "validation": 0.3}
    own.write_definition()
    said: list[str] = []
    cells, broken = plan(make_request(None, "nearest-mean", benchmarks=(str(own.yaml),), seeds=(0, 1)), said.append)
    assert not broken
    for cell in cells:
        split = cell.split()
        sites = {role: {chip[:2] for chip in split.chips(role)} for role in ("train", "validation")}
        assert not sites["train"] & sites["validation"], "a block of 4 km holds both chips of a place"
        assert len(sites["validation"]) == 1 and len(sites["train"]) == 2
    lines = [line for line in said if "apart" in line]
    assert 1 <= len(lines) <= 2 and all(line.startswith("mine") for line in lines)
    # Chips of 160 m at places 20 km apart; the target begins 160 km after the last of them.
    assert "training and validation 19.7 km apart" in lines[0] or "training and validation 39.7 km apart" in lines[0]


def test_files_of_an_engineering_crs_are_refused_by_the_command(own, monkeypatch, capsys):
    move(own, ENGINEERING, (10.0, 10.0), own.corner)
    for row in own.rows:
        row["place"] = row["name"]
    own.write_table()
    own.definition["split"] = {"place": "grid", "block": 4_000, "validation": 0.3}
    own.write_definition()
    assert run_main(monkeypatch, ["run", "-m", "nearest-mean", "-b", own.yaml, "--out", own.root / "runs"]) == 2
    text = capsys.readouterr().err
    assert "does not say where on the Earth" in text and "my field" in text and "Traceback" not in text


def test_files_of_an_engineering_crs_can_be_cut_by_site(own):
    move(own, ENGINEERING, (10.0, 10.0), own.corner)
    benchmark = own.benchmark()
    split = make_split(benchmark, build_index(benchmark, own.root), 0)
    assert len(split.chips("validation")) == 2
    assert "not known, because the CRS does not say where on the Earth chips lie" in split.distances
