"""A search over configurations of one method on one benchmark, on source validation alone.

Each draw is a cell that is built and trained, and never tested. Draws are kept below the records as soon as they end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from spectral_tl_bench.console import complain
from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.defaults import HANG_AFTER
from spectral_tl_bench.endings import check_stopped, contained
from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.files import digest, write_json
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.results.tuning import LONGEST, Draw, Tuning, best_of
from spectral_tl_bench.runner.apart import Call, run_apart
from spectral_tl_bench.runner.build import Workplace
from spectral_tl_bench.runner.cell import is_foreign
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.on_source import source_value
from spectral_tl_bench.runner.search_space import Point, Search, Space, draws
from spectral_tl_bench.training.hardware import computing_threads

FOLDER = ".tune"
"""Below the records; its folders are called after the search."""


@dataclass(frozen=True)
class Tuner:
    """A search.

    Attributes:
        base: The cell as it is without a search; its seed is that of the draws and of their training.
        options: Options of the method that the user has set.
        search: How configurations are drawn.
        budget: How many.
    """

    base: Cell
    options: Mapping[str, Any]
    search: Search
    budget: int
    space: Space

    @cached_property
    def points(self) -> list[Point]:
        """The configurations, in order."""
        benchmark = self.base.opened.benchmark.id
        return draws(self.space, self.search, self.budget, benchmark, self.base.method_name, self.base.seed)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that decides what the draws are and what comes of them (64 hex digits).

        The budget is left out: a larger one goes on where a smaller one has ended.
        """
        identity = self.base.identity(self.base.split()).fingerprint
        return digest("tune", identity, self.search, {name: dimension.text for name, dimension in self.space.items()})

    def folder(self, out: Path) -> Path:
        """Where its draws are kept."""
        return out / FOLDER / self.fingerprint[:16]

    def check(self) -> None:
        """Refuse a search in which a value is impossible by itself.

        Raises:
            UserError: If there is such a value, or the target would be seen.
        """
        if self.base.method.target_images:
            name = self.base.method_name
            raise UserError(f"{name} is given images of the target while it trains, and a search must not see them",
                            fix="choose its options by hand: `stbench run`")  # fmt: skip
        for name, dimension in self.space.items():
            if len(dimension.text) > LONGEST:
                raise UserError(f"--space {name} has more than {LONGEST} characters", expected="fewer values")
            for value in dimension.ends:
                try:
                    self.cell_of({name: value}, self.base)
                except UserError as error:
                    if name not in type(self.base.method).model_fields or f"option {name!r}" in error.what:
                        raise  # otherwise it is a rule about several options, which another draw may keep

    def cell_of(self, point: Point, cell: Cell) -> Cell:
        """A cell with a configuration.

        Args:
            cell: The cell without it, of any seed.

        Raises:
            UserError: If the configuration is impossible.
        """
        options, settings = self._parts(point)
        method = make_method(cell.method_name, {**self.options, **options}, cell.protocol.options)
        try:
            budget = Budget.model_validate({**cell.settings.budget.model_dump(), **settings})
        except ValidationError as error:
            item = error.errors()[0]
            raise UserError(f"--space {item['loc'][0]}: {item['msg'].lower()}",
                            expected=f"not {item['input']!r}") from None  # fmt: skip
        return replace(cell, method=method, settings=cell.settings.model_copy(update={"budget": budget})).resolved()

    def tuned(self, cell: Cell, tuning: Tuning) -> Cell:
        """A cell with the configuration that was chosen, which its record says."""
        return replace(self.cell_of(self.points[tuning.chosen], cell), tuning=tuning)

    def draw(self, point: Point, outcome: float | str) -> Draw:
        """A configuration, as it acts, with what came of it: a value, or the reason why there is none."""
        options, settings = self._parts(point)
        try:
            cell = self.cell_of(point, self.base)
        except UserError:
            pass  # then it failed, and is shown as it was drawn
        else:
            method, budget = cell.method.model_dump(mode="json"), cell.settings.budget.model_dump(mode="json")
            options, settings = {name: method[name] for name in options}, {name: budget[name] for name in settings}
        if isinstance(outcome, str):
            return Draw(options=options, settings=settings, error=outcome)
        return Draw(options=options, settings=settings, value=outcome)

    def choose(self, tried: Sequence[Draw]) -> Tuning:
        """The first draw with the best source validation, and how it was found.

        Raises:
            UserError: If none has a value.
        """
        chosen = best_of(list(tried))
        if chosen is None:
            raise UserError(f"none of the {len(tried)} draws has a value; the first: {tried[0].error}",
                            fix="search another --space, or try again with --fresh")  # fmt: skip
        space = {name: dimension.text for name, dimension in self.space.items()}
        return Tuning(
            search=self.search, budget=self.budget, space=space, seed=self.base.seed, draws=tuple(tried), chosen=chosen
        )

    def _parts(self, point: Point) -> tuple[Point, Point]:
        """Options and settings of a configuration."""
        fields = type(self.base.method).model_fields
        return ({name: value for name, value in point.items() if name in fields},
                {name: value for name, value in point.items() if name not in fields})  # fmt: skip


def run_draws(
    tuner: Tuner, place: Workplace, jobs: int = 1, fresh: bool = False, hang_after: float = HANG_AFTER
) -> list[Draw]:
    """Try all configurations of a search; those that were tried before are not tried again.

    Args:
        place: Where and with what; its draws are kept below ``place.out``.
        jobs: How many at a time, a process each. With one, only foreign code gets processes.
        fresh: Try again what was tried before.
        hang_after: Minutes after which a process without a sign of life is stopped; 0 for never.

    Returns:
        The draws, in order. A configuration that fails counts as a draw, with the reason.

    Raises:
        UserError: If data or folders cannot be used, which no configuration would change.
    """
    folder = tuner.folder(place.out)
    found = {} if fresh else {number: draw for number in range(len(tuner.points))
                              if (draw := _kept(tuner, folder, number)) is not None}  # fmt: skip
    if found:
        place.say(f"{tuner.base.title} | {len(found)} of {len(tuner.points)} draws were tried before")
    for number, outcome in _outcomes(tuner, place, [n for n in range(len(tuner.points)) if n not in found], jobs,
                                     hang_after * 60):  # fmt: skip
        if isinstance(outcome, UserError):
            raise outcome
        draw = tuner.draw(tuner.points[number], outcome)
        write_json(_file(folder, number), draw.model_dump(mode="json"))
        found[number] = draw
        shown = f"source validation {draw.value:.4f}" if draw.value is not None else f"failed: {draw.error}"
        place.say(f"[{len(found)}/{len(tuner.points)}] {tuner.base.title} | draw {number}: {words(draw)} | {shown}")
    return [found[number] for number in range(len(tuner.points))]


def words(draw: Draw) -> str:
    """A configuration in one line."""
    return ", ".join(f"{name}={value}" for name, value in draw.configuration.items())


def keep_choice(tuner: Tuner, out: Path, tuning: Tuning) -> Path:
    """Write the choice beside its draws."""
    path = tuner.folder(out) / "choice.json"
    about = {"benchmark": tuner.base.opened.benchmark.id, "method": tuner.base.method_name}
    write_json(path, {**about, "tuning": tuning.model_dump(mode="json")})
    return path


Ending = float | str | UserError
"""Source-validation mIoU; or why a configuration failed; or what no configuration would change."""


def _outcomes(
    tuner: Tuner, place: Workplace, numbers: Sequence[int], jobs: int, seconds: float
) -> Iterator[tuple[int, Ending]]:
    """How configurations end, each as soon as it does."""
    cells: dict[int, Cell] = {}
    for number in numbers:
        try:
            cells[number] = tuner.cell_of(tuner.points[number], tuner.base)
        except UserError as error:  # values that are possible each by itself, and not together
            yield number, _line(error)
    if jobs == 1 and not is_foreign(tuner.base):
        for number, cell in cells.items():
            check_stopped()
            yield number, _try(cell, _shared(place, cell, 1))
        return
    calls = ((number, Call.of(_try_apart, cell, _quiet(_shared(place, cell, jobs)))) for number, cell in cells.items())
    with closing(run_apart(calls, jobs, place.say, complain, seconds or None)) as endings:
        for number, ended in endings:
            yield number, ended.reason[:LONGEST] if ended.reason else ended.value


def _try(cell: Cell, place: Workplace) -> Ending:
    try:
        with contained(), computing_threads(place.hardware.threads):
            return source_value(cell, place)
    except MethodError as error:
        return _line(error)
    except UserError as error:
        return error
    except Exception as error:  # whatever a method raises in this configuration
        return f"{type(error).__name__}: {_line(error)}"[:LONGEST]


def _try_apart(cell: Cell, place: Workplace) -> Ending:
    """In a process of its own, which has its own output."""
    return _try(cell, replace(place, say=_say))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the parent reads it


def _quiet(place: Workplace) -> Workplace:
    """A workplace that can be sent to another process."""
    return replace(place, say=_say)


def _shared(place: Workplace, cell: Cell, jobs: int) -> Workplace:
    """A workplace with its share of the cores, as cells have it."""
    share = torch.get_num_threads() if jobs == 1 else max(1, available_cores() // jobs)
    threads = place.hardware.threads or (1 if cell.opened.is_small else share)
    return replace(place, hardware=replace(place.hardware, threads=threads))


def _file(folder: Path, number: int) -> Path:
    return folder / f"draw-{number:03d}.json"


def _kept(tuner: Tuner, folder: Path, number: int) -> Draw | None:
    """A draw that was tried before, if it is there, whole, and of the same configuration."""
    try:
        draw = Draw.model_validate(json.loads(_file(folder, number).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    wanted = tuner.draw(tuner.points[number], 0.0)
    return draw if draw.configuration == wanted.configuration else None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["(no message)"])[0][:LONGEST]
