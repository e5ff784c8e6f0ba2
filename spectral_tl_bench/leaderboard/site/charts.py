"""Geometry of the scatter plots: accuracy against cost on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from spectral_tl_bench.leaderboard.frames import Fields, front_of
from spectral_tl_bench.leaderboard.site.labels import Labels
from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.leaderboard.text import percent

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 30, 14, 48
_ZERO = 56  # room left of the axis for what costs nothing
_DECADES = tuple(10.0**n for n in range(-3, 13))
TIMES = (0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000)
"""Ticks of an axis in seconds."""

MEGABYTES = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5)
"""Ticks of an axis in megabytes."""

MOST_POINTS = 300
"""Rows that are drawn of one plot, the best ones and those that no other one beats: a page of more is heavy."""
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


def families(view: View) -> dict[str, Fields]:
    """A mark for each family of a track; the majority class is not drawn."""
    names = sorted({row["family"] for row in view.listed if not row["is_floor"]})
    numbers = {name: place % len(_SHAPES) for place, name in enumerate(names)}
    return {name: {"name": name, "number": number, "shape": _SHAPES[number]} for name, number in numbers.items()}


def scatter(
    view: View, cost: str, x_title: str, write: Callable[[float], str], ticks: Sequence[float] = _DECADES
) -> Fields | None:
    """Mean mIoU over all benchmarks with a gap against a cost.

    Args:
        view: The track; only complete rows are drawn.
        cost: Name of the rows' field.
        write: How a cost is written.
        ticks: Where the axis is marked.

    Returns:
        What the template draws, None without rows; ``all`` is the number of rows that there are to draw. Its
        ``points`` have ``x``, ``y``, ``low``, ``high`` (None without an interval), ``family``, ``words`` and ``row``.
    """
    rows = [row for row in view.listed if row["mean"] is not None and row[cost] is not None and not row["is_floor"]]
    if not rows:
        return None
    positive = [math.log10(row[cost]) for row in rows if row[cost] > 0]
    # decimal exponents of the ends, with some room beside the outermost points
    low, high = math.floor(min(positive, default=0.0) - 0.05), math.ceil(max(positive, default=0.0) + 0.05)
    zero = _LEFT + _ZERO / 3 if len(positive) < len(rows) else None
    left = _LEFT + (_ZERO if zero is not None else 0)
    inner, tall = WIDTH - _RIGHT - left, HEIGHT - _TOP - _BOTTOM
    ends = [row[name] for row in rows for name in ("mean", "mean_places_low", "mean_places_high")]
    bottom, top, step = _nice([value for value in ends if value is not None])

    def across(value: float) -> float:
        if value <= 0:
            return zero or left
        return round(left + inner * (math.log10(value) - low) / (high - low), 1)

    def up(value: float | None) -> float | None:
        return None if value is None else round(_TOP + tall * (top - value) / (top - bottom), 1)

    marks = families(view)
    points: list[Fields] = []
    for row in rows:
        points.append({
            "x": across(row[cost]), "y": up(row["mean"]), "low": up(row["mean_places_low"]),
            "high": up(row["mean_places_high"]), "family": marks[row["family"]],
            "words": f"{_words(row)}, {write(row[cost])}", "row": row,
        })  # fmt: skip
    front = front_of(points, lambda point: (point["x"], point["y"]))
    return {
        "x_title": x_title,
        "width": WIDTH,
        "height": HEIGHT,
        "frame": (_LEFT, _TOP, WIDTH - _LEFT - _RIGHT, tall),
        "x_ticks": [(across(tick), write(tick)) for tick in ticks if 10.0**low <= tick <= 10.0**high],
        "y_ticks": [
            (up(bottom + step * n), percent(bottom + step * n, 0 if step >= 0.01 else 1))
            for n in range(round((top - bottom) / step) + 1)
        ],
        "zero": zero,
        "points": [point for number, point in enumerate(points) if number < MOST_POINTS or point in front],
        "all": len(points),
        "front": _stairs(front),
        "labels": _labels(points, front),
    }


def _words(row: Fields) -> str:
    """What a mark says: the same interval as its whisker, which is over places."""
    low, high = row["mean_places_low"], row["mean_places_high"]
    reach = f" ({percent(low)} to {percent(high)} over places)" if low is not None else ""
    return f"{row['label']}: mean mIoU {percent(row['mean'])}{reach}"


def _labels(points: list[Fields], front: list[Fields]) -> list[tuple[float, float, str, str]]:
    """The methods of the front, where there is room for their names."""
    labels = Labels((_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM), [(point["x"], point["y"]) for point in points])
    placed = []
    for point in front:
        method = point["row"]["method"]
        text = method if len(method) <= 24 else f"{method[:23]}…"
        spot = labels.place(point["x"], point["y"], text, must=False)
        if spot is not None:
            placed.append((*spot, text))
    return placed


def _nice(values: list[float]) -> tuple[float, float, float]:
    """Ends of the axis and the distance of its ticks."""
    low, high = min(values), max(values)
    span = max(high - low, 0.004)
    step = next(step for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if span / step <= 6)
    bottom, top = max(0.0, math.floor(low / step) * step), min(1.0, math.ceil(high / step + 0.1) * step)
    return (bottom if bottom < top else top - 4 * step), top, step  # where every score is 1, the axis ends there


def _stairs(front: list[Fields]) -> str:
    """Path data: from each point to the right, then up to the next."""
    parts = [f"M{front[0]['x']},{front[0]['y']}"]
    parts += [f"H{point['x']}V{point['y']}" for point in front[1:]]
    return "".join([*parts, f"H{WIDTH - _RIGHT}"])
