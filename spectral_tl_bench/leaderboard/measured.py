"""From stored records to measured ones: verified, and freed of what must not be counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.files import digest
from spectral_tl_bench.results.places import PlaceCounts, count_places
from spectral_tl_bench.results.schema import BackboneFacts, Record, ScoreBlock
from spectral_tl_bench.results.store import check_scores, load_evidence, target_digest

RowKey = tuple[str, str, str, str, str, str]
"""Method, backbone name (empty where none is used), then the digests of options (those of objectives, too) and
backbone, protocol, settings."""


@dataclass(frozen=True, eq=False)
class MeasuredRecord:
    """One record as the boards see it.

    Attributes:
        blocks: Scores by checkpoint, computed from the evidence; empty for a failed record.
        matrices: Confusion matrix of the selected checkpoint by target domain.
        target: Hash of the chips and their ground truth: equal where two records were evaluated on the same pixels.
        places: Pixel counts of the selected checkpoint by place; None for a failed record.
    """

    record: Record
    blocks: dict[str, ScoreBlock]
    matrices: dict[str, NDArray[np.int64]]
    target: str
    places: PlaceCounts | None = None

    @property
    def completed(self) -> bool:
        """Whether there are scores."""
        return bool(self.blocks)

    @property
    def miou(self) -> float:
        """Of the selected checkpoint."""
        return self.blocks["selected"].miou

    @cached_property
    def key(self) -> RowKey:
        """What makes a row of the board, apart from the seed."""
        return row_key(self.record)

    @cached_property
    def row(self) -> str:
        """Name of its row."""
        return row_name(self.key)


def row_key(record: Record) -> RowKey:
    """What makes a row of the board, apart from the seed.

    Of a tuned record it is the search, not what the search has chosen: that is another configuration on each benchmark.
    Hence no row has tuned records beside others.
    """
    options, settings = searched(record)
    extra = [record.objectives] if record.objectives else []
    extra += [record.tuning.procedure] if record.tuning is not None else []
    return (
        record.method,
        record.backbone.name if record.backbone else "",
        digest(options, *extra)[:8],
        _backbone_digest(record.backbone),
        record.protocol,
        digest(settings)[:8],
    )


@lru_cache(maxsize=1024)
def _backbone_digest(backbone: BackboneFacts | None) -> str:
    return digest(backbone.model_dump(mode="json") if backbone else None)[:8]


@lru_cache(maxsize=65_536)
def row_name(key: RowKey) -> str:
    """A short name for one row's method, options, backbone, protocol and settings (8 hex digits)."""
    return digest(*key)[:8]


def searched(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and settings of the row of a record: ``tuned`` where a search has chosen the value."""
    if record.tuning is None:
        return dict(record.options), dict(record.settings)
    return record.tuning.masked(record.options, record.settings)


def choice_of(record: Record) -> str:
    """What a search has chosen for a record, in one line; empty where there was none."""
    chosen = record.tuning.choice.configuration if record.tuning is not None else {}
    return ", ".join(f"{name}={value}" for name, value in chosen.items())


def all_options(record: Record) -> dict[str, Any]:
    """Options of the method, and those of its objectives below ``+name``, to be shown."""
    return {**record.options, **{f"+{name}": options for name, options in record.objectives.items()}}


def most_in_decoders(records: Iterable[Record]) -> int | None:
    """The most trainable parameters that a decoder has; None where no record tells."""
    counts = [record.parameters.decoder for record in records if record.parameters is not None]
    return max((count for count in counts if count is not None), default=None)


def row_options(record: Record) -> dict[str, Any]:
    """The same of the row of a record: ``tuned`` where a search has chosen the value."""
    return {**all_options(record), **searched(record)[0]}


def measure_record(record: Record) -> MeasuredRecord:
    """Compute a record's scores from its evidence.

    Raises:
        RecordError: If the evidence is missing or was changed, or a stored score contradicts it.
    """
    if record.status == "failed":
        return MeasuredRecord(record, {}, {}, "")
    evidence = load_evidence(record)
    places = count_places(evidence.domains, evidence.sites, evidence.matrices["selected"])
    matrices = evidence.by_domain["selected"]
    return MeasuredRecord(record, check_scores(record, evidence), matrices, target_digest(record, evidence), places)


def current(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """Leave out what must not be averaged with the rest.

    Of each benchmark only the newest version counts. Of records that differ in nothing but, say, the version of the
    code, the last completed one counts, so that no seed has two votes.

    Returns:
        The records that count, in an order that does not depend on the input's, and a sentence for each kind of
        record that was left out.
    """
    ordered = sorted(
        records, key=lambda r: (r.board, r.dataset, r.benchmark, r.method, r.seed, r.created, r.fingerprint)
    )
    newest: dict[str, tuple[int, ...]] = {}
    for record in ordered:
        newest[record.benchmark] = max(newest.get(record.benchmark, (0,)), _version(record))
    notes: set[str] = set()
    chosen: dict[tuple[str, RowKey, int], Record] = {}
    for record in ordered:
        if _version(record) != newest[record.benchmark]:
            notes.add(
                f"{record.benchmark}: records of version {record.benchmark_version} are left out, "
                f"the newest version is {'.'.join(map(str, newest[record.benchmark]))}."
            )
            continue
        stand = (record.benchmark, row_key(record), record.seed)
        other = chosen.get(stand)
        if other is not None:
            if other.fingerprint != record.fingerprint:
                run = f"{record.benchmark}, {record.method}, seed {record.seed}"
                notes.add(f"{run}: the last completed of several runs counts.")
            if other.status == "completed" and record.status == "failed":
                continue
        chosen[stand] = record
    return list(chosen.values()), sorted(notes)


def conflicts(records: Iterable[MeasuredRecord]) -> list[str]:
    """Benchmarks whose rows were not evaluated on the same target pixels, seed by seed and as a whole, as sentences."""
    by_seed: dict[tuple[str, int], set[str]] = {}
    by_row: dict[str, dict[RowKey, set[str]]] = {}
    for run in records:
        if run.completed:
            by_seed.setdefault((run.record.benchmark, run.record.seed), set()).add(run.target)
            by_row.setdefault(run.record.benchmark, {}).setdefault(run.key, set()).add(run.target)
    different = {benchmark for (benchmark, _), targets in by_seed.items() if len(targets) > 1}
    # Rows without a seed in common are ranked against each other as well.
    different |= {benchmark for benchmark, rows in by_row.items() if len(set(map(frozenset, rows.values()))) > 1}
    return [
        f"{benchmark}: not all records were evaluated on the same target pixels, so their numbers cannot be compared "
        "and nothing is ranked."
        for benchmark in sorted(different)
    ]


def _version(record: Record) -> tuple[int, ...]:
    return tuple(int(part) for part in record.benchmark_version.split("."))
