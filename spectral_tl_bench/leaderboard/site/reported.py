"""The track of reported numbers: what papers print, with the table it stands in and what is doubtful about it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from spectral_tl_bench.leaderboard.beside import ABOUT, doubt_marks, table_parts
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.reported import DROP, IOU, MEAN, MIOU
from spectral_tl_bench.leaderboard.site.names import BESIDE, REPORTED, slug, track_of
from spectral_tl_bench.leaderboard.site.scales import top_of
from spectral_tl_bench.leaderboard.site.view import fields_of
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.text import title, warnings

Key = tuple[str, str, str, str]
"""Reference, method, backbone, source table: numbers of two tables are never put together into one line."""


def write_reported(writer: Writer, frame: pd.DataFrame) -> None:
    """Write the page of reported numbers, as ``leaderboard.reported`` reads them."""
    lines, track = fields_of(frame), track_of(REPORTED)
    writer.page(
        f"{track.slug}/index.html", "reported", track=track, columns=_columns(lines), rows=_rows(lines),
        sections=[_section(lines, dataset, setting) for dataset, setting in _columns(lines)],
        references=sorted({line["reference"] for line in lines}),
        doubts=[line for line in lines if line["doubt"]],
        datasets=list(dict.fromkeys(line["dataset"] for line in lines)),
        backbones=sorted({line["backbone"] for line in lines if line["backbone"]}),
    )  # fmt: skip


def write_beside(writer: Writer, tracks: Mapping[str, pd.DataFrame]) -> None:
    """Write the page of printed and measured numbers, as ``beside.beside`` gives them by track."""
    track = track_of(BESIDE)
    sections = [
        {"title": title(name), "id": slug(name), "warnings": warnings(name), "tables": table_parts(lines),
         "marks": doubt_marks(lines)}
        for name, lines in tracks.items()
    ]  # fmt: skip
    writer.page(f"{track.slug}/index.html", "beside", track=track, sections=sections, about=ABOUT)


def _columns(lines: list[Fields]) -> dict[tuple[str, str], str]:
    """(dataset, setting) of every printed mIoU or IoU, with our benchmark's id where there is one."""
    columns: dict[tuple[str, str], str] = {}
    for line in lines:
        if line["metric"] in (MIOU, IOU):
            columns.setdefault((line["dataset"], line["setting"]), line["benchmark"] or "")
    return columns


def _rows(lines: list[Fields]) -> list[Fields]:
    """One line per method and table: its printed mIoUs and drops by (dataset, setting)."""
    columns: dict[Key, Fields] = {}
    for line in lines:
        if line["metric"] not in (MIOU, DROP):
            continue
        row = columns.setdefault(_key(line), {**line, "miou": {}, "drop": {}, "params": {}})
        row["miou" if line["metric"] == MIOU else "drop"][line["dataset"], line["setting"]] = line
        if line["trainable_params_m"] is not None:
            row["params"][line["trainable_params_m"]] = None
    return [row for row in columns.values() if row["miou"]]


def _section(lines: list[Fields], dataset: str, setting: str) -> Fields:
    """The class IoUs of one dataset and setting; no rows where none are printed."""
    lines = [line for line in lines if (line["dataset"], line["setting"]) == (dataset, setting)]
    classes = list(dict.fromkeys(line["class"] for line in lines if line["metric"] == IOU and line["class"] != MEAN))
    rows: dict[Key, Fields] = {}
    for line in lines:
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
