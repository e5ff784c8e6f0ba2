"""Accuracy against cost, with the line of the rows that no other one beats in both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from spectral_tl_bench.leaderboard.figures.sheet import COLOURS, PAGE, POINTS, NothingToDrawError, Sheet
from spectral_tl_bench.leaderboard.frames import Fields, front_of, lines_of
from spectral_tl_bench.leaderboard.text import plain

_MARKERS = "osD^vP*X<>hp"
_TRIES = ((4, 3), (-4, 3), (4, -8), (-4, -8), (4, 10), (-4, 10))
"""Where a label may stand beside its mark, in points."""
_BEYOND = 0.25
"""A floor that is farther below the other marks than this share of their range is written and not drawn."""


def scatter(sheet: Sheet, *, column: str, label: str) -> Figure:
    """Mean mIoU over the board's benchmarks against one cost; floors without a cost as lines."""
    points = sheet.rows[sheet.rows["mean"].notna()]
    shown = points[~points["is_floor"] & points[column].notna()]
    if shown.empty:
        raise NothingToDrawError(f"no complete row of this board has {label.lower()}")
    figure = sheet.figure(78.0 if sheet.width < PAGE / 1.5 else 105.0)
    axes = figure.add_subplot()
    handles = []
    for place, (family, group) in enumerate(shown.groupby("family")):
        mark: Any = {"marker": _MARKERS[place % len(_MARKERS)], "color": COLOURS[place % len(COLOURS)]}
        mark |= {"linestyle": "none", "markersize": 3.6}
        handles.append(Line2D([], [], label=plain(family), **mark))
        for row in group.to_dict("records"):
            low, high = 100 * row["mean_places_low"], 100 * row["mean_places_high"]
            if not math.isnan(low):
                axes.vlines(row[column], low, high, color=mark["color"], linewidth=0.7, alpha=0.5)
            axes.plot(row[column], 100 * row["mean"], zorder=3, **mark)
    costs = shown[column].to_numpy(dtype=float)
    _cost_axis(axes, costs)
    axes.set_xlabel(label)
    axes.set_ylabel("mean mIoU on the targets, %")
    words = [_floor(axes, row) for row in lines_of(points[points["is_floor"]])]
    front = front_of(lines_of(shown), lambda row: (row[column], -row["mean"]))
    axes.step([row[column] for row in front] + [axes.get_xlim()[1]],
              [100 * row["mean"] for row in front] + [100 * front[-1]["mean"]],
              where="post", color="0.4", linewidth=0.7, linestyle=":", zorder=1)  # fmt: skip
    columns = max(2, int(sheet.width / 28))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.2)
    rests = sheet.rests_on(list(shown["row"]), list(sheet.analysis.board.benchmarks))
    notes = ["bars: 95 % over places, dotted: no row beats these in both", *words]
    sheet.heading(figure, f"mIoU against {label}", [*rests, *notes])
    _name(figure, axes, front, lines_of(shown), column)
    return figure


def _cost_axis(axes: Axes, costs: np.ndarray[Any, Any]) -> None:
    """A logarithmic axis; where something costs nothing, 0 stands at its left end, and nothing is below it."""
    positive = costs[costs > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9)
    decades = [10.0**n for n in range(first, last + 1)]
    if positive.size == costs.size:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.8, high * 2.2)
        ticks = [tick for tick in decades if low / 1.8 <= tick <= high * 2.2]
        if len(ticks) < 2:
            ticks = [factor * 10.0**n for n in range(first - 1, last + 1) for factor in (1, 2, 5)]
            ticks = [tick for tick in ticks if low / 1.8 <= tick <= high * 2.2]
    else:
        axes.set_xscale("symlog", linthresh=decades[0], linscale=0.4)
        axes.set_xlim(0.0, high * 2.2)
        for line in axes.lines:
            line.set_clip_on(False)
        ticks = [0.0, *decades]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= high * 2.2]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))


def _floor(axes: Axes, row: Fields) -> str:
    """A line for a floor, where it lies beside the others, else its number in words."""
    value = 100 * row["mean"]
    low, high = axes.get_ylim()
    if value < low - _BEYOND * (high - low):
        return f"{row['label']}: {value:.1f}, below the axis"
    axes.axhline(value, color="0.5", linestyle="--", linewidth=0.7, zorder=0)
    axes.annotate(row["label"], (0.99, value), xycoords=("axes fraction", "data"), xytext=(0, 2),
                  textcoords="offset points", ha="right", color="0.35")  # fmt: skip
    return ""


def _name(figure: Figure, axes: Axes, front: list[Fields], rows: list[Fields], column: str) -> None:
    """Write the names of the front where they cover neither a mark nor each other."""
    figure.draw_without_rendering()
    scale = 72 / figure.dpi  # everything in points
    spots = [axes.transData.transform((row[column], 100 * row["mean"])) * scale for row in rows]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in spots]
    frame = [edge * scale for edge in axes.get_window_extent().extents]
    for row in front:
        x, y = axes.transData.transform((row[column], 100 * row["mean"])) * scale
        text = plain(row["method"])
        wide, tall = len(text) * POINTS * 0.56, POINTS
        for dx, dy in _TRIES:
            left = x + dx if dx > 0 else x + dx - wide
            box = (left, y + dy - 1, left + wide, y + dy + tall - 1)
            inside = box[0] >= frame[0] and box[2] <= frame[2] + 4 and box[1] >= frame[1] and box[3] <= frame[3] + 6
            if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                note = axes.annotate(text, (row[column], 100 * row["mean"]), xytext=(dx, dy),
                                     textcoords="offset points", ha="left" if dx > 0 else "right")  # fmt: skip
                note.set_in_layout(False)
                taken.append(box)
                break


def short_number(value: float, _: int | None = None) -> str:
    """1k, 25M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
