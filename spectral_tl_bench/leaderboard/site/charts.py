"""Geometry of the scatter plots: accuracy against cost on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectral_tl_bench.leaderboard.site import names
from spectral_tl_bench.leaderboard.site.labels import Labels
from spectral_tl_bench.leaderboard.site.view import Fields, View

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 30, 14, 48
_ZERO = 56  # room left of the axis for what costs nothing
_DECADES = tuple(10.0**n for n in range(-3, 13))
TIMES = (0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000)
"""Ticks of an axis in seconds."""

_SHAPES = (
    "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
    "M0-6L5.8 4.4H-5.8Z",
    "M0 6L5.8-4.4H-5.8Z",
    "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
    "M-5.5-3L-3-5.5L0-2.5L3-5.5L5.5-3L2.5 0L5.5 3L3 5.5L0 2.5L-3 5.5L-5.5 3L-2.5 0Z",
    "M0-6L5.7-1.9L3.5 4.9H-3.5L-5.7-1.9Z",
)


@dataclass(frozen=True)
class Family:
    """How the rows of a family are drawn."""

    name: str
    number: int
    shape: str


@dataclass(frozen=True)
class Scatter:
    """A plot. Points have ``x``, ``y``, ``low``, ``high`` (None without an interval), ``family``, ``told``, ``row``."""

    x_title: str
    width: int
    height: int
    frame: tuple[float, float, float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    zero: float | None
    points: list[Fields]
    front: str
    labels: list[tuple[float, float, str, str]]


def families(view: View) -> dict[str, Family]:
    """A mark for each family of a track; the majority class is not drawn."""
    found = sorted({row["family"] for row in view.rows if not row["is_floor"]})
    return {name: Family(name, n % len(_SHAPES), _SHAPES[n % len(_SHAPES)]) for n, name in enumerate(found)}


def scatter(
    view: View, cost: str, x_title: str, write: Callable[[float], str], ticks: Sequence[float] = _DECADES
) -> Scatter | None:
    """Mean mIoU over all benchmarks with a gap against a cost.

    Args:
        view: The track; only complete rows are drawn.
        cost: Name of the rows' field.
        x_title: Title of the axis.
        write: How a cost is written.
        ticks: Where the axis is marked.

    Returns:
        The plot; None without rows.
    """
    rows = [row for row in view.rows if row["mean"] is not None and row[cost] is not None and not row["is_floor"]]
    if not rows:
        return None
    positive = [float(row[cost]) for row in rows if row[cost] > 0]
    low, high = _decades(positive or [1.0])
    zero = _LEFT + _ZERO / 3 if len(positive) < len(rows) else None
    left = _LEFT + (_ZERO if zero is not None else 0)
    inner, tall = WIDTH - _RIGHT - left, HEIGHT - _TOP - _BOTTOM
    ends = [
        value
        for row in rows
        for value in (row["mean"], row["mean_places_low"], row["mean_places_high"])
        if value is not None
    ]
    bottom, top, step = _nice(min(ends), max(ends))

    def across(value: float) -> float:
        if value <= 0:
            return zero or left
        return round(left + inner * (math.log10(value) - low) / (high - low), 1)

    def up(value: float) -> float:
        return round(_TOP + tall * (top - value) / (top - bottom), 1)

    kinds = families(view)
    points: list[Fields] = []
    for row in rows:
        interval = (
            (up(row["mean_places_low"]), up(row["mean_places_high"]))
            if row["mean_places_low"] is not None
            else (None, None)
        )
        told = f"{row['label']}: mean mIoU {names.percent(row['mean'])}"
        if row["mean_places_low"] is not None:
            told += f" ({names.percent(row['mean_low'])} to {names.percent(row['mean_high'])})"
        told += f", {write(row[cost])}"
        points.append({"x": across(row[cost]), "y": up(row["mean"]), "low": interval[0], "high": interval[1],
                       "family": kinds[row["family"]], "told": told, "row": row})  # fmt: skip
    front = _front(points)
    labels = Labels((_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM), [(p["x"], p["y"]) for p in points])
    placed = []
    for point in front:
        text = point["row"]["method"]
        text = text if len(text) <= 24 else f"{text[:23]}…"
        spot = labels.place(point["x"], point["y"], text, must=False)
        if spot is not None:
            placed.append((*spot, text))
    return Scatter(
        x_title=x_title,
        width=WIDTH,
        height=HEIGHT,
        frame=(_LEFT, _TOP, WIDTH - _LEFT - _RIGHT, tall),
        x_ticks=[(across(tick), write(tick)) for tick in ticks if 10.0**low <= tick <= 10.0**high],
        y_ticks=[(up(value), names.percent(value, 0 if step >= 0.01 else 1)) for value in _steps(bottom, top, step)],
        zero=zero,
        points=points,
        front=_stairs(front),
        labels=placed,
    )


def _decades(values: list[float]) -> tuple[float, float]:
    """Decimal exponents of the axis' ends: whole ones, unless all values lie close together."""
    return math.floor(math.log10(min(values)) - 0.05), math.ceil(math.log10(max(values)) + 0.05)


def _nice(low: float, high: float) -> tuple[float, float, float]:
    """Ends of the axis and the distance of its ticks."""
    span = max(high - low, 0.004)
    step = next(step for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if span / step <= 6)
    return max(0.0, math.floor(low / step) * step), min(1.0, math.ceil(high / step + 0.1) * step), step


def _steps(low: float, high: float, step: float) -> list[float]:
    return [low + step * n for n in range(round((high - low) / step) + 1)]


def _front(points: list[Fields]) -> list[Fields]:
    """The points that no other one beats in both cost and accuracy."""
    best: list[Fields] = []
    for point in sorted(points, key=lambda point: (point["x"], point["y"])):
        if not best or point["y"] < best[-1]["y"]:
            best.append(point)
    return best


def _stairs(front: list[Fields]) -> str:
    """Path data: from each point to the right, then up to the next."""
    if not front:
        return ""
    parts = [f"M{front[0]['x']},{front[0]['y']}"]
    parts += [f"H{point['x']}V{point['y']}" for point in front[1:]]
    return "".join([*parts, f"H{WIDTH - _RIGHT}"])
