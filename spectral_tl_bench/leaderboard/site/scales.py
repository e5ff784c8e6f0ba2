"""Where a number lies on a scale: axes of dots and intervals, and the steps of heat maps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

_STEPS = 10
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2)
_MOST_TICKS = 7


class Scale(NamedTuple):
    """An axis of fractions, as long as what it shows and no longer: a dot needs no zero.

    Attributes:
        bottom: Its left end.
        top: Its right end.
    """

    bottom: float
    top: float

    def at(self, value: float) -> float:
        """How far along a value lies, 0 to 1; what is beyond an end lies on it."""
        return min(1.0, max(0.0, (value - self.bottom) / (self.top - self.bottom)))

    @property
    def ticks(self) -> list[float]:
        """Round numbers from end to end."""
        span = self.top - self.bottom
        step = next((step for step in _TICKS if span / step <= _MOST_TICKS + 1e-9), 0.2)
        first, last = math.ceil(self.bottom / step - 1e-9), math.floor(self.top / step + 1e-9)
        return [round(number * step, 4) for number in range(first, last + 1)]


def scale_of(values: Iterable[float | None]) -> Scale:
    """The scale that holds some values, its ends rounded to 5 percentage points; None is left out."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    bottom, top = math.floor(low * 20 + 1e-9) / 20, math.ceil(high * 20 - 1e-9) / 20
    return Scale(max(0.0, bottom if bottom < top else top - 0.05), min(1.0, top if top > 0 else 0.05))


def top_of(values: Iterable[float | None]) -> float:
    """The end of a scale that starts at 0: the highest value, rounded up to 5 percentage points."""
    highest = max((value for value in values if value is not None), default=1.0)
    return min(1.0, max(0.05, math.ceil(highest * 20 - 1e-9) / 20))


def heat(value: float | None, top: float = 1.0) -> str:
    """The class of a cell of a heat map, of which the style sheet knows ``h0`` to ``h9``; empty without a value."""
    if value is None or math.isnan(value):
        return ""
    return f"h{min(_STEPS - 1, max(0, int(_STEPS * value / top)))}"
