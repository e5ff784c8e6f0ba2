"""The shipped benchmarks against the published facts, and what a wrong definition is answered with."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from spectral_tl_bench.benchmarks import VOID, Benchmark, builtin_benchmarks, groups, read_benchmark, resolve
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.errors import BenchmarkError

S = [f"S{number}" for number in range(1, 9)]
T = [f"T{number}" for number in range(1, 9)]
SEASONS = {
    "spring": ["BlackForest"],
    "summer": ["Chabarovsk"],
    "autumn": ["BandarAnzali", "CapeTown", "Mumbai"],
    "winter": ["KippaRing", "MexicoCity"],
}
CITIES = [city for cities in SEASONS.values() for city in cities]


def others(season: str) -> list[str]:
    return [city for name, cities in SEASONS.items() if name != season for city in cities]


# dataset, gap, source, target, chips of source and target, bands, pixels, classes. From the authors' released lists
# (SpectralX, ISPRS J. Photogramm. Remote Sens. 239, 2026, 774-792); an in-domain reference has one number, the sum
# of the published train, validation and test chips, because the suite cuts its test part itself.
FACTS: dict[str, tuple[str, str, list[str], list[str], tuple[int, ...], int, int, int]] = {
    "whuohs-s2t": ("WHU-OHS", "region", S, T, (1464, 1450), 32, 512, 22),
    "whuohs-t2s": ("WHU-OHS", "region", T, S, (1450, 1464), 32, 512, 22),
    "dfc2020-spring": ("DFC2020", "season", SEASONS["spring"], others("spring"), (1444, 4670), 13, 256, 8),
    "dfc2020-summer": ("DFC2020", "season", SEASONS["summer"], others("summer"), (486, 5628), 13, 256, 8),
    "dfc2020-autumn": ("DFC2020", "season", SEASONS["autumn"], others("autumn"), (3016, 3098), 13, 256, 8),
    "dfc2020-winter": ("DFC2020", "season", SEASONS["winter"], others("winter"), (1168, 4946), 13, 256, 8),
    "mts12-n2s": ("MTS12", "region", ["north"], ["south"], (639, 297), 24, 500, 8),
    "mts12-s2n": ("MTS12", "region", ["south"], ["north"], (297, 639), 24, 500, 8),
    "whuohs-id": ("WHU-OHS", "none", ["all"], ["all"], (4822 + 513 + 2460,), 32, 512, 24),
    "dfc2020-id": ("DFC2020", "none", CITIES, CITIES, (4279 + 1835,), 13, 256, 8),
    "mts12-id": ("MTS12", "none", ["north", "south"], ["north", "south"], (655 + 281,), 24, 500, 8),
}

WHU_WAVELENGTHS = [
    0.466, 0.480, 0.500, 0.520, 0.536, 0.550, 0.566, 0.580, 0.596, 0.610, 0.626, 0.640, 0.656, 0.670, 0.686, 0.700,
    0.716, 0.730, 0.746, 0.760, 0.776, 0.790, 0.806, 0.820, 0.836, 0.850, 0.866, 0.880, 0.896, 0.910, 0.926, 0.940,
]  # fmt: skip
WHU_CLASSES = [
    "Paddy field", "Dry farm", "Woodland", "Shrubbery", "Sparse woodland", "Other forest land",
    "High-covered grassland", "Medium-covered grassland", "Low-covered grassland", "River/canal", "Lake",
    "Reservoir/pond", "Beach land", "Shoal", "Urban built-up", "Rural settlement", "Other construction land", "Sand",
    "Gobi", "Saline/alkali soil", "Marshland", "Bare land", "Bare rock", "Ocean",
]  # fmt: skip
CITY_PAIRS = [
    ("Changchun", "Jilin"), ("Wuxi", "Shanghai"), ("Guangzhou", "Zhongshan"), ("Xining", "Lanzhou"),
    ("Hetian", "Kelamayi"), ("Anyi", "Nanchang"), ("Changde", "Changsha"), ("Tianjin", "Tangshan"),
]  # fmt: skip


def test_exactly_the_published_benchmarks_ship():
    assert set(builtin_benchmarks()) == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    dataset, gap, source, target, chips, bands, pixels, classes = FACTS[name]
    benchmark = builtin_benchmarks()[name]
    assert (benchmark.id, benchmark.dataset, benchmark.gap) == (name, dataset, gap)
    assert (set(benchmark.source), set(benchmark.target)) == (set(source), set(target))
    assert tuple(benchmark.expected[side] for side in ("source", "target") if side in benchmark.expected) == chips
    assert (len(benchmark.sensor.bands), benchmark.chip_size, len(benchmark.labels.classes)) == (bands, pixels, classes)
    assert benchmark.sensor.gsd == 10


def test_groups():
    found = groups()
    assert set(found) == {"all", "cross-region", "cross-season", "in-domain"}
    gap = {name: facts[1] for name, facts in FACTS.items()}
    assert set(found["all"]) == {name for name in FACTS if gap[name] != "none"}
    for group, kind in (("cross-region", "region"), ("cross-season", "season"), ("in-domain", "none")):
        assert set(found[group]) == {name for name in FACTS if gap[name] == kind}


@pytest.mark.parametrize("name", FACTS)
def test_definition_survives_being_shown_as_yaml(name):
    benchmark = builtin_benchmarks()[name]
    shown = yaml.safe_load(yaml.safe_dump(benchmark.model_dump(mode="json", exclude_defaults=True)))
    assert Benchmark.model_validate(shown) == benchmark


@pytest.mark.parametrize("name", ["whuohs-s2t", "whuohs-t2s", "whuohs-id"])
def test_whu_wavelengths_rise_and_band_9_is_mended(name):
    wavelengths = builtin_benchmarks()[name].sensor.wavelengths
    assert list(wavelengths) == WHU_WAVELENGTHS
    assert all(one < other for one, other in itertools.pairwise(wavelengths))
    assert wavelengths[8] == 0.596, "the released configuration says .569, out of order"


def test_whu_cities():
    domains = {domain.id: domain.name for domain in builtin_benchmarks()["whuohs-s2t"].domains}
    for number, (source, target) in enumerate(CITY_PAIRS, start=1):
        assert (domains[f"S{number}"], domains[f"T{number}"]) == (source, target)


@pytest.mark.parametrize("name", ["whuohs-s2t", "whuohs-t2s"])
def test_whu_transfer_leaves_out_18_and_20_and_renumbers(name):
    labels = builtin_benchmarks()[name].labels
    mapped = LabelMap(labels)(np.arange(25)).tolist()
    # Published numbers are 1-based, the suite's classes 0-based: 19->18, 21->19, 22->20, 23->21, 24->22.
    expected = {**{raw: raw for raw in range(1, 18)}, 19: 18, 21: 19, 22: 20, 23: 21, 24: 22}
    assert mapped == [expected[raw] - 1 if raw in expected else VOID for raw in range(25)]
    assert list(labels.names) == [name for raw, name in enumerate(WHU_CLASSES, start=1) if raw not in (18, 20)]
    assert LabelMap(labels).unknown(np.arange(26)) == [25]


def test_whu_in_domain_keeps_all_24_classes():
    labels = builtin_benchmarks()["whuohs-id"].labels
    assert LabelMap(labels)(np.arange(25)).tolist() == [VOID, *range(24)]
    assert list(labels.names) == WHU_CLASSES


@pytest.mark.parametrize("name", [name for name in FACTS if name.startswith("dfc")])
def test_dfc_label_map_with_savanna_and_snow_void(name):
    labels = builtin_benchmarks()[name].labels
    expected = {1: 1, 2: 2, 4: 3, 5: 4, 6: 5, 7: 6, 9: 7, 10: 8}
    mapped = LabelMap(labels)(np.arange(20)).tolist()
    assert mapped == [expected[raw] - 1 if raw in expected else VOID for raw in range(20)]
    assert mapped[3] == mapped[8] == VOID
    assert labels.names == (
        "Forest", "Shrubland", "Grassland", "Wetlands", "Croplands", "Urban/Built-up", "Barren", "Water",
    )  # fmt: skip
    assert LabelMap(labels).unknown(np.array([0, 17, 255])) == [], "any other value is void"


def test_dfc_bands_and_chips_of_a_city():
    benchmark = builtin_benchmarks()["dfc2020-id"]
    assert benchmark.sensor.wavelengths == (
        0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.833, 0.865, 0.943, 1.380, 1.610, 2.190,
    )  # fmt: skip
    chips = {domain.id: domain.chips for domain in benchmark.domains}
    assert chips == {
        "BlackForest": 1444, "Chabarovsk": 486, "BandarAnzali": 676, "CapeTown": 1440, "Mumbai": 900,
        "KippaRing": 684, "MexicoCity": 484,
    }  # fmt: skip
    assert {domain.id: domain.season for domain in benchmark.domains} == {
        city: season for season, cities in SEASONS.items() for city in cities
    }
    for season, cities in SEASONS.items():
        assert sum(chips[city] for city in cities) == FACTS[f"dfc2020-{season}"][4][0]
        notes = builtin_benchmarks()[f"dfc2020-{season}"].notes
        assert any("cit" in note for note in notes), "a gap of seasons is one of cities, and that must be said"


@pytest.mark.parametrize("name", ["mts12-n2s", "mts12-s2n", "mts12-id"])
def test_mts12_bands_go_date_by_date(name):
    bands = builtin_benchmarks()[name].sensor.bands
    assert [band.date for band in bands] == [date for date in ("Mar", "Jun", "Sep", "Dec") for _ in range(6)]
    assert [band.wavelength for band in bands] == [0.490, 0.560, 0.665, 0.842, 1.610, 2.190] * 4
    labels = builtin_benchmarks()[name].labels
    assert LabelMap(labels)(np.arange(9)).tolist() == [VOID, *range(8)]
    assert LabelMap(labels).unknown(np.arange(10)) == [9]


# ------------------------------------------------------------------------------------------- definitions with mistakes


def refused(own: Any, change: Any) -> str:
    definition = copy.deepcopy(own.definition)
    change(definition)
    own.yaml.write_text(yaml.safe_dump(definition, sort_keys=False))
    with pytest.raises(BenchmarkError) as caught:
        read_benchmark(own.yaml)
    assert str(own.yaml) in str(caught.value), "the message names the file"
    return str(caught.value)


def put(*path: Any) -> Any:
    """A change: the last argument is put at the path of keys before it."""
    *keys, last, value = path

    def change(definition: dict[str, Any]) -> None:
        inner: Any = definition
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


def drop(*path: Any) -> Any:
    *keys, last = path

    def change(definition: dict[str, Any]) -> None:
        inner: Any = definition
        for key in keys:
            inner = inner[key]
        del inner[last]

    return change


def rename(*path: Any) -> Any:
    *keys, old, new = path

    def change(definition: dict[str, Any]) -> None:
        inner: Any = definition
        for key in keys:
            inner = inner[key]
        inner[new] = inner.pop(old)

    return change


PUBLISHED = {"kind": "dfc2020", "folders": ["DFC2020"]}
MANY = [{"name": f"class {n}", "colour": "#000000", "raw": [n + 1]} for n in range(256)]


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (drop("title"), ["key 'title' is missing"]),
        (drop("sensor", "bands", 1, "wavelength"), ["key 'sensor.bands.1.wavelength' is missing"]),
        (drop("layout", "table"), ["key 'layout.table' is missing"]),
        (drop("layout", "site"), ["key 'layout.site' is missing"]),
        (rename("title", "tilte"), ["key 'tilte' is not known: did you mean title?"]),
        (rename("layout", "table", "tabel"), ["key 'layout.tabel' is not known: did you mean table"]),
        (put("sensor", "bands", 0, "wavelenght", 0.5), ["'sensor.bands.0.wavelenght'", "did you mean wavelength?"]),
        (put("split", "valdation", 0.2), ["key 'split.valdation' is not known: did you mean validation?"]),
        (put("layout", {**PUBLISHED, "folder": "x"}), ["key 'layout.folder' is not known: did you mean folders?"]),
        (put("layout", "kind", "tabel"), ["key 'layout.kind'", "no layout 'tabel'", "did you mean table?"]),
        (put("target", ["east"]), ["domain 'east' is on both sides"]),
        (put("target", ["south"]), ["target names domain 'south', which is not in domains (east, west)"]),
        (put("source", ["east", "east"]), ["source names a domain twice"]),
        (put("sensor", "bands", 2, "wavelength", 842.0), ["'sensor.bands.2'", "band nir", "842", "nanometres"]),
        (put("sensor", "bands", 2, "name", "red"), ["key 'sensor'", "unique", "red"]),
        (put("labels", "classes", 0, "raw", [1, 2]), ["'labels'", "raw label 2 means both 'Land' and 'Water'"]),
        (put("labels", "void", [0, 3]), ["raw label 3 means both 'void' and 'Water'"]),
        (put("labels", "classes", MANY), ["key 'labels.classes'", "255"]),
        (put("labels", "classes", 0, "colour", "green"), ["key 'labels.classes.0.colour'", "'green'"]),
        (put("layout", "table", "../chips.csv"), ["key 'layout.table'", "inside the data root", "'../chips.csv'"]),
        (put("layout", "image", "/data/{name}.tif"), ["key 'layout.image'", "inside the data root"]),
        (put("layout", "label", "label/../../{name}.tif"), ["key 'layout.label'", "inside the data root"]),
        (put("split", {"validation": 0.3, "test": 0.3}), ["split.test is only for in-domain references"]),
        (put("gap", "none"), ["source equal to target and split.test"]),
        (put("layout", PUBLISHED), ["split.place: site needs a table"]),
        (put("split", "validation", 1.5), ["key 'split.validation'", "less than 0.6", "1.5"]),
        (put("chip_size", "large"), ["key 'chip_size'", "'large'"]),
        (put("id", "my benchmark/1"), ["key 'id'", "my benchmark/1"]),
        (put("expected", {"sauce": 3}), ["key 'expected.sauce"]),
    ],
)
def test_a_mistake_is_named_with_file_and_key(own, change, fragments):
    message = refused(own, change)
    for fragment in fragments:
        assert fragment in message


def test_several_mistakes_are_named_together(own):
    def change(definition: dict[str, Any]) -> None:
        del definition["title"], definition["citation"]

    message = refused(own, change)
    assert "2 mistakes" in message and "'title'" in message and "'citation'" in message


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("id: a\ntitle: b\nid: c\n", ["key 'id' is given twice", "line 3"]),
        ("sensor:\n  name: a\n  gsd: 1\n  name: b\n", ["key 'name' is given twice", "line 4"]),
        ("id: [unclosed\n", ["not valid YAML", "line 2"]),
        ("? [a, b]\n: c\n", ["not valid YAML", "line 1"]),
        ("image: {{name}}.tif\n", ["not valid YAML", "line 1"]),
        ("!!python/object/apply:os.getcwd []\n", ["not valid YAML", "python/object"]),
        ("- a\n- b\n", ["mapping"]),
        ("", ["mapping"]),
        ("extends: [a]\n", ["'extends' must name a file"]),
        ("1: a\n", ["mistakes", "key 'id' is missing"]),
    ],
)
def test_bad_yaml(tmp_path, text, fragments):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BenchmarkError) as caught:
        read_benchmark(path)
    for fragment in [str(path), *fragments]:
        assert fragment in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"id: \xff\xfe\n")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("missing.yaml", "binary.yaml", "folder.yaml"):
        with pytest.raises(BenchmarkError, match="cannot be read") as caught:
            read_benchmark(tmp_path / name)
        assert name in str(caught.value)


def test_extends_takes_shared_facts_and_own_keys_win(own):
    own.write_definition()
    child = own.root / "child.yaml"
    child.write_text("extends: mine.yaml\nid: child\nchip_size: 32\n")
    benchmark = read_benchmark(child)
    assert (benchmark.id, benchmark.chip_size, benchmark.sensor) == ("child", 32, own.benchmark().sensor)
    child.write_text("extends: gone.yaml\nid: child\n")
    with pytest.raises(BenchmarkError, match=r"gone\.yaml"):
        read_benchmark(child)


# ------------------------------------------------------------------------------------------------------------ names


def test_resolve_ids_groups_commas_and_files_without_repetition(own):
    found = resolve(["mts12-n2s,in-domain", "mts12-id", str(own.yaml)])
    assert [benchmark.id for benchmark, _ in found] == ["mts12-n2s", "dfc2020-id", "mts12-id", "whuohs-id", "mine"]
    assert [folder for _, folder in found] == [None] * 4 + [own.root]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mts12-n2", "mts12-n2s"),
        ("cross-seasons", "cross-season"),
        ("dfc2020_spring", "dfc2020-spring"),
        ("qqq", "all"),
    ],
)
def test_unknown_names_get_the_nearest(name, hint):
    with pytest.raises(BenchmarkError) as caught:
        resolve([name])
    assert repr(name) in str(caught.value) and hint in str(caught.value)


@pytest.mark.parametrize("names", [[], [","], [" "]])
def test_naming_no_benchmark_is_a_mistake(names):
    with pytest.raises(BenchmarkError, match="no benchmark is named"):
        resolve(names)


@pytest.mark.parametrize("taken", ["mts12-n2s", "all"])
def test_an_id_of_the_suite_is_refused_for_a_benchmark_of_ones_own(own, taken):
    own.benchmark(id=taken)
    with pytest.raises(BenchmarkError, match="belongs to the suite") as caught:
        resolve([str(own.yaml)])
    assert repr(taken) in str(caught.value) and str(own.yaml) in str(caught.value)


def test_two_files_with_one_id_are_refused(own, tmp_path):
    copy_of = tmp_path / "copy.yaml"
    copy_of.write_text(own.yaml.read_text())
    with pytest.raises(BenchmarkError, match="two benchmarks have the id 'mine'"):
        resolve([str(own.yaml), str(copy_of)])


def test_definitions_stand_beside_each_other_in_one_folder():
    from spectral_tl_bench.benchmarks import splits_folder

    folder: Path = splits_folder()
    assert {path.stem for path in folder.glob("[!_]*.yaml")} == set(FACTS), "file names are the ids"
