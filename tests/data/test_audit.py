"""What an audit finds of the two sides of a benchmark: what was planted, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import shapely

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data import reading_processes
from spectral_tl_bench.data.audit import shipped
from spectral_tl_bench.data.audit.chips import look_at, pixels_per_chip, signature
from spectral_tl_bench.data.audit.facts import Audit, read_audit, write_audit
from spectral_tl_bench.data.audit.ground import compare_ground
from spectral_tl_bench.data.audit.run import GAP, NULL, audit_data, audit_definition
from spectral_tl_bench.data.audit.shifts import compare_bands, compare_classes, compare_priors, shift_by_shares
from spectral_tl_bench.data.audit.told import area, tell_apart
from spectral_tl_bench.data.ground import BOX
from spectral_tl_bench.data.source import DataSource
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import DataError


def audited(own, **more) -> Audit:
    return audit_data(own.benchmark(), DataSource("files", own.root, ""), True, **more)[0]


def squares(*corners: tuple[float, float], side: float = 1000.0, crs: str = "EPSG:32633") -> pd.DataFrame:
    """Chips as rows of an index, from their lower left corners."""
    rows = [(crs, x, y, x + side, y + side) for x, y in corners]
    return pd.DataFrame(rows, columns=["crs", *BOX], index=[f"{crs[-2:]} {x:g} {y:g}" for x, y in corners])


# --------------------------------------------------------------------------------------------------------- the ground

HERE = (500_000.0, 5_000_000.0)


@pytest.mark.parametrize(
    ("moved", "sharing", "km2", "adjacent"),
    [
        ((0.0, 0.0), 1, 1.0, 0),
        ((320.0, 0.0), 1, 0.68, 0),
        ((990.0, 990.0), 1, 0.0001, 0),
        ((1000.0, 0.0), 0, 0.0, 1),
        ((1000.0, -1000.0), 0, 0.0, 1),
        ((1000.0, 500.0), 0, 0.0, 1),
        ((1005.0, 0.0), 0, 0.0, 0),
    ],
)
def test_two_chips_of_one_crs(moved, sharing, km2, adjacent):
    other = squares((HERE[0] + moved[0], HERE[1] + moved[1]))
    found = compare_ground(squares(HERE), other)
    assert (found.sharing, found.adjacent, found.touching) == (sharing, adjacent, sharing + adjacent)
    assert found.shared_km2 == pytest.approx(km2, rel=0.01)  # UTM's scale, squared
    assert (found.nearest_m["min"] == 0) == bool(sharing + adjacent)
    assert [pair.share for pair in found.worst] == pytest.approx([km2] * sharing, rel=1e-3)


def test_a_chip_seen_from_another_zone_shares_its_ground():
    import pyproj

    lon, lat = 18.0, 46.0  # where zones 33 and 34 meet
    boxes = [
        squares(pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat), crs=crs)
        for crs in ("EPSG:32633", "EPSG:32634")
    ]
    found = compare_ground(*boxes)
    assert found.sharing == 1 and 0.9 < found.shared_km2 < 1.01 and found.adjacent == 0


def test_degrees_meet_across_the_date_line():
    one, other = squares((179.99, 0.0), side=0.01, crs="EPSG:4326"), squares((-180.0, 0.0), side=0.01, crs="EPSG:4326")
    assert compare_ground(one, other).adjacent == 1
    other[["xmin", "xmax"]] -= 0.001
    assert compare_ground(one, other).sharing == 1


def test_distances_are_those_of_each_of_the_second_side_to_the_nearest():
    one = squares(HERE, (HERE[0] + 9_000, HERE[1]))
    other = squares((HERE[0] + 3_000, HERE[1]), (HERE[0] + 20_000, HERE[1]))
    found = compare_ground(one, other)
    assert found.nearest_m["min"] == pytest.approx(2_000, rel=1e-3)
    assert found.nearest_m["max"] == pytest.approx(10_000, rel=1e-3)
    assert found.nearest_pair == (one.index[0], other.index[0])


def test_the_nearest_of_many_is_found():
    rng = np.random.default_rng(0)
    one, other = (squares(*(HERE + 40_000 * rng.random((count, 2)))) for count in (60, 40))
    box = [side[BOX].to_numpy() for side in (one, other)]
    gaps = np.maximum(
        0, np.maximum(box[0][:, None, :2] - box[1][None, :, 2:], box[1][None, :, :2] - box[0][:, None, 2:])
    )
    apart = np.hypot(*gaps.transpose(2, 0, 1)).min(axis=0)
    found = compare_ground(one, other)
    assert found.nearest_m["max"] == pytest.approx(apart.max(), rel=2e-3)
    assert found.nearest_m["median"] == pytest.approx(np.median(apart), rel=2e-3, abs=0.5)
    assert found.sharing == int((gaps == 0).all(axis=2).sum())


def test_without_a_crs_nothing_is_said_of_the_ground(own_without_crs):
    found = audited(own_without_crs)
    assert found.ground[GAP].unknown == "not known, because chips have no CRS (10 of 10)"
    assert found.ground[NULL].unknown and not found.faults
    assert found.pixels is not None and found.pixels.told[GAP].pixel_auc is not None


# ------------------------------------------------------------------------------------------- the suite's own benchmarks


@pytest.mark.parametrize("name", sorted(builtin_benchmarks()))
def test_no_benchmark_of_the_suite_has_ground_on_both_sides(name):
    found = audit_definition(builtin_benchmarks()[name])
    assert not found.faults and not found.ground[GAP].sharing
    assert bool(found.ground[GAP].unknown) == (name in ("whuohs-id", "dfc2020-id"))


def test_rows_11_and_12_of_mts12_adjoin():
    found = audit_definition(builtin_benchmarks()["mts12-n2s"])
    assert found.ground[GAP].touching == 34
    assert found.chips["target"] + 639 == 941 and not found.ground[NULL].touching


def test_the_definition_of_mts12_id_tells_how_many_test_tiles_adjoin_source_tiles():
    benchmark = builtin_benchmarks()["mts12-id"]
    index = shipped.tile_index(benchmark)
    split, domain = make_split(benchmark, index, 0), index.frame["domain"]
    target = index.frame.loc[split.chips("target")]

    def touching(source, tested):
        chips = [chip for chip in (*split.chips("train"), *split.chips("validation")) if domain[chip] in source]
        return compare_ground(index.frame.loc[chips], target[target["domain"].isin(tested)], "tiles").touching

    north, south = ["north"], ["south"]
    everywhere, within = touching(north + south, north + south), touching(south, south)
    assert touching(north, north) == 0
    assert everywhere == within + touching(south, north) + touching(north, south)
    said = " ".join(benchmark.notes)
    assert f"{everywhere} of {len(target)} touch" in said
    assert f"{within} in the south" in said
    assert f"{everywhere - within} across the border" in said


def test_distant_cities_are_as_far_as_maps_say():
    found = audit_definition(builtin_benchmarks()["whuohs-s2t"]).ground[GAP]
    assert found.nearest_pair == ("S6", "T6") and not found.exact  # Anyi and Nanchang
    assert 20_000 < found.nearest_m["min"] < 40_000


@pytest.mark.parametrize("name", ["mts12-n2s", "mts12-s2n", "whuohs-s2t", "dfc2020-summer"])
def test_a_place_on_both_sides_is_found_without_data(name, monkeypatch):
    benchmark = builtin_benchmarks()[name]
    known = shipped.shapes(benchmark)
    source, target = known[benchmark.source[0]], known[benchmark.target[0]]
    if name.startswith("mts12"):
        x, y = source.centroid.x, source.centroid.y
        known |= {benchmark.target[0]: shapely.union(target, shapely.box(x - 0.1, y - 0.1, x + 0.1, y + 0.1))}
    else:
        known |= {benchmark.target[0]: shapely.Point(source.x + 0.005, source.y)}
    monkeypatch.setattr(shipped, "shapes", lambda _: known)
    found = audit_definition(benchmark)
    assert found.ground[GAP].sharing >= 1 and "source and target share ground" in found.faults[0]


# --------------------------------------------------------------------------------------------------------------- copies


def scene(seed: int, bands: int = 4, side: int = 32) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    return 1000 + 300 * np.stack([gaussian_filter(rng.standard_normal((side, side)), 2) for _ in range(bands)])


def test_light_does_not_change_a_signature():
    rng, image = np.random.default_rng(1), scene(0)
    lit = image * np.array([0.6, 1.4, 0.9, 1.2])[:, None, None] + np.array([5.0, -80.0, 300.0, 0.0])[:, None, None]
    assert signature(image) @ signature(lit) == pytest.approx(1.0, abs=1e-5)
    assert signature(image) @ signature(image + rng.normal(0, 5, image.shape)) > 0.97
    assert abs(signature(image) @ signature(scene(2))) < 0.5


def test_signatures_of_little():
    assert not signature(np.full((3, 32, 32), 7.0)).any()
    assert not signature(np.full((3, 32, 32), np.nan)).any()
    part = scene(0)
    part[:, :8] = np.nan
    assert np.isfinite(signature(part)).all() and signature(part) @ signature(scene(0)) > 0.7
    for shape in ((1, 9, 40), (224, 32, 32), (2, 17, 8)):
        found = signature(scene(3, shape[0], 40)[:, : shape[1], : shape[2]])
        assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


def test_copies_between_the_sides(own):
    """One pixel for pixel, one in another light; within the source, and blank chips, nothing is said."""
    own.write_raster(own.image("w1_0"), own.pixels("e1_1"), "w1_0")
    lit = (own.pixels("e2_0") * np.array([0.5, 0.8, 0.7])[:, None, None] + 90).astype("uint16")
    own.write_raster(own.image("w0_1"), lit, "w0_1")
    for name in ("e0_0", "w0_0"):
        own.write_raster(own.image(name), np.full((3, 16, 16), 9, "uint16"), name)
    found = audited(own)
    copies = found.pixels.copies[GAP]
    assert (copies.exact, copies.near) == (1, 1)
    assert [(pair.one, pair.other, pair.exact) for pair in copies.worst] == [
        ("e1_1", "w1_0", True),
        ("e2_0", "w0_1", False),
    ]
    assert found.faults == ("source and target share 1 chips, pixel for pixel: e1_1 is w1_0",)
    assert (found.pixels.copies[NULL].exact, found.pixels.copies[NULL].near) == (0, 0)


def test_a_near_copy_between_training_and_validation(own):
    roles = audit_data(own.benchmark(), DataSource("files", own.root, ""), True, geometry=True)
    cut = make_split(own.benchmark(), roles[1], 0)
    one, other = cut.chips("train")[0], cut.chips("validation")[0]
    own.write_raster(own.image(other), own.pixels(one) // 2, other)
    found = audited(own)
    assert found.pixels.copies[NULL].near == 1 and found.pixels.copies[NULL].worst[0].other == other
    assert not found.pixels.copies[GAP].near and not found.faults  # worth knowing, and no fault


# ------------------------------------------------------------------------------------------------ classes, bands, sides


def test_class_shares():
    names = ("a", "b", "c", "d")
    found = compare_priors(names, np.array([50, 50, 0, 0]), np.array([50, 0, 50, 0]))
    assert (found.only_one, found.only_other) == (("b",), ("c",))
    assert found.jensen_shannon == pytest.approx(np.sqrt(0.5))
    assert compare_priors(names, np.array([1, 2, 3, 4]), np.array([2, 4, 6, 8])).jensen_shannon == pytest.approx(0.0)
    apart = compare_priors(names, np.array([1, 0, 0, 0]), np.array([0, 0, 0, 9])).jensen_shannon
    assert apart == pytest.approx(1.0)
    assert compare_priors(names, np.zeros(4), np.ones(4)).jensen_shannon is None


def test_a_shifted_band_is_found_and_no_other():
    rng = np.random.default_rng(0)
    one = rng.normal(100, 10, (4000, 4)).astype(np.float32)
    other = rng.normal(100, 10, (4000, 4)).astype(np.float32)
    other[:, 1] += 20
    one[::3, 2], other[::2, 2] = np.nan, np.nan
    one[:, 3] = np.nan
    shifts = compare_bands(one, other)
    assert shifts[1].wasserstein == pytest.approx(20, abs=1) and shifts[1].in_std == pytest.approx(2, abs=0.1)
    assert shifts[1].mean_shift == pytest.approx(20, abs=1)
    assert shifts[0].in_std < 0.1 and shifts[2].in_std < 0.1 and shifts[3] is None
    constant = compare_bands(np.full((9, 1), 5.0), np.full((9, 1), 7.0))[0]
    assert constant.in_std is None and constant.wasserstein == 2


def test_the_shift_that_class_shares_alone_explain():
    count, total = np.array([[30.0], [10.0], [0.0]]), np.array([[30 * 100.0], [10 * 500.0], [0.0]])
    # A quarter of the second class becomes three quarters; of the third there is no spectrum.
    shift = shift_by_shares((np.array([30, 10, 0]), np.array([10, 30, 40])), count, total)
    assert shift == pytest.approx([0.5 * 500 - 0.5 * 100])
    assert shift_by_shares((np.array([30, 10, 0]), np.array([3, 1, 0])), count, total) == pytest.approx([0.0])
    assert np.isnan(shift_by_shares((np.array([30, 10, 0]), np.array([0, 0, 4])), count, total)).all()


def test_shares_alone_are_told_from_other_spectra(own):
    """West has the spectra of the east, and more of one class: the means move by that, and by nothing else."""
    rng, spectra = np.random.default_rng(0), np.array([[0, 0, 0], [500, 400, 900], [700, 400, 100]])
    for row in own.rows:
        name = row["name"]
        label = np.ones((16, 16), dtype="uint8")
        label[: 12 if name[0] == "w" else 4] = 2
        label[15] = 0
        image = np.moveaxis(spectra[label], -1, 0) + rng.integers(0, 3, (3, 16, 16))
        image[:, 15] = 600
        own.write_raster(own.image(name), image.astype("uint16"), name)
        own.write_raster(own.label(name), label[None], name)
    found = audited(own)
    share = 8 / 15
    assert [one.by_shares for one in found.pixels.bands] == pytest.approx([200 * share, 0, -800 * share], abs=1)
    assert [one.mean_shift for one in found.pixels.bands] == pytest.approx([100, 0, -400], abs=1)  # void pixels, too
    assert all(one.by_shares is None for one in found.pixels.null_bands)
    assert found.priors[GAP].labelled == pytest.approx((15 / 16, 15 / 16))


def test_spectra_of_classes():
    mask = np.zeros((20, 20), dtype=np.int64)
    mask[10:] = 1
    mask[19:] = 255
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (3, 20, 20)).astype(np.float32)
    brighter = image * np.where(mask == 1, 1.5, 1.0)
    brighter[2, :10] += 30
    sides = [look_at("chip", part, mask, ("mine", 3), 50) for part in (image, brighter)]
    parts = [(one.counts, one.sums, one.squares) for one in sides]
    pixels = np.array([200, 220, 0])
    first, second, absent = compare_classes(("a", "b", "c"), (pixels, pixels), *parts)
    assert first.band == 2 and first.in_std == pytest.approx(1.0, abs=0.15) and first.angle > 3
    assert second.in_std == pytest.approx(5, abs=0.8) and second.angle == pytest.approx(0.0, abs=0.3)
    assert not absent.source and absent.in_std is None and absent.pixels == (0, 0)
    assert first.source == pytest.approx([float(image[band, :10].mean()) for band in range(3)], rel=1e-5)


def two_sides(shift: float, places: int = 30, per_place: int = 12, bands: int = 50):
    """Pixels, chips and places of both sides; the pixels of a place are alike."""
    rng, sides = np.random.default_rng(5), []
    for side in range(2):
        centre = rng.normal(shift * side, 1.0, (places, bands)).repeat(per_place, axis=0)
        pixels = centre + rng.normal(0, 0.2, centre.shape)
        number = np.repeat(np.arange(places), per_place)
        sides.append((pixels, number, np.array([f"{side}/{one}" for one in number], dtype=object)))
    return tuple(zip(*sides, strict=True))


def test_sides_are_told_apart_only_where_they_differ():
    found = tell_apart(*two_sides(1.0))
    assert found.pixel_auc > found.pixel_chance[1] and found.chip_auc > found.chip_chance[1]
    assert found.pixel_auc > 0.95 and found.chip_auc > 0.95 and found.accuracy > 0.9 and found.folds == 5
    equal = tell_apart(*two_sides(0.0))
    assert equal.pixel_auc < 0.65 and equal.chip_auc < 0.65 and equal.places == (30, 30)
    assert equal.chip_chance[0] < 0.5 < equal.chip_chance[1] and equal.chip_auc < equal.chip_chance[1]
    assert equal.deals == 19 and equal == tell_apart(*two_sides(0.0))


def test_few_places_say_little():
    """Two places a side, far apart: told apart without a mistake, and so they would be by chance."""
    found = tell_apart(*two_sides(1.0, places=2))
    assert found.chip_auc == 1.0 and found.chip_chance[1] == 1.0 and found.chip_chance[0] < 0.3


def test_a_place_of_few_pixels_is_not_lost(monkeypatch):
    from spectral_tl_bench.data.audit import told

    monkeypatch.setattr(told, "DEALT", 4)  # of 48 pixels in 4 places
    pixels, chips, places = two_sides(1.0, places=2)
    pixels, chips, places = (tuple(part[:13] for part in sides) for sides in (pixels, chips, places))
    assert tell_apart(pixels, chips, places).deals == 19


def test_neighbours_in_training_would_have_given_equal_sides_away():
    pixels, chips, places = two_sides(0.0)
    each = tuple(np.array([f"{name} {number}" for number, name in enumerate(part)], dtype=object) for part in places)
    assert tell_apart(pixels, chips, each).pixel_auc > 0.9  # so the test above could have failed


def test_one_place_is_too_few():
    found = tell_apart(*two_sides(3.0, places=1))
    assert found.pixel_auc is None and "fewer than two places" in found.unknown


def test_area_under_the_curve():
    side = np.array([False, False, True, True])
    assert area(np.array([0.0, 1.0, 2.0, 3.0]), side) == 1.0
    assert area(np.array([3.0, 2.0, 1.0, 0.0]), side) == 0.0
    assert area(np.zeros(4), side) == 0.5


# ------------------------------------------------------------------------------------------------------------ the whole


def test_a_whole_audit(own, tmp_path):
    """A shifted band, an absent class and an overlap, on real files; the same bytes every time."""
    own.crs["west"] = "EPSG:32633"
    place = own.corner
    own.corner = lambda name: place(name) if name[0] == "e" else (place(name)[0] + 70_000.0, 5_000_000.0)
    for name in ("w0_0", "w0_1", "w1_0", "w1_1"):
        if name == "w1_1":
            own.corner = lambda _: (place("e0_0")[0] + 120.0, 5_000_000.0)  # 40 m of e0_0, and all but 40 m of e0_1
        pixels = own.pixels(name)
        pixels[1] += 2_000
        own.write_raster(own.image(name), pixels, name)
        own.write_raster(own.label(name), np.minimum(own.labels(name), 1)[None], name)
    found = audited(own)
    ground = found.ground[GAP]
    assert ground.sharing == 2 and found.faults[0].startswith("source and target share ground: 2 pairs of chips")
    assert [(pair.one, pair.other) for pair in ground.worst] == [("e0_1", "w1_1"), ("e0_0", "w1_1")]
    assert [pair.share for pair in ground.worst] == pytest.approx([0.75, 0.25], rel=1e-3)
    assert found.priors[GAP].only_one == ("Water",) and not found.priors[NULL].only_one
    assert found.pixels.bands[1].mean_shift == pytest.approx(2_000, rel=0.05)
    assert found.pixels.bands[0].in_std < 0.2 and found.pixels.bands[1].in_std > 1
    assert found.pixels.null_bands[1].in_std < 0.2 and found.pixels.told[GAP].chip_auc == 1.0
    assert found.chips["target"] == 4 and found.manifest and found.basis == "demonstration"
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, audit in zip(paths, (found, audited(own)), strict=True):
        write_audit(audit, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = read_audit(paths[0])
    write_audit(again, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes() and again.ground[GAP].worst[0].other == "w1_1"


def test_a_clean_pair_of_sides_has_no_fault(own):
    found = audited(own)
    assert not found.faults and not found.broken
    assert found.ground[GAP].sharing == found.ground[GAP].adjacent == 0
    assert found.ground[GAP].nearest_m["min"] > 100_000
    assert (found.pixels.copies[GAP].exact, found.pixels.copies[GAP].near) == (0, 0)
    assert not found.priors[GAP].only_one and not found.priors[GAP].only_other
    assert all(shift.in_std < 0.2 for shift in found.pixels.bands)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_chip_is_named_and_the_others_go_on(own, damage):
    path = own.image("w0_1")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    found = audited(own)
    assert list(found.broken) == ["w0_1"] and found.broken["w0_1"]
    assert found.chips["target"] == 3 and found.pixels.told[GAP].pixel_auc is not None


def test_a_chip_that_breaks_after_it_was_indexed(own, monkeypatch):
    from spectral_tl_bench.data.audit import chips

    class Broken(chips._Reader):
        def look(self, chip):
            if chip == "e2_1":
                self.place[chip][0]._stored = lambda *_: (_ for _ in ()).throw(DataError("gone bad", where="a disk"))
            return super().look(chip)

    monkeypatch.setattr(chips, "_Reader", lambda *a: SimpleNamespace(look=Broken(*a).look))
    found = audited(own)
    assert found.broken == {"e2_1": "gone bad (a disk)"} and found.pixels.target == 4 * 256


def test_unmeasured_values_count_nowhere(own):
    """A band of nodata is left out, and a part of one does not move its distribution."""
    for name in (row["name"] for row in own.rows):
        pixels = own.pixels(name)
        pixels[2] = 0
        pixels[1, :8] = 65_535
        own.write_raster(own.image(name), pixels, name, nodata=65_535)
    own.definition["nodata"] = "fill"
    found = audited(own)
    assert found.pixels.bands[1].in_std < 0.2 and abs(found.pixels.bands[1].mean_shift) < 400
    assert found.pixels.bands[2].in_std is None  # constant


def test_how_many_pixels_are_taken():
    assert (
        pixels_per_chip(10) == 4_096
        and pixels_per_chip(200) == 2_000
        and pixels_per_chip(2_914) == 137
        and pixels_per_chip(7_795) == 51
    )
    assert pixels_per_chip(10**6) == 16
    image = np.arange(3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64)
    one, two = (look_at("a", image, np.zeros((64, 64), int), ("mine", 2), 100) for _ in range(2))
    assert one.pixels.shape == (100, 3) and (one.pixels == two.pixels).all()
    other = look_at("b", image, np.zeros((64, 64), int), ("mine", 2), 100)
    assert (other.pixels != one.pixels).any() and other.pixel_hash == one.pixel_hash


def test_a_source_of_one_place_has_no_validation(own):
    own.rows = [row for row in own.rows if row["name"][:2] in ("e0", "w0", "w1")]
    own.write_table()
    found = audited(own)
    assert any(note.startswith("no validation: all 2 source chips are of one site") for note in found.notes)
    assert found.ground[NULL].unknown and found.pixels.told[NULL].unknown
    assert found.priors[NULL].jensen_shannon is None and not found.priors[NULL].only_one


def test_what_is_no_audit(tmp_path):
    for content in (b"", b"{}", b"[]", b'{"version": 2}', b"\xff"):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(DataError, match="no audit"):
            read_audit(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_audit(tmp_path / "none.json")


@pytest.mark.slow
def test_several_processes_find_the_same(own, monkeypatch):
    alone = audited(own, workers=1)
    assert audited(own, workers=3) == alone  # threads
    monkeypatch.setattr(reading_processes, "MANY", 3)
    assert audited(own, workers=3) == alone
