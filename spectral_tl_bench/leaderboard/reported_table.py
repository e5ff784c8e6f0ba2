"""Reported numbers laid out as the tables that people read: rows by method, columns by setting."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from spectral_tl_bench.leaderboard.reported import DROP, MIOU
from spectral_tl_bench.leaderboard.text import NOTHING


class PrintedTable(NamedTuple):
    """One metric of one dataset in one paper, as text that is not escaped yet.

    Attributes:
        head: Names of the columns, one for each setting.
        lines: One per method, backbone and table of the paper; numbers as printed, with a letter where there is a
            doubt.
        doubts: Letter and doubt.
    """

    reference: str
    dataset: str
    metric: str
    head: tuple[str, ...]
    lines: list[tuple[str, ...]]
    doubts: list[tuple[str, str]]


def printed_tables(frame: pd.DataFrame) -> Iterator[PrintedTable]:
    """The tables of each paper and dataset in the order of the files: mIoU, then its drop where there is one."""
    for reference, paper in frame.groupby("reference", sort=False):
        for dataset, part in paper.groupby("dataset", sort=False):
            for metric in (MIOU, DROP):
                printed = part[part["metric"] == metric]
                if len(printed):
                    yield PrintedTable(str(reference), str(dataset), metric, *_layout(printed))


def _layout(part: pd.DataFrame) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[tuple[str, str]]]:
    settings = dict.fromkeys(zip(part["setting"], part["benchmark"], strict=True))
    # a table prints all its numbers with as many decimals as the longest needs
    decimals = part["value"].map(lambda value: max(1, len(f"{value:g}".partition(".")[2])))
    digits = decimals.groupby(part["source_table"]).max()
    values: dict[tuple[str, str, float, str], dict[str, str]] = {}
    doubts: dict[str, str] = {}
    for line in part.fillna({"trainable_params_m": -1.0}).to_dict("records"):
        text = f"{line['value']:.{digits[line['source_table']]}f}"
        if line["doubt"]:
            text += f" ({doubts.setdefault(line['doubt'], letter(len(doubts)))})"
        row = (line["method"], line["backbone"], line["trainable_params_m"], line["source_table"])
        values.setdefault(row, {})[line["benchmark"]] = text
    head = ("Method", "Backbone", "Trainable, millions", "Table", *(f"{name} ({ours})" for name, ours in settings))
    lines = [
        (method, backbone or NOTHING, NOTHING if millions < 0 else f"{millions:g}", table,
         *(texts.get(ours, NOTHING) for _, ours in settings))
        for (method, backbone, millions, table), texts in values.items()
    ]  # fmt: skip
    return head, lines, [(mark, doubt) for doubt, mark in doubts.items()]


def letter(place: int) -> str:
    """The mark of the doubt in a place: a to z, then aa, ab and so on."""
    letters = string.ascii_lowercase
    return letters[place] if place < len(letters) else f"{letters[place // 26 - 1]}{letters[place % 26]}"
