"""The bundled sample: names, georeferences, labels, the cache folder, and that its bytes are reproducible."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.io import loadmat, whosmat

from spectral_tl_bench import storage
from spectral_tl_bench.errors import DataError, StorageError
from spectral_tl_bench.files import file_digest
from spectral_tl_bench.sample import build, ensure_sample, write_dfc2020, write_mts12, write_whu_ohs
from spectral_tl_bench.sample.dfc2020 import CITIES
from spectral_tl_bench.sample.mts12 import tiles
from spectral_tl_bench.sample.scene import SAMPLE_VERSION
from spectral_tl_bench.sample.whuohs import PLACES
from spectral_tl_bench.storage import SAMPLE

TINY = {
    "whu_ohs_transfer": {"chip": 16, "chips_per_city": 1},
    "dfc2020": {"chip": 16, "chips_per_city": 2},
    "mts12": {"chip": 16, "north": 3, "south": 2},
}


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def digests(root: Path) -> dict[str, str]:
    return {name: file_digest(root / name) for name in files(root)}


@pytest.fixture(scope="module")
def whu(tmp_path_factory):
    root = tmp_path_factory.mktemp("whu")
    write_whu_ohs(root, chip=32, chips_per_city=4)
    return root / "transfer-STall"


@pytest.fixture(scope="module")
def dfc(tmp_path_factory):
    root = tmp_path_factory.mktemp("dfc")
    write_dfc2020(root, chip=32, chips_per_city=8)
    return root


@pytest.fixture(scope="module")
def mts(tmp_path_factory):
    root = tmp_path_factory.mktemp("mts")
    write_mts12(root, chip=32, north=12, south=8)
    return root


# ------------------------------------------------------------------------------------------------ WHU-OHS


def test_whu_flat_layout_pairs_every_image_with_a_label_of_the_same_name(whu):
    names = files(whu)
    images = [name for name in names if "/image/" in name]
    assert len(images) == 16 * 4 and len(names) == 2 * len(images)
    for name in images:
        assert re.fullmatch(r"(source/image/S|target/image/T)[1-8]_\d{4}\.tif", name)
        assert name.replace("/image/", "/label/") in names


def test_whu_nested_and_official_layouts(tmp_path, whu):
    write_whu_ohs(tmp_path / "n", layout="nested", chip=16, chips_per_city=3, cities=("S1", "S3", "T2"))
    write_whu_ohs(tmp_path / "o", layout="official", chip=16, chips_per_city=3, cities=("S1", "S3", "T2"))
    nested, official = files(tmp_path / "n"), files(tmp_path / "o")
    pattern = r"transfer-STall/(source/(image|label)/(tr|val|ts)/S|target/(image|label)/(tr|val|ts)/T)\d_\d{4}\.tif"
    assert len(nested) == 18 and all(re.fullmatch(pattern, name) for name in nested)
    assert len(official) == 18 and all(
        re.fullmatch(r"(tr|val|ts)/(image|label)/[ST]\d_\d{4}\.tif", n) for n in official
    )
    assert {name.split("/")[0] for name in official} == {"tr", "val", "ts"}
    assert not {Path(n).name for n in nested} & {Path(n).name for n in official}, "official chips are other chips"


def test_whu_rasters_have_32_int16_bands_in_the_zone_of_their_city(whu):
    zones, corners = {}, {}
    for path in sorted(whu.glob("*/image/*.tif")):
        with rasterio.open(path) as image, rasterio.open(str(path).replace("/image/", "/label/")) as label:
            assert (image.count, image.dtypes[0], image.shape, image.res) == (32, "int16", (32, 32), (10.0, 10.0))
            assert (label.count, label.dtypes[0], label.bounds, label.crs) == (1, "uint8", image.bounds, image.crs)
            assert image.read().min() > 0
            zones[path.name[:2]] = image.crs.to_epsg()
            corners.setdefault(path.name[:2], set()).add((image.bounds.left, image.bounds.top))
    assert zones == {
        "S1": 32651, "S2": 32651, "S3": 32649, "S4": 32647, "S5": 32644, "S6": 32650, "S7": 32649, "S8": 32650,
        "T1": 32652, "T2": 32651, "T3": 32649, "T4": 32648, "T5": 32645, "T6": 32650, "T7": 32649, "T8": 32650,
    }  # fmt: skip
    for places in corners.values():
        x, y = np.asarray(sorted(places)).T
        assert len(places) == 4 and np.all((x - x[0]) % 5120 == 0) and np.all((y - y[0]) % 5120 == 0)
        assert max(np.ptp(x), np.ptp(y)) > 15_000, "a cut by place needs places that lie apart"


def test_whu_cities_lie_where_they_are(whu):
    from rasterio.warp import transform

    for code in ("S5", "T1", "T3"):
        with rasterio.open(next(whu.glob(f"*/image/{code}_0001.tif"))) as image:
            longitude, latitude = transform(image.crs, "EPSG:4326", [image.bounds.left], [image.bounds.top])
        assert abs(longitude[0] - PLACES[code].longitude) < 0.5
        assert abs(latitude[0] - PLACES[code].latitude) < 0.5


def test_whu_labels_lack_20_in_s_and_18_in_t_and_hold_everything_else(whu):
    found = {}
    for side in ("source", "target"):
        labels = [rasterio.open(path).read(1) for path in sorted((whu / side / "label").glob("*.tif"))]
        found[side] = set(np.unique(labels).tolist())
    assert found["source"] == set(range(25)) - {20}
    assert found["target"] == set(range(25)) - {18}


# ------------------------------------------------------------------------------------------------ DFC2020


def test_dfc_names_and_folders(dfc):
    names = files(dfc)
    images = [name for name in names if "/image/" in name]
    assert len(images) == 7 * 8 and len(names) == 2 * len(images)
    seen = set()
    for name in images:
        match = re.fullmatch(r"(\w+)/image/s2_(\w+)/ROIs0000_(\w+)_s2_(\w+)_p(\d+)\.tif", name)
        assert match and match[1] == match[3] and match[2] == match[4]
        season, city, number = match[1], match[2], match[5]
        assert f"{season}/label/dfc_{city}/ROIs0000_{season}_dfc_{city}_p{number}.tif" in names
        seen.add((season, city))
    assert seen == {
        ("spring", "BlackForest"), ("summer", "Chabarovsk"), ("autumn", "BandarAnzali"), ("autumn", "CapeTown"),
        ("autumn", "Mumbai"), ("winter", "KippaRing"), ("winter", "MexicoCity"),
    }  # fmt: skip


def test_dfc_sets_layout_holds_the_same_chips(tmp_path):
    for layout in ("seasons", "sets"):
        write_dfc2020(tmp_path / layout, layout=layout, chip=16, chips_per_city=4, cities=("Mumbai",))
    seasons, sets = digests(tmp_path / "seasons"), digests(tmp_path / "sets")
    assert {name.split("/")[0] for name in sets} == {"trainset", "testset"}
    assert {Path(n).name: d for n, d in seasons.items()} == {Path(n).name: d for n, d in sets.items()}


def test_dfc_rasters_zones_and_labels(dfc):
    zones, values = {}, set()
    for path in sorted(dfc.glob("*/image/*/*.tif")):
        with rasterio.open(path) as image:
            assert (image.count, image.dtypes[0], image.shape, image.res) == (13, "uint16", (32, 32), (10.0, 10.0))
            zones[path.parent.name[3:]] = image.crs.to_epsg()
            bounds = image.bounds
        twin = path.parents[2] / "label" / path.parent.name.replace("s2", "dfc") / path.name.replace("_s2_", "_dfc_")
        with rasterio.open(twin) as label:
            assert label.bounds == bounds and label.dtypes[0] == "uint8"
            values |= set(np.unique(label.read(1)).tolist())
    assert zones == {
        "BlackForest": 32632, "Chabarovsk": 32653, "BandarAnzali": 32639, "CapeTown": 32734, "Mumbai": 32643,
        "KippaRing": 32756, "MexicoCity": 32614,
    }  # fmt: skip
    assert values == {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}


def test_dfc_chips_overlap_by_half_and_show_the_same_ground_there(dfc):
    folder = dfc / "autumn" / "image" / "s2_Mumbai"
    with (
        rasterio.open(folder / "ROIs0000_autumn_s2_Mumbai_p0.tif") as one,
        rasterio.open(folder / "ROIs0000_autumn_s2_Mumbai_p1.tif") as two,
    ):
        assert two.bounds.left - one.bounds.left == 160 and two.bounds.top == one.bounds.top
        np.testing.assert_array_equal(one.read()[:, :, 16:], two.read()[:, :, :16])
    lefts = {rasterio.open(path).bounds.left for path in folder.glob("*.tif")}
    assert max(lefts) - min(lefts) > 10_000


# -------------------------------------------------------------------------------------------------- MTS12


def test_mts_names_footprints_and_folds(mts):
    images = sorted(mts.glob("image/*/*.tif"))
    assert len(images) == 20 and len(files(mts)) == 40
    ids = set()
    for path in images:
        match = re.fullmatch(r"eopatch_id_(\d+)_col_(\d+)_row_(\d+)", path.stem)
        assert match
        column, row = int(match[2]), int(match[3])
        ids.add(match[1])
        fold = path.parent.name
        assert (fold == "test") == (row <= 11) and row <= 33
        with rasterio.open(path) as image:
            assert (image.count, image.dtypes[0], image.crs.to_epsg()) == (24, "uint16", 32633)
            assert (image.bounds.left, image.bounds.top) == (370_000 + 5_000 * column, 5_030_000 + 5_000 * row)
            assert image.res == (10.0, 10.0)
        label = mts / "label" / fold / f"{path.stem}_label.mat"
        assert whosmat(label) == [("label", (32, 32), "uint8")]
    assert len(ids) == 20
    assert {path.parent.name for path in images} == {"train", "val", "test"}


def test_mts_labels_hold_all_classes_on_both_sides(mts):
    for folds in (("train", "val"), ("test",)):
        labels = [loadmat(p)["label"] for fold in folds for p in (mts / "label" / fold).glob("*.mat")]
        assert set(np.unique(labels).tolist()) == set(range(9))


def test_mts_tiles_are_different_places():
    chosen = tiles(36, 20)
    assert len(set(chosen)) == 56
    assert sum(row >= 12 for _, row in chosen) == 36
    assert all(0 <= row <= 33 and 0 <= column <= 51 for column, row in chosen)
    assert chosen == sorted(chosen)


# ------------------------------------------------------------------------------------- the sample as a whole


def test_two_generations_are_equal_byte_for_byte(tmp_path):
    build.write_sample(tmp_path / "a", TINY)
    np.random.default_rng().standard_normal(3)
    np.random.seed(7)  # the generator must not look at global state
    build.write_sample(tmp_path / "b", TINY)
    first = digests(tmp_path / "a")
    assert len(first) == 2 * (16 + 14 + 5) + 1
    assert first == digests(tmp_path / "b")
    assert len(set(first.values())) == len(first), "no two files are the same picture"


PIXELS = "47462647583fb79dca20a170617425a2869d8dd2dbd55beadf17a34a52072f76"
"""Of every pixel and label of the small sample below."""


def test_pixels_move_with_the_version_only(tmp_path):
    """The sample is found by its version: a change of its pixels needs another one, or old folders would be used."""
    build.write_sample(tmp_path, {**TINY, "whu_ohs_official_s": {"chip": 16, "chips_per_city": 1}})
    total = hashlib.sha256()
    for name in files(tmp_path):
        if name.endswith(".tif"):
            with rasterio.open(tmp_path / name) as file:
                total.update(f"{name} {file.crs} {file.transform.to_gdal()} {file.dtypes}".encode())
                total.update(file.read().tobytes())
        elif name.endswith(".mat"):
            total.update(name.encode() + loadmat(tmp_path / name)["label"].tobytes())
    assert SAMPLE_VERSION == "2"
    assert total.hexdigest() == PIXELS, "pixels have moved: raise SAMPLE_VERSION, then note both here"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path))
    return tmp_path / "sample"


def kept(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if not path.name.endswith(".use")]


def test_ensure_sample_builds_once_and_says_that_it_is_synthetic(cache, monkeypatch):
    root = ensure_sample(TINY)
    assert sorted(path.name for path in root.iterdir()) == ["DFC2020", "MTS12", "WHU-OHS", "sample.json"]
    about = json.loads((root / "sample.json").read_text())
    assert about["synthetic"] is True and about["parameters"] == TINY and "Synthetic" in about["statement"]
    monkeypatch.setattr(build, "write_sample", lambda *_: pytest.fail("built a second time"))
    assert ensure_sample(TINY) == root
    assert kept(cache) == [root.name] and root.name.startswith(f"{SAMPLE_VERSION}-")


SMALL = {"mts12": {"chip": 16, "north": 1, "south": 1}}


def test_other_sizes_and_versions_go_to_another_folder(cache, monkeypatch):
    first = ensure_sample(SMALL)
    assert ensure_sample({"mts12": {"chip": 16, "north": 2, "south": 1}}) != first
    monkeypatch.setattr(build, "SAMPLE_VERSION", "other")
    assert ensure_sample(SMALL) != first


def test_interrupted_generation_leaves_nothing(cache, monkeypatch):
    def interrupt(root, **sizes):
        assert len(files(cache)) > 10, "something had been written before"
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write_mts12", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure_sample(TINY)
    assert list(cache.iterdir()) == []


def test_two_processes_at_once(cache):
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=ensure_sample, args=(TINY,)) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0, 0]
    (name,) = kept(cache)
    assert cache / name == ensure_sample(TINY)


def test_a_sample_in_use_does_not_give_way(cache):
    root = ensure_sample(SMALL)
    (entry,) = SAMPLE.entries()
    assert entry.path == root and storage.to_clear([SAMPLE]) == ([], [entry])


def test_plundered_or_unwritable_cache_is_explained(cache, monkeypatch):
    root = ensure_sample(SMALL)
    (root / "sample.json").unlink()
    with pytest.raises(DataError, match="incomplete"):
        ensure_sample(SMALL)
    blocked = cache / "file"
    blocked.touch()
    monkeypatch.setenv("STBENCH_CACHE", str(blocked))
    with pytest.raises(StorageError, match="STBENCH_CACHE"):
        ensure_sample(SMALL)


def test_every_season_has_its_cities_in_the_default_sample():
    assert {city.season for city in CITIES.values()} == {"spring", "summer", "autumn", "winter"}
    assert build.PARAMETERS["dfc2020"]["chips_per_city"] >= 10
    assert build.PARAMETERS["mts12"] == {"chip": 96, "north": 36, "south": 20}
