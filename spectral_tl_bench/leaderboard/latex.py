"""Boards as LaTeX tables (booktabs), to be put into a paper."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board import differing_settings
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.reported import DROP, MIOU
from spectral_tl_bench.leaderboard.reported_table import Line, printed_tables
from spectral_tl_bench.leaderboard.text import NOTHING, backbone_text, number, plain, title, warnings

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
    entries = {(entry["row"], entry["benchmark"]): entry for entry in analysis.entries.to_dict("records")}
    rows = analysis.rows.to_dict("records")
    ranked = [row for row in rows if not pd.isna(row["rank"])]
    others = [row for row in rows if pd.isna(row["rank"])]
    best = {name: _best(entries[row["row"], name]["miou"] for row in ranked) for name in board.columns}
    best_mean = _best(row["mean"] for row in ranked)
    protocols = sorted({row["protocol"] for row in rows if row["protocol"]})
    seeds = sorted({row["seeds"] for row in rows if row["seeds"]})
    repeated = max(Counter((row["method"], backbone_text(row)) for row in rows).values()) > 1
    shown = {"Protocol": "protocol"} if len(protocols) > 1 else {}
    shown |= {"Configuration": "row"} if repeated else {}
    shown |= {"Seeds": "seeds"} if len(seeds) > 1 else {}

    def line(row: Fields, mark: bool) -> Line:
        def score(name: str) -> str:
            return _score(entries[row["row"], name], best[name] if mark else ())

        average = _number(row["mean"], row["mean_std"], best_mean if mark else ()) if row["complete"] else "--"
        return [
            ("Rank", f"{row['rank']:.0f}" if mark else "--"),
            ("Method", escape(row["method"])),
            ("Backbone", escape(backbone_text(row))),
            *((head, escape(NOTHING if row["is_floor"] else row[name] or NOTHING)) for head, name in shown.items()),
            ("Trainable (M)", _millions(row["trainable_max"])),
            *((escape(name), score(name)) for name in board.benchmarks),
            ("Mean", average),
            *((f"{escape(name)} (in-domain)", score(name)) for name in board.references),
        ]

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
    left = 3 + len(shown)
    columns = "l" * left + "r" * (2 + len(board.columns))
    return _HEAD + "\n" + _table(" ".join(part for part in caption if part), f"board-{board.track}", columns, parts)


def reported_latex(frame: pd.DataFrame) -> str:
    """Numbers of papers: a table per dataset, as printed, nothing bold because nothing is ranked.

    Args:
        frame: As ``reported.read_reported`` gives it.
    """
    what = {MIOU: "mIoU in per cent", DROP: "Printed difference of mIoU to no gap, in points"}
    tables = []
    for place, printed in enumerate(printed_tables(frame), 1):
        doubts = " ".join(f"({mark}) {text}." for mark, text in printed.doubts)
        caption = (
            f"{printed.dataset} (track: reported). {what[printed.metric]}, as printed in {printed.reference}, under "
            f"the paper's own protocol; not comparable with reproduced rows, and not ranked. {doubts}"
        )
        lines: list[Line] = [[(escape(name), escape(text)) for name, text in line] for line in printed.lines]
        tables.append(_table(caption, f"reported-{place}", "llrl" + "r" * (len(lines[0]) - 4), [lines]))
    return _HEAD + "\n" + "\n".join(tables)


def _best(values: Iterable[float]) -> tuple[float, ...]:
    """The best value and the second, as far as there are any."""
    return tuple(sorted({value for value in values if not math.isnan(value)}, reverse=True)[:2])


def _score(entry: Fields, best: Sequence[float]) -> str:
    if entry["state"] in {"failed", "missing"}:
        return "failed" if entry["state"] == "failed" else "--"
    text = _number(entry["miou"], entry["std"], best)
    return text if entry["state"] == "completed" else text + r"\textsuperscript{i}"


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


def _table(caption: str, label: str, columns: str, parts: Sequence[Sequence[Line]]) -> str:
    """A table; names and cells of the lines are LaTeX already, and a rule stands between parts."""
    lines = [[" & ".join(str(text) for _, text in line) + r" \\" for line in part] for part in parts if part]
    head = next(line for part in parts for line in part)
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(name for name, _ in head) + r" \\",
        r"\midrule",
        "\n\\midrule\n".join("\n".join(part) for part in lines),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ])  # fmt: skip
