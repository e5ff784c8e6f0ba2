"""The analysis of a board: intervals over places, paired comparison, means over benchmarks, from records alone."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny import run_main

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.files import digest
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import FLOOR, drops, make_boards
from spectral_tl_bench.leaderboard.measured import row_key
from spectral_tl_bench.leaderboard.statistics.comparison import ALL, compare, find_row, improvement, verdict
from spectral_tl_bench.results.store import evidence

N2S = {"benchmark": "mts12-n2s", "dataset": "MTS12"}
S2N = {"benchmark": "mts12-s2n", "dataset": "MTS12"}
MTS12_ID = {"benchmark": "mts12-id", "dataset": "MTS12", "gap": "none"}
PLACES = 12


def many(seed: object, quality: float = 0.6, places: int = PLACES, world: int = 0) -> pd.DataFrame:
    """Evidence of ``places`` places in two domains, two chips each; the ground truth depends on ``world`` only."""
    rng, rows = np.random.default_rng(int(digest(seed)[:8], 16)), []
    for chip in range(2 * places):
        place = chip // 2
        truth = np.random.default_rng([world, chip]).integers(200, 500, 4) * np.array([1, 1, 1, 0])
        share = np.clip(quality + rng.normal(0, 0.1), 0, 1)
        for checkpoint in ("selected", "last"):
            right = (truth * share).astype(int)
            matrix = np.diag(right) + rng.multinomial(truth - right, [0.25] * 4)
            rows.append(
                (f"c{chip:02d}", ("north", "south")[place % 2], f"p{place:02d}", checkpoint, matrix.reshape(-1))
            )
    return pd.DataFrame(rows, columns=["chip", "domain", "site", "checkpoint", "matrix"])


@pytest.fixture
def write(store, fields):
    """Writes one record of ``many`` places and reads it back."""

    def one(quality: float = 0.6, places: int = PLACES, world: int = 0, given: pd.DataFrame | None = None, **changes):
        data = fields()["data"]
        data = {**data, "chips": {**data["chips"], "target": 2 * places}}
        about = [changes.get(name) for name in ("method", "seed", "benchmark")]
        made = many([*about, quality], quality, places, world) if given is None else given
        return store(evidence=made, data=data, **{"track": "reproduced", **changes})

    return one


@pytest.fixture
def records(write):
    """Two methods on two benchmarks and their reference, three seeds."""
    return [
        write(quality, method=method, seed=seed, world=number, **benchmark)
        for method, quality in (("good", 0.7), ("poor", 0.5))
        for seed in (0, 1, 2)
        for number, benchmark in enumerate((N2S, S2N, MTS12_ID))
    ]


def analysis_of(records):
    return analyse(make_boards(records)["reproduced"])


def line(frame: pd.DataFrame, analysis=None, method: str | None = None, **columns) -> pd.Series:
    if method is not None:
        columns["row"] = find_row(analysis, method)
    found = frame[np.logical_and.reduce([frame[name] == value for name, value in columns.items()])]
    assert len(found) == 1
    return found.iloc[0]


def test_every_row_and_benchmark_has_a_line(records):
    analysis = analysis_of(records)
    board = analysis.board
    assert analysis.rows["method"].tolist() == board.rows["method"].tolist() == ["good", "poor", FLOOR]
    assert analysis.rows["mean"].tolist() == board.rows["mean"].tolist()
    assert len(analysis.entries) == 9 and len(analysis.domains) == 18 and len(analysis.classes) == 36
    assert analysis.rows["is_floor"].tolist() == [False, False, True]
    good = line(analysis.rows, analysis, "good")
    assert json.loads(good["options"]) == {"rank": 16} and json.loads(good["settings"])["window"] == 64
    assert good["patch_embedding"] == "random" and good["seeds"] == "0, 1, 2" and good["incomplete_reason"] == ""
    assert good["row"] == digest(*row_key(records[0]))[:8]
    assert analysis.entries["reference"].tolist() == [False, False, True] * 3


def test_a_cell_is_what_the_evidence_says(records):
    analysis = analysis_of(records)
    cell = line(analysis.entries, analysis, "good", benchmark="mts12-n2s")
    mine = [r for r in records if r.method == "good" and r.benchmark == "mts12-n2s"]
    assert cell["miou"] == pytest.approx(np.mean([r.scores.selected.miou for r in mine]))
    assert cell["std"] == pytest.approx(np.std([r.scores.selected.miou for r in mine], ddof=1))
    assert cell["last"] == pytest.approx(np.mean([r.scores.last.miou for r in mine])) and math.isnan(cell["oracle"])
    assert cell["inflation"] == pytest.approx(
        np.mean([r.scores.selected.release_miou - r.scores.selected.miou for r in mine])
    )
    assert (cell["places"], cell["estimable"], cell["reason"], cell["state"]) == (PLACES, True, "", "completed")
    assert 0 < cell["low"] < cell["miou"] < cell["high"] < 1
    domain = line(analysis.domains, analysis, "good", benchmark="mts12-n2s", domain="north")
    assert domain["miou"] == pytest.approx(np.mean([r.scores.selected.per_domain["north"] for r in mine]))
    assert domain["std"] == pytest.approx(np.std([r.scores.selected.per_domain["north"] for r in mine], ddof=1))
    assert domain["places"] == PLACES // 2 and domain["estimable"] and domain["high"] - domain["low"] > 0.01
    total = sum(m for m in evidence(mine[0]).query("checkpoint == 'selected'")["matrix"]).reshape(4, 4)
    for index, name in enumerate(mine[0].classes):
        found = line(analysis.classes, analysis, "good", benchmark="mts12-n2s", index=index)
        assert found["name"] == name and found["truth_pixels"] == total[index].sum()
        assert found["iou"] == pytest.approx(np.mean([r.scores.selected.iou[index] for r in mine]))
        assert found["std"] == pytest.approx(np.std([r.scores.selected.iou[index] for r in mine], ddof=1))
    alone = analysis_of(mine[:1])
    predicted = alone.classes[alone.classes["row"] == find_row(alone, "good")]["predicted_pixels"]
    assert predicted.tolist() == total.sum(axis=0).tolist()


def test_the_floor_is_the_constant_prediction(records):
    analysis = analysis_of(records)
    cell = line(analysis.entries, analysis, FLOOR, benchmark="mts12-n2s")
    truth = sum(m for m in evidence(records[0]).query("checkpoint == 'selected'")["matrix"]).reshape(4, 4).sum(axis=1)
    constant = np.zeros((4, 4), dtype=int)
    constant[:, 1] = truth
    assert cell["miou"] == pytest.approx(score(constant).miou)
    assert cell["low"] < cell["miou"] < cell["high"] and cell["worst_domain"] in ("north", "south")
    assert compare(analysis, "good", FLOOR)["p_holm"].iloc[0] < 0.001


def test_the_interval_is_that_of_places_and_not_of_pixels(write):
    """A hundred times the pixels in the same places say nothing more; six times the places do."""
    given = many("x", 0.6)
    more_pixels = given.assign(matrix=[100 * matrix for matrix in given["matrix"]])
    more_places = many("x", 0.6, places=6 * PLACES)
    widths = []
    for frame, places in ((given, PLACES), (more_pixels, PLACES), (more_places, 6 * PLACES)):
        cell = analysis_of([write(given=frame, places=places)]).entries.iloc[0]
        widths.append(cell["high"] - cell["low"])
    assert widths[1] == pytest.approx(widths[0])
    assert widths[2] < 0.65 * widths[0]


def test_a_row_against_itself(records):
    found = compare(analysis_of(records), "good", "good")
    assert found["benchmark"].tolist() == ["mts12-n2s", "mts12-s2n", ALL]
    assert found[["difference", "low", "high"]].to_numpy().tolist() == [[0.0, 0.0, 0.0]] * 3
    assert found["p"].tolist() == [1.0] * 3 and found["p_holm"].tolist()[:2] == [1.0] * 2
    assert found["estimable"].all()


def test_a_difference_shows_and_changes_sign(records):
    analysis = analysis_of(records)
    found, back = compare(analysis, "good", "poor"), compare(analysis, "poor", "good")
    assert (found["low"] > 0).all() and (found["p"] < 0.001).all()
    for name, other in (("difference", "difference"), ("low", "high"), ("high", "low")):
        assert found[name].tolist() == pytest.approx((-back[other]).tolist())
    assert found["p"].tolist() == pytest.approx(back["p"].tolist())
    cells = [line(analysis.entries, analysis, method, benchmark="mts12-n2s")["miou"] for method in ("good", "poor")]
    assert found["difference"].iloc[0] == pytest.approx(cells[0] - cells[1])
    assert found["difference"].iloc[2] == pytest.approx(found["difference"].iloc[:2].mean())
    assert found["p_holm"].iloc[:2].min() == pytest.approx(2 * found["p"].iloc[:2].min())
    assert math.isnan(found["p_holm"].iloc[2])


def test_pairing_makes_a_difference_sharper_than_two_intervals(write):
    """The same places are hard for both: the difference is known better than either score."""
    given = many("hard places", 0.5)
    better = []
    for matrix in given["matrix"]:  # a tenth of the mistakes mended, everywhere
        square = matrix.reshape(4, 4)
        wrong = square - np.diag(np.diag(square))
        mended = wrong // 10
        better.append((square - mended + np.diag(mended.sum(axis=1))).reshape(-1))
    found = analysis_of([write(given=given, method="a"), write(given=given.assign(matrix=better), method="b")])
    cells = [line(found.entries, found, method, benchmark="mts12-n2s") for method in "ab"]
    assert cells[1]["low"] < cells[0]["high"]  # the intervals overlap
    assert compare(found, "b", "a")["low"].iloc[0] > 0
    # chips move between places: the pairs are gone, and so is what they knew
    assert compare(found, "b", "a")["high"].iloc[0] - compare(found, "b", "a")["low"].iloc[0] < 0.3 * (
        cells[0]["high"] - cells[0]["low"]
    )


def test_only_shared_seeds_are_compared(write):
    records = [write(0.7, method="a", seed=seed, **N2S) for seed in (0, 1)]
    records += [write(0.5, method="b", seed=seed, **N2S) for seed in (1, 2)]
    records += [write(0.5, method="c", seed=7, **N2S)]
    analysis = analysis_of(records)
    value = records[1].scores.selected.miou - records[2].scores.selected.miou
    assert compare(analysis, "a", "b")["difference"].iloc[0] == pytest.approx(value)
    other = compare(analysis, "a", "c").iloc[0]
    assert not other["estimable"] and other["reason"] == "no seed in common" and math.isnan(other["difference"])
    assert compare(analysis, "a", "c")["reason"].iloc[1] == "no seed in common"  # and neither is the mean


def test_over_places_and_seeds_variances_are_added(write):
    quality = {"a": (0.70, 0.60, 0.66), "b": (0.52, 0.55, 0.50)}
    records = [
        write(each, method=method, seed=seed, world=0, **where)
        for method, values in quality.items()
        for seed, each in enumerate(values)
        for where in (N2S, S2N)
    ]
    found = compare(analysis_of(records), "a", "b")
    one, _, both = found.itertuples()
    scores = {(r.method, r.seed): r.scores.selected.miou for r in records if r.benchmark == one.benchmark}
    assert one.by_seed == pytest.approx([scores["a", seed] - scores["b", seed] for seed in range(3)])
    entry = analysis_of(records).scores[find_row(analysis_of(records), "a")][one.benchmark]
    freedom_of_places = entry.effective - 1
    places = (one.high - one.difference) / stats.t.ppf(0.975, freedom_of_places)
    over_seeds = np.std(one.by_seed, ddof=1) / np.sqrt(3)
    error, share = np.hypot(places, over_seeds), places**2 / (places**2 + over_seeds**2)

    def p_value(t):
        return 2 * (share * stats.t.sf(t, freedom_of_places) + (1 - share) * stats.t.sf(t, 2))

    assert p_value((one.runs_high - one.difference) / error) == pytest.approx(0.05)
    assert one.runs_p == pytest.approx(p_value(one.difference / error))
    assert both.by_seed == () and both.runs_low < both.low < both.high < both.runs_high
    assert math.isnan(both.runs_p_holm) and found["runs_p_holm"].iloc[0] >= one.runs_p


def test_one_seed_says_nothing_of_others(write):
    found = compare(analysis_of([write(0.7, method="a", **N2S), write(0.5, method="b", **N2S)]), "a", "b")
    assert found["p"].notna().all() and found["runs_p"].isna().all()
    assert found["runs_reason"].str.contains("one seed in common").all()


def test_a_lucky_run_is_called_so(write):
    """Every place agrees on the mean of the seeds, and the seeds do not agree with one another."""
    pairs = {0: (0.45, 0.75), 1: (0.75, 0.45), 2: (0.72, 0.45)}
    records = [write(values[n], method="ab"[n], seed=seed, world=0, **where)
               for seed, values in pairs.items() for n in (0, 1) for where in (N2S, S2N)]  # fmt: skip
    analysis = analysis_of(records)
    found = compare(analysis, "a", "b")
    assert (found["p"] < 0.01).all() and (found["runs_p"] > 0.05).all()
    said = verdict(analysis, "a", "b", found)[0]
    assert said == (
        "verdict: a ahead on mts12-n2s, mts12-s2n with these seeds, which others may turn; "
        "a ahead in the mean over all with these seeds, which others may turn."
    )


def test_other_ground_truth_is_not_comparable(write):
    analysis = analysis_of([write(method="a", world=0), write(method="b", world=1)])
    found = compare(analysis, "a", "b").iloc[0]
    assert not found["estimable"] and "same target pixels" in found["reason"]
    assert math.isnan(found["difference"]) and math.isnan(found["p"]) and found["by_seed"] == ()
    assert improvement(analysis, "a", "b")[3] == found["reason"]
    given = many("a")
    moved = given.assign(site=given["site"].replace("p01", "p03"))  # the same chips, in other places
    analysis = analysis_of([write(method="a", given=given), write(method="b", given=moved)])
    assert "same target pixels" in compare(analysis, "a", "b")["reason"].iloc[0]


def test_seeds_with_other_targets_have_no_interval(write):
    analysis = analysis_of([write(seed=seed, world=seed) for seed in (0, 1)])
    cell = analysis.entries.iloc[0]
    assert not cell["estimable"] and "same target pixels" in cell["reason"] and cell["miou"] > 0
    assert not analysis.domains["estimable"].any()


@pytest.mark.parametrize("places", [1, 3])
def test_few_places_are_not_estimable(write, places):
    analysis = analysis_of([write(method=method, places=places) for method in "ab"])
    cell = analysis.entries.iloc[0]
    assert not cell["estimable"] and cell["reason"].startswith(f"{places} place") and cell["places"] == places
    assert math.isnan(cell["low"]) and cell["miou"] > 0
    found = compare(analysis, "a", "b")
    assert not found["estimable"].any() and found["p"].isna().all() and found["difference"].notna().all()


def test_drop_with_interval(records):
    analysis = analysis_of(records)
    loss = drops(analysis.board.records)
    cell = line(analysis.entries, analysis, "good", benchmark="mts12-n2s")
    mine = [r for r in records if r.method == "good" and r.benchmark == "mts12-n2s"]
    assert cell["drop"] == pytest.approx(np.mean([loss[r.fingerprint] for r in mine]))
    assert cell["in_domain"] == pytest.approx(cell["miou"] + cell["drop"])
    reference = line(analysis.entries, analysis, "good", benchmark="mts12-id")
    assert math.isnan(reference["drop"])
    assert cell["drop_low"] < cell["drop"] < cell["drop_high"]


def test_means_over_benchmarks(records):
    analysis = analysis_of(records)
    good, poor, floor = (line(analysis.rows, analysis, name) for name in ("good", "poor", FLOOR))
    table = np.array([
        [r.scores.selected.miou for r in records if (r.method, r.seed, r.gap) == ("good", seed, "region")]
        for seed in (0, 1, 2)
    ])  # fmt: skip
    assert good["iqm"] == pytest.approx(stats.trim_mean(table, 0.25, axis=None))
    assert good["mean_low"] <= good["mean"] <= good["mean_high"] and good["iqm_low"] <= good["iqm"] <= good["iqm_high"]
    assert table.min() <= good["mean_low"] and good["mean_high"] <= table.max()
    assert good["mean_places_low"] < good["mean"] < good["mean_places_high"]
    assert (good["mean_rank"], poor["mean_rank"], good["mean_rank_high"]) == (1, 2, 1)
    assert math.isnan(floor["mean_rank"]) and math.isnan(floor["iqm_low"])
    assert improvement(analysis, "good", "poor") == (1.0, 1.0, 1.0, "")
    assert improvement(analysis, "good", "good")[0] == pytest.approx(0.5, abs=0.2)


def test_one_seed_has_no_interval_over_seeds(write):
    analysis = analysis_of([write(0.7, method="a", seed=0), write(0.5, method="b", seed=0)])
    rows = analysis.rows
    assert rows[["mean_low", "mean_high", "iqm_low", "iqm_high", "mean_rank_low"]].isna().all(axis=None)
    assert rows["mean_places_low"].notna().all() and rows["mean_rank"].tolist()[:2] == [1, 2]
    value, low, _, reason = improvement(analysis, "a", "b")
    assert value == 1 and math.isnan(low) and "one seed" in reason


def test_incomplete_rows_stay_without_means(write, fail):
    broken = fail(method="broken", track="reproduced", **S2N)
    records = [write(method="a", **N2S), write(method="a", **S2N), write(method="broken", **N2S), broken]
    records.append(write(method="lacks", **N2S))
    analysis = analysis_of(records)
    rows = {name: line(analysis.rows, analysis, name) for name in ("broken", "lacks")}
    assert rows["broken"]["incomplete_reason"] == "mts12-s2n failed"
    assert rows["lacks"]["incomplete_reason"] == "mts12-s2n missing"
    for row in rows.values():
        assert not row["complete"] and pd.isna(row["rank"])
        assert row[["mean", "mean_places_low", "iqm", "mean_rank"]].isna().all()
    cells = {name: line(analysis.entries, analysis, name, benchmark="mts12-s2n") for name in ("broken", "lacks")}
    assert cells["broken"]["error"] == "RuntimeError: out of memory" and cells["broken"]["seeds"] == "0 (failed)"
    assert (cells["broken"]["state"], cells["lacks"]["state"]) == ("failed", "missing")
    assert not cells["lacks"]["estimable"] and cells["lacks"]["reason"] == "nothing completed"
    found = compare(analysis, "a", "broken").set_index("benchmark")
    assert found.loc["mts12-n2s", "estimable"] and not found.loc["mts12-s2n", "estimable"]
    assert found.loc["mts12-n2s", "p_holm"] == found.loc["mts12-n2s", "p"]  # one test was made
    assert not found.loc[ALL, "estimable"] and math.isnan(found.loc[ALL, "difference"])
    assert "not complete" in improvement(analysis, "a", "broken")[3]


def test_a_floor_of_uneven_seeds(write):
    """The majority class may be known for other seeds on each benchmark."""
    records = [write(seed=0, **N2S), write(seed=1, **N2S), write(seed=0, **S2N)]
    floor = analysis_of(records).rows.iloc[-1]
    assert floor["is_floor"] and floor["complete"] and floor["iqm"] == pytest.approx(floor["mean"], abs=0.05)


def test_nothing_completed(fail):
    analysis = analysis_of([fail(track="reproduced")])
    assert len(analysis.domains) == 0 and len(analysis.classes) == 0
    assert not analysis.entries["estimable"].any()
    assert analysis.scores == {name: {} for name in analysis.names}


def test_the_order_of_the_records_changes_nothing(records):
    def everything(found):
        analysis = analysis_of(found)
        frames = [
            analysis.rows,
            analysis.entries,
            analysis.domains,
            analysis.classes,
            compare(analysis, "good", "poor"),
        ]
        draws = [entry.draws.tobytes() for by_name in analysis.scores.values() for entry in by_name.values()]
        return [frame.to_csv(index=False) for frame in frames], draws

    expected = everything(records)
    for attempt in range(2):
        shuffled = list(records)
        random.Random(attempt).shuffle(shuffled)
        assert everything(shuffled) == expected


def test_rows_are_found_by_name_or_method(write):
    options = [{"rank": 4}, {"rank": 16}]
    analysis = analysis_of([*(write(options=one) for one in options), write(method="full")])
    row = analysis.rows["row"].iloc[0]
    assert find_row(analysis, row) == row and find_row(analysis, "full") in analysis.names
    with pytest.raises(RecordError, match="2 rows of the board 'reproduced' are of the method 'lora'") as caught:
        compare(analysis, "lora", "full")
    lora = [name for name, method in analysis.names.items() if method == "lora"]
    assert '{"rank": 4}' in str(caught.value) and all(name in str(caught.value) for name in lora)
    with pytest.raises(RecordError, match="no row 'ful'") as caught:
        compare(analysis, "ful", "lora")
    assert "did you mean full" in str(caught.value)


@pytest.fixture
def stbench(monkeypatch, capsys):
    """Runs ``stbench compare``; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "150")
        code = run_main(monkeypatch, ("compare", *arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_verb(records, stbench, tmp_path):
    code, out, _ = stbench("good", "poor", "--records", tmp_path / "store")
    assert code == 0
    found = compare(analysis_of(records), "good", "poor").iloc[0]
    assert (
        f"{100 * found['difference']:+.2f}" in out and f"{100 * found['low']:.2f} to {100 * found['high']:.2f}" in out
    )
    assert "mean of 2" in out and "beats one of poor" in out and "100 %" in out
    assert "verdict: good ahead on" in out and "good ahead in the mean over all" in out


def test_the_verb_says_where_seeds_or_places_are_too_few(write, stbench, tmp_path):
    for method in ("a", "b", "c"):
        for seed in range(1 if method == "a" else 3):
            write(method=method, seed=seed, places=3 if method == "b" else 30, fingerprint=f"{method}{seed}" * 16)
    store = ("--records", tmp_path / "store")
    out = " ".join(stbench("a", "c", *store)[1].split())
    assert "Too few seeds: 1 in common" in out and "--seeds 3" in out and "Too few places" not in out
    assert "verdict: " in out and " none on" not in out
    out = " ".join(stbench("b", "b", *store)[1].split())
    assert (
        "Too few seeds" not in out and "(3 places; an interval needs at least 5)" in out and "Too few places: " in out
    )
    assert "verdict: none on mts12-n2s." in out


def test_without_rows_they_are_listed(write, records, stbench, tmp_path):
    write(method="c", track="partial")
    store = ("--records", tmp_path / "store")
    code, out, _ = stbench(*store)
    rows = analysis_of(records).names
    assert code == 0 and all(any(line.split()[:2] == [row, name] for line in out.splitlines())
                             for row, name in rows.items() if " " not in name)  # fmt: skip
    assert "--track partial" in out
    assert "--track" not in stbench("--track", "partial", *store)[1].splitlines()[-1]
    code, _, err = stbench("good", *store)
    assert code == 2 and "one row alone: good" in err
    code, _, err = stbench("--track", "parti", *store)
    assert code == 2 and "did you mean partial" in err


def test_the_verb_says_why_not(write, stbench, tmp_path):
    write(method="a", places=3), write(method="b", places=3), write(method="b", places=3, options={"rank": 1})
    write(method="c", track="partial")
    store = ("--records", tmp_path / "store")
    code, _, error = stbench("a", "b", *store)
    assert code == 2 and "2 rows" in error and '{"rank": 1}' in error
    row = error.split("one of\n")[1].split(",")[0].strip()
    code, out, _ = stbench("a", row, *store)
    assert code == 0 and "not estimable" in out and "3 places; an interval needs at least 5" in out
    code, _, error = stbench("a", "bb", *store)
    assert code == 2 and "no row 'bb'" in error
    code, _, error = stbench("a", "c", *store)
    assert code == 2 and "different boards" in error
    code, _, error = stbench("majority class", "majority class", *store)
    assert code == 2 and "--track" in error
    assert stbench("majority class", "c", "--track", "partial", *store)[0] == 0
    code, _, error = stbench("a", "c", "--track", "parti", *store)
    assert code == 2 and "did you mean partial" in error


def test_the_verb_tells_seeds_and_other_differences(write, records, stbench, tmp_path):
    store = ("--records", tmp_path / "store")
    assert not any(word in stbench("good", "poor", *store)[1] for word in ("alone", "Only seeds", "differ in more"))
    settings = {"window": 64, "stride": 32, "budget": {"steps": 45_000}}
    write(method="once", seed=1, world=0, settings=settings, fingerprint="0" * 32, **N2S)
    out = " ".join(stbench("good", "once", *store)[1].split())
    assert "Seed 1 alone" in out and "budget.steps none and 45000" in out and "window" not in out
    for seed in (0, 2):
        write(method="twice", seed=seed, world=0, fingerprint=f"{seed}" * 32, **N2S)
    assert "Only seeds 0, 2, which both have." in stbench("good", "twice", *store)[1]


def test_benchmarks_are_not_cut_in_a_narrow_terminal(write, tmp_path, monkeypatch, capsys):
    for end in ("m2w", "w2m"):
        for method in ("a", "b"):
            write(method=method, benchmark=f"a-benchmark-of-ones-own-{end}")
    monkeypatch.setenv("COLUMNS", "80")
    assert run_main(monkeypatch, ("compare", "a", "b", "--records", tmp_path / "store")) == 0
    assert "…" not in capsys.readouterr().out, "the names would be cut where they begin to differ"
