"""Boards as Markdown, for a repository."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.board import Board, floors
from spectral_tl_bench.leaderboard.measured import MeasuredRecord, all_options
from spectral_tl_bench.leaderboard.reported import DROP, MIOU
from spectral_tl_bench.leaderboard.reported_table import printed_table, references
from spectral_tl_bench.leaderboard.text import (
    NOT_ESTIMABLE,
    NOTHING,
    as_json,
    backbone_text,
    count_range,
    interval,
    number,
    one_decimal,
    percent,
    plain,
    signed,
    title,
    warnings,
)

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.analysis import Analysis

_SEASON_NOTE = (
    "DFC2020's seasonal gap is also a gap between cities: every season was taken over cities of its own, so that "
    "the two effects cannot be told apart."
)
_READING = (
    "Numbers are mIoU in per cent of the checkpoint that was selected on source validation: the mean over seeds ± "
    "their sample standard deviation where there are several. The mean goes over all benchmarks with a gap that "
    "occur on this board; a row that lacks one of them, or one seed of it, is incomplete and has no rank. The "
    "interval over places (cities, sites or grid blocks, not pixels) says how much the target's places matter, the one "
    f"over seeds how much the training does; where there are too few of them, it says *{NOT_ESTIMABLE}*. IQM: "
    "interquartile mean over benchmarks and seeds."
)
_LOOSE_UNDERSCORE = re.compile(r"(?<!\w)_|_(?!\w)")  # between letters it is no emphasis
_CELL_LEGEND = (
    "Selected: the best checkpoint on source validation. Last: the end of training. Oracle: the best on the target, "
    "which nobody can select without target labels. Worst domain: the lowest mIoU of a target domain. Release: what "
    "the metric of the authors' release says on the same predictions, and by how much that is above the mIoU here; it "
    "leaves out classes without ground truth together with the pixels predicted as such. Drop: mIoU of the in-domain "
    "reference minus mIoU on the target, over the seeds that both have. Seconds: mean of a run."
)
_FLOOR_LEGEND = (
    "What a predictor reaches on the same pixels that always says the most frequent class of the source's training "
    "labels."
)


def markdown(analysis: Analysis) -> str:
    """One board as Markdown, scores in per cent."""
    board = analysis.board
    parts = [f"# {title(board.track)}", *[f"**{text}**" for text in warnings(board.track)]]
    parts += [
        f"Data: {escape(text)}"
        for text in sorted({cell.record.statement for cell in board.records if cell.record.statement})
    ]
    parts += [MIOU_RULE, _READING, _main_table(analysis)]
    unranked = analysis.rows[~analysis.rows["is_floor"].astype(bool) & analysis.rows["rank"].isna()]
    if len(unranked):
        lines = [
            f"- {escape(row['method'])} ({row['row']}): {escape(row['incomplete_reason'] or 'see the notes')}"
            for row in unranked.to_dict("records")
        ]
        parts += ["## Not ranked", "\n".join(lines)]
    notes = [*board.notes, *_data_notes(board)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    parts += ["## Cells", _CELL_LEGEND, _cell_table(analysis), "## Majority class", _FLOOR_LEGEND, _floor_table(board)]
    failed = [cell for cell in board.records if not cell.completed]
    if failed:
        parts += ["## Failed cells", _failed_table(failed)]
    return "\n\n".join([*parts, "## Configurations", _configurations(board, analysis.rows)]) + "\n"


def reported_markdown(frame: pd.DataFrame) -> str:
    """Numbers of papers as Markdown: a table per dataset, as printed, unranked.

    Args:
        frame: As ``reported.read_reported`` gives it.
    """
    parts = [
        "# Reported by papers",
        "**As printed, under the papers' own protocols. These numbers were not measured with this suite and are never "
        "ranked against those that were.**",
        "mIoU in per cent. A letter marks a number that contradicts others in print; it is shown as printed, and the "
        "contradiction stands below the table.",
    ]
    for reference in references(frame):
        parts.append(f"## {escape(reference)}")
        part = frame[frame["reference"] == reference]
        for dataset in dict.fromkeys(part["dataset"]):
            here = part[part["dataset"] == dataset]
            parts.append(f"### {escape(dataset)}")
            for metric, caption in ((MIOU, ""), (DROP, "Printed difference to the setting without gap:")):
                printed = printed_table(here, metric)
                if not printed.lines:
                    continue
                parts += [caption] if caption else []
                parts.append(_table(printed.head, printed.lines))
                parts += ["\n".join(f"- {mark}: {escape(text)}" for mark, text in printed.doubts)] * bool(
                    printed.doubts
                )
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Text of a record as one line of Markdown, of which nothing is markup and nothing ends a table cell."""
    line = plain(text)
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(mark, entity)
    for mark in "\\`*[]|~":
        line = line.replace(mark, f"\\{mark}")
    return _LOOSE_UNDERSCORE.sub(r"\\_", line)


def _data_notes(board: Board) -> list[str]:
    notes = [_SEASON_NOTE] * any(cell.record.dataset.upper().startswith("DFC2020") for cell in board.records)
    return notes + sorted(
        {
            f"{cell.record.benchmark}: {note}"
            for cell in board.records
            if cell.record.data is not None
            for note in cell.record.data.notes
        }
    )


def _main_table(analysis: Analysis) -> str:
    board = analysis.board
    cells = {(cell["row"], cell["benchmark"]): cell for cell in analysis.entries.to_dict("records")}
    reference = [f"{name} (in-domain)" for name in board.references]
    head = ["Rank", "Method", "Backbone", "Configuration", "Seeds", *board.benchmarks, "Mean", "95 % over places",
            "95 % over seeds", "IQM", "Mean rank", *reference, "Trainable parameters", "Seconds"]  # fmt: skip
    lines = []
    for row in analysis.rows.to_dict("records"):
        rank = number(row["rank"])
        complete = bool(row["complete"])
        lines.append([
            NOTHING if math.isnan(rank) else f"{rank:.0f}",
            row["method"],
            backbone_text(row),
            NOTHING if row["is_floor"] else row["row"],
            row["seeds"] or NOTHING,
            *[_score(cells.get((row["row"], name))) for name in board.benchmarks],
            percent(row["mean"], row["mean_std"]) if complete else "incomplete",
            interval(row["mean_places_low"], row["mean_places_high"]) if complete else NOTHING,
            interval(row["mean_low"], row["mean_high"]) if complete else NOTHING,
            percent(row["iqm"]),
            _plain_number(row["mean_rank"]),
            *[_score(cells.get((row["row"], name))) for name in board.references],
            count_range(row["trainable_min"], row["trainable_max"]),
            one_decimal(row["seconds"]),
        ])  # fmt: skip
    return _table(head, lines)


def _score(cell: dict[Any, Any] | None) -> str:
    if cell is None or cell["state"] == "missing":
        return NOTHING
    if cell["state"] == "failed":
        return "failed"
    text = percent(cell["miou"], cell["std"])
    return text if cell["state"] == "completed" else f"{text} (incomplete)"


def _cell_table(analysis: Analysis) -> str:
    head = ["Benchmark", "Method", "Backbone", "Configuration", "Seeds", "Selected", "95 % interval", "Places", "Last",
            "Oracle", "Worst domain", "OA", "Mean F1", "Release", "Inflation", "Drop", "Drop, 95 % interval",
            "Trainable parameters", "Seconds", "Peak memory, MB"]  # fmt: skip
    rows = {row["row"]: row for row in analysis.rows.to_dict("records") if not row["is_floor"]}
    names = {name: place for place, name in enumerate((*analysis.board.benchmarks, *analysis.board.references))}
    cells = [cell for cell in analysis.entries.to_dict("records") if cell["row"] in rows]
    lines = []
    for cell in sorted(cells, key=lambda cell: names[cell["benchmark"]]):  # stable: within, the order of the board
        row = rows[cell["row"]]
        about = [cell["benchmark"], row["method"], backbone_text(row), cell["row"], cell["seeds"] or NOTHING]
        if cell["state"] in {"failed", "missing"}:
            lines.append([*about, _score(cell), *[NOTHING] * (len(head) - len(about) - 1)])
            continue
        estimable = bool(cell["estimable"])
        no_drop = math.isnan(number(cell["drop"]))
        lines.append([
            *about,
            _score(cell),
            interval(cell["low"], cell["high"]) if estimable else _reason(cell["reason"]),
            _plain_number(cell["places"], 0),
            percent(cell["last"]),
            percent(cell["oracle"]),
            f"{cell['worst_domain']} {percent(cell['worst_miou'])}" if cell["worst_domain"] else NOTHING,
            percent(cell["oa"]),
            percent(cell["mean_f1"]),
            percent(cell["release"]),
            signed(cell["inflation"]),
            signed(cell["drop"]),
            NOTHING if no_drop else interval(cell["drop_low"], cell["drop_high"]),
            count_range(cell["trainable"], cell["trainable"]),
            one_decimal(cell["seconds"]),
            one_decimal(cell["peak_memory_mb"]),
        ])  # fmt: skip
    return _table(head, lines)


def _reason(reason: object) -> str:
    return f"{NOT_ESTIMABLE}: {reason}" if isinstance(reason, str) and reason else NOT_ESTIMABLE


def _floor_table(board: Board) -> str:
    classes = {cell.record.benchmark: cell.record.classes for cell in board.records if cell.completed}
    head = ["Benchmark", "Seeds", "Class", "mIoU", "Worst domain", "OA"]
    lines = []
    for floor in floors(board.records):
        scores = floor.scores
        worst = f"{scores.worst_domain} {percent(scores.per_domain[scores.worst_domain])}"
        name = classes[floor.benchmark][floor.majority_class]
        lines.append([
            floor.benchmark, ", ".join(map(str, floor.seeds)), name, percent(scores.miou), worst, percent(scores.oa)
        ])  # fmt: skip
    return _table(head, lines)


def _failed_table(failed: Iterable[MeasuredRecord]) -> str:
    rows = [
        [cell.record.benchmark, cell.record.method, cell.record.seed, cell.record.error.kind, cell.record.error.message]
        for cell in failed
        if cell.record.error is not None
    ]
    rows = [[*row[:4], f"{str(row[4])[:200]}{'…' if len(str(row[4])) > 200 else ''}"] for row in rows]
    return _table(["Benchmark", "Method", "Seed", "Kind", "Message"], sorted(rows, key=str))


def _configurations(board: Board, rows: pd.DataFrame) -> str:
    """What the short names of rows stand for; ``rows`` are in the order of the board, the groups are not."""
    described = {}
    for name, group in board.groups().items():
        record = next(cell.record for by_seed in group.values() for cell in by_seed.values())
        backbone = as_json(record.backbone.model_dump(mode="json")) if record.backbone else NOTHING
        described[name] = [
            record.method, as_json(all_options(record)), backbone, record.protocol, as_json(record.settings)
        ]  # fmt: skip
    lines = [[name, *described[name]] for name in rows["row"] if name in described]
    return _table(["Configuration", "Method", "Options", "Backbone", "Protocol", "Settings"], lines)


def _plain_number(value: object, digits: int = 2) -> str:
    found = number(value)
    return NOTHING if math.isnan(found) else f"{found:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "None."
    lines = [[escape(value) for value in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
