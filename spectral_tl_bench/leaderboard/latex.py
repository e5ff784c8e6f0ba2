"""Boards as LaTeX tables (booktabs), to be put into a paper."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd
from markupsafe import Markup

from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board_notes import differing_settings
from spectral_tl_bench.leaderboard.frames import Fields, lines_of
from spectral_tl_bench.leaderboard.rendering import environment, unless_markup
from spectral_tl_bench.leaderboard.reported import DROP
from spectral_tl_bench.leaderboard.reported_table import printed_tables
from spectral_tl_bench.leaderboard.text import (
    NOTHING,
    WHY_RELEASE,
    backbone_text,
    number,
    parts_of,
    plain,
    selected_by,
    signed,
    title,
    warnings,
)

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\char34{}", "`": "{`}",
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "±": r"$\pm$", "→": r"$\to$", "×": r"$\times$",
    "≥": r"$\ge$", "≤": r"$\le$", "µ": r"$\mu$", "μ": r"$\mu$", "²": r"$^2$", "°": r"$^\circ$", "\u00a0": "~",
    "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip
_LAST_LATIN = 0x17F


def escape(text: object) -> str:
    """Text that LaTeX prints as it stands.

    Nothing in it is a command, ends a cell or a row, is taken for the option of one (``[`` and ``*``), or is joined
    to another mark (``--``). Letters beyond Latin are written without their accents if that makes them
    ASCII, else as ``?``, because pdfLaTeX stops at them.
    """
    line = "".join(_escaped(mark) for mark in plain(text))
    return line.replace("--", "-{-}").replace("--", "-{-}")


def _escaped(mark: str) -> str:
    if mark in _SPECIAL:
        return _SPECIAL[mark]
    if mark.isascii() or (ord(mark) <= _LAST_LATIN and mark.isalpha()):
        return mark
    simple = unicodedata.normalize("NFKD", mark).encode("ascii", "ignore").decode()
    return "".join(_SPECIAL.get(letter, letter) for letter in simple) or "?"


def latex(analysis: Analysis) -> str:
    """One board as a table: the best number of each column bold, the second underlined, among ranked rows.

    Rows without a rank stand below a rule and take no part in that.
    """
    board = analysis.board
    entries = {(entry["row"], entry["benchmark"]): entry for entry in lines_of(analysis.entries)}
    rows = lines_of(analysis.rows)
    ranked = [row for row in rows if not pd.isna(row["rank"])]
    others = [row for row in rows if pd.isna(row["rank"])]
    seeds = sorted({row["seeds"] for row in rows if row["seeds"]})
    repeated = max(Counter((row["method"], backbone_text(row)) for row in rows).values()) > 1
    selected = selected_by(board.track)
    shown = {"Configuration": "row"} if repeated else {}
    shown |= {"Tuned": "tuned"} if any(row["tuned"] for row in rows) else {}
    shown |= {"Seeds": "seeds"} if len(seeds) > 1 else {}
    caption = [
        f"{title(board.track)} (track: {board.track}).",
        *warnings(board.track),
        "mIoU in per cent on the target, mean over seeds and standard deviation; of the checkpoint "
        f"{selected.how}. Protocol: {parts_of(board.track).protocol}. Bold: best, underlined: second, among ranked "
        "rows.",
        "" if len(seeds) > 1 or not seeds else f"Seeds: {seeds[0]}.",
        "Rows without a rank are incomplete (i: fewer seeds than the row has elsewhere), or floors." if others else "",
        differing_settings(board.records),
        f"{WHY_RELEASE} {selected.short}: {selected.about}; mean over the benchmarks with a gap.",
        "Dagger: some runs of the row were out of steps before source validation stopped gaining."
        if any(row["unconverged"] for row in rows)
        else "",
        "Tuned (n): chosen by n draws on source validation." if "Tuned" in shown else "No row was tuned.",
        "The configurations are listed in the board's Markdown file." if repeated else "",
    ]
    return _TEMPLATES.get_template("board.tex").render(
        board=board,
        selected=selected,
        entries=entries,
        ranked=ranked,
        others=others,
        shown=shown,
        caption=" ".join(part for part in caption if part),
        best={name: _best(entries[row["row"], name]["miou"] for row in ranked) for name in board.columns},
        best_mean=_best(row["mean"] for row in ranked),
    )


def reported_latex(frame: pd.DataFrame) -> str:
    """Numbers of papers: a table per dataset, as printed, nothing bold because nothing is ranked.

    Args:
        frame: As ``reported.read_reported`` gives it.
    """
    return _TEMPLATES.get_template("reported.tex").render(tables=list(printed_tables(frame)))


def _best(values: Iterable[float]) -> tuple[float, ...]:
    """The best value and the second, as far as there are any."""
    return tuple(sorted({value for value in values if not math.isnan(value)}, reverse=True)[:2])


def _score(entry: Fields, best: Sequence[float]) -> str:
    if entry["state"] in {"failed", "missing"}:
        return "failed" if entry["state"] == "failed" else _MISSING
    score = _number(entry["miou"], entry["std"], best)
    return score if entry["state"] == "completed" else score + Markup(r"\textsuperscript{i}")


def _number(value: float, std: float, best: Sequence[float]) -> Markup:
    if math.isnan(value):
        return _MISSING
    score = f"{100 * value:.2f}"
    for command, other in zip(("textbf", "underline"), best, strict=False):
        score = rf"\{command}{{{score}}}" if value == other else score
    return Markup(score if math.isnan(std) else rf"{score} $\pm$ {100 * std:.2f}")  # noqa: S704 - made of numbers


def _millions(value: object) -> str:
    count = number(value)
    return _MISSING if math.isnan(count) else f"{count / 1e6:.3g}" if count < 1e9 else f"{count / 1e6:.0f}"


_MISSING = Markup("--")
_TEMPLATES = environment(
    "", unless_markup(escape),
    {"number": _number, "score": _score, "millions": _millions, "backbone_text": backbone_text, "signed": signed,
     "NOTHING": NOTHING, "MISSING": _MISSING, "DROP": DROP, "NAN": math.nan},
    block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
    comment_start_string="<#", comment_end_string="#>",
)  # fmt: skip
_TEMPLATES.filters["tex"] = escape
