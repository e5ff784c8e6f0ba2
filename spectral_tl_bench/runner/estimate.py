"""How long what is left of a plan will take, and how much room, from what is finished."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.room import bytes_of_result
from spectral_tl_bench.runner.survey import Survey
from spectral_tl_bench.storage.place import size_of

SAMPLED = 10
"""Finished cells of each kind whose files are counted."""

Key = tuple[str, str, str]
"""Benchmark, method and backbone."""


@dataclass(frozen=True)
class Estimate:
    """What the cells that are left will take.

    Attributes:
        seconds: Of those that are known, one after the other.
        room: Bytes of all; weights count where they are known.
        known: Cells that finished ones tell about.
        finished: How many finished cells it is taken from.
        devices: Where those ran.
    """

    seconds: float
    room: int
    known: int
    unknown: int
    finished: int
    devices: tuple[str, ...]


def estimate(found: Survey) -> Estimate:
    """Judge what is left by the finished cells of the same benchmark, method and backbone.

    The median counts. Training is scaled by its steps where these differ.
    """
    groups: dict[Key, list[tuple[Path, Mapping[str, Any]]]] = {}
    for path, record in found.finished.items():
        if _times(record) is not None:
            groups.setdefault(_key_of(record), []).append((path, record))
    seconds, room, unknown = 0.0, 0, 0
    medians: dict[Key, tuple[float, float, int]] = {}
    for look in found.left:
        cell, key = look.cell, _key(look.cell)
        if key not in groups:
            unknown += 1
            room += bytes_of_result(cell, cell.split())
            continue
        if key not in medians:
            medians[key] = _medians(groups[key])
        per_step, evaluation, size = medians[key]
        seconds += per_step * max(1, cell.settings.budget.steps) + evaluation
        room += size
    used = [record for key in medians for _, record in groups[key]]
    devices = Counter(str(record.get("device")) for record in used).most_common(3)
    return Estimate(
        seconds, room, len(found.left) - unknown, unknown, len(used), tuple(name for name, _ in devices)
    )  # fmt: skip


def _key(cell: Cell) -> Key:
    return cell.opened.benchmark.id, cell.method_name, cell.backbone.name if cell.method.uses_backbone else ""


def _key_of(record: Mapping[str, Any]) -> Key:
    backbone = record.get("backbone") or {}
    return str(record.get("benchmark")), str(record.get("method")), str(backbone.get("name", ""))


def _times(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """Seconds per step of training, and of evaluation."""
    try:
        steps = max(1, int(record["settings"]["budget"]["steps"]))
        return float(record["seconds"]["train"]) / steps, float(record["seconds"]["evaluate"])
    except (KeyError, TypeError, ValueError):
        return None


def _medians(finished: list[tuple[Path, Mapping[str, Any]]]) -> tuple[float, float, int]:
    """Seconds per step, seconds of evaluation, bytes of the files."""
    times = [times for _, record in finished if (times := _times(record)) is not None]
    sizes = [_size(path.parent) for path, _ in finished[:SAMPLED]]
    steps, rest = zip(*times, strict=True)
    return statistics.median(steps), statistics.median(rest), int(statistics.median(sizes))


def _size(folder: Path) -> int:
    try:
        return size_of(folder)
    except OSError:  # it has just been removed
        return 0
