"""The script behind docs/published.md: its example, its tables, and that the page has what it prints."""

from __future__ import annotations

import importlib.util

import pytest
from random_records import fields, frame, store
from shared import REPOSITORY

from spectral_tl_bench.evaluation.metrics import released_from_strict, score
from spectral_tl_bench.results.store import load_evidence

__all__ = ["fields", "frame", "store"]

PAGE = (REPOSITORY / "docs" / "published.md").read_text()


@pytest.fixture(scope="module")
def script():
    path = REPOSITORY / "profiling" / "published_metrics.py"
    spec = importlib.util.spec_from_file_location("published_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_third_of_the_pixels_is_wrong_and_the_release_says_one(script):
    rows = {name: (float(ours), float(theirs)) for name, ours, theirs, _ in map(cells, script.example_lines()[2:])}
    assert rows["OA, %"] == (pytest.approx(200 / 3, abs=0.1), 100.0)
    assert rows["mIoU, %"] == (50.0, 100.0) and rows["kappa"][1] == 1.0
    assert script.THIRD_WRONG[1:, 0].sum() * 3 == script.THIRD_WRONG.sum()


def test_the_page_has_the_example_as_the_script_prints_it(script):
    assert "\n".join(script.example_lines()) in PAGE


def test_the_tables_are_of_the_evidence(script, store):
    record = store(benchmark="mts12-n2s")
    total = load_evidence(record).matrices["selected"].sum(axis=0)
    strict, release = score(total), released_from_strict(total)
    row = cells(script.measured_lines([record])[2])
    assert row[3:6] == [f"{100 * value:.2f}" for value in (strict.miou, release.miou)] + [
        f"{100 * (release.miou - strict.miou):+.2f}"
    ]
    assert release.miou > strict.miou
    absent = cells(script.absent_lines([record])[2])[3:]
    assert len(absent) == len(record.classes) and all("->" in cell and "(+" in cell for cell in absent)
    assert len(cells(script.selection_lines([record])[2])) == 7
    assert script.trace_lines([record]) == []


def test_what_the_release_prints_stands_beside_the_score_of_the_checkpoint(script, store):
    trace = {"step": 10, "value": 0.5, "metric": "as printed", "trace": [[5, 0.25], [10, 0.5]]}
    record = store(protocol="as-published", selection=trace, fingerprint="ef" * 32)
    row = cells(script.trace_lines([record])[2])
    assert row[2] == "25.00, 50.00" and row[4] == f"{100 * record.scores.selected.miou:.2f}"


def test_no_number_of_the_page_is_written_by_hand(script):
    """Tables of the page have the heads that the script gives them."""
    heads = [lines([])[0] for lines in (script.measured_lines, script.absent_lines, script.selection_lines)]
    assert heads[0] in PAGE and heads[2] in PAGE
