"""An audit as a page, on the pages of boards, and against records."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from tiny import run_main

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.audit.facts import (
    Alike,
    Audit,
    BandShift,
    Basis,
    ClassShift,
    Copies,
    Ground,
    Method,
    Pixels,
    Priors,
    SharedGround,
    Told,
    write_audit,
)  # fmt: skip
from spectral_tl_bench.data.audit.run import GAP, NULL, audit_definition
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.leaderboard.audit.beside import for_page, read_audits
from spectral_tl_bench.leaderboard.audit.explained import explain, reweighted
from spectral_tl_bench.leaderboard.audit.lines import BASES
from spectral_tl_bench.leaderboard.audit.page import render_audit
from spectral_tl_bench.leaderboard.report import write_report

EVIL = "<script>alert(1)</script> & \"'\u202e{{ 7 * 7 }}"


def an_audit(name: str = "x", **more) -> Audit:
    """One with everything in it; ``name`` is that of all that users name."""
    ground = Ground(
        sharing=1, shared_km2=0.25, adjacent=3, touching=4, nearest_pair=(name, name),
        nearest_m={"min": 0, "q05": 1, "q25": 20, "median": 12_345, "q75": 50_000, "max": 9e6},
        worst=(SharedGround(one=name, other=name, km2=0.25, share=0.5),),
    )  # fmt: skip
    shift = BandShift(wasserstein=12.5, in_std=1.25, mean_shift=-12.0, by_shares=-7.25)
    told = Told(pixel_auc=0.75, chip_auc=0.875, accuracy=0.8, places=(5, 6), folds=5, deals=19,
                pixel_chance=(0.4, 0.71), chip_chance=(0.31, 0.66))  # fmt: skip
    fields = {
        "benchmark": "mts12-n2s", "title": name, "basis": "reproduced", "manifest": "cd", "unit": name, "scale": 1e-4,
        "band_names": (name, "B2"), "wavelengths": (0.5, 0.6), "class_names": (name, "forest"),
        "class_colours": ("#112233", "#445566"), "chips": {"train": 6, "validation": 2, "target": 4},
        "ground": {GAP: ground, NULL: Ground(unknown="not known, because chips have no CRS")},
        "faults": (name,), "notes": (name,), "broken": {name: name},
        "priors": {
            pair: Priors(one=(5, 5), other=(9, 0), jensen_shannon=0.321, only_one=(name,), only_other=(),
                         labelled=(0.625, 0.312))
            for pair in (GAP, NULL)
        },
        "pixels": Pixels(
            per_chip=256, source=100, target=50, bands=(shift, None), null_bands=(shift, shift),
            copies={pair: Copies(exact=1, near=2, worst=(Alike(one=name, other=name, exact=False, correlation=0.987),))
                    for pair in (GAP, NULL)},
            classes=(ClassShift(name=name, pixels=(500, 600), source=(100.0, None), target=(120.0, 300.0), in_std=0.777,
                                angle=4.5, band=0), ClassShift(name="forest", pixels=(3, 0))),
            told={GAP: told, NULL: Told(unknown="a side has fewer than two places (5 and 1)")},
        ),
        "methods": (Method(label=name, protocol=name, seeds=(0, 1), validation=0.5, target=0.3, reweighted=0.36,
                           left_out=(name,)),),
        "method_notes": (name,),
    }  # fmt: skip
    return Audit(**(fields | more))


class Parsed(HTMLParser):
    """Tags, and what a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_the_numbers_and_needs_nothing_else():
    page = Parsed(render_audit(an_audit("a name")))
    for number in (
        "0.32",
        "0.78",
        "0.987",
        "1.25",
        "0.31 to 0.66",
        "0.40 to 0.71",
        "-7.25",
        "62.5 %",
        "31.2 %",
        "12.3 km",
        "9,000.0 km",
        "0.25 km²",
        "50.0 %",
        "0.75",
        "0.88",
    ):
        assert number in page.text, number
    assert "0.32" in page.text and "50.030.036.020.06.00, 1" in page.text
    assert "not known, because chips have no CRS" in page.text and "fewer than two places" in page.text
    assert "fewer than 200 pixels on a side" in page.text and "no measurement on a side" in page.text
    assert not page.links and "script" not in page.tags and "link" not in page.tags and page.tags.count("svg") > 3
    raw = render_audit(an_audit("a name"))
    assert "url(" not in raw and "@import" not in raw and "http://" not in raw and "https://" not in raw


@pytest.mark.parametrize("basis", get_args(Basis))
def test_every_kind_of_data_has_a_page_and_says_what_it_is(basis):
    page = Parsed(render_audit(an_audit(basis=basis)))
    assert BASES[basis] in page.text
    shown = for_page([an_audit(basis=basis)], "reproduced" if basis == "definition" else basis, "mts12-n2s", [])
    assert shown.basis == BASES[basis]


def test_hostile_names_are_text():
    raw = render_audit(an_audit(EVIL))
    page = Parsed(raw)
    assert "script" not in page.tags and "<script" not in raw and "\u202e" not in raw
    assert page.text.count("<script>alert(1)</script>") > 10 and "{{ 7 * 7 }}" in page.text


def test_the_page_of_a_definition_says_what_it_rests_on():
    page = Parsed(render_audit(audit_definition(builtin_benchmarks()["mts12-n2s"])))
    assert "no data were read" in page.text and "34 tiles of target touch or share" in page.text
    assert "Copies" not in page.text and "Spectra" not in page.text
    assert "Rows 11 and 12 of the grid are neighbours" in page.text and "mts12-n2s 1.0: 482 training" in page.text
    season = Parsed(render_audit(audit_definition(builtin_benchmarks()["dfc2020-winter"])))
    assert "this seasonal gap is a gap between cities as well" in season.text
    page = Parsed(render_audit(audit_definition(builtin_benchmarks()["whuohs-s2t"])))
    assert "around the centres of domains" in page.text and "S6" in page.text


def test_time_series_are_drawn_date_by_date():
    names = tuple(f"B{number}" for number in range(4))
    told = an_audit().pixels.model_copy(update={"bands": (BandShift(wasserstein=1, in_std=1, mean_shift=1),) * 4,
                                                "null_bands": (None,) * 4, "classes": ()})  # fmt: skip
    raw = render_audit(an_audit(band_names=names, wavelengths=(0.4, 0.5, 0.4, 0.5), pixels=told))
    path = re.search(r'class="line source"><title>[^<]*</title><path d="([^"]*)"', raw)[1]
    assert path.count("M") == 2 and path.count("L") == 2 and "number of the band" in raw


# -------------------------------------------------------------------------------------------------------------- boards


def page_of(records, out: Path, audits, benchmark: str = "mts12-n2s", track: str = "reproduced") -> str:
    write_report(records, out, ("site",), pd.DataFrame(), audits)
    return (out / "site" / track / "benchmarks" / f"{benchmark}.html").read_text()


def test_a_board_shows_the_numbers(store, tmp_path):
    records = [store()]
    without = page_of(records, tmp_path, [])
    assert "The gap" not in without and "#gap" not in without
    page = Parsed(page_of(records, tmp_path, [an_audit(EVIL, faults=("they share ground",))]))
    assert "The gap in numbers" in page.text and "published data. they share ground" in page.text
    for words in (
        "1, 0.25 km²",
        "0 m, 12.3 km",
        "0.32",
        "0.75, 0.88 (by chance up to 0.71, 0.66)",
        "1.20, 0.72",
        "1, 2",
        "not known, because chips have no CRS",
    ):
        assert words in page.text, words
    assert "alert" not in "".join(page.links) and page.text.count("alert(1)") >= 2
    assert page_of(records, tmp_path, []) == without


def test_a_board_shows_what_is_of_its_own_data(store, tmp_path):
    record = store()
    other = an_audit(manifest="of something else", faults=())
    assert "other data than the results" in page_of([record], tmp_path, [other])
    sample, definition = an_audit(basis="sample", faults=()), audit_definition(builtin_benchmarks()["mts12-n2s"])
    assert for_page([sample], "reproduced", "mts12-n2s", [record]) is None
    assert for_page([sample], "sample-unlabelled-target", "mts12-n2s", [record]).basis.startswith("Measured on the b")
    assert for_page([sample, definition], "reproduced", "mts12-n2s", [record]).basis.startswith("From the benchmark's")
    assert for_page([definition], "sample", "mts12-n2s", [record]) is None
    assert for_page([definition, an_audit()], "reproduced-published", "mts12-n2s", [record]).basis.startswith(
        "Measured"
    )
    assert for_page([an_audit()], "reproduced", "mts12-s2n", [record]) is None
    assert for_page([an_audit()], "reproduced", "mts12-n2s", [record]).warnings == ["x", "1 chips could not be read."]


def test_audits_lie_beside_records(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    assert read_audits([results]) == []
    write_audit(an_audit(), tmp_path / "audits" / "deep" / "a.json")
    write_audit(an_audit(basis="sample"), results / "audits" / "b.json")
    assert sorted(one.basis for one in read_audits([results])) == ["reproduced", "sample"]
    write_audit(an_audit(), results / "audits" / "again.json")
    with pytest.raises(DataError, match="two audits of mts12-n2s"):
        read_audits([results])
    (results / "audits" / "again.json").write_text("{")
    with pytest.raises(DataError, match="no audit"):
        read_audits([results])
    assert read_audits([tmp_path / "audits"]) == []


def test_report_finds_them(store, tmp_path, monkeypatch):
    store()
    write_audit(an_audit(title="t"), tmp_path / "store" / "audits" / "mts12-n2s.json")
    verb = ["report", "--records", tmp_path / "store", "--out", tmp_path / "out", "-f", "site"]
    assert run_main(monkeypatch, verb) == 0
    assert "The gap in numbers" in (tmp_path / "out/site/reproduced/benchmarks/mts12-n2s.html").read_text()


def test_the_committed_audits_are_read():
    folder = Path(__file__).resolve().parents[2] / "leaderboard" / "results"
    found = read_audits([folder])
    assert {one.basis for one in found} == {"definition", "sample"} and not any(one.faults for one in found)
    assert {one.benchmark for one in found if one.basis == "definition"} == set(builtin_benchmarks())
    committed = next(one for one in found if (one.basis, one.benchmark) == ("definition", "mts12-n2s"))
    made = audit_definition(builtin_benchmarks()["mts12-n2s"])
    assert (committed.chips, committed.ground[GAP].touching) == (made.chips, made.ground[GAP].touching) and made.chips


# ------------------------------------------------------------------------------------------------ what shares explain


def test_reweighting_by_hand():
    matrix = np.array([[80, 20], [10, 90]])
    assert reweighted(matrix, matrix.sum(axis=1)) == pytest.approx(score(matrix).miou)
    assert reweighted(matrix, [1000, 1000]) == pytest.approx(score(matrix).miou)
    # q = (.9, .1): right .72 and .09, predicted .73 and .27
    expected = (0.72 / (0.9 + 0.73 - 0.72) + 0.09 / (0.1 + 0.27 - 0.09)) / 2
    assert reweighted(matrix, [9, 1]) == pytest.approx(expected)
    perfect = np.diag([3, 400, 50])
    assert reweighted(perfect, [1, 1, 8]) == 1.0
    assert reweighted(np.array([[5, 5], [0, 0]]), [3, 7]) == pytest.approx(0.25)  # nothing is known of the second
    assert np.isnan(reweighted(np.array([[5, 5], [0, 0]]), [0, 7]))


def split_index() -> ChipIndex:
    """Source and target of mts12-n2s on a line, with the four classes of random records."""
    rows = {
        f"{domain}{number}": (domain, "", "EPSG:32633", 4e5 + 2e4 * number, y, 4e5 + 2e4 * number + 5e3, y + 5e3,
                              [100 * (number + 1), 50, 10, 0])
        for domain, y in (("north", 5.2e6), ("south", 5.0e6))
        for number in range(6)
    }  # fmt: skip
    columns = ["domain", "site", "crs", "xmin", "ymin", "xmax", "ymax", "class_counts"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    facts = {"height": 8, "width": 8, "valid_pixels": 64, "content": "c", "nodata_pixels": 0}
    return ChipIndex(Path(), frame.assign(**facts), {}, ())


def test_records_are_explained(store):
    benchmark, index = builtin_benchmarks()["mts12-n2s"], split_index()
    cut = make_split(benchmark, index, 0)
    data = {"kind": "files", "chips": {"train": 6, "validation": 2, "target": 4}, "split_hash": cut.hash,
            "manifest_hash": index.manifest}  # fmt: skip
    record = store(data=data, method="lora")
    store_of_other_data = store(method="full")
    of_other_cut = store(data=data | {"split_hash": "other"}, method="bitfit")
    methods, notes = explain(
        benchmark, index, [record, store_of_other_data, of_other_cut, store(benchmark="mts12-s2n")]
    )
    assert {one.label: one.reweighted is None for one in methods} == {"lora, compact": False, "bitfit, compact": True}
    lora = next(one for one in methods if one.label.startswith("lora"))
    assert lora.target == pytest.approx(record.scores.selected.miou) and lora.validation == 0.5 and lora.seeds == (0,)
    assert 0 < lora.reweighted < 1 and lora.reweighted != pytest.approx(lora.target, abs=1e-4)
    assert any("1 of 3 records are of other data" in note for note in notes)
    assert any("no confusion matrix of source validation" in note for note in notes)
    assert explain(benchmark, index, []) == ([], ["no record of mts12-n2s was given"])
    assert not any("lacks classes" in note for note in notes)


def test_classes_that_validation_lacks_are_named(store):
    benchmark, index = builtin_benchmarks()["mts12-n2s"], split_index()
    for chip in index.frame.index[index.frame["domain"] == "north"]:
        index.frame.at[chip, "class_counts"] = [100, 0, 10, 0]
    split = make_split(benchmark, index, 0)
    data = {"kind": "files", "chips": {"train": 6, "validation": 2, "target": 4}, "split_hash": split.hash,
            "manifest_hash": index.manifest}  # fmt: skip
    _, notes = explain(benchmark, index, [store(data=data, method="lora")])
    assert f"Source validation lacks classes of the target: {benchmark.labels.names[1]}. " in notes[1]
