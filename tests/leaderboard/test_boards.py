"""Boards: ranks only for what is complete, floors and drops from the evidence alone."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics

import numpy as np
import pytest

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.board import FLOOR, FLOOR_ROW, drops, make_boards
from spectral_tl_bench.leaderboard.text import parts_of, title, warnings
from spectral_tl_bench.results.schema import BackboneFacts, DataFacts, Record
from spectral_tl_bench.results.store import evidence, read_record

N2S = {"benchmark": "mts12-n2s", "dataset": "MTS12"}
SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
MTS12_ID = {"benchmark": "mts12-id", "dataset": "MTS12", "gap": "none"}


def row(board, method):
    found = board.rows[board.rows["method"] == method]
    assert len(found) == 1
    return found.iloc[0]


def entry(board, method, benchmark="mts12-n2s"):
    found = board.entries[
        (board.entries["row"] == row(board, method)["row"]) & (board.entries["benchmark"] == benchmark)
    ]
    assert len(found) == 1
    return found.iloc[0]


def miou(record):
    """From the evidence, counted in another way than the code does it."""
    m = np.sum([x.reshape(4, 4) for x in evidence(record).query("checkpoint == 'selected'")["matrix"]], axis=0)
    values = [m[c, c] / (m[c].sum() + m[:, c].sum() - m[c, c]) for c in range(4) if m[c].sum() + m[:, c].sum()]
    return sum(values) / len(values)


def test_means_spread_and_rank(store):
    records = [
        store(quality, method=method, seed=seed, **benchmark)
        for method, quality in (("good", 0.8), ("poor", 0.3))
        for seed in (0, 1, 2)
        for benchmark in (N2S, SPRING)
    ]
    board = make_boards(records)["reproduced"]
    assert board.benchmarks == ("dfc2020-spring", "mts12-n2s") and board.references == ()
    assert board.rows["method"].tolist() == ["good", "poor", FLOOR]
    assert board.rows["rank"].tolist()[:2] == [1, 2] and board.rows["rank"].isna().iloc[2]
    good = row(board, "good")
    by_seed = [{r.benchmark: miou(r) for r in records if r.method == "good" and r.seed == seed} for seed in (0, 1, 2)]
    values = [found["mts12-n2s"] for found in by_seed]
    assert entry(board, "good")["miou"] == pytest.approx(statistics.mean(values))
    assert entry(board, "good")["std"] == pytest.approx(statistics.stdev(values))
    means = [sum(found.values()) / 2 for found in by_seed]
    assert good["mean"] == pytest.approx(statistics.mean(means))
    assert good["mean_std"] == pytest.approx(statistics.stdev(means))
    assert good["seeds"] == "0, 1, 2"


def test_incomplete_failed_and_missing_are_shown_and_not_ranked(store, fail):
    records = [
        *[store(0.3, method="complete", seed=seed, **b) for seed in (0, 1) for b in (N2S, SPRING)],
        *[store(0.9, method="lacks-one", seed=seed, **N2S) for seed in (0, 1)],
        *[store(0.9, method="lacks-a-seed", seed=seed, **N2S) for seed in (0, 1)],
        store(0.9, method="lacks-a-seed", seed=0, **SPRING),
        store(0.9, method="broken", **N2S),
        fail(method="broken", **SPRING),
        *[store(0.9, method="broken-seed", seed=seed, **b) for seed, b in ((0, N2S), (0, SPRING), (1, SPRING))],
        fail(method="broken-seed", seed=1, **N2S),
    ]  # fmt: skip
    board = make_boards(records)["reproduced"]
    assert board.rows["method"].iloc[0] == "complete" and board.rows["rank"].iloc[0] == 1
    assert board.rows["rank"].notna().sum() == 1
    names = ("mts12-n2s", "dfc2020-spring")
    state = {m: tuple(entry(board, m, name)["state"] for name in names) for m in board.rows["method"]}
    assert state == {
        "complete": ("completed", "completed"),
        "lacks-one": ("completed", "missing"),
        "lacks-a-seed": ("completed", "incomplete"),
        "broken": ("completed", "failed"),
        "broken-seed": ("incomplete", "completed"),
        FLOOR: ("completed", "completed"),
    }
    assert np.isnan(row(board, "lacks-one")["mean"]) and not row(board, "lacks-one")["complete"]


def test_majority_row_is_the_constant_prediction(store):
    record = store(majority_class=2, **N2S)
    truth = np.zeros(4, dtype=int)
    for matrix in evidence(record).query("checkpoint == 'last'")["matrix"]:
        truth += matrix.reshape(4, 4).sum(axis=1)
    board = make_boards([record])["reproduced"]
    floor = entry(board, FLOOR)
    # IoU of the constant class is its share; the other two true classes have 0, 'bare' occurs nowhere.
    assert floor["miou"] == pytest.approx(truth[2] / truth.sum() / 3)
    assert row(board, FLOOR)["mean"] == floor["miou"]
    assert np.isnan(floor["std"])


def test_majority_row_averages_over_seeds_with_other_majorities(store):
    records = [store(seed=0, majority_class=0), store(seed=1, majority_class=0), store(seed=2, majority_class=3)]
    floor = entry(make_boards(records)["reproduced"], FLOOR)
    alone = [entry(make_boards([record])["reproduced"], FLOOR)["miou"] for record in records]
    assert alone[0] == alone[1] and alone[2] == 0
    assert floor["miou"] == pytest.approx(sum(alone) / 3)


def test_drop_pairs_seeds_and_rows(store):
    target, reference = store(0.4, seed=0, **N2S), store(0.9, seed=0, **MTS12_ID)
    other_seed = store(0.4, seed=1, **N2S)
    other_method = store(0.4, method="full", seed=0, **N2S)
    other_dataset = store(0.4, seed=0, **SPRING)
    board = make_boards([target, reference, other_seed, other_method, other_dataset])["reproduced"]
    assert drops(board.records) == {target.fingerprint: pytest.approx(miou(reference) - miou(target))}
    assert board.benchmarks == ("dfc2020-spring", "mts12-n2s") and board.references == ("mts12-id",)


def test_references_do_not_enter_the_mean(store):
    board = make_boards([store(0.4, **N2S), store(0.9, **MTS12_ID)])["reproduced"]
    assert row(board, "lora")["mean"] == entry(board, "lora")["miou"]


def test_rows_are_divided_by_all_that_changes_the_result(store):
    backbone = {"name": "compact", "width": 192, "depth": 4, "heads": 3, "patch": 8}
    records = [
        store(),
        store(options={"rank": 4}),
        store(backbone=backbone),
        store(settings={"window": 32}),
    ]
    board = make_boards(records)["reproduced"]
    assert len(board.rows) == 5
    assert sorted(board.rows["rank"].dropna()) == [1, 2, 3, 4]


def test_protocols_other_than_strict_have_boards_of_their_own(store):
    records = [store()]
    for place, (protocol, seen) in enumerate(itertools.product(("published", "as-published", "mine"), (False, True))):
        fingerprint = f"{place}" * 64
        records.append(store(protocol=protocol, target_images=seen, fingerprint=fingerprint, method=f"m{place}"))
    boards = make_boards(records)
    assert sorted(boards) == sorted(record.board for record in records)
    assert {"reproduced", "reproduced-published", "reproduced-as-published-unlabelled-target"} <= set(boards)
    for record in records:
        board = boards[record.board]
        assert board.methods == {next(iter(board.methods)): record.method, FLOOR_ROW: FLOOR}
        assert parts_of(record.board) == ("reproduced", record.protocol, record.target_images)
        warned = " ".join(warnings(record.board))
        assert ("Not comparable with the strict boards" in warned) == (record.protocol != "strict")
        assert ("the target's own labels" in warned) == (record.protocol == "as-published")
    titles = {title(name) for name in boards}
    assert len(titles) == len(boards)


def test_a_row_has_the_release_beside_its_mean(store, frame):
    records = [store(0.7, **N2S), store(0.5, **SPRING), store(0.9, **MTS12_ID)]
    board = make_boards(records)["reproduced"]
    line, floor = row(board, "lora"), row(board, FLOOR)
    chosen = [record.scores.selected for record in records[:2]]
    assert line["release"] == pytest.approx(sum(block.release_miou for block in chosen) / 2)
    assert line["inflation"] == pytest.approx(line["release"] - line["mean"]) and line["inflation"] > 0
    assert floor["release"] - floor["mean"] == pytest.approx(floor["inflation"]) == 0


def test_the_release_beside_the_mean_of_an_incomplete_row_is_unknown(store):
    board = make_boards([store(**N2S), store(**SPRING), store(method="full", **N2S)])["reproduced"]
    assert math.isnan(row(board, "full")["release"]) and math.isnan(row(board, "full")["inflation"])


def test_equal_means_share_a_rank(store, frame):
    given = frame(3)
    records = [store(evidence=given, method=method) for method in ("a", "b")] + [store(0.0, method="c")]
    assert make_boards(records)["reproduced"].rows["rank"].tolist()[:3] == [1, 1, 3]


def test_the_last_completed_run_of_a_seed_counts_once(store, fail):
    old = store(0.2, created="2026-01-01T00:00:00+00:00")
    new = store(0.9, created="2026-01-02T00:00:00+01:00")
    failed = fail(created="2026-01-03T00:00:00+00:00")
    board = make_boards([failed, new, old])["reproduced"]
    assert entry(board, "lora")["miou"] == pytest.approx(miou(new))
    assert [cell.record.fingerprint for cell in board.records] == [new.fingerprint]
    assert any("several runs" in note for note in board.notes)


def test_only_the_newest_version_of_a_benchmark_counts(store):
    old, new = store(method="old", benchmark_version="1.9"), store(method="new", benchmark_version="1.10")
    board = make_boards([new, old])["reproduced"]
    assert board.rows["method"].tolist() == ["new", FLOOR]
    assert any("version 1.9 are left out" in note for note in board.notes)


def test_different_target_pixels_are_never_ranked_together(store):
    records = [store(method="a", truth_seed=0), store(method="b", truth_seed=1)]
    board = make_boards(records)["reproduced"]
    assert board.rows["rank"].isna().all()
    assert any("same target pixels" in note for note in board.notes)
    other_seeds = [store(method="c", seed=seed, truth_seed=seed) for seed in (0, 1)]
    assert (
        make_boards(other_seeds)["reproduced"].rows["rank"].iloc[0] == 1
    )  # an in-domain test part may move with the seed
    no_seed_in_common = [store(method="a", seed=0, truth_seed=0), store(method="b", seed=1, truth_seed=1)]
    board = make_boards(no_seed_in_common)["reproduced"]
    assert board.rows["rank"].isna().all() and any("same target pixels" in note for note in board.notes)


def test_different_settings_are_told(store):
    same = [store(method="a"), store(method="b")]
    assert not any("settings" in note for note in make_boards(same)["reproduced"].notes)
    other = {"window": 64, "stride": 32, "budget": {"steps": 90}}
    longer = store(method="b", settings=other, fingerprint="0" * 32)
    (note,) = [note for note in make_boards([*same, longer])["reproduced"].notes if "settings" in note]
    assert "budget.steps is 90 or none" in note and "window" not in note


def test_tracks_are_kept_apart(store):
    boards = make_boards([store(), store(track="sample"), store(track="demonstration"), store(track="partial")])
    assert list(boards) == ["demonstration", "partial", "reproduced", "sample"]
    assert all(len(board.rows) == 2 for board in boards.values())


def test_boards_do_not_depend_on_the_order(store, fail):
    records = [store(method=m, seed=s, **b) for m in "abc" for s in (0, 1) for b in (N2S, SPRING, MTS12_ID)] + [fail()]
    reference = make_boards(records)["reproduced"]
    for attempt in range(3):
        random.Random(attempt).shuffle(records)
        assert make_boards(records)["reproduced"].rows.equals(reference.rows)


def test_an_edited_record_stops_the_board(store):
    record = store()
    value = json.loads(record.path.read_text())
    value["scores"]["oracle"]["oa"] = 0.999
    record.path.write_text(json.dumps(value))
    with pytest.raises(RecordError, match=r"scores\.oracle\.oa"):
        make_boards([read_record(record.path)])


def test_no_records_no_boards():
    assert make_boards([]) == {}


def test_only_failures_make_a_board_without_a_rank(fail):
    board = make_boards([fail()])["reproduced"]
    assert entry(board, "lora")["state"] == "failed"
    assert entry(board, FLOOR)["state"] == "missing"
    assert board.rows["rank"].isna().all()


def test_a_benchmark_without_any_result_takes_nobody_s_rank(store, fail):
    records = [store(0.8), store(0.4, method="full"), fail(benchmark="mts12-s2n", method="full")]
    board = make_boards(records)["reproduced"]
    assert board.benchmarks == ("mts12-n2s",)
    assert board.rows["rank"].tolist()[:2] == [1, 2]
    assert any("mts12-s2n: no run was completed" in note for note in board.notes)
    assert [cell.record.benchmark for cell in board.records if not cell.completed] == ["mts12-s2n"]
    # As soon as one row has a result there, the others lack it.
    board = make_boards([*records, store(0.5, benchmark="mts12-s2n")])["reproduced"]
    assert board.benchmarks == ("mts12-n2s", "mts12-s2n")
    assert entry(board, "full", "mts12-s2n")["state"] == "failed" and not row(board, "full")["complete"]


def test_results_of_several_versions_say_so(store, fields):
    def known(seed, training="1", torch="2.4"):
        """A record whose identity is known."""
        value = fields(seed=seed, definition="d" * 64, numerics={"training": training}, fingerprint="0" * 64)
        unsealed = Record.model_construct(**{**value, "data": DataFacts(**value["data"]),
                                             "backbone": BackboneFacts(**value["backbone"])})  # fmt: skip
        print_ = unsealed.identity().fingerprint
        return store(**{**value, "fingerprint": print_, "environment": {"torch": torch, "suite code": str(seed)}})

    same = [known(0), known(1)]
    assert make_boards(same)["reproduced"].notes == (), "source text alone changes nothing"
    notes = make_boards([*same, known(2, training="2")])["reproduced"].notes
    assert notes == ("lora: its results come from several numerics versions of training (1, 2).",)
    notes = make_boards([*same, known(2, torch="2.5")])["reproduced"].notes
    assert notes == ("The results were made with several versions of torch: 2.4, 2.5.",)
    notes = make_boards([*same, store(seed=2)])["reproduced"].notes
    assert notes == ("Of 1 of 3 results it is not known which code they belong to.",)
