"""The track "reported": numbers as papers printed them, under the papers' own protocols.

They stand apart from everything that this suite measured and are never ranked against it. What contradicts itself in
print is kept as printed, with the doubt beside it.
"""

from __future__ import annotations

import csv
import math
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_tl_bench.errors import UserError

COLUMNS = (
    "dataset", "setting", "benchmark", "reference", "method", "backbone", "trainable_params_m", "metric", "class",
    "value", "source_table", "doubt",
)  # fmt: skip
"""Setting as the paper names it, our id of the benchmark, value in per cent; the doubt is empty where there is none."""
MIOU, DROP, IOU = "mIoU", "mIoU drop", "IoU"
METRICS = (MIOU, DROP, IOU)
MEAN = "mean"
"""The class of a line that holds no single class."""
_KEY = ("dataset", "setting", "method", "backbone", "metric", "class", "source_table", "reference")
_ROUNDING = 0.05  # half of the last digit of numbers that are printed with one decimal
_SLACK = 1e-6


def reported_folder() -> Path:
    """The folder of the numbers that come along: inside the installed package, or in a checkout."""
    installed = Path(str(resources.files("spectral_tl_bench"))) / "reported"
    checkout = Path(__file__).resolve().parents[2] / "leaderboard" / "results" / "reported"
    return installed if installed.is_dir() else checkout


def read_reported(folder: Path) -> pd.DataFrame:
    """Read and check every ``*.csv`` of a folder.

    Args:
        folder: Folder of files with the columns ``COLUMNS``.

    Returns:
        One line per printed number, in the order of the files; text columns are ``str``, ``value`` (per cent) and
        ``trainable_params_m`` (millions, NaN if not printed) are floats. No lines if there is no file.

    Raises:
        UserError: If a file cannot be read, or a line has a missing, unknown or repeated entry; it names file and line.
    """
    lines: list[dict[str, Any]] = []
    for path in sorted(Path(folder).glob("*.csv")):
        lines += _read(path)
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(("value", "trainable_params_m"), float))


def recomputed_doubts(frame: pd.DataFrame) -> list[str]:
    """Find what contradicts itself in print, beyond the rounding of the printed digits.

    Three checks: a printed mIoU against the mean of the class IoUs printed with it; a printed drop against the two
    printed mIoUs it is the difference of; the same quantity in two tables of one reference.

    Args:
        frame: As ``read_reported`` gives it; its column ``doubt`` is not looked at.

    Returns:
        For each line a sentence, or "".
    """
    classes = _class_means(frame)
    printed = _printed(frame)
    return [_doubt(line, classes, printed) for line in frame.to_dict("records")]


def _doubt(line: dict[Any, Any], classes: dict[Any, Any], printed: dict[Any, list[tuple[str, float]]]) -> str:
    value, table, found = line["value"], line["source_table"], []
    if line["metric"] == MIOU:
        here = classes.get((*_row(line), line["benchmark"], table))
        if here is not None and abs(here[0] - value) > 2 * _ROUNDING + _SLACK:
            found.append(f"printed {value:g}; the {here[1]} class IoUs printed with it average {here[0]:.1f}")
        for other, same in printed[(*_row(line), line["benchmark"])]:
            if other != table and abs(same - value) > 2 * _ROUNDING + _SLACK:
                found.append(f"printed {value:g}; {other} prints {same:g} for the same")
    if line["metric"] == DROP:
        target = dict(printed.get((*_row(line), line["benchmark"]), [])).get(table)
        source = dict(printed.get((*_row(line), _in_domain(line["benchmark"])), [])).get(table)
        if target is not None and source is not None:
            difference = target - source
            if abs(difference - value) > _ROUNDING + 2 * _ROUNDING / 10 + _SLACK:  # two decimals in the mIoUs
                found.append(f"printed {value:g}; the printed mIoUs differ by {difference:.2f}")
    return "; ".join(found)


def _row(line: dict[Any, Any]) -> tuple[str, str, str]:
    return line["reference"], line["method"], line["backbone"]


def _in_domain(benchmark: str) -> str:
    return f"{benchmark.split('-', maxsplit=1)[0]}-id"


def _class_means(frame: pd.DataFrame) -> dict[Any, tuple[float, int]]:
    part = frame[frame["metric"] == IOU]
    grouped = part.groupby(["reference", "method", "backbone", "benchmark", "source_table"], sort=True)["value"]
    return {key: (math.fsum(values) / len(values), len(values)) for key, values in grouped}


def _printed(frame: pd.DataFrame) -> dict[Any, list[tuple[str, float]]]:
    found: dict[Any, list[tuple[str, float]]] = {}
    for line in frame[frame["metric"] == MIOU].to_dict("records"):
        found.setdefault((*_row(line), line["benchmark"]), []).append((line["source_table"], line["value"]))
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file of reported numbers cannot be read: {error}", where=path) from None
    reader = csv.DictReader(text.splitlines(), strict=True)
    lines: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], int] = {}
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(
                f"the columns are {', '.join(reader.fieldnames or ()) or 'none'}",
                where=path,
                expected=", ".join(COLUMNS),
            )
        for raw in reader:
            where = f"{path}, line {reader.line_num}"
            line = _checked(raw, where)
            first = seen.setdefault(tuple(line[name] for name in _KEY), reader.line_num)
            if first != reader.line_num:
                raise UserError(f"the same number is given twice, first in line {first}", where=where)
            lines.append(line)
    except csv.Error as error:
        raise UserError(f"the file is no CSV: {error}", where=f"{path}, line {reader.line_num}") from None
    return lines


def _checked(raw: dict[Any, Any], where: str) -> dict[str, Any]:
    if None in raw or None in raw.values():
        raise UserError("the line has another number of entries than the head", where=where, expected=str(len(COLUMNS)))
    line = {name: raw[name].strip() for name in COLUMNS}
    empty = [name for name in COLUMNS if name not in {"trainable_params_m", "backbone", "doubt"} and not line[name]]
    if empty:
        raise UserError(f"{', '.join(empty)} is empty", where=where, expected="text")
    if line["metric"] not in METRICS:
        raise UserError(f"metric {line['metric']!r}", where=where, expected=", ".join(METRICS))
    if (line["metric"] == IOU) == (line["class"] == MEAN):
        raise UserError(
            f"class {line['class']!r} of metric {line['metric']!r}",
            where=where,
            expected=f"the name of a class for {IOU}, {MEAN!r} for the others",
        )
    value = _number(line["value"], "value", where)
    low = -100.0 if line["metric"] == DROP else 0.0
    if not low <= value <= 100.0:
        raise UserError(f"value {value:g}", where=where, expected=f"per cent, from {low:g} to 100")
    text = line["trainable_params_m"]
    trainable = _number(text, "trainable_params_m", where) if text else math.nan
    if trainable < 0:
        raise UserError(f"trainable_params_m {trainable:g}", where=where, expected="millions, at least 0")
    return {**line, "value": value, "trainable_params_m": trainable}


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{name} {text!r}", where=where, expected="a number")
    return value
