"""Colour steps of heat maps, of which the style sheet knows ten in light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable

STEPS = 10


def top_of(values: Iterable[float | None]) -> float:
    """The end of a scale that starts at 0: the highest value, rounded up to 5 percentage points."""
    found = [value for value in values if value is not None]
    return min(1.0, max(0.05, math.ceil(max(found, default=1.0) * 20 - 1e-9) / 20))


def heat(value: float | None, top: float = 1.0) -> str:
    """The class of a cell: ``h0`` to ``h9``; empty where there is no value."""
    if value is None or math.isnan(value):
        return ""
    return f"h{min(STEPS - 1, max(0, int(STEPS * value / top)))}"
