"""Boards as Markdown, for a repository."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

import pandas as pd

from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board import Board, floors
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.reported import DROP, MIOU
from spectral_tl_bench.leaderboard.reported_table import Line, printed_tables
from spectral_tl_bench.leaderboard.text import (
    NOT_ESTIMABLE,
    NOTHING,
    as_json,
    backbone_text,
    count_range,
    fixed,
    interval,
    one_decimal,
    percent,
    plain,
    signed,
    title,
    warnings,
    with_spread,
)
from spectral_tl_bench.results.schema import Record

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
_ENTRIES = (
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
    rows, entries = analysis.rows.to_dict("records"), analysis.entries.to_dict("records")
    unranked = [
        f"- {escape(row['method'])} ({row['row']}): {escape(row['incomplete_reason'] or 'see the notes')}"
        for row in rows
        if not row["is_floor"] and pd.isna(row["rank"])
    ]
    season = any(one.record.dataset.upper().startswith("DFC2020") for one in board.records)
    notes = [*board.notes, *([_SEASON_NOTE] if season else []), *sorted(board.data_notes())]
    failed = [one.record for one in board.records if not one.completed]
    return _joined([
        f"# {title(board.track)}",
        *(f"**{text}**" for text in warnings(board.track)),
        *(f"Data: {escape(text)}" for text in board.statements()),
        MIOU_RULE,
        _READING,
        _main_table(board, rows, entries),
        *(["## Not ranked", "\n".join(unranked)] if unranked else []),
        *(["## Notes", "\n".join(f"- {escape(note)}" for note in notes)] if notes else []),
        "## Cells",
        _ENTRIES,
        _entry_table(board, rows, entries),
        "## Majority class",
        _FLOOR_LEGEND,
        _floor_table(board),
        *(["## Failed cells", _failed_table(failed)] if failed else []),
        "## Configurations",
        _configurations(board, rows),
    ])  # fmt: skip


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
    heading = {MIOU: "", DROP: "Printed difference to the setting without gap:"}
    above: tuple[str, str] = ("", "")
    for printed in printed_tables(frame):
        if printed.reference != above[0]:
            parts.append(f"## {escape(printed.reference)}")
        if (printed.reference, printed.dataset) != above:
            parts.append(f"### {escape(printed.dataset)}")
        above = (printed.reference, printed.dataset)
        doubts = "\n".join(f"- {mark}: {escape(text)}" for mark, text in printed.doubts)
        parts += [heading[printed.metric], _table(printed.lines), doubts]
    return _joined(parts)


def escape(text: object) -> str:
    """Text of a record as one line of Markdown, of which nothing is markup and nothing ends a table cell."""
    line = plain(text)
    line = html.escape(line, quote=False)
    for mark in "\\`*[]|~":
        line = line.replace(mark, f"\\{mark}")
    return _LOOSE_UNDERSCORE.sub(r"\\_", line)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _main_table(board: Board, rows: Sequence[Fields], entries: Sequence[Fields]) -> str:
    scores = {(entry["row"], entry["benchmark"]): _score(entry) for entry in entries}
    lines: list[Line] = []
    for row in rows:
        complete = bool(row["complete"])
        lines.append([
            ("Rank", fixed(row["rank"], 0)),
            ("Method", row["method"]),
            ("Backbone", backbone_text(row)),
            ("Configuration", NOTHING if row["is_floor"] else row["row"]),
            ("Seeds", row["seeds"] or NOTHING),
            *((name, scores[row["row"], name]) for name in board.benchmarks),
            ("Mean", with_spread(row["mean"], row["mean_std"]) if complete else "incomplete"),
            ("95 % over places", interval(row["mean_places_low"], row["mean_places_high"]) if complete else NOTHING),
            ("95 % over seeds", interval(row["mean_low"], row["mean_high"]) if complete else NOTHING),
            ("IQM", percent(row["iqm"])),
            ("Mean rank", fixed(row["mean_rank"], 2)),
            *((f"{name} (in-domain)", scores[row["row"], name]) for name in board.references),
            ("Trainable parameters", count_range(row["trainable_min"], row["trainable_max"])),
            ("Seconds", one_decimal(row["seconds"])),
        ])  # fmt: skip
    return _table(lines)


def _score(entry: Fields) -> str:
    if entry["state"] in {"failed", "missing"}:
        return "failed" if entry["state"] == "failed" else NOTHING
    text = with_spread(entry["miou"], entry["std"])
    return text if entry["state"] == "completed" else f"{text} (incomplete)"


def _entry_table(board: Board, rows: Sequence[Fields], entries: Sequence[Fields]) -> str:
    about = {row["row"]: row for row in rows if not row["is_floor"]}
    lines: list[Line] = []
    for entry in sorted(entries, key=lambda entry: board.columns.index(entry["benchmark"])):  # rows keep their order
        row = about.get(entry["row"])
        if row is None:
            continue
        reason = f"{NOT_ESTIMABLE}: {entry['reason']}" if entry["reason"] else NOT_ESTIMABLE
        worst = f"{entry['worst_domain']} {percent(entry['worst_miou'])}" if entry["worst_domain"] else NOTHING
        no_drop = math.isnan(entry["drop"])
        facts: Line = [
            ("95 % interval", interval(entry["low"], entry["high"]) if entry["estimable"] else reason),
            ("Places", fixed(entry["places"], 0)),
            ("Last", percent(entry["last"])),
            ("Oracle", percent(entry["oracle"])),
            ("Worst domain", worst),
            ("OA", percent(entry["oa"])),
            ("Mean F1", percent(entry["mean_f1"])),
            ("Release", percent(entry["release"])),
            ("Inflation", signed(entry["inflation"])),
            ("Drop", signed(entry["drop"])),
            ("Drop, 95 % interval", NOTHING if no_drop else interval(entry["drop_low"], entry["drop_high"])),
            ("Trainable parameters", count_range(entry["trainable"], entry["trainable"])),
            ("Seconds", one_decimal(entry["seconds"])),
            ("Peak memory, MB", one_decimal(entry["peak_memory_mb"])),
        ]
        if entry["state"] in {"failed", "missing"}:
            facts = [(name, NOTHING) for name, _ in facts]
        lines.append([
            ("Benchmark", entry["benchmark"]),
            ("Method", row["method"]),
            ("Backbone", backbone_text(row)),
            ("Configuration", row["row"]),
            ("Seeds", entry["seeds"] or NOTHING),
            ("Selected", _score(entry)),
            *facts,
        ])  # fmt: skip
    return _table(lines)


def _floor_table(board: Board) -> str:
    lines: list[Line] = []
    for floor in floors(board.records):
        scores = floor.scores
        lines.append([
            ("Benchmark", floor.benchmark),
            ("Seeds", ", ".join(map(str, floor.seeds))),
            ("Class", board.known[floor.benchmark].classes[floor.majority_class]),
            ("mIoU", percent(scores.miou)),
            ("Worst domain", f"{scores.worst_domain} {percent(scores.per_domain[scores.worst_domain])}"),
            ("OA", percent(scores.oa)),
        ])  # fmt: skip
    return _table(lines)


def _failed_table(failed: Iterable[Record]) -> str:
    lines: list[Line] = []
    for record in failed:
        if record.error is not None:
            message = record.error.message
            lines.append([
                ("Benchmark", record.benchmark), ("Method", record.method), ("Seed", record.seed),
                ("Kind", record.error.kind), ("Message", message if len(message) <= 200 else f"{message[:200]}…"),
            ])  # fmt: skip
    return _table(sorted(lines, key=lambda line: str([value for _, value in line])))


def _configurations(board: Board, rows: Sequence[Fields]) -> str:
    """What the short names of rows stand for."""
    records = {one.row: one.record for one in reversed(board.records)}
    lines: list[Line] = []
    for row in rows:
        if not row["is_floor"]:
            backbone = records[row["row"]].backbone
            lines.append([
                ("Configuration", row["row"]), ("Method", row["method"]), ("Options", row["options"]),
                ("Backbone", as_json(backbone.model_dump(mode="json")) if backbone else NOTHING),
                ("Protocol", row["protocol"]), ("Settings", row["settings"]),
            ])  # fmt: skip
    return _table(lines)


def _table(lines: Sequence[Line]) -> str:
    if not lines:
        return "None."
    head = [name for name, _ in lines[0]]
    texts = [[escape(text) for text in line] for line in (head, *([value for _, value in line] for line in lines))]
    texts.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in texts)
