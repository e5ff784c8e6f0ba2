"""Reported numbers laid out as the tables that people read: rows by method, columns by setting."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import pandas as pd

from spectral_tl_bench.leaderboard.text import NOTHING


@dataclass(frozen=True)
class PrintedTable:
    """One table as text, not escaped yet.

    Attributes:
        head: Names of the columns.
        lines: As many entries each; numbers as printed, with a letter where there is a doubt.
        doubts: Letter and doubt.
    """

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    doubts: tuple[tuple[str, str], ...]


def references(frame: pd.DataFrame) -> list[str]:
    """The papers, in the order of the files."""
    return list(dict.fromkeys(frame["reference"]))


def printed_table(frame: pd.DataFrame, metric: str) -> PrintedTable:
    """Lay out one metric, one row per method, backbone and table of the paper, one column per setting.

    Args:
        frame: Lines of one reference and one dataset.
        metric: mIoU, or the drop.
    """
    part = frame[frame["metric"] == metric]
    settings = {(line["setting"], line["benchmark"]): None for line in part.to_dict("records")}
    digits: dict[str, int] = {}  # a table prints all its numbers with as many decimals as the longest needs
    for line in part.to_dict("records"):
        digits[line["source_table"]] = max(digits.get(line["source_table"], 1), _decimals(line["value"]))
    values: dict[tuple[str, str, float, str], dict[str, str]] = {}
    doubts: dict[str, str] = {}
    for line in part.to_dict("records"):
        millions = -1.0 if math.isnan(line["trainable_params_m"]) else line["trainable_params_m"]
        key = (line["method"], line["backbone"], millions, line["source_table"])
        text = f"{line['value']:.{digits[line['source_table']]}f}"
        if line["doubt"]:
            mark = doubts.setdefault(line["doubt"], _letter(len(doubts)))
            text += f" ({mark})"
        values.setdefault(key, {})[line["benchmark"]] = text
    lines = tuple(
        (
            method,
            backbone or NOTHING,
            NOTHING if millions < 0 else f"{millions:g}",
            table,
            *(found.get(benchmark, NOTHING) for _, benchmark in settings),
        )
        for (method, backbone, millions, table), found in values.items()
    )
    head = ("Method", "Backbone", "Trainable, millions", "Table", *(f"{name} ({ours})" for name, ours in settings))
    return PrintedTable(head, lines, tuple((mark, doubt) for doubt, mark in doubts.items()))


def _decimals(value: float) -> int:
    text = f"{value:g}"
    return len(text.partition(".")[2])


def _letter(place: int) -> str:
    letters = string.ascii_lowercase
    return letters[place] if place < len(letters) else f"{letters[place // 26 - 1]}{letters[place % 26]}"
