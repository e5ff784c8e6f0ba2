"""Results from Python: tidy frames that say what the records say, boards, comparisons and figures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from random_records import fail, fields, frame, store

from spectral_tl_bench import board, compare, load_results, plot
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.leaderboard.tidy import CLASS, DOMAIN, PLACE, RECORD
from spectral_tl_bench.results.store import load_evidence

__all__ = ["fail", "fields", "frame", "store"]


@pytest.fixture
def stored(store, fail, tmp_path):
    """A folder of records: two methods, two seeds, two benchmarks; and one that failed."""
    for method, quality in (("lora", 0.6), ("full", 0.8)):
        for seed in (0, 1):
            for benchmark, gap in (("mts12-n2s", "region"), ("mts12-id", "none")):
                store(quality, method=method, seed=seed, benchmark=benchmark, gap=gap)
    fail(method="lora", seed=2)
    return tmp_path / "store"


def test_a_row_for_each_record(stored):
    rows = load_results(stored)
    assert tuple(rows.columns) == RECORD and len(rows) == 9
    done = rows[rows["status"] == "completed"]
    assert len(done) == 8 and done["miou"].between(0, 1).all() and done["row"].nunique() == 2
    assert rows["seed"].dtype == rows["trainable"].dtype == "Int64" and rows["miou"].dtype == "float64"
    failed = rows[rows["status"] == "failed"].iloc[0]
    assert math.isnan(failed["miou"]) and failed["error_message"] == "out of memory" and pd.isna(failed["trainable"])
    means = done.groupby(["method", "benchmark"])["miou"].mean().unstack()
    assert (means.loc["full"] > means.loc["lora"]).all()
    inside = done.set_index(["method", "seed", "benchmark"])["miou"].unstack()
    drop = done[done["gap"] == "region"].set_index(["method", "seed"])["drop_from_in_domain"]
    np.testing.assert_allclose(drop.sort_index(), inside["mts12-id"] - inside["mts12-n2s"])
    assert all(path.is_file() for path in rows["record"])


def test_rows_are_those_of_one_record(store):
    record = store(0.7)
    matrices = load_evidence(record).matrices["selected"]
    total = matrices.sum(axis=0)
    classes = load_results(record.path, "class")
    assert tuple(classes.columns) == CLASS and list(classes["class"]) == list(record.classes)
    assert list(classes["truth_pixels"]) == total.sum(axis=1).tolist()
    assert list(classes["predicted_pixels"]) == total.sum(axis=0).tolist()
    right = np.diagonal(total)
    np.testing.assert_allclose(classes["iou"], right / (total.sum(axis=0) + total.sum(axis=1) - right))
    assert classes["iou"].mean() == pytest.approx(record.scores.selected.miou)
    domains = load_results([record.path], per="domain").set_index("domain")
    assert tuple(domains.reset_index().columns) != DOMAIN and set(domains.columns) | {"domain"} == set(DOMAIN)
    for domain, miou in record.scores.selected.per_domain.items():
        assert domains.loc[domain, "miou"] == pytest.approx(miou)
    assert domains["places"].to_dict() == {"north": 2, "south": 1}
    places = load_results(record.path, "place")
    assert tuple(places.columns) == PLACE and list(places["place"]) == ["s1", "s2", "s3"]
    first = matrices[0]
    occurs = first.sum(axis=0) + first.sum(axis=1) > 0
    iou = np.diagonal(first)[occurs] / (first.sum(axis=0) + first.sum(axis=1) - np.diagonal(first))[occurs]
    assert places["miou"][0] == pytest.approx(iou.mean()) and places["truth_pixels"].sum() == total.sum()


@pytest.mark.parametrize(("per", "rows"), [("class", 8 * 4), ("domain", 8 * 2), ("place", 8 * 3)])
def test_failed_records_have_no_parts(stored, per, rows):
    assert len(load_results(stored, per)) == rows


def test_what_a_run_gave_is_read_again(ran, out):
    rows = load_results(ran["record"])
    merged = ran.set_index(ran["record"].map(str))["miou"]
    assert len(rows) == 4 and all(merged[str(row.record)] == row.miou for row in rows.itertuples())
    assert set(load_results(out)["fingerprint"]) == set(rows["fingerprint"])


def test_the_usual_folder_is_that_of_the_commands(ran, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no records"):
        load_results()
    (tmp_path / "runs").symlink_to(out)
    assert len(load_results()) == 4


def test_a_board_and_its_rows(stored):
    shown = board(stored)
    assert list(shown.rows["method"]) == ["full", "lora", "majority class"] and shown.board.track == "reproduced"
    means = load_results(stored).query("gap == 'region' and status == 'completed'").groupby("row")["miou"].mean()
    entries = shown.entries.query("benchmark == 'mts12-n2s'").set_index("row")["miou"]
    np.testing.assert_allclose(entries[means.index], means)


def test_a_comparison(stored):
    lines = compare("full", "lora", stored)
    assert list(lines["benchmark"]) == ["mts12-n2s", "all"] and (lines["difference"] > 0).all()
    means = load_results(stored).query("benchmark == 'mts12-n2s' and seed < 2").groupby("method")["miou"].mean()
    assert lines["difference"][0] == pytest.approx(means["full"] - means["lora"])
    turned = compare("lora", "full", stored)
    np.testing.assert_allclose(turned["difference"], -lines["difference"])


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_a_figure_is_drawn_and_written(stored, tmp_path, suffix):
    path = tmp_path / f"forest.{suffix}"
    figure = plot("forest", path, stored, benchmark="mts12-n2s", method=["full", "lora"])
    assert figure.axes and path.stat().st_size > 1000
    if suffix == "svg":
        assert b"<svg" in path.read_bytes()


def test_mistakes_are_the_errors_of_the_commands(stored, store, tmp_path):
    with pytest.raises(UserError, match="no frame per 'classes'"):
        load_results(stored, "classes")
    with pytest.raises(RecordError, match="no such folder"):
        load_results(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="there is no row 'fll'"):
        compare("fll", "lora", stored)
    with pytest.raises(UserError, match="there is no figure called 'forrest'"):
        plot("forrest", records=stored)
    with pytest.raises(UserError, match="figures cannot be written as"):
        plot("forest", tmp_path / "forest.bmp", stored)
    with pytest.raises(UserError, match="there is no board 'demo'"):
        board(stored, track="demo")
    store(track="partial", seed=7)
    store(track="demonstration", seed=7)
    assert board(stored).board.track == "reproduced", "as with the command"


def test_damaged_evidence_is_no_number(store):
    record = store()
    (record.path.parent / record.evidence.file).write_bytes(b"")
    with pytest.raises(RecordError):
        load_results(record.path)
