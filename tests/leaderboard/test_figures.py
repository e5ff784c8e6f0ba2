"""Figures: the same analysis, the same bytes; text of records is no formula; nothing is drawn that is not known."""

from __future__ import annotations

import re
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard import figures
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.figures import COLUMN, KINDS, PAGE, PER_BENCHMARK, all_figures, draw, render, sheet
from spectral_tl_bench.leaderboard.site.view import benchmark_views

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
    each = [
        "parameters", "time", "gap", "domains", "forest-dfc2020-spring", "forest-mts12-n2s", "forest-mts12-id",
        "classes-dfc2020-spring", "classes-mts12-n2s", "classes-mts12-id", "confusion-dfc2020-spring",
        "confusion-mts12-n2s", "confusion-mts12-id",
    ]  # fmt: skip
    assert [name for name, _ in all_figures(analysis)] == [f"{name}{end}" for name in each for end in ("", "-wide")]


@pytest.mark.parametrize("width", [COLUMN, PAGE])
def test_figures_fit_their_width_with_letters_of_seven_points(analysis, width):
    for kind in KINDS:
        figure = draw(kind, analysis, "mts12-n2s" if kind in PER_BENCHMARK else None, width=width)
        assert figure.get_figwidth() * 25.4 == pytest.approx(width)
        if kind == "parameters":  # nothing is cut off or added when it is written
            (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", render(figure, "pdf"))
            assert float(box[0]) * 25.4 / 72 == pytest.approx(width, abs=0.1)
        figure.draw_without_rendering()
        ticks = [(axes, *tick) for axes in figure.axes
                 for tick in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)]  # fmt: skip
        beyond = [text for axes, at, text in ticks if not min(axes.get_xlim()) <= at <= max(axes.get_xlim())]
        written = [text for text in figure.findobj(mpl.text.Text) if text.get_text().strip() and text not in beyond]
        assert min(text.get_fontsize() for text in written) >= 7
        for text in written:
            edges = text.get_window_extent().extents
            assert edges[0] > -3 and edges[2] < figure.bbox.width + 3, (kind, text.get_text())


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_says_how_many_seeds_and_places(analysis, kind):
    figure = draw(kind, analysis, "mts12-n2s" if kind in PER_BENCHMARK else None)
    heading = " ".join(figure.get_suptitle().split())
    assert "seeds: 1" in heading and "places" in heading and "3" in heading


def test_an_axis_of_costs_never_goes_below_nothing(store):
    free = {"total": 1000, "trainable": 0}
    boards = make_boards([store(0.3, method="free", parameters=free), store(0.7, method="dear")])
    (axes,) = draw("parameters", analyse(boards["reproduced"])).axes
    assert axes.get_xlim()[0] == 0 and min(axes.get_xticks()) == 0 and axes.get_ylim()[0] >= 0


def test_forest_has_the_best_of_its_benchmark_on_top(store):
    """The first on the board is not the first here."""
    scores = [("one", {}, 0.5), ("one", SPRING, 0.9), ("two", {}, 0.7), ("two", SPRING, 0.3)]
    analysis = analyse(make_boards([store(q, method=m, **b) for m, b, q in scores])["reproduced"])
    assert analysis.rows["method"].tolist()[:2] == ["one", "two"]
    (axes,) = draw("forest", analysis, "mts12-n2s").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["two (compact)", "one (compact)"]


def test_gap_goes_from_in_domain_to_target(analysis):
    figure = draw("gap", analysis)
    lora = of_lora(analysis, analysis.entries).iloc[0]
    (axes,) = figure.axes  # DFC2020 has no in-domain reference here
    ends = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert any(pair == pytest.approx((100 * lora["miou"], 100 * lora["in_domain"])) for pair in ends)
    assert f"{100 * lora['drop']:+.1f}".replace("-", "−") in texts(figure)


def test_the_confusion_matrix_has_the_colours_of_the_classes(analysis):
    axes = draw("confusion", analysis, "mts12-n2s", ["lora"]).axes[0]
    row = of_lora(analysis, analysis.entries)["row"].iloc[0]
    counts = sum(analysis.board.groups()[row]["mts12-n2s"][0].matrices.values())
    wanted = 100 * counts[:3] / counts[:3].sum(axis=1, keepdims=True)  # the last class is never true
    np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan)[:3], wanted)
    (view,) = [view for view in benchmark_views(analysis) if view.id == "mts12-n2s"]
    marks = [line.get_color() for line in axes.lines if line.get_marker() == "s"]
    assert marks == [*view.colours, *view.colours] and len(set(view.colours)) == len(view.classes)


def test_the_majority_class_is_drawn_once(store, frame):
    constant = frame(0)
    for place, matrix in enumerate(constant["matrix"]):
        counts = matrix.reshape(4, 4).sum(axis=1)
        answer = np.zeros((4, 4), dtype=np.int64)
        answer[:, 1] = counts  # the class that fields() calls the majority
        constant.at[place, "matrix"] = answer.reshape(-1)
    records = [store(0.7), store(method="majority", family="floor", evidence=constant)]
    analysis = analyse(make_boards(records)["reproduced"])
    assert len(analysis.floor_again) == 1
    (axes,) = draw("forest", analysis, "mts12-n2s").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lora (compact)"]
    other = analyse(make_boards([store(0.7), store(0.5, method="majority", family="floor")])["reproduced"])
    assert other.floor_again == set(), "a method that is only called so stays"


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
    wanted.sort(key=lambda cell: -cell["miou"])
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([100 * cell["miou"] for cell in wanted])
    for dot, cell in zip(dots, wanted, strict=True):
        assert (dot.get_markerfacecolor() == "white") == (not cell["estimable"])
    assert len(axes.collections) == sum(bool(cell["estimable"]) for cell in wanted)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == 3 and not any("broken" in label for label in labels)
    inside = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "D"]
    assert inside == pytest.approx([100 * cell["in_domain"] for cell in wanted if not np.isnan(cell["in_domain"])])


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


def test_the_matrix_of_domains_has_sources_as_rows_and_targets_as_columns(analysis):
    figure = draw("domains", analysis, methods=["lora"])
    panels = {axes.get_title("left"): axes for axes in figure.axes if axes.images}
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
    monkeypatch.setattr(sheet, "MAX_ROWS", 2)
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
        (("domains", None, ["broken"]), "no row of this board"),
        (("gap", None, (), 20), "cannot be 20 mm wide"),
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
