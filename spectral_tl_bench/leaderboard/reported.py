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
