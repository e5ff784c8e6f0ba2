"""Figures that are matrices of numbers: classes and domains by row, and confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from spectral_tl_bench.leaderboard.figures import sheet as sheets
from spectral_tl_bench.leaderboard.figures.sheet import (
    LETTER,
    LINE,
    PAGE,
    NothingToDrawError,
    Sheet,
    first_of,
    names_of,
)
from spectral_tl_bench.leaderboard.site.view import benchmark_views
from spectral_tl_bench.leaderboard.text import plain
from spectral_tl_bench.results.schema import Record

_NUMBER = 2.4 * LETTER
"""Millimetres that two digits need."""
_SWATCH = 4.5
"""Points from a matrix to the colours beside it."""
_BRIGHT = 60
"""From this value on the ground is bright, and the number on it black."""


def classes(sheet: Sheet) -> Figure:
    """IoU of every class for every row; empty where a class has neither truth nor predictions."""
    scored = sheet.scored()
    found = sheet.analysis.classes[sheet.analysis.classes["benchmark"] == sheet.benchmark]
    shown = scored[: sheets.MAX_ROWS]
    values = 100 * found.pivot(index="row", columns="index", values="iou").loc[shown["row"]]
    names = found.set_index("index")["name"].to_dict()
    columns = names_of(names[index] for index in values.columns)
    figure = sheet.figure(34 + LINE * len(shown) + LETTER * _longest(columns))
    axes = figure.add_subplot()
    _matrix(sheet, figure, axes, values.to_numpy(), columns, sheet.unique(shown["label"], 0.28), "IoU, %")
    _swatches(figure, axes, _colours(sheet), vertical=False)
    under = [*sheet.rests_on(list(shown["row"]), [sheet.benchmark]), first_of(len(shown), len(scored))]
    sheet.heading(figure, f"{sheet.benchmark}, IoU per class", under)
    return figure


def confusion(sheet: Sheet) -> Figure:
    """Of the pixels of each true class (lines), the share that was predicted as each, for the best row."""
    row = sheet.scored().iloc[0]
    runs = sheet.analysis.board.groups()[row["row"]][sheet.benchmark].values()
    total = np.sum([matrix for run in runs for matrix in run.matrices.values()], axis=0)
    sums = total.sum(axis=1, keepdims=True)
    values = np.divide(100.0 * total, sums, out=np.full(total.shape, np.nan), where=sums > 0)
    names = names_of(sheet.analysis.board.known[sheet.benchmark].classes)
    figure = sheet.figure(34 + max(LINE * len(names), 0.5 * sheet.width) + LETTER * min(18, _longest(names)))
    axes = figure.add_subplot()
    lines = sheet.unique(names, 0.28)
    _matrix(sheet, figure, axes, values, names, lines, "% of the true class")
    colours = _colours(sheet)
    _swatches(figure, axes, colours, vertical=False)
    _swatches(figure, axes, colours, vertical=True)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    under = sheet.rests_on([row["row"]], [sheet.benchmark])
    sheet.heading(figure, f"{sheet.benchmark}, {row['label']}", [f"mIoU {100 * row['miou']:.1f} %", *under])
    return figure


def domains(sheet: Sheet) -> Figure:
    """Sources against target domains, one panel per dataset, for the first row that has numbers."""
    analysis, rows = sheet.analysis, sheet.rows
    measured = rows[~rows["is_floor"] & rows["row"].isin(analysis.domains.dropna(subset="miou")["row"])]
    if measured.empty:
        raise NothingToDrawError("no row of this board has numbers by domain")
    mine = analysis.domains[analysis.domains["row"] == measured["row"].iloc[0]]
    table = 100 * mine.pivot(index="benchmark", columns="domain", values="miou")
    known = [record for name, record in analysis.board.known.items() if name in table.index]
    panels: dict[str, tuple[list[Record], pd.DataFrame]] = {}
    for dataset in sorted({record.dataset for record in known}):
        lines = [record for record in known if record.dataset == dataset]  # references last
        panels[dataset] = lines, table.loc[[record.benchmark for record in lines]].dropna(axis="columns", how="all")
    heights = [LINE * len(lines) + 14 + LETTER * _longest(map(str, part.columns)) for lines, part in panels.values()]
    figure = sheet.figure(sum(heights) + 26)
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (dataset, (lines, part)) in zip(grid[:, 0], panels.items(), strict=True):
        labels = [f"{record.benchmark}: {_sources(record)}" for record in lines]
        columns = list(map(str, part.columns))
        _matrix(sheet, figure, axes, part.to_numpy(), columns, sheet.unique(labels, 0.34), "mIoU, %")
        axes.set_title(plain(dataset), loc="left")
    about = f"{measured['label'].iloc[0]}, trained on the row's domains, tested on the column's"
    sheet.heading(figure, about, sheet.rests_on([measured["row"].iloc[0]], list(table.index)))
    return figure


def _matrix(
    sheet: Sheet,
    figure: Figure,
    axes: Axes,
    values: NDArray[np.float64],
    columns: list[str],
    rows: list[str],
    label: str,
) -> None:
    """Numbers on their colours; the colours alone where a cell is too narrow for two digits."""
    axes.set_facecolor("0.9")
    image = axes.imshow(values, vmin=0.0, vmax=100.0, cmap="viridis", aspect="auto", interpolation="nearest")
    upright = LETTER * _longest(columns) * len(columns) > 0.6 * sheet.width
    axes.set_xticks(range(len(columns)), list(map(plain, columns)), rotation=90 if upright else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, pad=8)
    narrow = sheet.width < PAGE / 1.5
    room = sheet.width - LETTER * _longest(rows) - (6 if narrow else 22)
    for (line, column), value in np.ndenumerate(values) if room / max(1, len(columns)) >= _NUMBER else ():
        if not math.isnan(value):
            axes.text(column, line, f"{value:.0f}", ha="center", va="center",
                      color="white" if value < _BRIGHT else "black")  # fmt: skip
    bar = figure.colorbar(image, ax=axes, location="bottom" if narrow else "right", pad=0.02, aspect=30)
    bar.set_label(label)
    bar.outline.set_linewidth(0.5)


def _swatches(figure: Figure, axes: Axes, colours: Sequence[str], *, vertical: bool) -> None:
    """The colours of the classes, between the matrix and their names."""
    shift = (-_SWATCH / 72, 0.0) if vertical else (0.0, -_SWATCH / 72)
    transform = axes.get_yaxis_transform() if vertical else axes.get_xaxis_transform()
    transform += ScaledTranslation(*shift, figure.dpi_scale_trans)
    for place, colour in enumerate(colours):
        axes.plot(0.0 if vertical else place, place if vertical else 0.0, marker="s", markersize=4.5, color=colour,
                  markeredgecolor="0.4", markeredgewidth=0.3, transform=transform, clip_on=False)  # fmt: skip


def _colours(sheet: Sheet) -> tuple[str, ...]:
    views = {view.id: view for view in benchmark_views(sheet.analysis, sheet.definitions)}
    return views[sheet.benchmark].colours


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _sources(record: Record) -> str:
    if record.gap == "none":
        return "in-domain"
    names = list(map(plain, record.source_domains))
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"
