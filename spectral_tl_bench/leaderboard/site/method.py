"""A page per method: what it is, its settings, what it costs, and every number of every row."""

from __future__ import annotations

import ast
import functools
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.site.heat import top_of
from spectral_tl_bench.leaderboard.site.names import page_name
from spectral_tl_bench.leaderboard.site.view import ROWS_PER_PAGE, Fields, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.objectives.registry import split_objectives

_GROUP = "spectral_tl_bench.methods"
_OURS = ("spectral_tl_bench.", "spectralx.")


def write_methods(writer: Writer, view: View) -> None:
    """Write the list of methods and the page, or pages, of each."""
    listed = []
    for name, rows in view.methods.items():
        parts = [rows[start : start + ROWS_PER_PAGE] for start in range(0, len(rows), ROWS_PER_PAGE)]
        paths = [f"{view.track.slug}/methods/{page_name(name, number)}" for number in range(len(parts))]
        for number, (part, path) in enumerate(zip(parts, paths, strict=True)):
            cells = [view.entries[row["row"], one.id] for row in part for one in view.benchmarks]
            writer.page(
                path,
                "method.html",
                view=view,
                track=view.track,
                here="methods",
                name=name,
                summary=summary(name),
                objectives=split_objectives(name)[1],
                rows=part,
                details={row["row"]: _details(view, row) for row in part},
                top=top_of([value for cell in cells for value in (cell["miou"], cell["high"])]),
                number=number,
                paths=paths,
            )
        listed.append((name, rows, paths[0]))
    writer.page(
        f"{view.track.slug}/methods/index.html",
        "methods.html",
        view=view,
        track=view.track,
        here="methods",
        methods=[(name, rows, path, summary(name)) for name, rows, path in listed],
    )


@functools.cache
def summary(name: str) -> str:
    """What a method of this suite is, from its class; empty for anybody else's, which may not be installed here.

    The source is read and not imported, which would take seconds.
    """
    base = split_objectives(name)[0].partition("@")[0]
    found = [entry for entry in entry_points(group=_GROUP, name=base) if entry.module.startswith(_OURS)]
    if not found:
        return ""
    stem = Path(__file__).resolve().parents[3].joinpath(*found[0].module.split("."))
    path = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
    if path is None:
        return ""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == found[0].attr]
    return (ast.get_docstring(kinds[0]) or "").partition("\n\n")[0].replace("\n", " ") if kinds else ""


def _details(view: View, row: Fields) -> dict[str, Any]:
    """What the records of a row say beyond its scores."""
    by_benchmark = [view.measured.get((row["row"], one.id), {}) for one in view.benchmarks]
    cells = [cell for by_seed in by_benchmark for cell in by_seed.values()]
    done = [cell for cell in cells if cell.completed]
    backbone = cells[0].record.backbone if cells else None
    return {
        "backbone": backbone.model_dump(mode="json", exclude={"weights"}) if backbone else {},
        "weights": backbone.weights.model_dump(mode="json") if backbone and backbone.weights else {},
        "devices": sorted({cell.record.device for cell in done if cell.record.device}),
        "stages": _stages(done),
        "failures": [
            (cell.record.benchmark, cell.record.seed, cell.record.error) for cell in cells if cell.record.error
        ],
        "seeds": _by_seed(view, row),
    }


def _stages(cells: list[MeasuredRecord]) -> list[tuple[str, int, int]]:
    """Name, steps and trainable parameters of each training stage, as in the first completed record."""
    return [(stage.name, stage.steps, stage.trainable) for stage in cells[0].record.stages] if cells else []


def _by_seed(view: View, row: Fields) -> list[tuple[str, list[tuple[int, float | None]]]]:
    """MIoU of each seed, by benchmark."""
    found = []
    for benchmark in view.benchmarks:
        by_seed = view.measured.get((row["row"], benchmark.id), {})
        values = [
            (seed, by_seed[seed].blocks["selected"].miou if by_seed[seed].completed else None)
            for seed in sorted(by_seed)
        ]
        if len(values) > 1:
            found.append((benchmark.id, values))
    return found
