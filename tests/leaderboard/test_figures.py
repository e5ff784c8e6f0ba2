"""Figures: the same analysis, the same bytes; text of records is no formula; nothing is drawn that is not known."""

from __future__ import annotations

import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard import figures
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.figures import all_figures, draw, render

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
MTS12_ID = {"benchmark": "mts12-id", "gap": "none"}
CURRENCY = "$x_1$ \\frac{"


@pytest.fixture
def records(store, fail):
    return [
        *[store(q, method=m, **b) for m, q in (("lora", 0.7), ("full", 0.4)) for b in ({}, SPRING, MTS12_ID)],
        store(method="half"),
        fail(method="broken"),
    ]


@pytest.fixture
def analysis(records):
    return analyse(make_boards(records)["reproduced"])


def texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def of_lora(analysis, frame):
    (row,) = analysis.rows.loc[analysis.rows["method"] == "lora", "row"]
    return frame[(frame["benchmark"] == "mts12-n2s") & (frame["row"] == row)]


def test_every_kind_there_is(analysis):
    assert [name for name, _ in all_figures(analysis)] == [
        "parameters", "time", "gap", "forest-dfc2020-spring", "forest-mts12-n2s", "forest-mts12-id",
        "classes-dfc2020-spring", "classes-mts12-n2s", "classes-mts12-id",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", figures.SUFFIXES)
def test_same_analysis_same_bytes_whatever_the_users_settings(analysis, suffix):
    first = render(draw("parameters", analysis), suffix)
    with mpl.rc_context({"font.size": 20, "svg.hashsalt": None, "text.parse_math": True, "savefig.dpi": 40}):
        assert render(draw("parameters", analysis), suffix) == first
    start = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}[suffix]
    assert first.startswith(start) and b"CreationDate" not in first and b"<dc:date>" not in first


def test_forest_shows_each_number_with_its_interval_or_hollow(analysis):
    (axes,) = draw("forest", analysis, "mts12-n2s").axes
    cells = analysis.entries.query("benchmark == 'mts12-n2s'").set_index("row")
    rows = analysis.rows[~analysis.rows["is_floor"].astype(bool)]
    wanted = [cells.loc[name] for name in rows["row"] if not np.isnan(cells.loc[name, "miou"])]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([100 * cell["miou"] for cell in wanted])
    for dot, cell in zip(dots, wanted, strict=True):
        assert (dot.get_markerfacecolor() == "white") == (not cell["estimable"])
    assert len(axes.collections) == sum(bool(cell["estimable"]) for cell in wanted)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 3 and not any("broken" in label for label in labels)


def test_forest_draws_intervals_where_there_are_enough_places(store, frame):
    parts = [frame(place, truth_seed=place) for place in range(16)]
    for place, part in enumerate(parts):
        part[["chip", "site"]] = part[["chip", "site"]] + f"-{place}"
    chips = {"train": 6, "validation": 2, "target": 64}
    data = {"kind": "files", "chips": chips, "split_hash": "ab", "manifest_hash": "cd"}
    analysis = analyse(make_boards([store(evidence=pd.concat(parts, ignore_index=True), data=data)])["reproduced"])
    (axes,) = draw("forest", analysis).axes
    (cell,) = analysis.entries[analysis.entries["row"] == analysis.rows["row"].iloc[0]].to_dict("records")
    ((low, high),) = axes.collections[0].get_segments()
    assert (low[0], high[0]) == pytest.approx((100 * cell["low"], 100 * cell["high"])) and low[0] < high[0]


def test_classes_are_those_of_the_analysis(analysis):
    axes = draw("classes", analysis, "mts12-n2s", ["lora"]).axes[0]
    wanted = of_lora(analysis, analysis.classes).sort_values("index")
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan)[0], 100 * wanted["iou"])
    assert [label.get_text() for label in axes.get_xticklabels()] == wanted["name"].tolist()


def test_gap_matrix_has_sources_as_rows_and_target_domains_as_columns(analysis):
    figure = draw("gap", analysis, methods=["lora"])
    panels = {axes.get_title(): axes for axes in figure.axes if axes.images}
    assert set(panels) == {"DFC2020", "MTS12"}
    axes = panels["MTS12"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mts12-n2s: east", "mts12-id: in-domain"]
    wanted = of_lora(analysis, analysis.domains).sort_values("domain")
    assert [label.get_text() for label in axes.get_xticklabels()] == wanted["domain"].tolist()
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan)[0], 100 * wanted["miou"])


def test_scatter_shows_complete_rows_only(analysis):
    for kind, column in (("parameters", "trainable_max"), ("time", "seconds")):
        (axes,) = draw(kind, analysis).axes
        points = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines
                  if line.get_marker() not in {"None", None, ""}}  # fmt: skip
        rows = analysis.rows[analysis.rows["complete"].astype(bool) & ~analysis.rows["is_floor"].astype(bool)]
        assert len(rows) == 2
        assert points == {(float(cost), 100 * value) for cost, value in zip(rows[column], rows["mean"], strict=True)}


def test_text_of_records_is_no_formula(store, analysis):
    classes = (CURRENCY, "forest", "urban 水", "b")
    evil = analyse(make_boards([store(classes=classes, track="sample")])["sample"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = render(draw("classes", evil), "svg")
    assert svg.startswith(b"<?xml")
    found = texts(draw("classes", evil))
    assert CURRENCY in found and any("not a result on real data" in text for text in found)


def test_more_rows_than_fit_are_said_to_be_left_out(analysis, monkeypatch):
    monkeypatch.setattr(figures, "MAX_ROWS", 2)
    figure = draw("forest", analysis, "mts12-n2s")
    assert len(figure.axes[0].get_yticklabels()) == 2 and any("first 2 of 3 rows" in text for text in texts(figure))


def test_rows_that_share_a_name_are_told_apart(store):
    records = [store(options={"rank": rank}) for rank in (1, 2)]
    analysis = analyse(make_boards(records)["reproduced"])
    labels = [label.get_text() for label in draw("forest", analysis).axes[0].get_yticklabels()]
    assert len(set(labels)) == 2 and all(label.startswith("lora (compact) ") for label in labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pie",), "no figure called 'pie'"),
        (("forest",), "shows one benchmark"),
        (("forest", "mts12-s2n"), "no benchmark 'mts12-s2n'"),
        (("parameters", None, ["lorra"]), "did you mean lora"),
        (("parameters", None, ["half"]), "no complete row"),
        (("classes", "mts12-n2s", ["broken"]), "no row of this board"),
        (("gap", None, ["broken"]), "no row of this board"),
    ],
)
def test_wishes_that_cannot_be_met(analysis, arguments, message):
    with pytest.raises(UserError, match=message):
        draw(arguments[0], analysis, *arguments[1:])


def test_unknown_suffix(analysis):
    with pytest.raises(UserError, match="'gif'"):
        render(draw("time", analysis), "gif")


def test_no_numbers_no_figures(fail):
    assert list(all_figures(analyse(make_boards([fail()])["reproduced"]))) == []
