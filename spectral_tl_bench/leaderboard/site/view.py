"""One track as the page builders see it: plain Python values, each row with the name that tells it from its like."""

from __future__ import annotations

import functools
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks, further_benchmarks
from spectral_tl_bench.data.audit.facts import Audit
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board import BySeed
from spectral_tl_bench.leaderboard.frames import Fields, lines_of
from spectral_tl_bench.leaderboard.site.names import page_name, setting, slug, track_of
from spectral_tl_bench.leaderboard.text import plain, selected_by
from spectral_tl_bench.results.schema import Record

ROWS_PER_PAGE = 20
"""Rows on one page of a method."""

_GREYS = 12
_MOST_PARTS = 5


@dataclass(frozen=True)
class BenchmarkView:
    """A benchmark of a track, as its records have it, and the suite's definition of it; None for a user's own."""

    id: str
    version: str
    dataset: str
    gap: str
    classes: tuple[str, ...]
    source: tuple[str, ...]
    target: tuple[str, ...]
    definition: Benchmark | None

    @property
    def reference(self) -> bool:
        """Whether this is an in-domain reference."""
        return self.gap == "none"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the suite says of it."""
        return self.definition.notes if self.definition else ()

    @property
    def colours(self) -> tuple[str, ...]:
        """One ``#rrggbb`` per class; greys, so that nobody takes them for a legend, where none is known."""
        if self.definition:
            return tuple(cover.colour for cover in self.definition.labels.classes)
        return tuple(f"#{3 * f'{60 + 150 * (index % _GREYS) // _GREYS:02x}'}" for index in range(len(self.classes)))

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
        name = self._domain(domain).name if self._domain(domain) else ""
        if not name or domain.lower() in name.lower():
            return name or domain
        return f"{domain}, {name}" if len(domain) <= 3 else name

    def season(self, domain: str) -> str:
        """The season of a domain, where it has one."""
        return self._domain(domain).season if self._domain(domain) else ""

    def _domain(self, domain: str) -> Any:
        domains = self.definition.domains if self.definition else ()
        return next((known for known in domains if known.id == domain), None)


class View:
    """One track.

    Args:
        name: Name of the board.
        analysis: Its numbers.
    """

    def __init__(self, name: str, analysis: Analysis, audits: Sequence[Audit] = ()) -> None:
        self.analysis, self.audits = analysis, audits
        self.track = track_of(name)
        self.selected = selected_by(name)
        self.benchmarks = list(map(_benchmark, analysis.board.known.values()))
        self._records = analysis.board.groups()
        # Rows in the board's order, with ``label``, ``repeated`` (whether the label is), ``variant``, ``slug``,
        # ``page_file`` (the method's page) and ``train_seconds`` added.
        self.rows = fields_of(analysis.rows)
        _name_rows(self.rows, self._records)
        place = ("row", "benchmark")
        self.entries = {(entry["row"], entry["benchmark"]): entry for entry in fields_of(analysis.entries)}
        self.domains = _grouped(fields_of(analysis.domains), *place)
        self.classes = _grouped(fields_of(analysis.classes), *place)

    @functools.cached_property
    def methods(self) -> dict[str, list[Fields]]:
        """Rows by method name; the majority class is none."""
        return _grouped((row for row in self.rows if not row["is_floor"]), "method")

    @functools.cached_property
    def notes(self) -> list[str]:
        """What a reader of this track must know, from the board and from the records."""
        of_all: dict[str, list[str]] = {}
        for benchmark in self.benchmarks:
            for note in benchmark.notes:
                of_all.setdefault(note, []).append(benchmark.id)
        shared = [f"{', '.join(ids)}: {note}" for note, ids in of_all.items()]
        board = self.analysis.board
        return [*board.statements(), *board.notes, *shared, *sorted(board.data_notes())]

    @functools.cached_property
    def left_out(self) -> set[str]:
        """Pages that there is nothing to fill with."""
        few = {name for name, least in (("compare", 2), ("gaps", 1)) if len(self.scored) < least}
        return few | ({"compare"} if all(benchmark.reference for benchmark in self.benchmarks) else set())

    @functools.cached_property
    def scored(self) -> list[Fields]:
        """Rows with a number on some benchmark."""
        names = {row for (row, _), entry in self.entries.items() if entry["miou"] is not None}
        return [row for row in self.rows if row["row"] in names]

    def best_first(self, benchmark: str) -> list[Fields]:
        """Rows with a number on a benchmark, the highest first; the majority class is left out."""
        values = {row["row"]: self.entries[row["row"], benchmark]["miou"] for row in self.rows if not row["is_floor"]}
        rows = [row for row in self.rows if values.get(row["row"]) is not None]
        return sorted(rows, key=lambda row: values[row["row"]], reverse=True)

    def floor(self, benchmark: str) -> float | None:
        """MIoU of the majority class, whose row is the last."""
        value: float | None = self.entries[self.rows[-1]["row"], benchmark]["miou"]
        return value

    def by_seed(self, row: str, benchmark: str) -> BySeed:
        """Records of a row on a benchmark."""
        return self._records.get(row, {}).get(benchmark, {})

    def matrix(self, row: str, benchmark: str) -> NDArray[np.int64] | None:
        """Confusion matrix (K, K) of the selected checkpoints, summed over domains and seeds."""
        matrices = [matrix for run in self.by_seed(row, benchmark).values() for matrix in run.matrices.values()]
        return np.sum(matrices, axis=0) if matrices else None


def fields_of(frame: pd.DataFrame) -> list[Fields]:
    """The lines of a frame as plain Python values; whatever is missing is None."""
    return lines_of(frame.astype(object).where(frame.notna(), None))


def _grouped(lines: Iterable[Fields], *names: str) -> dict[Any, list[Fields]]:
    groups: dict[Any, list[Fields]] = {}
    for fields in lines:
        groups.setdefault(itemgetter(*names)(fields), []).append(fields)
    return groups


def _name_rows(rows: list[Fields], measured: Mapping[str, Mapping[str, BySeed]]) -> None:
    for row in rows:
        row["options"], row["settings"] = json.loads(row["options"]), json.loads(row["settings"])
    siblings = _grouped(rows, "method")
    for row in rows:
        like = siblings[row["method"]]
        row["variant"] = _variant(row, like)
        row["label"] = plain(", ".join(part for part in (row["method"], row["backbone"], row["variant"]) if part))
        row["slug"] = slug(row["row"])
        row["page_file"] = page_name(row["method"], like.index(row) // ROWS_PER_PAGE)
        records = [
            run for by_seed in measured.get(row["row"], {}).values() for run in by_seed.values() if run.completed
        ]
        times = [run.record.seconds.train for run in records if run.record.seconds]
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
        values = [_flat(other[group]) for other in like]
        mine = values[like.index(row)]
        for name in sorted({name for other in values for name in other}):
            if len({setting(other.get(name)) for other in values}) > 1:
                parts.append(f"{name} {setting(mine.get(name))}" if name in mine else f"no {name}")
    for name in ("pretrained", "patch_embedding", "protocol"):
        if len({other[name] for other in like}) > 1 and row[name]:
            parts.append(f"{name.replace('_', ' ')} {row[name]}")
    shown = [part if len(part) <= 60 else f"{part[:59]}…" for part in parts[:_MOST_PARTS]]
    return ", ".join([*shown, *(["…"] if len(parts) > _MOST_PARTS else [])])


def _flat(values: Fields) -> Fields:
    """Settings with those of the training budget among them, of which each has a name of its own."""
    budget = values.get("budget")
    return {**values, **budget, "budget": None} if isinstance(budget, dict) else values


def _benchmark(record: Record) -> BenchmarkView:
    known = {**builtin_benchmarks(), **further_benchmarks()}.get(record.benchmark)
    if known is not None and (known.dataset != record.dataset or known.labels.names != record.classes):
        known = None
    return BenchmarkView(record.benchmark, record.benchmark_version, record.dataset, record.gap, record.classes,
                         record.source_domains, record.target_domains, known)  # fmt: skip
