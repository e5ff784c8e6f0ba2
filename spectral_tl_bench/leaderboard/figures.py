"""Figures of a board, in PDF, SVG or PNG: the same analysis, the same bytes."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.leaderboard.text import number, plain, title, track_of

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.analysis import Analysis

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


@dataclass(frozen=True)
class Row:
    """One row as figures show it: its short name, what it is called, and everything the analysis says of it."""

    id: str
    label: str
    facts: dict[Any, Any]


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
    with _style():
        if kind in PER_BENCHMARK:
            return _PER_BENCHMARK[kind](analysis, rows, _chosen(analysis, benchmark))
        return _PER_BOARD[kind](analysis, rows)


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
        benchmarks: Sequence[str | None] = [None]
        if kind in PER_BENCHMARK:
            benchmarks = (*analysis.board.benchmarks, *analysis.board.references)
        for benchmark in benchmarks:
            with contextlib.suppress(_NothingToDrawError):
                yield kind if benchmark is None else f"{kind}-{benchmark}", draw(kind, analysis, benchmark)


class _NothingToDrawError(UserError):
    """No row has the numbers that the figure shows."""


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever a user's ``matplotlibrc`` says."""
    with matplotlib.style.context("default"), mpl.rc_context(_STYLE):
        yield


def _rows(analysis: Analysis, methods: Collection[str]) -> list[Row]:
    found = analysis.rows.to_dict("records")
    known = {str(row["method"]) for row in found}
    for method in methods:
        if method not in known:
            raise UserError(f"no row of this board is called {method!r}", fix=nearest(method, known))
    if methods:
        found = [row for row in found if row["method"] in set(methods)]
    names = [plain(row["method"] if not row["backbone"] else f"{row['method']} ({row['backbone']})") for row in found]
    return [
        Row(row["row"], name if names.count(name) == 1 else f"{name} {row['row']}", row)
        for row, name in zip(found, names, strict=True)
    ]


def _chosen(analysis: Analysis, benchmark: str | None) -> str:
    known = (*analysis.board.benchmarks, *analysis.board.references)
    if benchmark is None:
        if len(known) == 1:
            return known[0]
        raise UserError("this figure shows one benchmark", expected=f"--benchmark, one of {', '.join(known)}")
    if benchmark not in known:
        raise UserError(f"the board has no benchmark {benchmark!r}", fix=nearest(benchmark, known))
    return benchmark


def _scatter(analysis: Analysis, rows: list[Row], column: str, label: str) -> Figure:
    """Mean mIoU over the board's benchmarks against one cost; floors without a cost as lines."""
    points = [row for row in rows if not math.isnan(number(row.facts["mean"]))]
    shown = [row for row in points if not row.facts["is_floor"] and not math.isnan(number(row.facts[column]))]
    if not shown:
        raise _NothingToDrawError(f"no complete row of this board has {label.lower()}")
    figure = Figure(figsize=(6.0, 4.0))
    axes = figure.add_subplot()
    costs = [number(row.facts[column]) for row in shown]
    middle = math.sqrt(max(min(costs), 1.0) * max(costs))
    families = sorted({str(row.facts["family"]) for row in shown})
    for place, family in enumerate(families):
        colour = _colour(place)
        for row in (row for row in shown if row.facts["family"] == family):
            x, y = number(row.facts[column]), 100 * number(row.facts["mean"])
            low, high = 100 * number(row.facts["mean_places_low"]), 100 * number(row.facts["mean_places_high"])
            if not math.isnan(low) and not math.isnan(high):
                axes.vlines(x, low, high, color=colour, linewidth=0.8, alpha=0.6)
            axes.plot(x, y, marker=_MARKERS[place % len(_MARKERS)], color=colour, linestyle="none", markersize=4)
            if len(shown) <= _LABELLED:
                side, shift = ("right", -4) if x > middle else ("left", 4)
                axes.annotate(row.label, (x, y), xytext=(shift, 2), textcoords="offset points", ha=side, fontsize=6)
    for row in points:
        if row.facts["is_floor"]:
            axes.axhline(100 * number(row.facts["mean"]), color="0.5", linestyle="--", linewidth=0.8)
            axes.annotate(row.label, (0.99, 100 * number(row.facts["mean"])), xycoords=("axes fraction", "data"),
                          xytext=(0, 2), textcoords="offset points", ha="right", fontsize=6, color="0.4")  # fmt: skip
    if min(costs) > 0:
        axes.set_xscale("log")
    else:  # nothing trained at all
        axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("mean mIoU on the targets, %")
    axes.set_title(_title(analysis))
    handles = [
        Line2D([], [], marker=_MARKERS[place % len(_MARKERS)], color=_colour(place), linestyle="none", markersize=4)
        for place in range(len(families))
    ]
    axes.legend(handles, list(map(plain, families)), fontsize=6, frameon=False, loc="upper center", ncols=6,
                bbox_to_anchor=(0.5, -0.13))  # fmt: skip
    return figure


def _parameters(analysis: Analysis, rows: list[Row]) -> Figure:
    return _scatter(analysis, rows, "trainable_max", "trainable parameters")


def _time(analysis: Analysis, rows: list[Row]) -> Figure:
    return _scatter(analysis, rows, "seconds", "seconds per run")


def _forest(analysis: Analysis, rows: list[Row], benchmark: str) -> Figure:
    """Score of each row with its interval; hollow where no interval can be estimated."""
    cells = _cells(analysis, benchmark)
    scored = [row for row in rows if not math.isnan(number(cells.get(row.id, {}).get("miou")))]
    floors = [row for row in scored if row.facts["is_floor"]]
    scored = [row for row in scored if not row.facts["is_floor"]]
    shown = scored[:MAX_ROWS]
    if not shown:
        raise _NothingToDrawError(f"no row of this board has a number on {benchmark}")
    figure = Figure(figsize=(5.0, 0.8 + 0.2 * len(shown)))
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        cell = cells[row.id]
        low, high = 100 * number(cell["low"]), 100 * number(cell["high"])
        estimable = bool(cell["estimable"]) and not math.isnan(low) and not math.isnan(high)
        if estimable:
            axes.hlines(place, low, high, color="C0", linewidth=1.2)
        face = "C0" if estimable else "white"
        axes.plot(100 * number(cell["miou"]), place, marker="o", color="C0", markerfacecolor=face, markersize=4)
    for row in floors:
        axes.axvline(100 * number(cells[row.id]["miou"]), color="0.5", linestyle="--", linewidth=0.8)
        axes.annotate(row.label, (100 * number(cells[row.id]["miou"]), 1.0), xycoords=("data", "axes fraction"),
                      xytext=(2, 1), textcoords="offset points", fontsize=6, color="0.4")  # fmt: skip
    labels = [row.label + ("" if cells[row.id]["state"] == "completed" else " (incomplete)") for row in shown]
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("mIoU on the target, %; bars: 95 % interval over places, hollow: not estimable")
    axes.set_title(_title(analysis, benchmark, len(shown), len(scored)), pad=14)
    return figure


def _classes(analysis: Analysis, rows: list[Row], benchmark: str) -> Figure:
    """IoU of every class for every row; empty where a class has neither truth nor predictions."""
    frame = analysis.classes[analysis.classes["benchmark"] == benchmark]
    by_row = {str(name): part for name, part in frame.groupby("row", sort=False)}
    scored = [row for row in rows if row.id in by_row]
    shown = scored[:MAX_ROWS]
    if not shown:
        raise _NothingToDrawError(f"no row of this board has a number on {benchmark}")
    names = {int(line["index"]): plain(line["name"]) for line in frame.to_dict("records")}
    order = sorted(names)
    values = np.full((len(shown), len(order)), math.nan)
    for place, row in enumerate(shown):
        for line in by_row[row.id].to_dict("records"):
            values[place, order.index(int(line["index"]))] = 100 * number(line["iou"])
    figure = Figure(figsize=(1.5 + 0.36 * len(order), 1.2 + 0.22 * len(shown)))
    axes = figure.add_subplot()
    _matrix(figure, axes, values, [names[index] for index in order], [row.label for row in shown], "IoU, %")
    axes.set_title(_title(analysis, benchmark, len(shown), len(scored)))
    return figure


def _gap(analysis: Analysis, rows: list[Row]) -> Figure:
    """Sources against target domains, one panel per dataset, for the first row that has numbers."""
    frame = analysis.domains
    measured = set(frame.loc[frame["miou"].notna(), "row"])
    row = next((row for row in rows if row.id in measured and not row.facts["is_floor"]), None)
    if row is None:
        raise _NothingToDrawError("no row of this board has numbers by domain")
    sources: dict[str, str] = {}
    datasets: dict[str, dict[str, bool]] = {}
    for cell in analysis.board.records:
        record = cell.record
        datasets.setdefault(record.dataset, {})[record.benchmark] = record.gap == "none"
        sources[record.benchmark] = _source_name(record.source_domains, record.gap == "none")
    mine = frame[frame["row"] == row.id]
    panels = []
    for dataset in sorted(datasets):
        benchmarks = [name for name in sorted(datasets[dataset], key=lambda name: (datasets[dataset][name], name))
                      if name in set(mine["benchmark"])]  # fmt: skip
        part = mine[mine["benchmark"].isin(benchmarks)]
        domains = sorted(set(part["domain"]))
        values = np.full((len(benchmarks), len(domains)), math.nan)
        for line in part.to_dict("records"):
            values[benchmarks.index(line["benchmark"]), domains.index(line["domain"])] = 100 * number(line["miou"])
        if benchmarks:
            panels.append((dataset, benchmarks, domains, values))
    heights = [len(benchmarks) + 4 for _, benchmarks, _, _ in panels]
    width = 2.5 + 0.4 * max(len(domains) for _, _, domains, _ in panels)
    figure = Figure(figsize=(width, 0.28 * sum(heights) + 0.6), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (dataset, benchmarks, domains, values) in zip(grid[:, 0], panels, strict=True):
        labels = [f"{name}: {sources[name]}" for name in benchmarks]
        _matrix(figure, axes, values, list(map(plain, domains)), labels, "mIoU, %")
        axes.set_title(plain(dataset))
    figure.suptitle(
        f"{_title(analysis)}: {row.label}, trained on the row's domains, tested on the column's", fontsize=9
    )
    return figure


def _matrix(
    figure: Figure, axes: Axes, values: NDArray[np.float64], columns: list[str], rows: list[str], label: str
) -> None:
    axes.set_facecolor("0.9")
    image = axes.imshow(values, vmin=0.0, vmax=100.0, cmap="viridis", aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=6)
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    for place, line in enumerate(values):
        for column, value in enumerate(line):
            if not math.isnan(value):
                axes.text(column, place, f"{value:.0f}", ha="center", va="center", fontsize=5,
                          color="white" if value < 60 else "black")  # fmt: skip
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(label)


def _cells(analysis: Analysis, benchmark: str) -> dict[str, dict[Any, Any]]:
    frame = analysis.entries[analysis.entries["benchmark"] == benchmark]
    return {cell["row"]: cell for cell in frame.to_dict("records")}


def _source_name(domains: Sequence[str], in_domain: bool) -> str:
    if in_domain:
        return "in-domain"
    names = list(map(plain, domains))
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def _title(analysis: Analysis, benchmark: str = "", shown: int = 0, there: int = 0) -> str:
    text = title(analysis.board.track)
    if track_of(analysis.board.track) == "sample":
        text += " (not a result on real data)"
    if benchmark:
        text += f": {benchmark}"
    return text if shown == there else f"{text}, first {shown} of {there} rows"


def _colour(place: int) -> str:
    return f"C{place % 10}"


def _short(value: float, _: int | None) -> str:
    """1k, 25M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


_PER_BOARD: dict[str, Callable[[Analysis, list[Row]], Figure]] = {
    "parameters": _parameters,
    "time": _time,
    "gap": _gap,
}
_PER_BENCHMARK: dict[str, Callable[[Analysis, list[Row], str], Figure]] = {"forest": _forest, "classes": _classes}
PER_BENCHMARK = tuple(_PER_BENCHMARK)
KINDS = (*_PER_BOARD, *_PER_BENCHMARK)
