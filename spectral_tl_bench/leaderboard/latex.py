"""Boards as LaTeX tables (booktabs), to be put into a paper."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_tl_bench.leaderboard.board import differing_settings
from spectral_tl_bench.leaderboard.reported import DROP, MIOU
from spectral_tl_bench.leaderboard.reported_table import printed_table, references
from spectral_tl_bench.leaderboard.text import NOTHING, backbone_text, number, plain, title, warnings

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.analysis import Analysis

_HEAD = "% Made by `stbench report`; needs \\usepackage{booktabs}. Wide: put it into \\resizebox or a landscape page."
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
    return "".join(_SPECIAL.get(one, one) for one in simple) or "?"


def latex(analysis: Analysis) -> str:
    """One board as a table: the best number of each column bold, the second underlined, among ranked rows.

    Rows without a rank stand below a rule and take no part in that.
    """
    board = analysis.board
    names = (*board.benchmarks, *board.references)
    cells = {(cell["row"], cell["benchmark"]): cell for cell in analysis.entries.to_dict("records")}
    rows = analysis.rows.to_dict("records")
    ranked = [row for row in rows if not math.isnan(number(row["rank"]))]
    others = [row for row in rows if math.isnan(number(row["rank"]))]
    marks = {name: _best(number(cells.get((row["row"], name), {}).get("miou")) for row in ranked) for name in names}
    marks["mean"] = _best(number(row["mean"]) for row in ranked)
    protocols = sorted({row["protocol"] for row in rows if row["protocol"]})
    seeds = sorted({row["seeds"] for row in rows if row["seeds"]})
    alike = Counter((row["method"], backbone_text(row)) for row in rows)
    repeated = max(alike.values(), default=0) > 1
    shown = {"Protocol": "protocol"} if len(protocols) > 1 else {}
    shown |= {"Configuration": "row"} if repeated else {}
    shown |= {"Seeds": "seeds"} if len(seeds) > 1 else {}

    def line(row: dict[Any, Any], mark: bool) -> list[str]:
        columns = [(name, cells.get((row["row"], name))) for name in names]
        scores = [_cell(cell, marks[name] if mark else ()) for name, cell in columns]
        average = _number(row["mean"], row["mean_std"], marks["mean"] if mark else ()) if row["complete"] else "--"
        about = [
            f"{number(row['rank']):.0f}" if mark else "--",
            escape(row["method"]),
            escape(backbone_text(row)),
        ]
        about += [escape(NOTHING if row["is_floor"] else row[name] or NOTHING) for name in shown.values()]
        return [*about, _millions(row["trainable_max"]), *scores[: len(board.benchmarks)], average,
                *scores[len(board.benchmarks) :]]  # fmt: skip

    head = ["Rank", "Method", "Backbone", *shown, "Trainable (M)"]
    head += [*map(escape, board.benchmarks), "Mean", *(f"{escape(name)} (in-domain)" for name in board.references)]
    left = 3 + len(shown)
    parts = [[line(row, True) for row in ranked], [line(row, False) for row in others]]
    caption = [
        f"{title(board.track)} (track: {board.track}).",
        *warnings(board.track),
        "mIoU in per cent on the target, mean over seeds and standard deviation; the checkpoint was selected on source "
        f"validation. Protocol: {', '.join(protocols) or 'none'}. Bold: best, underlined: second, among ranked rows.",
        "" if len(seeds) > 1 or not seeds else f"Seeds: {seeds[0]}.",
        "Rows without a rank are incomplete (i: fewer seeds than the row has elsewhere), or floors." if others else "",
        differing_settings(board.records),
        "The configurations are listed in the board's Markdown file." if repeated else "",
    ]
    text = escape(" ".join(part for part in caption if part))
    return _HEAD + "\n" + _table(text, f"board-{board.track}", "l" * left + "r" * (len(head) - left), head, parts)


def reported_latex(frame: pd.DataFrame) -> str:
    """Numbers of papers: a table per dataset, as printed, nothing bold because nothing is ranked.

    Args:
        frame: As ``reported.read_reported`` gives it.
    """
    tables: list[str] = []
    for reference in references(frame):
        part = frame[frame["reference"] == reference]
        for dataset in dict.fromkeys(part["dataset"]):
            for metric, what in ((MIOU, "mIoU in per cent"), (DROP, "Printed difference of mIoU to no gap, in points")):
                printed = printed_table(part[part["dataset"] == dataset], metric)
                if not printed.lines:
                    continue
                doubts = [f"({mark}) {text}." for mark, text in printed.doubts]
                caption = (
                    f"{dataset} (track: reported). {what}, as printed in {reference}, under the paper's own protocol; "
                    f"not comparable with reproduced rows, and not ranked. {' '.join(doubts)}"
                )
                label = f"reported-{len(tables) + 1}"
                columns = "llrl" + "r" * (len(printed.head) - 4)
                lines = [[escape(text) for text in line] for line in printed.lines]
                tables.append(_table(escape(caption), label, columns, [escape(name) for name in printed.head], [lines]))
    return _HEAD + "\n" + "\n".join(tables)


def _best(values: Iterable[float]) -> tuple[float, ...]:
    """The best value and the second, as far as there are any."""
    return tuple(sorted({value for value in values if not math.isnan(value)}, reverse=True)[:2])


def _cell(cell: dict[Any, Any] | None, best: Sequence[float]) -> str:
    if cell is None or cell["state"] == "missing":
        return "--"
    if cell["state"] == "failed":
        return "failed"
    return _number(cell["miou"], cell["std"], best) + ("" if cell["state"] == "completed" else r"\textsuperscript{i}")


def _number(value: object, std: object, best: Sequence[float]) -> str:
    found, deviation = number(value), number(std)
    if math.isnan(found):
        return "--"
    text = f"{100 * found:.2f}"
    if best and found == best[0]:
        text = rf"\textbf{{{text}}}"
    elif len(best) > 1 and found == best[1]:
        text = rf"\underline{{{text}}}"
    return text if math.isnan(deviation) else rf"{text} $\pm$ {100 * deviation:.2f}"


def _millions(value: object) -> str:
    found = number(value)
    return "--" if math.isnan(found) else f"{found / 1e6:.3g}" if found < 1e9 else f"{found / 1e6:.0f}"


def _table(
    caption: str, label: str, columns: str, head: Sequence[str], parts: Sequence[Sequence[Sequence[str]]]
) -> str:
    """A table; ``caption``, ``head`` and ``parts`` are LaTeX already, and a rule stands between parts."""
    blocks = ["\n".join(" & ".join(line) + r" \\" for line in part) for part in parts if part]
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        "\n\\midrule\n".join(blocks),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ])  # fmt: skip
