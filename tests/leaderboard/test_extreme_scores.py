"""Scores at the ends of the scale, all alike, or of next to nothing: a report and a comparison stand them."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from tiny import run_main

from spectral_tl_bench.leaderboard.site.charts import _nice
from spectral_tl_bench.results.store import write_record

pytestmark = pytest.mark.filterwarnings("error")

TRUTH = np.array([200, 150, 90, 0])


def perfect(truth, rng, method):
    return np.diag(truth)


def all_wrong(truth, rng, method):
    return np.roll(np.diag(truth), 1, axis=1)


def alike(truth, rng, method):
    return np.diag(truth) + np.diag(truth // 2)[::-1]


def nearly_perfect(truth, rng, method):
    matrix = np.diag(truth)
    matrix[0, 1] += method == "full"
    return matrix


def one_class(truth, rng, method):
    return np.diag(truth * np.array([1, 0, 0, 0]))


def some_empty(truth, rng, method):
    return np.diag(truth) * rng.integers(0, 2)


def one_pixel(truth, rng, method):
    return np.diag([0, 1, 0, 0])


def one_perfect_one_wrong(truth, rng, method):
    return (perfect if method == "lora" else all_wrong)(truth, rng, method)


KINDS = (perfect, all_wrong, alike, nearly_perfect, one_class, some_empty, one_pixel, one_perfect_one_wrong)


@pytest.fixture
def write(tmp_path, fields):
    """Writes records of two methods whose confusion matrices are of one kind; gives the store."""

    def all_of(kind, chips=12, sites=12, seeds=1, methods=("lora", "full")):
        for method in methods:
            for seed in range(seeds):
                rows = []
                for chip in range(chips):
                    truth = TRUTH + chip * np.array([1, 2, 3, 0])
                    matrix = kind(truth, np.random.default_rng(chip), method).reshape(-1)
                    rows.append((f"c{chip}", ("north", "south")[chip % 2], f"s{chip % sites}", "selected", matrix))
                rows += [(*row[:3], "last", row[4]) for row in rows]
                frame = pd.DataFrame(rows, columns=["chip", "domain", "site", "checkpoint", "matrix"])
                given = fields(method=method, seed=seed)
                given["data"]["chips"]["target"] = chips
                if chips == 1:
                    given["target_domains"] = ["north"]
                write_record(tmp_path / "store", given, frame)
        return tmp_path / "store"

    return all_of


@pytest.fixture
def stbench(monkeypatch, capsys):
    def run(*arguments: object) -> str:
        code = run_main(monkeypatch, arguments)
        printed = capsys.readouterr()
        assert code == 0 and printed.err == "", printed.out + printed.err
        return printed.out

    return run


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_report_and_a_comparison_stand_it(write, stbench, tmp_path, kind):
    store = write(kind)
    stbench("report", "--records", store, "--out", tmp_path / "board", "-f", "md", "-f", "csv", "-f", "site")
    board = pd.read_csv(tmp_path / "board" / "tables" / "board.csv")
    means = board.loc[board["method"].isin(["lora", "full"]), "selected_miou"]
    ends = {perfect: {1.0}, all_wrong: {0.0}, one_class: {1.0}, one_pixel: {1.0}, one_perfect_one_wrong: {0.0, 1.0}}
    if kind in ends:
        assert set(means) == ends[kind]
    assert np.isfinite(means).all()
    for page in (tmp_path / "board" / "site" / "reproduced").rglob("*.html"):
        assert not re.search(r"\b(nan|inf|infinity)\b", page.read_text(encoding="utf-8"), re.I), page
    said = stbench("compare", "lora", "full", "--records", store)
    assert not re.search(r"\bnan\b", said, re.I)
    if kind in (perfect, all_wrong, alike):
        assert "50 %" in said, "neither is better"


@pytest.mark.parametrize(
    ("chips", "sites", "seeds"), [(1, 1, 1), (1, 1, 3), (2, 1, 1), (12, 1, 2), (12, 12, 3)], ids=str
)
def test_few_chips_places_and_seeds(write, stbench, tmp_path, chips, sites, seeds):
    store = write(perfect, chips, sites, seeds)
    stbench("report", "--records", store, "--out", tmp_path / "board", "-f", "md", "-f", "site")
    assert "100.0" in (tmp_path / "board" / "tables" / "board.md").read_text(encoding="utf-8")
    said = stbench("compare", "lora", "full", "--records", store)
    assert ("not estimable" in said) == (sites < 5)


@pytest.mark.slow  # matplotlib takes a second a figure
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_figures_and_latex_stand_it(write, stbench, tmp_path, kind):
    store = write(kind, seeds=2)
    stbench("report", "--records", store, "--out", tmp_path / "board", "-f", "latex", "-f", "figures")
    assert len(list((tmp_path / "board" / "figures").rglob("*.svg"))) >= 3


def test_one_method_alone(write, stbench, tmp_path):
    stbench("report", "--records", write(perfect, methods=("lora",)), "--out", tmp_path / "board")
    assert (tmp_path / "board" / "site" / "index.html").is_file()


@pytest.mark.parametrize("values", [[1.0], [0.0], [0.0, 1.0], [1 - 1e-16, 1.0], [0.9995, 1.0], [0.5, 0.5], [1e-9]])
def test_an_axis_has_two_ends(values):
    bottom, top, step = _nice(values)
    assert 0 <= bottom < top <= 1 and bottom <= min(values) + 1e-9 and top >= max(values)
    assert math.isclose((top - bottom) / step, round((top - bottom) / step), abs_tol=1e-6)
