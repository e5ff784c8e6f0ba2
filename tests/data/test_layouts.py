"""Every published folder layout, and what is missing from one is named."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.layouts import find_chips
from spectral_tl_bench.data.layouts.dfc2020 import dfc_label_path
from spectral_tl_bench.data.layouts.mts12 import mts12_domain, mts12_footprint
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.sample import write_dfc2020, write_whu_ohs

MISSING = ("whuohs-s2t", "dfc2020-spring", "mts12-n2s")


def touch(root: Path, *names: str) -> None:
    """Layout readers open no raster, so empty files will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def refusal(name: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        find_chips(builtin_benchmarks()[name], root)
    return str(caught.value)


def whu_names(level: str = "") -> list[str]:
    return [
        f"transfer-STall/{side}/{kind}/{level}{side[0].upper()}{city}_{number}.tif"
        for side in ("source", "target")
        for city in range(1, 9)
        for number in (1, 2)
        for kind in ("image", "label")
    ]


def dfc_names() -> list[str]:
    return [
        f"{domain.season}/{kind}/{sort}_{domain.id}/ROIs0000_{domain.season}_{sort}_{domain.id}_p{number}.tif"
        for domain in builtin_benchmarks()["dfc2020-id"].domains
        for number in (0, 11)
        for kind, sort in (("image", "s2"), ("label", "dfc"))
    ]


MTS_NAMES = [
    name
    for fold, number, col, row in (("train", 900, 9, 14), ("val", 5, 0, 12), ("test", 16, 3, 11), ("test", 2, 7, 0))
    for stem in (f"eopatch_id_{number}_col_{col}_row_{row}",)
    for name in (f"image/{fold}/{stem}.tif", f"label/{fold}/{stem}_label.mat")
]


CHECKED = {"whuohs-s2t": 16, "dfc2020-spring": 14, "mts12-n2s": 4}
"""Images that are paired with labels at once: a side of WHU-OHS, all of the others."""


@pytest.fixture(params=MISSING)
def touched(request, tmp_path) -> tuple[str, Path, list[str]]:
    """Benchmark id, dataset folder and its file names, images and labels in turn."""
    names = {"whuohs-s2t": whu_names(), "dfc2020-spring": dfc_names(), "mts12-n2s": MTS_NAMES}[request.param]
    touch(tmp_path, *names)
    return request.param, tmp_path, names


# ------------------------------------------------------------------------------------------------ published variants


@pytest.mark.parametrize("name", builtin_benchmarks())
def test_generated_trees_are_found_whole(name, trees):
    benchmark = builtin_benchmarks()[name]
    base, chips = find_chips(benchmark, trees)
    assert base == trees / benchmark.dataset
    assert len(chips) == {"WHU-OHS": 16 * 4, "DFC2020": 7 * 8, "MTS12": 28}[benchmark.dataset] - 32 * (
        name == "whuohs-id"
    )
    assert {chip.domain for chip in chips} == {*benchmark.source, *benchmark.target}
    assert [chip.chip for chip in chips] == sorted({chip.chip for chip in chips})
    for chip in chips:
        assert (base / chip.image).is_file() and (base / chip.label).is_file()
        assert chip.image.split("/").index("image") == chip.label.split("/").index("label")
        if chip.domain != "all" and benchmark.dataset != "MTS12":
            assert chip.domain in Path(chip.image).name and chip.domain in Path(chip.label).name
    assert find_chips(benchmark, base) == (base, chips), "the dataset's own folder is a data root as well"


def test_whu_nested_layout_holds_the_same_chips_as_the_flat_one(tmp_path, trees):
    write_whu_ohs(tmp_path / "WHU-OHS", layout="nested", chip=16, chips_per_city=4)
    benchmark = builtin_benchmarks()["whuohs-s2t"]
    flat, nested = find_chips(benchmark, trees)[1], find_chips(benchmark, tmp_path)[1]
    assert [(chip.chip, chip.domain) for chip in flat] == [(chip.chip, chip.domain) for chip in nested]
    assert {chip.image.count("/") for chip in flat} == {3} and {chip.image.count("/") for chip in nested} == {4}
    assert Counter(chip.image.split("/")[3] for chip in nested).keys() == {"tr", "val", "ts"}


def test_whu_flat_and_nested_may_stand_without_the_folder_around(tmp_path):
    touch(tmp_path, *[name.removeprefix("transfer-STall/") for name in whu_names("tr/")])
    _, chips = find_chips(builtin_benchmarks()["whuohs-t2s"], tmp_path)
    assert Counter(chip.domain for chip in chips) == {f"{side}{city}": 2 for side in "ST" for city in range(1, 9)}
    assert chips[0].image == "source/image/tr/S1_1.tif" and chips[0].label == "source/label/tr/S1_1.tif"


def test_whu_official_layout_is_one_domain_over_all_folds(tmp_path):
    for fold, names in {"tr": ("a", "b"), "val": ("a",), "ts": ("c",)}.items():
        touch(tmp_path, *[f"{fold}/{kind}/{name}.tif" for name in names for kind in ("image", "label")])
    _, chips = find_chips(builtin_benchmarks()["whuohs-id"], tmp_path)
    assert [chip.chip for chip in chips] == ["tr-a", "tr-b", "ts-c", "val-a"], "equal names in two folds are two chips"
    assert {chip.domain for chip in chips} == {"all"}


def test_dfc_sets_layout_holds_the_same_chips_as_the_seasons(tmp_path, trees):
    write_dfc2020(tmp_path / "DFC2020", layout="sets", chip=16, chips_per_city=8)
    benchmark = builtin_benchmarks()["dfc2020-autumn"]
    seasons, sets = find_chips(benchmark, trees)[1], find_chips(benchmark, tmp_path)[1]
    assert [(chip.chip, chip.domain) for chip in seasons] == [(chip.chip, chip.domain) for chip in sets]
    assert {chip.image.split("/")[0] for chip in sets} == {"trainset", "testset"}
    assert {chip.image.split("/")[0] for chip in seasons} == {"spring", "summer", "autumn", "winter"}


def test_dfc_label_path_replaces_parts_of_the_name_only():
    image = "spring/image/s2_BlackForest/ROIs0000_spring_s2_BlackForest_p7.tif"
    assert dfc_label_path(image) == "spring/label/dfc_BlackForest/ROIs0000_spring_dfc_BlackForest_p7.tif"


@pytest.mark.parametrize("folder", ["image_s2_x", "s2_image/image", "label/s2_images"])
def test_words_of_the_layout_in_the_users_own_folder_survive(tmp_path, folder):
    root = tmp_path / folder
    touch(root / "DFC2020", *dfc_names())
    touch(root / "WHU-OHS", *whu_names())
    touch(root / "MTS12", *MTS_NAMES)
    for name in MISSING:
        base, chips = find_chips(builtin_benchmarks()[name], root)
        assert root in base.parents
        assert all((base / chip.label).is_file() for chip in chips)


def test_hidden_files_are_no_chips(tmp_path):
    touch(tmp_path / "WHU-OHS", *whu_names(), "transfer-STall/source/image/._S1_1.tif")
    touch(tmp_path / "MTS12", *MTS_NAMES, "image/test/._eopatch_id_2_col_7_row_0.tif", "label/test/._x_label.mat")
    for name in ("whuohs-s2t", "mts12-n2s"):
        assert not [chip for chip in find_chips(builtin_benchmarks()[name], tmp_path)[1] if chip.chip.startswith(".")]


# ------------------------------------------------------------------------------------------------ incomplete trees


def test_a_root_that_does_not_exist_or_is_a_file(tmp_path):
    message = refusal("mts12-n2s", tmp_path / "gone")
    assert "does not exist" in message and str(tmp_path / "gone") in message and "image/train" in message
    touch(tmp_path, "file")
    assert "not a folder" in refusal("mts12-n2s", tmp_path / "file")


@pytest.mark.parametrize("name", MISSING)
def test_a_root_without_the_dataset_lists_what_was_looked_for_and_found(name, tmp_path):
    touch(tmp_path, "holidays/a.jpg", "thesis.pdf")
    message = refusal(name, tmp_path)
    probe = {"whuohs-s2t": "transfer-STall/source", "dfc2020-spring": "spring/image", "mts12-n2s": "image/train"}[name]
    folder = builtin_benchmarks()[name].dataset
    for fragment in (probe, f"{folder}/{probe}", "holidays, thesis.pdf", str(tmp_path)):
        assert fragment in message


def test_an_image_without_label_is_named(touched):
    name, root, names = touched
    (root / names[1]).unlink()
    message = refusal(name, root)
    assert f"1 of {CHECKED[name]} images have no label" in message
    assert names[0] in message and names[1] in message


def test_a_label_without_image_is_named(touched):
    name, root, names = touched
    (root / names[0]).unlink()
    message = refusal(name, root)
    assert f"1 of {CHECKED[name]} labels have no image" in message and names[1] in message


def test_one_half_of_whu_is_missing(tmp_path):
    touch(tmp_path, *whu_names())
    shutil.rmtree(tmp_path / "transfer-STall" / "target")
    assert "only one half of WHU-OHS" in refusal("whuohs-s2t", tmp_path)
    touch(tmp_path, *whu_names())
    shutil.rmtree(tmp_path / "transfer-STall" / "source" / "label")
    message = refusal("whuohs-s2t", tmp_path)
    assert "a folder is missing" in message and str(Path("source", "label")) in message


@pytest.mark.parametrize(
    ("name", "gone", "fragments"),
    [
        ("dfc2020-spring", ["summer"], ["target", "incomplete", "Chabarovsk", "Mumbai (2)"]),
        ("dfc2020-summer", ["summer"], ["source", "empty", "Chabarovsk"]),
        ("mts12-n2s", ["image/test", "label/test"], ["target", "empty", "no chip of domain south", "north (2)"]),
        ("mts12-s2n", ["image/test", "label/test"], ["source", "empty", "no chip of domain south"]),
    ],
)
def test_a_missing_domain_is_named_with_what_is_there(name, gone, fragments, tmp_path):
    touch(tmp_path, *(dfc_names() if "dfc" in name else MTS_NAMES))
    for folder in gone:
        shutil.rmtree(tmp_path / folder)
    message = refusal(name, tmp_path)
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("whuohs-s2t", "transfer-STall/{source}/{image}/X9_0001.tif"),
        ("dfc2020-spring", "spring/image/s2_BlackForest/BlackForest_p1.tif"),
        ("dfc2020-spring", "spring/image/s2_BlackForest/ROIs0000_summer_s2_BlackForest_p900.tif"),
        ("mts12-n2s", "image/train/eopatch_900_col_1_row_2.tif"),
    ],
)
def test_a_name_that_is_not_of_the_dataset_is_shown(name, wrong, tmp_path):
    touch(tmp_path, *{"whu": whu_names(), "dfc": dfc_names(), "mts": MTS_NAMES}[name[:3]])
    wrong = wrong.replace("{", "").replace("}", "")
    touch(tmp_path, wrong, wrong.replace("image", "label"))
    assert Path(wrong).stem in refusal(name, tmp_path)


# ------------------------------------------------------------------------------------------------ MTS12 footprints


def test_mts12_names_are_exact_footprints():
    assert mts12_footprint(0, 0) == ("EPSG:32633", 370_000.0, 5_025_000.0, 375_000.0, 5_030_000.0)
    assert mts12_footprint(9, 14) == ("EPSG:32633", 415_000.0, 5_095_000.0, 420_000.0, 5_100_000.0)


def test_mts12_rows_11_and_12_are_neighbours_on_both_sides_of_the_gap():
    south, north = shapely.box(*mts12_footprint(20, 11)[1:]), shapely.box(*mts12_footprint(20, 12)[1:])
    assert south.touches(north) and south.intersection(north).length == 5_000.0
    assert south.centroid.y < north.centroid.y
    assert [mts12_domain(row) for row in (0, 11, 12, 33)] == ["south", "south", "north", "north"]


def test_mts12_footprints_agree_with_the_georeference_of_the_sample(trees):
    base, chips = find_chips(builtin_benchmarks()["mts12-n2s"], trees)
    for chip in chips:
        with rasterio.open(base / chip.image) as file:
            crs, west, _, _, north = chip.footprint
            assert (file.crs.to_string(), file.bounds.left, file.bounds.top) == (crs, west, north)
        assert chip.domain == ("south" if "/test/" in chip.image else "north")


# ------------------------------------------------------------------------------------------------ own tables


def table_refusal(own, **changes) -> str:
    benchmark = own.benchmark(**changes)
    with pytest.raises(DataError) as caught:
        find_chips(benchmark, own.root)
    return str(caught.value)


def test_table_from_csv_and_geoparquet_are_the_same(own):
    base, chips = find_chips(own.benchmark(), own.root)
    assert base == own.root and len(chips) == 10
    first = chips[0]
    assert (first.chip, first.domain, first.site) == ("e0_0", "east", "e0")
    assert (first.image, first.label) == ("image/e0_0.tif", "label/e0_0.tif")
    boxes = [shapely.box(n, 0, n + 1, 1) for n in range(10)]
    geopandas.GeoDataFrame(own.rows, geometry=boxes, crs="EPSG:4326").to_parquet(own.root / "chips.parquet")
    layout = {**own.definition["layout"], "table": "chips.parquet"}
    assert find_chips(own.benchmark(layout=layout), own.root)[1] == chips


def test_numbers_keep_their_leading_zeros_and_na_is_a_name(own):
    for row in own.rows:
        row["place"] = "007" if row["region"] == "east" else "NA"
    own.write_table()
    sites = {chip.domain: chip.site for chip in find_chips(own.benchmark(), own.root)[1]}
    assert sites == {"east": "007", "west": "NA"}


def test_the_table_is_missing_empty_or_no_table(own):
    (own.root / "chips.csv").write_text("name,region,place\n")
    assert "the table of chips is empty" in table_refusal(own)
    (own.root / "chips.csv").write_bytes(b"\x00\xff\xfe" * 100)
    assert str(own.root / "chips.csv") in table_refusal(own)
    (own.root / "chips.csv").unlink()
    assert "the table of chips is missing" in table_refusal(own)
    (own.root / "bad.parquet").write_text("no parquet")
    layout = {**own.definition["layout"], "table": "bad.parquet"}
    message = table_refusal(own, layout=layout)
    assert "cannot be read" in message and "bad.parquet" in message


@pytest.mark.parametrize(("key", "value"), [("site", "plase"), ("domain", "regoin"), ("image", "image/{naem}.tif")])
def test_a_column_that_is_not_there_is_named_with_the_nearest(own, key, value):
    message = table_refusal(own, layout={**own.definition["layout"], key: value})
    assert f"layout.{key}" in message and "did you mean" in message
    assert {"site": "place", "domain": "region", "image": "name"}[key] in message


def test_an_empty_cell_is_named_by_its_row(own):
    own.rows[3]["place"] = ""
    own.write_table()
    message = table_refusal(own)
    assert "row 5 of the table has an empty cell" in message, "row 1 holds the names of the columns"


def test_a_chip_that_is_listed_twice(own):
    own.rows.append(dict(own.rows[0]))
    own.write_table()
    message = table_refusal(own)
    assert "1 chip names occur more than once" in message and "e0_0" in message


def test_domains_that_are_not_in_the_table_or_not_in_the_benchmark(own):
    own.rows[0]["region"] = "north"
    own.write_table()
    assert len(find_chips(own.benchmark(), own.root)[1]) == 9, "chips of other domains are left alone"
    for row in own.rows[6:]:
        row["region"] = "West"
    own.write_table()
    message = table_refusal(own)
    assert "no chip of domain west" in message and "West (4)" in message


@pytest.mark.parametrize("trick", ["../../secret", "a/../../../secret", "x\\..\\secret", "\\\\host\\share"])
def test_paths_that_leave_the_root_are_refused(own, trick):
    own.rows[2]["name"] = trick
    own.write_table()
    message = table_refusal(own)
    assert "leads outside the data root" in message and "chips.csv" in message


@pytest.mark.parametrize("trick", ["/etc/passwd", "//host/share"])
def test_absolute_paths_in_the_table_are_refused(own, trick):
    own.rows[2]["name"] = trick
    own.write_table()
    message = table_refusal(own, layout={**own.definition["layout"], "image": "{name}"})
    assert "leads outside the data root" in message


def test_the_table_reader_gives_plain_text_from_typed_columns(own):
    frame = geopandas.pd.DataFrame(own.rows).assign(region=1, place=np.arange(10))
    frame.loc[6:, "region"] = 2
    frame.to_parquet(own.root / "chips.parquet")
    layout = {**own.definition["layout"], "table": "chips.parquet"}
    benchmark = own.benchmark(layout=layout, domains=[{"id": "1"}, {"id": "2"}], source=["1"], target=["2"])
    chips = find_chips(benchmark, own.root)[1]
    assert {(chip.domain, chip.site) for chip in chips} == {("1" if n < 6 else "2", str(n)) for n in range(10)}
