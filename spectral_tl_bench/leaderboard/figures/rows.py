"""Figures with a line for each row: scores with their intervals, and what is lost across the gap."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectral_tl_bench.leaderboard.figures import sheet as sheets
from spectral_tl_bench.leaderboard.figures.sheet import COLOURS, LINE, NothingToDrawError, Sheet, first_of
from spectral_tl_bench.leaderboard.frames import Fields

_TARGET, _INSIDE = COLOURS[0], COLOURS[1]
_DOT: Any = {"marker": "o", "markersize": 3.6, "linestyle": "none"}
_DIAMOND: Any = {**_DOT, "marker": "D", "markersize": 3.4, "markerfacecolor": "white", "markeredgewidth": 0.8}


def forest(sheet: Sheet) -> Figure:
    """Score of each row with its interval, the best on the benchmark first; hollow where none can be estimated."""
    scored = sheet.scored()
    shown = scored[: sheets.MAX_ROWS]
    figure = sheet.figure(26 + LINE * len(shown))
    axes = figure.add_subplot()
    for place, row in enumerate(shown.to_dict("records")):
        estimable = not math.isnan(row["low"])
        if not math.isnan(row["in_domain"]):
            axes.plot(100 * row["in_domain"], place, color=_INSIDE, zorder=3, **_DIAMOND)
        if estimable:
            axes.hlines(place, 100 * row["low"], 100 * row["high"], color=_TARGET, linewidth=1.2)
        axes.plot(100 * row["miou"], place, color=_TARGET, markerfacecolor=_TARGET if estimable else "white", **_DOT)
    ends = shown["state"].map(lambda state: "" if state == "completed" else " (incomplete)")
    axes.set_yticks(range(len(shown)), sheet.unique(shown["label"] + ends))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    hollow = shown["low"].isna().any()
    inside = shown["in_domain"].notna().any()
    words = ["mIoU on the target, %", "bars: 95 % interval over places", "hollow: not estimable" if hollow else "",
             "diamond: in-domain" if inside else "", _floor(sheet, axes)]  # fmt: skip
    axes.set_xlabel("\n".join(sheet.broken("; ".join(filter(None, words)), 0.62)))
    under = [*sheet.rests_on(list(shown["row"]), [sheet.benchmark]), first_of(len(shown), len(scored))]
    sheet.heading(figure, sheet.benchmark, under)
    return figure


def gap(sheet: Sheet) -> Figure:
    """From the in-domain score to the target, row by row; a panel for each dataset with an in-domain reference."""
    panels = {name: lines for name in _datasets(sheet) if (lines := _losses(sheet, name))}
    if not panels:
        raise NothingToDrawError("no row of this board has both an in-domain score and one on the targets")
    longest = {name: lines[: sheets.MAX_ROWS] for name, lines in panels.items()}
    heights = [LINE * len(lines) + 9 for lines in longest.values()]
    figure = sheet.figure(34 + sum(heights))
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (dataset, lines) in zip(grid[:, 0], longest.items(), strict=True):
        for place, line in enumerate(lines):
            ends = 100 * line["target"], 100 * line["inside"]
            axes.plot(ends, (place, place), color="0.6", linewidth=0.8, zorder=1)
            axes.plot(ends[1], place, color=_INSIDE, **_DIAMOND)
            axes.plot(ends[0], place, color=_TARGET, **_DOT)
            axes.annotate(f"{100 * line['drop']:+.1f}".replace("-", "−"), (max(ends), place), xytext=(5, 0),
                          textcoords="offset points", va="center")  # fmt: skip
        axes.set_yticks(range(len(lines)), sheet.unique(line["label"] for line in lines))
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.margins(x=0.14)
        axes.set_title(f"{dataset}{', mean of several targets' if lines[0]['targets'] > 1 else ''}", loc="left")
    grid[-1, 0].set_xlabel("\n".join(sheet.broken("mIoU, %; beside it the drop in percentage points", 0.62)))
    handles = [Line2D([], [], color=_TARGET, label="target", **_DOT),
               Line2D([], [], color=_INSIDE, label="in-domain", **_DIAMOND)]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower right", ncols=2, frameon=False, handletextpad=0.2)
    rows = [line["row"] for lines in longest.values() for line in lines]
    benchmarks = [name for name in sheet.analysis.board.benchmarks
                  if sheet.analysis.board.known[name].dataset in panels]  # fmt: skip
    left_out = [first_of(len(longest[name]), len(lines)) for name, lines in panels.items()]
    sheet.heading(figure, "what is lost across the gap", [*sheet.rests_on(rows, benchmarks), *left_out])
    return figure


def _datasets(sheet: Sheet) -> list[str]:
    known = sheet.analysis.board.known
    return list(dict.fromkeys(known[name].dataset for name in sheet.analysis.board.benchmarks))


def _losses(sheet: Sheet, dataset: str) -> list[Fields]:
    """Rows with an in-domain score and one on every target of a dataset, the best on the targets first."""
    board, entries = sheet.analysis.board, sheet.analysis.entries
    names = [name for name in board.benchmarks if board.known[name].dataset == dataset]
    mine = entries[entries["benchmark"].isin(names)]
    lines = []
    for row in sheet.rows[~sheet.rows["is_floor"]].to_dict("records"):
        parts = mine[mine["row"] == row["row"]]
        if len(parts) == len(names) and parts["drop"].notna().all():
            inside, drop = parts["in_domain"].mean(), parts["drop"].mean()
            lines.append({"row": row["row"], "label": row["label"], "inside": inside, "drop": drop,
                          "target": inside - drop, "targets": len(names)})  # fmt: skip
    return sorted(lines, key=lambda line: -line["target"])


def _floor(sheet: Sheet, axes: Axes) -> str:
    """A line for the majority class where it lies beside the others, else its number in words."""
    for row in sheet.floors().to_dict("records"):
        value = 100 * row["miou"]
        low, high = axes.get_xlim()
        if low - 0.25 * (high - low) <= value:
            axes.axvline(value, color="0.5", linestyle="--", linewidth=0.7, zorder=0)
            return f"dashed: {row['label']}"
        return f"{row['label']}: {value:.1f}, left of the axis"
    return ""
