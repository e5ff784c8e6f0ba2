"""The track of reported numbers: what papers print, with the table it stands in and what is doubtful about it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from spectral_tl_bench.leaderboard.reported import DROP, IOU, MEAN, MIOU
from spectral_tl_bench.leaderboard.site.heat import top_of
from spectral_tl_bench.leaderboard.site.names import REPORTED, slug, track_of
from spectral_tl_bench.leaderboard.site.view import Fields, fields_of
from spectral_tl_bench.leaderboard.site.writer import Writer

Key = tuple[str, str, str, str]
"""Reference, method, backbone, source table: numbers of two tables are never put together into one line."""


def write_reported(writer: Writer, frame: pd.DataFrame, path: str) -> None:
    """Write the overview of reported numbers.

    Args:
        writer: Where it goes.
        frame: As ``leaderboard.reported`` reads it.
        path: File name in the site.
    """
    lines = fields_of(frame)
    writer.page(
        path,
        "reported.html",
        track=track_of(REPORTED),
        here="overview",
        columns=_columns(lines),
        rows=_rows(lines),
        sections=[_section(lines, dataset, setting) for dataset, setting in _columns(lines)],
        references=sorted({str(line["reference"]) for line in lines}),
        doubts=[line for line in lines if line["doubt"]],
        datasets=list(dict.fromkeys(line["dataset"] for line in lines)),
        backbones=sorted({line["backbone"] for line in lines if line["backbone"]}),
    )


def _columns(lines: list[Fields]) -> dict[tuple[str, str], str]:
    """(dataset, setting) of every printed mIoU or IoU, with our benchmark's id where there is one."""
    found: dict[tuple[str, str], str] = {}
    for line in lines:
        if line["metric"] in (MIOU, IOU):
            found.setdefault((line["dataset"], line["setting"]), line["benchmark"] or "")
    return found


def _rows(lines: list[Fields]) -> list[dict[str, Any]]:
    """One line per method and table: its printed mIoUs and drops by (dataset, setting)."""
    found: dict[Key, dict[str, Any]] = {}
    for line in lines:
        if line["metric"] not in (MIOU, DROP):
            continue
        row = found.setdefault(_key(line), {**line, "miou": {}, "drop": {}, "params": {}})
        row["miou" if line["metric"] == MIOU else "drop"][line["dataset"], line["setting"]] = line
        if line["trainable_params_m"] is not None:
            row["params"][line["trainable_params_m"]] = None
    return [row for row in found.values() if row["miou"]]


def _section(lines: list[Fields], dataset: str, setting: str) -> dict[str, Any]:
    """The class IoUs of one dataset and setting; no rows where none are printed."""
    here = [line for line in lines if (line["dataset"], line["setting"]) == (dataset, setting)]
    classes = list(dict.fromkeys(line["class"] for line in here if line["metric"] == IOU and line["class"] != MEAN))
    rows: dict[Key, dict[str, Any]] = {}
    for line in here:
        row = rows.setdefault(_key(line), {**line, "values": {}, "mean": None})
        if line["metric"] == IOU:
            row["values"][line["class"]] = line
        elif line["metric"] == MIOU:
            row["mean"] = line
    shown = [row for row in rows.values() if row["values"]]
    top = top_of(line["value"] / 100 for row in shown for line in row["values"].values())
    return {"dataset": dataset, "setting": setting, "classes": classes, "rows": shown, "top": top,
            "id": f"s-{slug(f'{dataset} {setting}')}"}  # fmt: skip


def _key(line: Fields) -> Key:
    return str(line["reference"]), line["method"], line["backbone"] or "", line["source_table"]
