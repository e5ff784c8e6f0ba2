"""Boards as Markdown, for a repository."""

from __future__ import annotations

import functools
import html
import re
from functools import partial

import pandas as pd

from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard import text
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.beside import ABOUT, doubt_marks, table_parts
from spectral_tl_bench.leaderboard.board import floors
from spectral_tl_bench.leaderboard.frames import Fields, lines_of
from spectral_tl_bench.leaderboard.measured import choice_of
from spectral_tl_bench.leaderboard.rendering import environment, unless_markup
from spectral_tl_bench.leaderboard.reported import DROP
from spectral_tl_bench.leaderboard.reported_table import printed_tables
from spectral_tl_bench.leaderboard.text import NOT_ESTIMABLE, NOTHING

_SEASON_NOTE = (
    "DFC2020's seasonal gap is also a gap between cities: every season was taken over cities of its own, so that "
    "the two effects cannot be told apart."
)
_LOOSE_UNDERSCORE = re.compile(r"(?<!\w)_|_(?!\w)")  # between letters it is no emphasis


def markdown(analysis: Analysis) -> str:
    """One board as Markdown, scores in per cent."""
    board, rows = analysis.board, lines_of(analysis.rows)
    records = [run.record for run in board.records]
    season = any(record.dataset.upper().startswith("DFC2020") for record in records)
    backbones = {run.row: run.record.backbone for run in board.records}
    errors = [(record.benchmark, record.method, record.seed, record.error) for record in records if record.error]
    return _TEMPLATES.get_template("board.md").render(
        board=board,
        selected=text.selected_by(board.track),
        rows=rows,
        entries={(entry["row"], entry["benchmark"]): entry for entry in lines_of(analysis.entries)},
        unranked=[row for row in rows if not row["is_floor"] and pd.isna(row["rank"])],
        notes=[*board.notes, *([_SEASON_NOTE] if season else []), *sorted(board.data_notes())],
        tuned=_tuned(analysis),
        failed=sorted(([*about, error.kind, _cut(error.message)] for *about, error in errors), key=str),
        backbones={
            row: text.as_json(backbone.model_dump(mode="json")) if backbone else NOTHING
            for row, backbone in backbones.items()
        },
    )


def reported_markdown(frame: pd.DataFrame) -> str:
    """Numbers of papers as Markdown: a table per dataset, as printed, unranked.

    Args:
        frame: As ``reported.read_reported`` gives it.
    """
    return _TEMPLATES.get_template("reported.md").render(tables=list(printed_tables(frame)))


def beside_markdown(track: str, lines: pd.DataFrame) -> str:
    """Printed and measured numbers of one track as Markdown: a table per printed table and metric, unranked.

    Args:
        lines: As ``beside.beside`` gives them.
    """
    return _TEMPLATES.get_template("beside.md").render(
        title=text.title(track), warnings=text.warnings(track), ABOUT=ABOUT, tables=table_parts(lines),
        marks=doubt_marks(lines), points=partial(text.fixed, digits=2), difference=partial(text.signed, scale=1),
    )  # fmt: skip


def escape(value: object) -> str:
    """Text of a record as one line of Markdown, of which nothing is markup and nothing ends a table cell."""
    return _escape(str(value))


@functools.lru_cache(maxsize=65_536)
def _escape(value: str) -> str:
    line = html.escape(text.plain(value), quote=False)
    for mark in "\\`*[]|~":
        line = line.replace(mark, f"\\{mark}")
    return _LOOSE_UNDERSCORE.sub(r"\\_", line)


def _score(entry: Fields) -> str:
    if entry["state"] in {"failed", "missing"}:
        return "failed" if entry["state"] == "failed" else NOTHING
    score = text.with_spread(entry["miou"], entry["std"])
    return score if entry["state"] == "completed" else f"{score} (incomplete)"


def _reach(entry: Fields) -> str:
    """The interval of an entry, or why there is none."""
    if entry["state"] in {"failed", "missing"}:
        return NOTHING
    return text.interval(entry["low"], entry["high"]) if entry["estimable"] else f"{NOT_ESTIMABLE}: {entry['reason']}"


def _tuned(analysis: Analysis) -> list[list[str]]:
    """A line for each search: benchmark, method, row, search, draws, space, choice, its source validation."""
    lines = set()
    for run in analysis.board.records:
        if (tuning := run.record.tuning) is not None:
            failed = sum(draw.value is None for draw in tuning.draws)
            lines.add((
                run.record.benchmark, run.record.method, run.row, f"{tuning.search}, seed {tuning.seed}",
                f"{len(tuning.draws)} of {tuning.budget}{f', {failed} failed' if failed else ''}",
                "; ".join(f"{name}={values}" for name, values in tuning.space.items()), choice_of(run.record),
                text.percent(tuning.choice.value),
            ))  # fmt: skip
    return [list(line) for line in sorted(lines)]


def _cut(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:200]}…"


_TEMPLATES = environment("", unless_markup(escape), {
    **vars(text), "MIOU_RULE": MIOU_RULE, "DROP": DROP, "floors": floors, "score": _score, "reach": _reach,
})  # fmt: skip
