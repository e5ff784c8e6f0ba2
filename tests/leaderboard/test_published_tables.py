"""The paper's tables as plans, and what was measured beside what it prints."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import yaml

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.metrics import released_from_strict
from spectral_tl_bench.files import digest
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.beside import COLUMNS, beside
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.published import NOT_HERE, rows_of, runnable
from spectral_tl_bench.leaderboard.published_plan import MINIATURE_SIZES, published_plan
from spectral_tl_bench.leaderboard.report import write_report
from spectral_tl_bench.leaderboard.reported import MIOU, read_reported, reported_folder
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.results.store import load_evidence

LARGE = {"name": "scalemae-large", "width": 1024, "depth": 24, "heads": 16, "patch": 16, "pretrained": "fmow"}
FOUR = {"scalemae-large", "satmaepp-large", "spectralgpt-plus", "hypersigma-large"}
STAGES = [{"name": "segment", "steps": 45_000, "seconds": 1.0, "trainable": 100}]


@pytest.fixture(scope="module")
def papers():
    return read_reported(reported_folder())


def cells(text):
    """(method, backbone, benchmark) of a plan, and the options of each."""
    plan = yaml.safe_load(text)
    return {
        (method, backbone, benchmark): block.get("options", {})
        for block in plan["blocks"]
        for method in block["methods"]
        for backbone in block["backbones"]
        for benchmark in block["benchmarks"]
    }


def full(store, **changes):
    """A run of Table I by the paper's protocol."""
    made = {"method": "full", "family": "full", "options": {}, "backbone": LARGE, "protocol": "published",
            "stages": STAGES, **changes}  # fmt: skip
    return store(fingerprint=digest(made), **made)


def lines_of(records, papers, track="reproduced"):
    found = beside({name: analyse(board) for name, board in make_boards(records).items()}, papers)
    return found[track].to_dict("records") if track in found else []


def test_table_1_is_four_backbones_on_eleven_benchmarks(papers):
    text = published_plan(papers, "I")
    found = cells(text)
    assert len(found) == 44 and {backbone for _, backbone, _ in found} == FOUR
    assert len({benchmark for *_, benchmark in found}) == 11 and {method for method, *_ in found} == {"full"}
    plan = yaml.safe_load(text)
    assert plan["defaults"] == {"protocol": "published", "seeds": [0]}
    assert all(block["weights"] == "hub" or block["weights"].startswith("weights/") for block in plan["blocks"])
    assert "only the ViT-B is published" in text and "techmn/satmae_pp" in text


def test_table_4_is_the_ablation_with_the_options_of_the_release(papers):
    found = cells(published_plan(papers, "iv"))
    assert len(found) == 64 and {backbone for _, backbone, _ in found} == {"scalemae-large"}
    assert not any(benchmark.startswith("mts12") for *_, benchmark in found)
    released = make_method("spectralx@released").model_dump()
    for method in ("hypert", "hypert-aomoa", "hypert-no-stage1", "hypert-aomoa-no-stage1", "no-stage1"):
        options = make_method(f"spectralx@{method}", found[f"spectralx@{method}", "scalemae-large", "whuohs-id"])
        different = {name for name, value in options.model_dump().items() if value != released[name]}
        assert different <= {"pretrain", "aomoa", "are_adapter"} and different, method
    assert {"spectralx@full", "spectralx@freeze", "spectralx@released"} <= {method for method, *_ in found}


@pytest.mark.parametrize(("table", "benchmark"), [("V", "whuohs-id"), ("Table VI", "dfc2020-id")])
def test_what_cannot_be_run_is_said_and_the_rest_is_there(papers, table, benchmark):
    text = published_plan(papers, table)
    found = cells(text)
    assert {name for *_, name in found} == {benchmark} and len(found) == 10
    assert all(any(line.startswith(f"# {name}") for line in text.splitlines()) for name in NOT_HERE)
    for backbone in ("scalemae-large", "satmaepp-large"):
        for method in ("lora-biased", "slr"):
            assert found[method, backbone, benchmark] == {"reading": "released"}
        assert ("full", backbone, benchmark) in found and ("spectralx@released", backbone, benchmark) in found


def test_every_printed_row_is_in_a_plan_or_named_as_left_out(papers):
    printed = papers[papers["metric"] == MIOU]
    rows = rows_of(papers)
    assert sum(len(row.benchmarks) for row in rows) == len(printed)
    assert {row.printed for row in rows} - {row.printed for row, _ in runnable(rows)} == set(NOT_HERE)


def test_a_table_that_is_not_there(papers):
    with pytest.raises(UserError, match="hold no Table II"):
        published_plan(papers, "II")
    with pytest.raises(UserError, match="hold no Table I"):
        published_plan(papers.iloc[:0], "I")


def test_as_published_is_said_instead_of_the_protocol(papers):
    defaults = yaml.safe_load(published_plan(papers, "I", as_published=True, seeds=(0, 3)))["defaults"]
    assert defaults == {"as_published": True, "seeds": [0, 3]}


def test_the_miniature_changes_sizes_and_steps_and_nothing_else(papers):
    text = published_plan(papers, "V", miniature=True)
    plan = yaml.safe_load(text)
    assert cells(text) == cells(published_plan(papers, "V"))
    assert plan["defaults"]["weights"] == "none" and plan["defaults"]["settings"]["steps"] == 2
    sized = [block["backbone_sizes"] for block in plan["blocks"] if block["backbones"] == ["satmaepp-large"]]
    assert sized == [MINIATURE_SIZES] * 2 and not any("weights" in block for block in plan["blocks"])


def test_measured_stands_beside_printed_with_all_differences(store, papers):
    record = full(store)
    (line,) = lines_of([record], papers)
    matrix = load_evidence(record).matrices["selected"].sum(axis=0)
    about = [line[name] for name in ("table", "benchmark", "metric", "printed")]
    assert about == ["Table I", "mts12-n2s", "mIoU", 25.73]
    assert line["release"] == pytest.approx(100 * released_from_strict(matrix).miou)
    assert line["strict"] == pytest.approx(100 * record.scores.selected.miou)
    assert line["release_minus_printed"] == pytest.approx(line["release"] - 25.73)
    assert line["strict_minus_printed"] == pytest.approx(line["strict"] - 25.73)
    assert line["release_minus_strict"] == pytest.approx(line["release"] - line["strict"]) and line["marks"] == ""
    assert line["release_minus_strict"] > 0


def test_only_runs_by_the_papers_protocol_and_of_its_methods_stand_there(store, papers):
    others = [
        full(store, protocol="strict"),
        full(store, protocol="mine"),
        full(store, method="full+vrex", objectives={"vrex": {}}),
        full(store, method="lora"),
        full(store, backbone={**LARGE, "name": "vit-large"}),
        full(store, target_images=True),
    ]
    assert lines_of(others, papers) == []
    assert [line["protocol"] for line in lines_of([full(store, protocol="as-published")], papers)] == ["as-published"]


def test_seeds_are_averaged_and_a_failed_one_is_left_out(store, fail, papers):
    records = [full(store, seed=seed) for seed in (0, 1)]
    failed = fail(method="full", backbone=LARGE, protocol="published", options={}, seed=2, family="full")
    (line,) = lines_of([*records, failed], papers)
    assert line["seeds"] == "0, 1"
    assert line["strict"] == pytest.approx(50 * sum(record.scores.selected.miou for record in records))


def test_a_drop_is_the_target_minus_the_reference_as_printed(store, papers):
    target = full(store)
    inside = full(store, benchmark="mts12-id", gap="none")
    by_metric = {(line["benchmark"], line["metric"]): line for line in lines_of([target, inside], papers)}
    drop = by_metric["mts12-n2s", "mIoU drop"]
    assert drop["strict"] == pytest.approx(100 * (target.scores.selected.miou - inside.scores.selected.miou))
    assert drop["printed"] < 0 and "cut by place here" in by_metric["mts12-id", "mIoU"]["marks"]


def test_the_classes_of_tables_5_and_6_stand_beside_print(store, papers):
    classes = ("Forest", "Water", "Croplands", "Barren")
    record = full(store, benchmark="dfc2020-id", dataset="DFC2020", gap="none", classes=classes)
    lines = [line for line in lines_of([record], papers) if line["table"] == "Table VI"]
    by_class = {line["class"]: line for line in lines}
    assert set(by_class) == {"mean", *classes}
    assert by_class["Water"]["strict"] == pytest.approx(100 * record.scores.selected.iou[1])
    assert by_class["Water"]["release"] >= by_class["Water"]["strict"]
    assert by_class["Barren"]["strict"] == 0 and math.isnan(by_class["Barren"]["release"])  # never true: dropped


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"track": "sample"}, "synthetic scenes"),
        ({"backbone": {**LARGE, "pretrained": "none"}}, "random weights"),
        ({"backbone": {**LARGE, "width": 48, "depth": 4}}, "width 48 and depth 4"),
        ({"stages": [{**STAGES[0], "steps": 2}]}, "2 steps of stage segment, 45,000 in print"),
        ({"track": "partial"}, "part of the data"),
    ],
)
def test_what_was_not_the_papers_run_is_said(store, papers, changes, mark):
    (line,) = lines_of([full(store, **changes)], papers, changes.get("track", "reproduced"))
    assert mark in line["marks"]


def test_another_reading_is_said(store, papers):
    base = {"method": "slr", "benchmark": "dfc2020-id", "dataset": "DFC2020", "gap": "none"}
    marks = [
        next(line["marks"] for line in lines_of([full(store, options={"reading": value}, **base)], papers))
        for value in ("paper", "released")
    ]
    assert "reading paper, released in print" in marks[0] and "reading" not in marks[1]


def test_the_report_has_a_table_of_its_own_and_a_page(store, papers, tmp_path):
    records = [full(store), full(store, benchmark="mts12-id", gap="none"), full(store, track="sample"), store()]
    write_report(records, tmp_path, ("md", "csv", "site"))
    tables = {path.name for path in (tmp_path / "tables").iterdir()}
    for track in ("reproduced", "sample"):
        assert {f"published-beside-{track}.{ending}" for ending in ("md", "csv")} <= tables
        assert {f"board-{track}-published.md"} <= tables
    assert tuple(pd.read_csv(tmp_path / "tables" / "published-beside-reproduced.csv").columns) == COLUMNS
    text = (tmp_path / "tables" / "published-beside-reproduced.md").read_text()
    assert "Nothing is ranked" in text and "| Rank |" not in text and "25.73" in text
    sample = (tmp_path / "tables" / "published-beside-sample.md").read_text()
    assert "Synthetic scenes" in sample and "synthetic scenes: no comparison" in sample
    page = (tmp_path / "site" / "published-beside" / "index.html").read_text()
    assert "25.73" in page and "synthetic scenes: no comparison" in page and "Strict − printed" in page
    board = (tmp_path / "site" / "reproduced-published" / "index.html").read_text()
    assert "Not comparable with the strict boards" in board
    write_report([store()], tmp_path, ("md", "csv"))
    assert not list((tmp_path / "tables").glob("published-beside*"))


def test_a_doubt_in_print_stays_beside_the_number(store, papers):
    doubtful = papers.copy()
    here = (doubtful["benchmark"] == "mts12-n2s") & (doubtful["metric"] == MIOU)
    doubtful.loc[here, "doubt"] = "somebody mistyped it"
    records = [full(store), full(store, protocol="as-published"), full(store, benchmark="mts12-s2n")]
    lines = lines_of(records, doubtful)
    assert [(line["benchmark"], line["protocol"], line["doubt"]) for line in lines] == [
        ("mts12-n2s", "as-published", "somebody mistyped it"),
        ("mts12-n2s", "published", "somebody mistyped it"),
        ("mts12-s2n", "published", ""),
    ]
