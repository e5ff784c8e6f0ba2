"""What a search tries: which options and settings, in which values or range, and the draws from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import Method, Task

Search = Literal["random", "grid"]
Point = dict[str, Any]
"""One value by name."""

SETTINGS = ("learning_rate", "weight_decay", "schedule")
"""Settings that may be searched: how the optimiser goes, and not how much it may train, which is the same for all."""
AROUND = 10.0
"""The learning rate is searched from so many times below that of the run without a search to so many times above."""
RANGE = ".."
_DIGITS = 3  # significant ones of a value drawn from a range, so that people can read and type it


@dataclass(frozen=True)
class Dimension:
    """One option or setting of a space: some values, or a range.

    A range above 0 is drawn from on a logarithmic scale, one that begins at 0 on a linear one.

    Attributes:
        values: The values; none for a range.
        low: Lower end of a range.
        high: Its upper end.
        whole: Whether a range is of whole numbers.
    """

    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    @property
    def text(self) -> str:
        """As ``--space`` takes it."""
        return ",".join(map(str, self.values)) if self.values else f"{self._as(self.low)}{RANGE}{self._as(self.high)}"

    @property
    def ends(self) -> tuple[Any, ...]:
        """What must be possible for all of it to be."""
        return self.values or (self._as(self.low), self._as(self.high))

    def at(self, share: float) -> Any:
        """The value that has so much of the range below it."""
        if self.low > 0:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        rounded = round(value) if self.whole else float(f"{value:.{_DIGITS}g}")
        return self._as(min(max(rounded, self.low), self.high))

    def drawn(self, random: np.random.Generator) -> Any:
        """One value."""
        return self.values[int(random.integers(len(self.values)))] if self.values else self.at(float(random.random()))

    def points(self, number: int) -> list[Any]:
        """All values, or so many of a range, evenly."""
        steps = max(number - 1, 1)
        return list(self.values) or list(dict.fromkeys(self.at(index / steps) for index in range(number)))

    def _as(self, value: float) -> Any:
        return int(value) if self.whole else float(value)


Space = Mapping[str, Dimension]


def read_dimension(name: str, text: str) -> Dimension:
    """A dimension as a user writes it: ``4,8,16`` or ``1e-5..1e-2``.

    Raises:
        UserError: If it is neither, or has less than two values.
    """
    flag, low, dots, high = f"--space {name}={text}", *text.partition(RANGE)
    if not dots:
        values = [part.strip() for part in text.split(",")]
        if not all(values) or len(set(values)) < len(values) or len(values) < 2:
            raise UserError(flag, expected="two values or more, each once, as in rank=4,8,16; one value is -o")
        return Dimension(tuple(values))
    try:
        ends = float(low), float(high)
    except ValueError:
        raise UserError(flag, expected="a range of numbers, as in learning_rate=1e-5..1e-2") from None
    if not (0 <= ends[0] < ends[1] < math.inf):
        raise UserError(flag, expected="a range of which the first end is the lower one, and not below 0")
    return Dimension((), *ends, whole=all(end.strip().isdigit() for end in (low, high)))


def rates_around(rate: float) -> Dimension:
    """Learning rates around one, on a logarithmic scale."""
    low, high = (float(f"{value:.{_DIGITS}g}") for value in (rate / AROUND, rate * AROUND))
    return Dimension((), low, high)


def space_of(method: Method, task: Task, given: Mapping[str, str], fixed: Mapping[str, str]) -> dict[str, Dimension]:
    """What is searched for a method: one option of its own and the learning rate, or what the user says.

    One alone, the first that it declares and that is not set: of as many draws, a method with more to choose would have
    fewer for each.

    Args:
        task: What it would be told, for its stages.
        given: What the user wants to be searched, by name; where there is any, nothing else is.
        fixed: Flags of options and settings that the user has set, by name.

    Raises:
        UserError: If a name is unknown or given a value as well, or nothing is left to search.
    """
    known = [*type(method).model_fields, *(name for name in SETTINGS if name not in type(method).model_fields)]
    for name in given:
        if name not in known:
            raise UserError(f"--space {name}: there is no such option, nor a setting that can be searched",
                            expected=nearest(name, known))  # fmt: skip
        if name in fixed:
            raise UserError(f"{name} is searched by --space and set by {fixed[name]}", fix="leave out one of them")
    space = {name: read_dimension(name, text) for name, text in given.items()}
    if not given:
        own = [name for name in type(method).search_space if name not in fixed][:1]
        space = {name: Dimension(tuple(type(method).search_space[name])) for name in own}
        if "learning_rate" not in fixed and _by_gradients(method, task):
            space["learning_rate"] = rates_around(task.budget.rate)
    if not space:
        raise UserError("there is nothing to search: the method declares no options, and no learning rate acts",
                        fix="name some with --space, as in --space rank=4,8,16")  # fmt: skip
    return dict(sorted(space.items()))


def draws(space: Space, search: Search, budget: int, benchmark: str, method: str, seed: int) -> list[Point]:
    """The configurations that a search tries, in order; the same ones every time.

    Args:
        search: ``random``, or ``grid``.
        budget: The most that may be drawn. A smaller budget has the first of a larger one's random draws.
        method: Full name of the method.

    Returns:
        Different configurations: ``budget`` of them, or fewer where the space has no more.

    Raises:
        UserError: If a grid has more points than the budget.
    """
    if search == "grid":
        return _grid(space, budget)
    random = np.random.default_rng(seed_from("tune", benchmark, method, seed))
    if all(dimension.values for dimension in space.values()):
        points = _product(space, 0)
        return [points[number] for number in random.permutation(len(points))[:budget]]
    found: dict[tuple[Any, ...], Point] = {}
    for _ in range(50 * budget):  # a range of few whole numbers has no more to give at some point
        point = {name: dimension.drawn(random) for name, dimension in space.items()}
        found.setdefault(tuple(point.values()), point)
        if len(found) == budget:
            break
    return list(found.values())


def _grid(space: Space, budget: int) -> list[Point]:
    listed = math.prod(len(dimension.values) for dimension in space.values() if dimension.values)
    ranges = sum(not dimension.values for dimension in space.values())
    number = 1
    while ranges and listed * (number + 1) ** ranges <= budget:
        number += 1
    if listed > budget or (ranges and number < 2):
        least = listed * 2**ranges
        raise UserError(f"a grid over {', '.join(space)} has at least {least} points, and --budget is {budget}",
                        fix="give all methods that are compared a larger budget, or use --search random")  # fmt: skip
    return _product(space, number)


def _product(space: Space, number: int) -> list[Point]:
    columns: Sequence[Sequence[Any]] = [dimension.points(number) for dimension in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*columns)]


def _by_gradients(method: Method, task: Task) -> bool:
    """Whether the learning rate of the settings acts on some stage."""
    return any(stage.steps and stage.fit is None and stage.learning_rate is None for stage in method.stages(task))
