"""A layout from somebody's package: found by name, with options, through the index; and what is wrong with one."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tiny import install, run_main

from spectral_tl_bench.benchmarks import builtin_benchmarks, read_benchmark
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.layouts import Layout, find_chips, layout_entries, layout_of, load_layout
from spectral_tl_bench.data.source import locate, open_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import BenchmarkError, DataError, UserError

PAIRS = """
from spectral_tl_bench.data.layouts import ChipFiles, Layout

class Pairs(Layout):
    \"\"\"``DOMAIN/NAME.tif`` beside ``DOMAIN/NAME_truth.tif``.\"\"\"

    sites = True
    ending: str = "_truth"
    depth: int = 1

    def wanted(self):
        return f"DOMAIN/NAME{self.ending}.tif"

    def chips(self, base, benchmark):
        return [
            ChipFiles(
                chip=label.stem.removesuffix(self.ending),
                domain=domain.id,
                site=label.stem.partition("_")[0],
                image=f"{domain.id}/{label.name.replace(self.ending, '')}",
                label=f"{domain.id}/{label.name}",
            )
            for domain in benchmark.domains
            for label in (base / domain.id).glob(f"*{self.ending}.tif")
        ]

class Unfinished(Layout):
    pass

class Breaks(Pairs):
    def chips(self, base, benchmark):
        return {}["nothing"]

class Strange(Pairs):
    def chips(self, base, benchmark):
        return ["a.tif"]

NOTHING = 3
"""
ENTRIES = {
    "pairs": "tiny_pairs:Pairs",
    "unfinished": "tiny_pairs:Unfinished",
    "breaks": "tiny_pairs:Breaks",
    "strange": "tiny_pairs:Strange",
    "nothing": "tiny_pairs:NOTHING",
    "absent": "nowhere:X",
}


@pytest.fixture
def paired(own, tmp_path, monkeypatch):
    """A user's data in the folders of a layout that an installed package brings."""
    install(tmp_path / "site", "tiny_pairs", PAIRS, ENTRIES, monkeypatch, group="layouts")
    for row in own.rows:
        folder = own.root / row["region"]
        folder.mkdir(exist_ok=True)
        shutil.move(own.image(row["name"]), folder / f"{row['name']}.tif")
        shutil.move(own.label(row["name"]), folder / f"{row['name']}_label.tif")
    own.definition["layout"] = {"kind": "pairs", "ending": "_label"}
    return own


def test_the_suite_s_own_are_layouts_and_name_those_of_the_benchmarks():
    assert set(layout_entries()) >= {"whu-ohs-transfer", "whu-ohs-official", "dfc2020", "mts12", "table"}
    for benchmark in builtin_benchmarks().values():
        layout = layout_of(benchmark)
        assert isinstance(layout, Layout) and layout.published and not layout.sites, benchmark.id
        assert layout.folders[0] == benchmark.dataset


def test_a_foreign_layout_runs_through_index_and_split(paired):
    benchmark = paired.benchmark()
    base, chips = find_chips(benchmark, paired.root)
    assert base == paired.root and [chip.chip for chip in chips] == sorted(row["name"] for row in paired.rows)
    index = build_index(benchmark, paired.root)
    assert index.frame["site"].value_counts().to_dict() == {"e0": 2, "e1": 2, "e2": 2, "w0": 2, "w1": 2}
    total = np.sum(index.frame.loc["e0_0", "band_sum"])
    assert total == paired_pixels(paired, "east/e0_0.tif").sum(), "the pixels are those of the file"
    split = make_split(benchmark, index, 0)
    assert {chip[0] for chip in split.chips("target")} == {"w"} and {chip[0] for chip in split.chips("train")} == {"e"}


def paired_pixels(own, name: str) -> np.ndarray:
    import rasterio

    with rasterio.open(own.root / name) as file:
        return file.read()


def test_its_results_are_a_demonstration_and_its_root_must_be_named(paired):
    benchmark = paired.benchmark()
    with pytest.raises(DataError, match="no data root is set for the benchmark mine"):
        locate(benchmark, paired.root, None, {})
    source = locate(benchmark, paired.root, paired.root, {})
    index, track, _ = open_index(benchmark, source, own=True)
    assert (track, len(index.frame)) == ("demonstration", 10)
    with pytest.raises(DataError, match="does not exist") as caught:
        find_chips(benchmark, paired.root / "gone")
    assert "DOMAIN/NAME_label.tif" in str(caught.value), "the layout says what it looks for"


def test_the_command_lists_and_shows_it(paired, monkeypatch, capsys):
    paired.write_definition()
    assert run_main(monkeypatch, ["benchmarks", "layouts"]) == 0
    listed = capsys.readouterr().out
    (line,) = [line for line in listed.splitlines() if line.startswith("pairs ")]
    assert "tiny_pairs" in line and "ending, depth" in line and "``DOMAIN/NAME.tif`` beside" in line
    broken = [line for line in listed.splitlines() if line.startswith("broken layout: ")]
    assert [line.split()[2] for line in broken] == ["absent", "nothing"]
    assert run_main(monkeypatch, ["benchmarks", "show", paired.yaml]) == 0
    assert "layout    pairs, which looks for DOMAIN/NAME_label.tif" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layout", "fragments"),
    [
        ({"kind": "pears"}, ["no layout 'pears'", "did you mean pairs"]),
        ({"kind": "pairs", "endign": "_x"}, ["key 'layout.endign' is not known: did you mean ending?"]),
        ({"kind": "pairs", "depth": "deep"}, ["key 'layout.depth'", "integer", "'deep'"]),
        ({"kind": "absent"}, ["layout 'absent' cannot be imported: ModuleNotFoundError", "nowhere:X"]),
        ({"ending": "_x"}, ["key 'layout.kind' is missing"]),
        ("pairs", ["key 'layout'", "'pairs'"]),
    ],
)
def test_a_mistake_in_the_definition_is_named_before_data_are_opened(paired, layout, fragments):
    paired.definition["layout"] = layout
    paired.write_definition()
    with pytest.raises(BenchmarkError) as caught:
        read_benchmark(paired.yaml)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fragments"),
    [
        ("nothing", ["is not a subclass of spectral_tl_bench.data.layouts.base.Layout", "tiny_pairs:NOTHING"]),
        ("unfinished", ["layout 'unfinished' is not complete", "chips", "tiny_pairs.Unfinished"]),
        ("breaks", ["layout 'breaks' failed: KeyError: 'nothing'", "tiny_pairs.py:"]),
        ("strange", ["layout 'strange' gives str as a chip", "ChipFiles"]),
    ],
)
def test_a_broken_layout_ends_in_a_line_for_people(paired, kind, fragments):
    benchmark = paired.benchmark(layout={"kind": kind})
    with pytest.raises(UserError) as caught:
        build_index(benchmark, paired.root)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_sites_are_asked_of_layouts_that_have_them(paired):
    paired.benchmark()
    paired.definition["layout"] = {"kind": "dfc2020", "folders": ["x"]}
    with pytest.raises(BenchmarkError, match=r"split\.place: site needs a table with sites; layout dfc2020 has none"):
        paired.benchmark()


def test_a_name_of_ours_stays_ours(tmp_path, monkeypatch, capsys):
    install(tmp_path, "tiny_thief", PAIRS, {"mts12": "tiny_thief:Pairs"}, monkeypatch, group="layouts")
    assert load_layout("mts12").__module__ == "spectral_tl_bench.data.layouts.mts12"
    assert run_main(monkeypatch, ["benchmarks", "layouts"]) == 0
    assert "broken layout: mts12 of tiny_thief 1.2 (tiny_thief:Pairs): the name belongs to" in capsys.readouterr().out
