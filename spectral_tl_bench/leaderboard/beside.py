"""Measured beside printed: runs by the paper's protocol next to the numbers of its tables. Nothing is ranked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from spectral_tl_bench.evaluation.metrics import released_from_strict
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board import BySeed
from spectral_tl_bench.leaderboard.frames import Fields, frame, lines_of, mean
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.published import (
    ABOUT_IN_DOMAIN,
    DEPTH,
    IN_DOMAIN,
    STEPS,
    WIDTH,
    Method,
    Row,
    rows_of,
    runnable,
)
from spectral_tl_bench.leaderboard.reported import DROP, IOU, MIOU
from spectral_tl_bench.leaderboard.reported_table import letter
from spectral_tl_bench.leaderboard.text import AS_PUBLISHED, PUBLISHED, WARNINGS, parts_of

COLUMNS = (
    "table", "printed_method", "printed_backbone", "benchmark", "metric", "class", "printed", "doubt", "protocol",
    "method", "backbone", "row", "seeds", "release", "release_minus_printed", "strict", "strict_minus_printed",
    "release_minus_strict", "marks",
)  # fmt: skip
"""Numbers are per cent, and percentage points; ``row`` is that of the board that the measured records stand on."""
ABOUT = (
    "Printed: as in the paper. Release and strict: what was measured here, by the release's metric and by that of this "
    "suite, from the same confusion matrices; in per cent, means over seeds. Differences in percentage points. A "
    "remark says where the run was not the paper's. Nothing is ranked."
)


def beside(analyses: Mapping[str, Analysis], reported: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every printed number of the paper that a run by its protocol corresponds to, with what was measured.

    Args:
        analyses: Numbers by name of the board.
        reported: As ``reported.read_reported`` gives it.

    Returns:
        By track, in the order of the printed tables; tracks without such a number are left out. Columns ``COLUMNS``.
    """
    found: dict[str, list[Fields]] = {}
    printed = rows_of(reported) if len(reported) else []
    for name, analysis in analyses.items():
        board = parts_of(name)
        if board.protocol in (PUBLISHED, AS_PUBLISHED) and not board.target_images:
            found.setdefault(board.track, []).extend(_lines(analysis, printed, reported))
    places = list(reported["source_table"] + reported["method"] + reported["backbone"]) if len(reported) else []
    for lines in found.values():  # as printed; then by benchmark, so that both protocols stand together
        names = list(dict.fromkeys(line["benchmark"] for line in lines))
        lines.sort(
            key=lambda line: (
                places.index(line["table"] + line["printed_method"] + line["printed_backbone"]),
                names.index(line["benchmark"]), line["protocol"],
            )
        )  # fmt: skip
    return {track: frame(lines, COLUMNS) for track, lines in sorted(found.items()) if lines}


def doubt_marks(lines: pd.DataFrame) -> dict[str, str]:
    """A letter for each doubt of the printed numbers."""
    return {doubt: letter(place) for place, doubt in enumerate(dict.fromkeys(filter(None, lines["doubt"])))}


def table_parts(lines: pd.DataFrame) -> list[Fields]:
    """The lines of a track as people read them: by table and metric, with ``name``, ``classes``, ``doubts``."""
    parts = []
    for (table, metric), part in lines.groupby(["table", "metric"], sort=False):
        what = {DROP: "difference to the setting without gap", IOU: "IoU per class"}.get(str(metric), metric)
        parts.append({
            "name": f"{table}: {what}", "classes": metric == IOU, "lines": lines_of(part),
            "doubts": list(dict.fromkeys(filter(None, part["doubt"]))),
        })  # fmt: skip
    return parts


def _lines(analysis: Analysis, printed: list[Row], reported: pd.DataFrame) -> Iterator[Fields]:
    groups = analysis.board.groups()
    for row, method in runnable(printed):
        here = reported[
            (reported["source_table"] == row.table)
            & (reported["method"] == row.printed)
            & (reported["backbone"] == row.printed_backbone)
        ].to_dict("records")
        for name, group in groups.items():
            first = next(run for by_seed in group.values() for run in by_seed.values()).record
            if first.method != method.name or (first.backbone.name if first.backbone else "") != row.backbone:
                continue
            for line in here:
                measured = _measured(group, line)
                if measured is not None:
                    yield _line(row, method, name, line, group[line["benchmark"]], measured)


def _line(
    row: Row, method: Method, name: str, line: dict[Any, Any], by_seed: BySeed, measured: tuple[float, float]
) -> Fields:
    runs = {seed: run for seed, run in by_seed.items() if run.completed}
    first = next(iter(runs.values()))
    printed, (release, strict) = float(line["value"]), measured
    return {
        "table": row.table, "printed_method": row.printed, "printed_backbone": row.printed_backbone,
        "benchmark": line["benchmark"], "metric": line["metric"], "class": line["class"], "printed": printed,
        "doubt": line["doubt"], "protocol": first.record.protocol, "method": method.name, "backbone": row.backbone,
        "row": name, "seeds": ", ".join(map(str, runs)), "release": release,
        "release_minus_printed": release - printed, "strict": strict, "strict_minus_printed": strict - printed,
        "release_minus_strict": release - strict, "marks": "; ".join(marks(first, method)),
    }  # fmt: skip


def _measured(group: Mapping[str, BySeed], line: dict[Any, Any]) -> tuple[float, float] | None:
    """What was measured of a printed number by the release's metric and by ours, in per cent; None where nothing was.

    Printed drops are negative: the target minus the benchmark without gap.
    """
    runs = _completed(group, line["benchmark"])
    if line["metric"] == MIOU:
        return _means(runs)
    if line["metric"] == IOU:
        return _means(runs, line["class"])
    inside = _completed(group, f"{line['benchmark'].split('-', maxsplit=1)[0]}{IN_DOMAIN}")
    shared = runs.keys() & inside.keys() if line["metric"] == DROP else set()
    target, source = (_means({seed: part[seed] for seed in shared}) for part in (runs, inside))
    return (target[0] - source[0], target[1] - source[1]) if target and source else None


def _completed(group: Mapping[str, BySeed], benchmark: str) -> BySeed:
    return {seed: run for seed, run in group.get(benchmark, {}).items() if run.completed}


def _means(runs: BySeed, name: str = "") -> tuple[float, float] | None:
    """MIoU, or the IoU of a class, by both metrics; None where no run has it."""
    both = []
    for run in runs.values():
        strict, release = run.blocks["selected"], released_from_strict(sum(run.matrices.values()))
        if not name:
            both.append((release.miou, strict.miou))
        elif name in run.record.classes:
            place = run.record.classes.index(name)
            ours = strict.iou[place]
            both.append((release.iou[place], float("nan") if ours is None else ours))
    return (100 * mean(one for one, _ in both), 100 * mean(one for _, one in both)) if both else None


def marks(run: MeasuredRecord, method: Method) -> list[str]:
    """Where a run is not the paper's, in words."""
    record = run.record
    found = ["synthetic scenes: no comparison with the paper"] if record.track == "sample" else []
    found += [WARNINGS[record.track].split(".")[0]] if record.track in WARNINGS and not found else []
    if record.benchmark.endswith(IN_DOMAIN):
        found.append(ABOUT_IN_DOMAIN)
    if record.backbone is not None:
        if record.backbone.pretrained == "none":
            found.append("random weights")
        size = (record.backbone.width, record.backbone.depth)
        if size != (WIDTH, DEPTH):
            found.append(f"backbone of width {size[0]} and depth {size[1]}, a ViT-L in print ({WIDTH} and {DEPTH})")
    for stage in record.stages:
        if stage.name in STEPS and stage.steps != STEPS[stage.name]:
            found.append(f"{stage.steps:,} steps of stage {stage.name}, {STEPS[stage.name]:,} in print")
    for name, value in method.options.items():
        if record.options.get(name) != value:
            found.append(f"{name} {record.options.get(name)}, {value} in print")
    return [*found, *(["tuned"] if record.tuning is not None else [])]
