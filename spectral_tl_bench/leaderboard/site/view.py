"""One track as the page builders see it: plain Python values, each row with the name that tells it from its like."""

from __future__ import annotations

import functools
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.site.names import Track, page_name, setting, slug, track_of
from spectral_tl_bench.leaderboard.text import plain

ROWS_PER_PAGE = 20
"""Rows on one page of a method."""

_GREYS = 12
_MOST_PARTS = 5
Fields = dict[str, Any]


@dataclass(frozen=True)
class BenchmarkView:
    """A benchmark of a track.

    Attributes:
        id: Its id.
        dataset: Dataset name.
        gap: region, season or none.
        reference: Whether this is an in-domain reference.
        classes: Class names.
        colours: One per class, ``#rrggbb``.
        source: Ids of the domains to train on.
        target: Ids of the domains to test on.
        definition: What the suite says about it; None for a user's own.
    """

    id: str
    version: str
    dataset: str
    gap: str
    reference: bool
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    source: tuple[str, ...]
    target: tuple[str, ...]
    definition: Benchmark | None
    notes: tuple[str, ...]

    @property
    def slug(self) -> str:
        """Its file name."""
        return slug(self.id)

    @property
    def title(self) -> str:
        """One line for people."""
        return self.definition.title if self.definition else self.id

    def domain_name(self, domain: str) -> str:
        """The name of a domain for people, its id included."""
        known = [one for one in self.definition.domains if one.id == domain] if self.definition else []
        name = known[0].name if known else ""
        if not name or domain.lower() in name.lower():
            return name or domain
        return f"{domain}, {name}" if len(domain) <= 3 else name

    def season(self, domain: str) -> str:
        """The season of a domain, where it has one."""
        known = [one for one in self.definition.domains if one.id == domain] if self.definition else []
        return known[0].season if known else ""


@dataclass
class View:
    """One track.

    Attributes:
        analysis: Where everything comes from.
        track: Its name and sentence.
        rows: Rows of the board in its order, with ``label``, ``repeated`` (whether the label is), ``variant``,
            ``slug``, ``page_file`` (the method's page) and ``train_seconds`` added.
        cells: By row and benchmark.
        domains: By row and benchmark: fields by domain.
        classes: By row and benchmark: fields by class, in the order of the classes.
        benchmarks: Those with a gap first, as on the board.
        measured: Records by row and benchmark, by seed.
    """

    analysis: Analysis
    track: Track
    rows: list[Fields]
    entries: dict[tuple[str, str], Fields]
    domains: dict[tuple[str, str], list[Fields]]
    classes: dict[tuple[str, str], list[Fields]]
    benchmarks: list[BenchmarkView]
    measured: dict[tuple[str, str], dict[int, MeasuredRecord]] = field(default_factory=dict)

    @functools.cached_property
    def by_id(self) -> dict[str, Fields]:
        """Rows by their id."""
        return {row["row"]: row for row in self.rows}

    @functools.cached_property
    def methods(self) -> dict[str, list[Fields]]:
        """Rows by method name; the majority class is none."""
        found: dict[str, list[Fields]] = {}
        for row in self.rows:
            if not row["is_floor"]:
                found.setdefault(row["method"], []).append(row)
        return found

    @functools.cached_property
    def notes(self) -> list[str]:
        """What a reader of this track must know, from the board and from the records."""
        cells = self.analysis.board.records
        statements = sorted({cell.record.statement for cell in cells if cell.record.statement})
        told = {
            f"{cell.record.benchmark}: {note}" for cell in cells if cell.record.data for note in cell.record.data.notes
        }
        of_all: dict[str, list[str]] = {}
        for one in self.benchmarks:
            for note in one.notes:
                of_all.setdefault(note, []).append(one.id)
        shared = [f"{', '.join(ids)}: {note}" for note, ids in of_all.items()]
        return [*statements, *self.analysis.board.notes, *shared, *sorted(told)]

    @functools.cached_property
    def left_out(self) -> set[str]:
        """Pages that there is nothing to fill with."""
        few = {name for name, least in (("compare", 2), ("gaps", 1)) if len(self.scored()) < least}
        return few | ({"compare"} if all(one.reference for one in self.benchmarks) else set())

    def scored(self) -> list[Fields]:
        """Rows with a number on some benchmark."""
        names = {row for (row, _), cell in self.entries.items() if cell["miou"] is not None}
        return [row for row in self.rows if row["row"] in names]

    def best_first(self, benchmark: str) -> list[Fields]:
        """Rows with a number on a benchmark, the highest first; the majority class is left out."""
        found = [row for row in self.rows if not row["is_floor"] and self._miou(row, benchmark) is not None]
        return sorted(found, key=lambda row: -float(self._miou(row, benchmark) or 0))

    def floor(self, benchmark: str) -> float | None:
        """MIoU of the majority class."""
        return next((self._miou(row, benchmark) for row in self.rows if row["is_floor"]), None)

    def matrix(self, row: str, benchmark: str) -> NDArray[np.int64] | None:
        """Confusion matrix (K, K) of the selected checkpoints, summed over domains and seeds."""
        cells = [cell for cell in self.measured.get((row, benchmark), {}).values() if cell.completed]
        if not cells:
            return None
        return np.sum([matrix for cell in cells for matrix in cell.matrices.values()], axis=0)

    def _miou(self, row: Fields, benchmark: str) -> float | None:
        cell = self.entries.get((row["row"], benchmark))
        return None if cell is None else cell["miou"]


def make_view(name: str, analysis: Analysis) -> View:
    """Prepare one track.

    Args:
        name: Name of the board.
        analysis: Its numbers.
    """
    rows = fields_of(analysis.rows)
    measured: dict[tuple[str, str], dict[int, MeasuredRecord]] = {}
    for name_, group in analysis.board.groups().items():
        for benchmark, by_seed in group.items():
            measured[name_, benchmark] = by_seed
    _name_rows(rows, measured)
    board = analysis.board
    return View(
        analysis=analysis,
        track=track_of(name),
        rows=rows,
        entries={(cell["row"], cell["benchmark"]): cell for cell in fields_of(analysis.entries)},
        domains=_grouped(analysis.domains),
        classes=_grouped(analysis.classes),
        benchmarks=[_benchmark(id, board.records) for id in (*board.benchmarks, *board.references)],
        measured=measured,
    )


def fields_of(frame: pd.DataFrame) -> list[Fields]:
    """The rows of a frame as plain Python values; whatever is missing is None."""
    columns = {
        str(name): [None if absent else value for value, absent in zip(frame[name], frame[name].isna(), strict=True)]
        for name in frame.columns
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _grouped(frame: pd.DataFrame) -> dict[tuple[str, str], list[Fields]]:
    found: dict[tuple[str, str], list[Fields]] = {}
    for fields in fields_of(frame):
        found.setdefault((fields["row"], fields["benchmark"]), []).append(fields)
    return found


def _name_rows(rows: list[Fields], measured: Mapping[tuple[str, str], Mapping[int, MeasuredRecord]]) -> None:
    train: dict[str, list[float]] = {}
    for (name, _), by_seed in measured.items():
        for cell in by_seed.values():
            if cell.completed and cell.record.seconds is not None:
                train.setdefault(name, []).append(cell.record.seconds.train)
    siblings: dict[str, list[Fields]] = {}
    for row in rows:
        row["options"], row["settings"] = _mapping(row["options"]), _mapping(row["settings"])
        siblings.setdefault(row["method"], []).append(row)
    for row in rows:
        row["variant"] = _variant(row, siblings[row["method"]])
        parts = [row["method"], row["backbone"] or "", row["variant"]]
        row["label"] = plain(", ".join(part for part in parts if part))
        row["slug"] = slug(str(row["row"]))
        place = [other["row"] for other in siblings[row["method"]]].index(row["row"])
        row["page_file"] = page_name(row["method"], place // ROWS_PER_PAGE)
        times = train.get(row["row"])
        row["train_seconds"] = statistics.fmean(times) if times else None
    labels = Counter(row["label"] for row in rows)
    for row in rows:
        row["repeated"] = labels[row["label"]] > 1


def _variant(row: Fields, like: list[Fields]) -> str:
    """The options and settings in which a row differs from the others of its method."""
    if len(like) == 1:
        return ""
    parts = []
    for group in ("options", "settings"):
        for name in sorted({name for other in like for name in other[group]}):
            if len({setting(other[group].get(name)) for other in like}) > 1:
                parts.append(f"{name} {setting(row[group].get(name))}" if name in row[group] else f"no {name}")
    for name in ("pretrained", "patch_embedding", "protocol"):
        if len({other[name] for other in like}) > 1 and row[name]:
            parts.append(f"{name.replace('_', ' ')} {row[name]}")
    shown = [part if len(part) <= 60 else f"{part[:59]}…" for part in parts[:_MOST_PARTS]]
    return ", ".join([*shown, *(["…"] if len(parts) > _MOST_PARTS else [])])


def _mapping(text: Any) -> Fields:
    value = json.loads(text) if isinstance(text, str) and text else {}
    return value if isinstance(value, dict) else {}


def _benchmark(id: str, cells: Iterable[MeasuredRecord]) -> BenchmarkView:
    record = next(cell.record for cell in cells if cell.record.benchmark == id)
    known = builtin_benchmarks().get(id)
    if known is not None and (known.dataset != record.dataset or known.labels.names != record.classes):
        known = None
    colours = tuple(one.colour for one in known.labels.classes) if known else _greys(len(record.classes))
    return BenchmarkView(
        id=id,
        version=record.benchmark_version,
        dataset=record.dataset,
        gap=record.gap,
        reference=record.gap == "none",
        classes=record.classes,
        colours=colours,
        source=record.source_domains,
        target=record.target_domains,
        definition=known,
        notes=known.notes if known else (),
    )


def _greys(number: int) -> tuple[str, ...]:
    """Colours of classes of which none is known: greys, so that nobody takes them for a legend."""
    steps = [60 + 150 * (index % _GREYS) // _GREYS for index in range(number)]
    return tuple(f"#{step:02x}{step:02x}{step:02x}" for step in steps)
