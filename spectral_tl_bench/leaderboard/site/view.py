"""One track as the page builders see it: plain Python values, each row with the name that tells it from its like."""

from __future__ import annotations

import functools
import json
import re
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
from spectral_tl_bench.identity import benchmark_digest
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.board import BySeed
from spectral_tl_bench.leaderboard.frames import Fields, known_values, lines_of
from spectral_tl_bench.leaderboard.site.names import page_name, part_name, slug, track_of
from spectral_tl_bench.leaderboard.site.pictures import class_colours
from spectral_tl_bench.leaderboard.site.variants import variants
from spectral_tl_bench.leaderboard.text import backbone_text, plain, selected_by
from spectral_tl_bench.results.schema import Record

ROWS_PER_PAGE = 20
"""Rows on one page of a method."""

_MOST_CELLS = 2500
_WITHOUT_COLOURS = (
    "#4477aa",
    "#ccbb44",
    "#228833",
    "#ee6677",
    "#66ccee",
    "#aa3377",
    "#bbbbbb",
    "#994455",
    "#997700",
    "#004488",
    "#ee99aa",
    "#6699cc",
    "#eecc66",
    "#44aa99",
    "#882255",
    "#ddcc77",
)
"""Paul Tol's bright, medium and muted colours, for classes of which none is known."""


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
    palette: tuple[str, ...] = ()

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
        """One ``#rrggbb`` per class: of its definition, else of its pictures, else any that can be told apart."""
        if self.definition:
            return tuple(cover.colour for cover in self.definition.labels.classes)
        if self.palette:
            return self.palette
        return tuple(_WITHOUT_COLOURS[index % len(_WITHOUT_COLOURS)] for index in range(len(self.classes)))

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
        if not name or domain.lower() in re.split(r"\W+", name.lower()) or domain.lower() == name.lower():
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
        audits: What was measured of the benchmarks' data.
        definitions: Those of users' benchmarks, as far as they are at hand.
    """

    def __init__(
        self, name: str, analysis: Analysis, audits: Sequence[Audit] = (), definitions: Sequence[Benchmark] = ()
    ) -> None:
        self.analysis, self.audits = analysis, audits
        self.track = track_of(name)
        self.selected = selected_by(name)
        self.benchmarks = benchmark_views(analysis, definitions)
        self._records = analysis.board.groups()
        # Rows in the board's order, with ``label``, ``repeated`` (whether the label is), ``variant``, ``slug``,
        # ``page_file`` (the method's page) and ``train_seconds`` added.
        self.rows = fields_of(analysis.rows)
        _name_rows(self.rows, self._records)
        place = ("row", "benchmark")
        self.entries = {(entry["row"], entry["benchmark"]): entry for entry in fields_of(analysis.entries)}
        self.domains = _grouped(fields_of(analysis.domains), *place)
        self.classes = _grouped(fields_of(analysis.classes), *place)
        for row in self.rows:
            self._add_in_domain(row)

    @functools.cached_property
    def methods(self) -> dict[str, list[Fields]]:
        """Rows by method name; the majority class is none."""
        return _grouped((row for row in self.rows if not row["is_floor"]), "method")

    @functools.cached_property
    def listed(self) -> list[Fields]:
        """Rows without those that are the majority class a second time, as a method; the majority class is last."""
        twins = [row for row in self.rows[:-1] if row["row"] in self.analysis.floor_again]
        if twins:
            self.rows[-1]["page"] = f"{twins[0]['page_file']}#r-{twins[0]['slug']}"
        return [row for row in self.rows if row not in twins]

    @property
    def rows_per_part(self) -> int:
        """Rows of one part of the overview, fewer where there are many columns."""
        return max(50, min(100, _MOST_CELLS // (len(self.benchmarks) + 14) // 50 * 50))

    def page_of(self, row: str) -> str:
        """The part of the overview that has a row, and where in it; relative to the folder of the track."""
        row = self.rows[-1]["row"] if row in self.analysis.floor_again else row
        return f"{part_name('index.html', self._places[row] // self.rows_per_part)}#row-{slug(row)}"

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {row["row"]: place for place, row in enumerate(self.listed)}

    def _add_in_domain(self, row: Fields) -> None:
        """Add the means of in-domain score and drop over the benchmarks with a gap, where a complete row has them."""
        entries = [self.entries[row["row"], one.id] for one in self.benchmarks if not one.reference]
        for name in ("in_domain", "drop"):
            values = [entry[name] for entry in entries]
            known = row["mean"] is not None and None not in values
            row[name] = statistics.fmean(values) if known and values else None
        memory = [entry["peak_memory_mb"] for entry in entries if entry["peak_memory_mb"] is not None]
        row["peak_memory_mb"] = max(memory, default=None)

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
        return [row for row in self.listed if row["row"] in names]

    def best_first(self, benchmark: str) -> list[Fields]:
        """Rows with a number on a benchmark, the highest first; the majority class is left out."""
        values = {row["row"]: self.entries[row["row"], benchmark]["miou"] for row in self.listed if not row["is_floor"]}
        rows = [row for row in self.listed if values.get(row["row"]) is not None]
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
    return lines_of(frame, known_values)


def _grouped(lines: Iterable[Fields], *names: str) -> dict[Any, list[Fields]]:
    groups: dict[Any, list[Fields]] = {}
    for fields in lines:
        groups.setdefault(itemgetter(*names)(fields), []).append(fields)
    return groups


def _name_rows(rows: list[Fields], measured: Mapping[str, Mapping[str, BySeed]]) -> None:
    for row in rows:
        row["options"], row["settings"] = json.loads(row["options"]), json.loads(row["settings"])
    siblings = _grouped(rows, "method")
    for row, variant in zip(rows, variants(rows), strict=True):
        like = siblings[row["method"]]
        backbone = backbone_text(row) if row["backbone"] else ""
        row["variant"] = variant
        row["label"] = plain(", ".join(part for part in (row["method"], backbone, variant) if part))
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


def benchmark_views(analysis: Analysis, definitions: Sequence[Benchmark] = ()) -> list[BenchmarkView]:
    """The benchmarks of a board: by the suite's definition, else by one of those given that the records are of."""
    known = {**builtin_benchmarks(), **further_benchmarks()}
    drawn = [run.record for run in analysis.board.records if run.record.pictures is not None]
    views = []
    for record in analysis.board.known.values():
        definition = known.get(record.benchmark)
        if definition is None or definition.dataset != record.dataset or definition.labels.names != record.classes:
            definition = next((one for one in definitions if _is_of(one, record)), None)
        palette = () if definition else _palette(drawn, record)
        views.append(BenchmarkView(record.benchmark, record.benchmark_version, record.dataset, record.gap,
                                   record.classes, record.source_domains, record.target_domains, definition,
                                   palette))  # fmt: skip
    return views


def _is_of(definition: Benchmark, record: Record) -> bool:
    """Whether a record says that it was run by this definition."""
    if definition.id != record.benchmark:
        return False
    return benchmark_digest(definition.model_dump(mode="json")) == record.definition


def _palette(drawn: Iterable[Record], record: Record) -> tuple[str, ...]:
    """The colours of classes in the pictures that some record of a benchmark kept."""
    for other in drawn:
        if other.benchmark == record.benchmark and other.classes == record.classes and (found := class_colours(other)):
            return found
    return ()
