"""Figures of a board, in PDF, SVG or PNG: the same analysis, the same bytes."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.text import plain, track_of
from spectral_tl_bench.leaderboard.text import title as board_title
from spectral_tl_bench.results.schema import Record

MAX_ROWS = 60
"""Rows of a board that a figure can hold; the best are taken, and its title says so."""
SUFFIXES = ("pdf", "svg", "png")
_LABELLED = 25  # points of a scatter plot with their names beside; more cannot be read
_STYLE: Any = {
    "text.parse_math": False,  # names come from records: a dollar sign is a dollar sign
    "svg.hashsalt": "stbench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
}  # fmt: skip
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_MARKERS = "osD^vP*X<>hp"


def draw(kind: str, analysis: Analysis, benchmark: str | None = None, methods: Collection[str] = ()) -> Figure:
    """Draw one figure.

    Args:
        kind: One of ``KINDS``.
        analysis: A board's.
        benchmark: For kinds of one benchmark (``PER_BENCHMARK``); may be left out where the board has just one.
        methods: Names of methods; empty for all.

    Returns:
        A figure that belongs to no window.

    Raises:
        UserError: If the kind, the benchmark or a method is unknown, or there is nothing to draw.
    """
    if kind not in KINDS:
        raise UserError(f"there is no figure called {kind!r}", fix=nearest(kind, KINDS))
    rows = _rows(analysis, methods)
    chosen = _chosen(analysis, benchmark) if kind in PER_BENCHMARK else ""
    with _style():
        return _DRAWN[kind](analysis, rows, chosen)


def check_suffix(path: Path) -> str:
    """The kind of file that a figure is written as, such as ``svg``.

    Raises:
        UserError: If there is none of that name.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise UserError(f"figures cannot be written as {path.suffix!r}", where=path, expected=", ".join(SUFFIXES))
    return suffix


def render(figure: Figure, suffix: str) -> bytes:
    """The bytes of a figure as ``pdf``, ``svg`` or ``png``; no dates and no random names in them.

    Raises:
        UserError: If the suffix is another one.
    """
    if suffix not in SUFFIXES:
        raise UserError(f"figures cannot be written as {suffix!r}", expected=", ".join(SUFFIXES))
    stream = io.BytesIO()
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # scripts that the font lacks become boxes
        figure.savefig(stream, format=suffix, bbox_inches="tight", metadata=_METADATA[suffix])
    return stream.getvalue()


def all_figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    """Name and figure, of everything that can be drawn of a board; what has no data is left out."""
    for kind in KINDS:
        for benchmark in analysis.board.columns if kind in PER_BENCHMARK else (None,):
            with contextlib.suppress(_NothingToDrawError):
                yield kind if benchmark is None else f"{kind}-{benchmark}", draw(kind, analysis, benchmark)


class _NothingToDrawError(UserError):
    """No row has the numbers that the figure shows."""


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever a user's ``matplotlibrc`` says."""
    with matplotlib.style.context("default"), mpl.rc_context(_STYLE):
        yield


def _rows(analysis: Analysis, methods: Collection[str]) -> pd.DataFrame:
    """The rows of some methods, with a ``label`` that tells each from the others."""
    rows = analysis.rows.astype({"trainable_max": float, "is_floor": bool})
    known = set(rows["method"])
    for method in methods:
        if method not in known:
            raise UserError(f"no row of this board is called {method!r}", fix=nearest(method, known))
    rows = rows[rows["method"].isin(methods)] if methods else rows
    names = (rows["method"] + rows["backbone"].map(lambda name: f" ({name})" if name else "")).map(plain)
    return rows.assign(label=names.where(~names.duplicated(keep=False), names + " " + rows["row"]))


def _chosen(analysis: Analysis, benchmark: str | None) -> str:
    known = analysis.board.columns
    if benchmark is None:
        if len(known) == 1:
            return known[0]
        raise UserError("this figure shows one benchmark", expected=f"--benchmark, one of {', '.join(known)}")
    if benchmark not in known:
        raise UserError(f"the board has no benchmark {benchmark!r}", fix=nearest(benchmark, known))
    return benchmark


def _scatter(analysis: Analysis, rows: pd.DataFrame, _: str, *, column: str, label: str) -> Figure:
    """Mean mIoU over the board's benchmarks against one cost; floors without a cost as lines."""
    points = rows[rows["mean"].notna()]
    shown = points[~points["is_floor"] & points[column].notna()]
    if shown.empty:
        raise _NothingToDrawError(f"no complete row of this board has {label.lower()}")
    figure = Figure(figsize=(6.0, 4.0))
    axes = figure.add_subplot()
    least, most = shown[column].min(), shown[column].max()
    middle = math.sqrt(max(least, 1.0) * most)
    handles = []
    for place, (family, group) in enumerate(shown.groupby("family")):
        mark: Any = {"marker": _MARKERS[place % len(_MARKERS)], "color": f"C{place % 10}", "linestyle": "none"}
        handles.append(Line2D([], [], markersize=4, label=plain(family), **mark))
        for row in group.to_dict("records"):
            x, y, low, high = (
                row[column],
                100 * row["mean"],
                100 * row["mean_places_low"],
                100 * row["mean_places_high"],
            )
            if not math.isnan(low):
                axes.vlines(x, low, high, color=mark["color"], linewidth=0.8, alpha=0.6)
            axes.plot(x, y, markersize=4, **mark)
            if len(shown) <= _LABELLED:
                side, shift = ("right", -4) if x > middle else ("left", 4)
                axes.annotate(row["label"], (x, y), xytext=(shift, 2), textcoords="offset points", ha=side, fontsize=6)
    for row in points[points["is_floor"]].to_dict("records"):
        axes.axhline(100 * row["mean"], color="0.5", linestyle="--", linewidth=0.8)
        axes.annotate(row["label"], (0.99, 100 * row["mean"]), xycoords=("axes fraction", "data"), xytext=(0, 2),
                      textcoords="offset points", ha="right", fontsize=6, color="0.4")  # fmt: skip
    if least > 0:
        axes.set_xscale("log")
    else:  # nothing trained at all
        axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("mean mIoU on the targets, %")
    axes.set_title(_title(analysis))
    axes.legend(handles=handles, fontsize=6, frameon=False, loc="upper center", ncols=6, bbox_to_anchor=(0.5, -0.13))
    return figure


def _forest(analysis: Analysis, rows: pd.DataFrame, benchmark: str) -> Figure:
    """Score of each row with its interval; hollow where no interval can be estimated."""
    entries = analysis.entries[analysis.entries["benchmark"] == benchmark].set_index("row")
    rows = rows[["row", "label", "is_floor"]].join(entries[["miou", "low", "high", "state"]], on="row")
    scored = rows[rows["miou"].notna() & ~rows["is_floor"]]
    shown = _first(scored, benchmark)
    figure = Figure(figsize=(5.0, 0.8 + 0.2 * len(shown)))
    axes = figure.add_subplot()
    for place, row in enumerate(shown.to_dict("records")):
        estimable = not math.isnan(row["low"])
        if estimable:
            axes.hlines(place, 100 * row["low"], 100 * row["high"], color="C0", linewidth=1.2)
        face = "C0" if estimable else "white"
        axes.plot(100 * row["miou"], place, marker="o", color="C0", markerfacecolor=face, markersize=4)
    for row in rows[rows["miou"].notna() & rows["is_floor"]].to_dict("records"):
        axes.axvline(100 * row["miou"], color="0.5", linestyle="--", linewidth=0.8)
        axes.annotate(row["label"], (100 * row["miou"], 1.0), xycoords=("data", "axes fraction"), xytext=(2, 1),
                      textcoords="offset points", fontsize=6, color="0.4")  # fmt: skip
    ends = shown["state"].map(lambda state: "" if state == "completed" else " (incomplete)")
    axes.set_yticks(range(len(shown)), list(shown["label"] + ends))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("mIoU on the target, %; bars: 95 % interval over places, hollow: not estimable")
    axes.set_title(_title(analysis, benchmark, len(shown), len(scored)), pad=14)
    return figure


def _classes(analysis: Analysis, rows: pd.DataFrame, benchmark: str) -> Figure:
    """IoU of every class for every row; empty where a class has neither truth nor predictions."""
    classes = analysis.classes[analysis.classes["benchmark"] == benchmark]
    scored = rows[rows["row"].isin(classes["row"])]
    shown = _first(scored, benchmark)
    values = 100 * classes.pivot(index="row", columns="index", values="iou").loc[shown["row"]]
    names = classes.set_index("index")["name"].to_dict()
    figure = Figure(figsize=(1.5 + 0.36 * len(names), 1.2 + 0.22 * len(shown)))
    axes = figure.add_subplot()
    _matrix(figure, axes, values.to_numpy(), [names[index] for index in values.columns], list(shown["label"]), "IoU, %")
    axes.set_title(_title(analysis, benchmark, len(shown), len(scored)))
    return figure


def _gap(analysis: Analysis, rows: pd.DataFrame, _: str) -> Figure:
    """Sources against target domains, one panel per dataset, for the first row that has numbers."""
    measured = rows[~rows["is_floor"] & rows["row"].isin(analysis.domains.dropna(subset="miou")["row"])]
    if measured.empty:
        raise _NothingToDrawError("no row of this board has numbers by domain")
    mine = analysis.domains[analysis.domains["row"] == measured["row"].iloc[0]]
    table = 100 * mine.pivot(index="benchmark", columns="domain", values="miou")
    known = [record for name, record in analysis.board.known.items() if name in table.index]
    panels = {}
    for dataset in sorted({record.dataset for record in known}):
        lines = [record for record in known if record.dataset == dataset]  # references last
        panels[dataset] = lines, table.loc[[record.benchmark for record in lines]].dropna(axis="columns", how="all")
    heights = [len(lines) + 4 for lines, _ in panels.values()]
    width = 2.5 + 0.4 * max(len(part.columns) for _, part in panels.values())
    figure = Figure(figsize=(width, 0.28 * sum(heights) + 0.6), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (dataset, (lines, part)) in zip(grid[:, 0], panels.items(), strict=True):
        labels = [f"{record.benchmark}: {_sources(record)}" for record in lines]
        _matrix(figure, axes, part.to_numpy(), list(part.columns), labels, "mIoU, %")
        axes.set_title(plain(dataset))
    title = f"{_title(analysis)}: {measured['label'].iloc[0]}, trained on the row's domains, tested on the column's"
    figure.suptitle(title, fontsize=9)
    return figure


def _first(scored: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    if scored.empty:
        raise _NothingToDrawError(f"no row of this board has a number on {benchmark}")
    return scored[:MAX_ROWS]


def _matrix(
    figure: Figure, axes: Axes, values: NDArray[np.float64], columns: list[str], rows: list[str], label: str
) -> None:
    axes.set_facecolor("0.9")
    image = axes.imshow(values, vmin=0.0, vmax=100.0, cmap="viridis", aspect="auto", interpolation="nearest")
    axes.set_xticks(
        range(len(columns)), list(map(plain, columns)), rotation=45, ha="right", rotation_mode="anchor", fontsize=6
    )
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    for place, line in enumerate(values):
        for column, value in enumerate(line):
            if not math.isnan(value):
                axes.text(column, place, f"{value:.0f}", ha="center", va="center", fontsize=5,
                          color="white" if value < 60 else "black")  # fmt: skip
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(label)


def _sources(record: Record) -> str:
    if record.gap == "none":
        return "in-domain"
    names = list(map(plain, record.source_domains))
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def _title(analysis: Analysis, benchmark: str = "", shown: int = 0, there: int = 0) -> str:
    text = board_title(analysis.board.track)
    if track_of(analysis.board.track) == "sample":
        text += " (not a result on real data)"
    if benchmark:
        text += f": {benchmark}"
    return text if shown == there else f"{text}, first {shown} of {there} rows"


def _short(value: float, _: int | None) -> str:
    """1k, 25M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


_DRAWN: dict[str, Callable[[Analysis, pd.DataFrame, str], Figure]] = {
    "parameters": partial(_scatter, column="trainable_max", label="trainable parameters"),
    "time": partial(_scatter, column="seconds", label="seconds per run"),
    "gap": _gap,
    "forest": _forest,
    "classes": _classes,
}
PER_BENCHMARK = ("forest", "classes")
KINDS = tuple(_DRAWN)
