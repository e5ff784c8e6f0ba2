"""A definition says by what its domains are named, and data that are named by something else are refused."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from rasterio.transform import from_origin
from tiny import install, run_main

from spectral_tl_bench.benchmarks import builtin_benchmarks, further_benchmarks
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.layouts import layout_of
from spectral_tl_bench.errors import BenchmarkError, DataError
from spectral_tl_bench.identity import benchmark_digest
from tests.data.test_domains import moved

ALL = {**builtin_benchmarks(), **further_benchmarks()}
FLAT = """
from spectral_tl_bench.data.layouts import ChipFiles, Layout

class Flat(Layout):
    def chips(self, base, benchmark):
        return [
            ChipFiles(path.stem, {"e": "east", "w": "west"}[path.stem[0]], path.stem[:2], f"image/{path.name}",
                      f"label/{path.name}")
            for path in sorted((base / "image").iterdir())
        ]
"""


def without_domains(own, **columns: str) -> None:
    """Take the column of domains out of the table and its layout."""
    own.definition["layout"].pop("domain")
    for row in own.rows:
        row.pop("region")
    own.write_table()


def refusal(benchmark, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        build_index(benchmark, root)
    return str(caught.value)


@pytest.mark.parametrize("name", ALL)
def test_every_benchmark_of_the_suite_says_its_rule_and_it_is_that_of_its_layout(name):
    benchmark = ALL[name]
    assert layout_of(benchmark).domains_by in benchmark.domains_by
    assert set(benchmark.domains_by) - {layout_of(benchmark).domains_by} == (
        {"geometry", "table"} if benchmark.dataset == "DFC2020" else set()
    )


@pytest.mark.parametrize("name", ["mts12-n2s", "dfc2020-spring", "whuohs-s2t", "whuohs-id"])
def test_their_copies_are_held_against_it(name, trees):
    benchmark = ALL[name]
    manifest = build_index(benchmark, trees).manifest
    plain = benchmark.model_copy(update={"domains_by": ()})
    assert build_index(plain, trees).manifest == manifest
    other = benchmark.model_copy(update={"domains_by": ("geometry",)})
    message = refusal(other, trees)
    assert f"{name} says that domains are named by geometry (domains_by)" in message and str(trees) in message


@pytest.mark.parametrize("rule", [None, "table", ["table"], ["geometry", "table"]])
def test_a_table_s_column(own, rule):
    benchmark = own.benchmark(**({} if rule is None else {"domains_by": rule}))
    assert build_index(benchmark, own.root).frame["domain"].value_counts().to_dict() == {"east": 6, "west": 4}
    assert benchmark_digest(benchmark.model_dump(mode="json")) == benchmark_digest(
        benchmark.model_copy(update={"domains_by": (), "track": "mine"}).model_dump(mode="json")
    ), "what names domains is in no identity: the domains themselves are, in the manifest"


@pytest.mark.parametrize("rule", ["name", "folder", "geometry", ["name", "folder"]])
def test_a_table_where_the_definition_says_another_rule(own, rule):
    message = refusal(own.benchmark(domains_by=rule), own.root)
    assert "its layout table has named those of 10 chips by table" in message


def test_a_rule_that_there_is_not(own):
    with pytest.raises(BenchmarkError, match="domains_by"):
        own.benchmark(domains_by="guess")


@pytest.fixture
def placed(own):
    """East around 15 degrees, west six degrees further; a table without domains."""
    without_domains(own)
    own.definition["domains"] = [{"id": "east", "lon_lat": [15.0, 45.15]}, {"id": "west", "lon_lat": [21.0, 45.15]}]
    own.write_definition()
    return own


@pytest.mark.parametrize("rule", [None, "geometry", ["table", "geometry"]])
def test_places_name_the_domain_where_the_table_does_not(placed, rule):
    index = build_index(placed.benchmark(**({} if rule is None else {"domains_by": rule})), placed.root)
    assert {chip[0]: domain for chip, domain in index.frame["domain"].items()} == {"e": "east", "w": "west"}
    assert any("within 150 km of a domain's centre" in note for note in index.notes)


@pytest.mark.parametrize("rule", ["table", "name", ["name", "table"]])
def test_places_are_not_asked_where_the_definition_says_another_rule(placed, rule):
    message = refusal(placed.benchmark(domains_by=rule), placed.root)
    assert "names of files and layout tell none" in message
    assert ("domains.csv" in message) == ("table" in rule)


def test_a_chip_that_lies_nowhere_is_refused_by_name(placed):
    moved(placed.image("e1_0"), transform=from_origin(500_000, 5_600_000, 10, 10))
    moved(placed.label("e1_0"), transform=from_origin(500_000, 5_600_000, 10, 10))
    assert "e1_0" in refusal(placed.benchmark(domains_by="geometry"), placed.root)


def write_domains(own) -> None:
    with (own.root / "domains.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("chip", "domain"), *((row["name"], "east" if row["name"][0] == "e" else "west") for row in own.rows)]
        )


def test_a_table_of_domains_beside_the_chips(placed):
    write_domains(placed)
    for rule in ("table", ["geometry", "table"]):
        assert len(build_index(placed.benchmark(domains_by=rule), placed.root).frame) == 10
    message = refusal(placed.benchmark(domains_by="geometry"), placed.root)
    assert "and here is a table of them" in message and "domains.csv" in message


def test_a_layout_of_somebody_else_that_does_not_say(own, tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny_flat", FLAT, {"flat": "tiny_flat:Flat"}, monkeypatch, group="layouts")
    own.definition["layout"], own.definition["split"] = {"kind": "flat"}, {"place": "grid", "block": 100}
    for rule in ("name", "folder", "table"):
        assert len(build_index(own.benchmark(domains_by=rule), own.root).frame) == 10
    assert "by folder or name or table" in refusal(own.benchmark(domains_by="geometry"), own.root)


def test_the_commands_say_it(own, monkeypatch, capsys):
    own.benchmark(domains_by=["name", "folder"])
    for name, said in (
        ("mts12-n2s", "domains   named by the name of the file"),
        ("dfc2020-id", "domains   named by the name of the file or where the chip lies or a table"),
        (own.yaml, "domains   named by the name of the file or its folder"),
    ):
        assert run_main(monkeypatch, ["benchmarks", "show", name]) == 0
        assert said in capsys.readouterr().out
    own.definition.pop("domains_by")
    own.write_definition()
    assert run_main(monkeypatch, ["benchmarks", "show", own.yaml]) == 0
    assert "domains   named by whatever its layout does" in capsys.readouterr().out
    own.benchmark(domains_by="name")
    assert run_main(monkeypatch, ["data", "check", own.yaml]) == 2
    assert "mend domains_by" in capsys.readouterr().err


def test_a_split_by_folder_of_a_foreign_copy(own):
    shutil.copytree(own.root / "image", own.root / "elsewhere")
    assert len(build_index(own.benchmark(domains_by="table"), own.root).frame) == 10, "folders beside do not matter"
