"""A page per benchmark: domains on a map, every row, sample chips, classes, heat maps and confusion matrices."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from spectral_tl_bench.leaderboard.site.heat import top_of
from spectral_tl_bench.leaderboard.site.maps import draw_map
from spectral_tl_bench.leaderboard.site.overview import best_cells, reasons
from spectral_tl_bench.leaderboard.site.predictions import shown_chips
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, Fields, View
from spectral_tl_bench.leaderboard.site.writer import Writer


def write_benchmarks(writer: Writer, view: View) -> None:
    """Write the list of benchmarks and a page for each."""
    best = best_cells(view)
    for benchmark in view.benchmarks:
        _write(writer, view, benchmark, best)
    writer.page(
        f"{view.track.slug}/benchmarks/index.html",
        "benchmarks.html",
        view=view,
        track=view.track,
        here="benchmarks",
        first={one.id: next(iter(view.best_first(one.id)), None) for one in view.benchmarks},
    )


def _write(writer: Writer, view: View, benchmark: BenchmarkView, best: set[tuple[str, str]]) -> None:
    order = view.best_first(benchmark.id)
    floor = [row for row in view.rows if row["is_floor"]]
    without = [row for row in view.rows if row not in order and row not in floor]
    cells = {row["row"]: view.entries[row["row"], benchmark.id] for row in view.rows}
    classes = {row["row"]: view.classes.get((row["row"], benchmark.id), []) for row in [*order, *floor]}
    domains = {row["row"]: view.domains.get((row["row"], benchmark.id), []) for row in [*order, *floor]}
    matrix = view.matrix(order[0]["row"], benchmark.id) if order else None
    writer.page(
        f"{view.track.slug}/benchmarks/{benchmark.slug}.html",
        "benchmark.html",
        view=view,
        track=view.track,
        here="benchmarks",
        benchmark=benchmark,
        best=best,
        rows=[*order, *without, *floor],
        scored=[*order, *floor],
        cells=cells,
        map=draw_map(benchmark),
        shown=shown_chips(writer, view, benchmark),
        class_table=class_table(view, benchmark, order),
        classes=classes,
        domains={row: {fields["domain"]: fields for fields in group} for row, group in domains.items()},
        class_top=top_of(fields["iou"] for group in classes.values() for fields in group),
        domain_top=top_of(fields["miou"] for group in domains.values() for fields in group),
        top=top_of(value for cell in cells.values() for value in (cell["miou"], cell["high"])),
        floor=view.floor(benchmark.id),
        reasons=reasons(view, benchmark.id),
        confused=order,
        shares=shares(matrix) if matrix is not None else None,
    )


def class_table(view: View, benchmark: BenchmarkView, order: list[Fields]) -> list[dict[str, Any]]:
    """Per class: its share of the labelled pixels, and the best, the median and the majority class's IoU."""
    groups = [view.classes.get((row["row"], benchmark.id), []) for row in order]
    floors = next((view.classes.get((row["row"], benchmark.id), []) for row in view.rows if row["is_floor"]), [])
    pixels = next(([fields["truth_pixels"] or 0 for fields in group] for group in groups if group), [])
    result = []
    for index, name in enumerate(benchmark.classes):
        found = [
            (group[index]["iou"], row)
            for group, row in zip(groups, order, strict=True)
            if index < len(group) and group[index]["iou"] is not None
        ]
        first = max(found, key=lambda pair: pair[0], default=(None, None))
        result.append({
            "name": name,
            "colour": benchmark.colours[index],
            "pixels": pixels[index] if pixels else None,
            "share": pixels[index] / sum(pixels) if sum(pixels) else None,
            "best": first[0],
            "best_row": first[1],
            "median": statistics.median(value for value, _ in found) if found else None,
            "floor": floors[index]["iou"] if index < len(floors) else None,
        })  # fmt: skip
    return result


def shares(matrix: np.ndarray[Any, Any]) -> list[list[float | None]]:
    """Of the pixels of each true class, the share that was predicted as each; None where the truth lacks the class."""
    return [[float(value) / int(line.sum()) for value in line] if line.sum() else [None] * len(line) for line in matrix]
