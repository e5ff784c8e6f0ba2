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
    lines = [line for path in sorted(Path(folder).glob("*.csv")) for line in _read(path)]
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(("value", "trainable_params_m"), float))


def recomputed_doubts(frame: pd.DataFrame) -> list[str]:
    """Find what contradicts itself in print, beyond the rounding of the printed digits.

    Three checks: a printed mIoU against the mean of the class IoUs printed with it; a printed drop against the two
    printed mIoUs it is the difference of; the same quantity in two tables of one reference.

    Args:
        frame: As ``read_reported`` gives it; its column ``doubt`` is not looked at.
    """
    printed: dict[Any, dict[str, float]] = {}  # mIoU of a method on a benchmark by table
    for line in frame[frame["metric"] == MIOU].to_dict("records"):
        printed.setdefault((*_method(line), line["benchmark"]), {})[line["source_table"]] = line["value"]
    iou = frame[frame["metric"] == IOU].groupby(["reference", "method", "backbone", "benchmark", "source_table"])[
        "value"
    ]
    classes = {key: (math.fsum(values) / len(values), len(values)) for key, values in iou}
    return [_doubt(line, classes, printed) for line in frame.to_dict("records")]


def _doubt(line: dict[Any, Any], classes: dict[Any, Any], printed: dict[Any, dict[str, float]]) -> str:
    value, table, doubts = line["value"], line["source_table"], []
    place = (*_method(line), line["benchmark"])
    mine = printed.get(place, {})
    if line["metric"] == MIOU:
        average, count = classes.get((*place, table), (value, 0))
        if abs(average - value) > 2 * _ROUNDING + _SLACK:
            doubts.append(f"printed {value:g}; the {count} class IoUs printed with it average {average:.1f}")
        doubts += [
            f"printed {value:g}; {other} prints {same:g} for the same"
            for other, same in mine.items()
            if other != table and abs(same - value) > 2 * _ROUNDING + _SLACK
        ]
    source = printed.get((*_method(line), f"{line['benchmark'].split('-', maxsplit=1)[0]}-id"), {})
    if line["metric"] == DROP and table in mine and table in source:
        difference = mine[table] - source[table]
        if abs(difference - value) > _ROUNDING + 2 * _ROUNDING / 10 + _SLACK:  # two decimals in the mIoUs
            doubts.append(f"printed {value:g}; the printed mIoUs differ by {difference:.2f}")
    return "; ".join(doubts)


def _method(line: dict[Any, Any]) -> tuple[str, str, str]:
    return line["reference"], line["method"], line["backbone"]


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the file of reported numbers cannot be read: {error}", where=path) from None
    reader = csv.DictReader(text.splitlines(), strict=True)
    lines: list[dict[str, Any]] = []
    seen: dict[tuple[Any, ...], int] = {}
    try:
        names = tuple(reader.fieldnames or ())
        if names != COLUMNS:
            raise UserError(f"the columns are {', '.join(names) or 'none'}", where=path, expected=", ".join(COLUMNS))
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
    metric, low = line["metric"], -100.0 if line["metric"] == DROP else 0.0
    value = _number(line["value"])
    trainable = _number(line["trainable_params_m"] or "nan")
    one_class = f"the name of a class for {IOU}, {MEAN!r} for the others"
    for wrong, problem, expected in (
        (empty, f"{', '.join(empty)} is empty", "text"),
        (metric not in METRICS, f"metric {metric!r}", ", ".join(METRICS)),
        ((metric == IOU) == (line["class"] == MEAN), f"class {line['class']!r} of metric {metric!r}", one_class),
        (not math.isfinite(value), f"value {line['value']!r}", "a number"),
        (not low <= value <= 100.0, f"value {value:g}", f"per cent, from {low:g} to 100"),
        (line["trainable_params_m"] and not math.isfinite(trainable),
         f"trainable_params_m {line['trainable_params_m']!r}", "a number"),
        (trainable < 0, f"trainable_params_m {trainable:g}", "millions, at least 0"),
    ):  # fmt: skip
        if wrong:
            raise UserError(problem, where=where, expected=expected)
    return {**line, "value": value, "trainable_params_m": trainable}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
