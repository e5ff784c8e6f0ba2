"""Tuned rows say so, stand apart from untuned ones, and are shown with what they reach on source validation."""

from __future__ import annotations

import copy
import json

import pytest

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import FLOOR, make_boards
from spectral_tl_bench.leaderboard.latex import latex
from spectral_tl_bench.leaderboard.markdown import markdown
from spectral_tl_bench.leaderboard.show import show
from spectral_tl_bench.leaderboard.site import write_site
from spectral_tl_bench.leaderboard.submit.check import Checked
from spectral_tl_bench.leaderboard.submit.together import check_together
from spectral_tl_bench.leaderboard.table import long_table

N2S = {"benchmark": "mts12-n2s", "dataset": "MTS12"}
SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
SETTINGS = {"window": 64, "stride": 32, "budget": {"steps": 10, "learning_rate": 0.01}}
SEARCH = {
    "search": "random", "budget": 3, "space": {"rank": "4,8", "learning_rate": "0.001..0.1"}, "seed": 0, "chosen": 1,
    "draws": [
        {"options": {"rank": 4}, "settings": {"learning_rate": 0.002}, "value": 0.25},
        {"options": {"rank": 8}, "settings": {"learning_rate": 0.01}, "value": 0.5},
        {"options": {"rank": 4}, "settings": {"learning_rate": 0.09}, "error": "RuntimeError: out of memory"},
    ],
}  # fmt: skip


def search(rank=8, rate=0.01, **changes):
    """The same search with another choice."""
    made = copy.deepcopy(SEARCH) | changes
    made["draws"][1] |= {"options": {"rank": rank}, "settings": {"learning_rate": rate}}
    return made


def tuned(rank=8, rate=0.01, **changes):
    """Fields of a record with that choice."""
    settings = SETTINGS | {"budget": {"steps": 10, "learning_rate": rate}}
    return {"options": {"rank": rank, "alpha": 1}, "settings": settings, "tuning": search(rank, rate), **changes}


@pytest.fixture
def board(store):
    """One method tuned on two benchmarks, with another choice on each, and run untuned in two variants."""
    records = []
    for seed in (0, 1):
        records.append(store(0.9, seed=seed, **N2S, **tuned(8, 0.01)))
        records.append(store(0.8, seed=seed, **SPRING, **tuned(16, 0.02)))
        for rank in (4, 6):
            for benchmark in (N2S, SPRING):
                options = {"options": {"rank": rank, "alpha": 1}, "settings": SETTINGS}
                records.append(store(0.3 + rank / 40, seed=seed, **benchmark, **options))
    return make_boards(records)["reproduced"]


def test_a_tuned_row_has_another_choice_on_each_benchmark_and_a_rank(board):
    first, *others, floor = board.rows.to_dict("records")
    assert (first["tuned"], first["rank"], first["complete"]) == ("tuned (3)", 1, True)
    assert [row["tuned"] for row in others] == ["", ""] and floor["method"] == FLOOR and floor["tuned"] == ""
    assert json.loads(first["options"]) == {"rank": "tuned", "alpha": 1}
    assert json.loads(first["settings"])["budget"] == {"steps": 10, "learning_rate": "tuned"}
    entries = board.entries[board.entries["row"] == first["row"]].set_index("benchmark")
    assert entries["choice"].to_dict() == {
        "mts12-n2s": "rank=8, learning_rate=0.01", "dfc2020-spring": "rank=16, learning_rate=0.02"
    }  # fmt: skip
    assert any("budget.learning_rate is 0.01 or tuned" in note for note in board.notes)


def test_source_validation_and_the_number_of_variants_stand_beside_the_target(board):
    rows = board.rows[~board.rows["is_floor"]]
    assert rows["validation"].tolist() == [0.5, 0.5, 0.5] and rows["variants"].tolist() == [3, 3, 3]
    assert board.rows.iloc[-1][["validation", "variants"]].isna().all()
    entries = board.entries[board.entries["row"].isin(rows["row"])]
    assert set(entries["variants"]) == {3} and set(entries["validation"]) == {0.5}


def test_variants_are_counted_by_method_and_backbone_and_benchmark(store):
    backbone = {"name": "other", "width": 96, "depth": 4, "heads": 3, "patch": 8, "pretrained": "none"}
    records = [store(0.5, options={"rank": rank}) for rank in (1, 2, 3)] + [store(0.5, options={"rank": 1}, **SPRING)]
    records += [store(0.5, method="full"), store(0.5, backbone=backbone)]
    board = make_boards(records)["reproduced"]
    found = {
        (run.record.method, run.record.backbone.name, run.record.benchmark): board.entries[
            (board.entries["row"] == run.row) & (board.entries["benchmark"] == run.record.benchmark)
        ]["variants"].iloc[0]
        for run in board.records
    }
    assert found == {
        ("lora", "compact", "mts12-n2s"): 3, ("lora", "compact", "dfc2020-spring"): 1,
        ("full", "compact", "mts12-n2s"): 1, ("lora", "other", "mts12-n2s"): 1,
    }  # fmt: skip


def test_an_unknown_source_validation_stays_unknown(store):
    selection = {"step": 5, "value": float("nan"), "trace": []}
    board = make_boards([store(seed=0), store(seed=1, selection=selection)])["reproduced"]
    assert board.entries["validation"].isna().all() and board.rows["validation"].isna().all()


def test_seeds_that_were_tuned_are_not_averaged_with_others(store):
    untuned = {"options": {"rank": 8, "alpha": 1}, "settings": SETTINGS}
    board = make_boards([store(seed=0, **tuned()), store(seed=1, **untuned)])["reproduced"]
    rows = board.rows[~board.rows["is_floor"]]
    assert sorted(zip(rows["tuned"], rows["seeds"], strict=True)) == [("", "1"), ("tuned (3)", "0")]


def test_a_row_whose_seeds_stem_from_several_searches_is_pointed_out_and_refused(store):
    records = [store(seed=0, **tuned(8, 0.01)), store(seed=1, **tuned(16, 0.01))]
    board = make_boards(records)["reproduced"]
    assert len(board.rows) == 2, "the same search as far as it was asked for"
    assert any("were run with several choices (rank=16, learning_rate=0.01; rank=8" in note for note in board.notes)
    findings = check_together([Checked(f"record {record.seed}", record) for record in records])
    assert any("its draws are not those of record 0" in finding.reason for finding in findings)
    same = [Checked(f"record {seed}", store(seed=seed, **tuned())) for seed in (0, 1)]
    assert not any("draws" in finding.reason for finding in check_together(same))


def test_all_formats_tell_tuned_from_untuned(board, tmp_path, capsys):
    analysis = analyse(board)
    text = markdown(analysis)
    assert "| tuned (3) | 0, 1 |" in text and "Tuned (20): options or learning rate" in text
    assert "| rank=8, learning_rate=0.01 | 50.00 |" in text
    assert "3 of 3, 1 failed" in text
    table = latex(analysis)
    assert "& Tuned" in table and "tuned (3)" in table and "& Difference & Source" in table and "50.00" in table
    lines = long_table(board)
    chosen = lines[lines["tuning_search"] == "random"]
    assert len(chosen) == 4 and set(chosen["tuning_draws"]) == {3}
    assert "rank=16, learning_rate=0.02" in set(chosen["tuning_choice"])
    write_site({"reproduced": analysis}, None, tmp_path / "site")
    overview = (tmp_path / "site" / "reproduced" / "index.html").read_text()
    assert overview.count('<abbr class="tuned"') == 1 and "Source val." in overview and ">Variants<" in overview
    page = (tmp_path / "site" / "reproduced" / "methods" / "lora.html").read_text()
    assert "rank=16, learning_rate=0.02" in page and "RuntimeError: out of memory" in page
    show(next(run.record for run in board.records if run.record.tuning))
    shown = capsys.readouterr().out
    assert "random, 3 of 3 draws, seed 0" in shown and "chosen" in shown and '"rank": 8' in shown.replace("16", "8")


def test_a_board_without_tuned_rows_says_so(store):
    analysis = analyse(make_boards([store()])["reproduced"])
    assert "No row was tuned." in latex(analysis) and "## Tuning" not in markdown(analysis)


def test_a_record_without_a_search_has_the_bytes_it_had(store):
    record = store()
    assert "tuning" not in json.loads(record.path.read_text()) and record.tuning is None
    assert "tuning" in json.loads(store(**tuned()).path.read_text())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": 0}, "was not chosen by source validation"),
        ({"chosen": 9}, "was not chosen by source validation"),
        ({"budget": 2}, "more than the budget"),
        ({"space": {"rank": "4,8"}}, "other names than the space"),
        ({"draws": []}, "at least 1 item"),
        ({"search": "by eye"}, "random"),
        ({"draws": [{"options": {"rank": 8}, "value": 0.5, "error": "both"}]}, "either a value or an error"),
        ({"draws": [{"options": {"rank": 8}, "value": 1.5}]}, "less than or equal to 1"),
        ({"draws": [{"options": {"rank": 8}, "error": "x" * 301}]}, "at most 300 characters"),
        ({"target": 0.9}, "not permitted"),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(store, change, reason):
    with pytest.raises(RecordError, match=reason):
        store(**tuned(tuning=SEARCH | change))


@pytest.mark.parametrize(
    "change", [{"options": {"rank": 4, "alpha": 1}}, {"options": {}}, {"settings": {"window": 64}},
               {"settings": SETTINGS | {"budget": {"steps": 10, "learning_rate": 0.5}}}]
)  # fmt: skip
def test_a_record_of_another_configuration_than_was_chosen_is_refused(store, change):
    with pytest.raises(RecordError, match="tuning chose another"):
        store(**tuned(**change))
