"""What a run has found, in few numbers: read from its records and those of the in-domain reference, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.benchmarks import builtin_benchmarks, further_benchmarks
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.board import drops, floors
from spectral_tl_bench.leaderboard.frames import NAN, mean, spread
from spectral_tl_bench.leaderboard.measured import MeasuredRecord, current, measure_record
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, read_record, read_records


@dataclass(frozen=True)
class Summary:
    """One row of a board on one benchmark. Scores are fractions of 1, NaN where unknown.

    Attributes:
        method: Full name.
        row: Name of the row, as ``stbench compare`` takes it.
        seeds: Those that are completed.
        miou: On the target, mean over seeds.
        std: Sample standard deviation over seeds.
        floor: mIoU of always saying the source's most frequent class.
        in_domain: mIoU of the same row on the dataset's benchmark without gap, over the seeds that have both.
        drop: That minus the mIoU on the target, over the same seeds.
        gap: Whether the benchmark has one.
        references: Benchmarks without gap of the same dataset; empty where this is one.
    """

    benchmark: str
    method: str
    row: str
    seeds: tuple[int, ...]
    miou: float
    std: float
    floor: float
    in_domain: float
    drop: float
    gap: bool
    references: tuple[str, ...]


def summarise(out: Path, paths: Iterable[Path]) -> list[Summary]:
    """Sum up some records of a folder of results, together with the other seeds of their rows.

    Args:
        out: The folder.
        paths: Files of records in it; failed ones count for nothing.

    Raises:
        RecordError: If a record cannot be read, or its evidence contradicts it.
    """
    named = sorted({path.parent for path in paths})
    homes = {(folder.parents[1], folder.parent.name) for folder in named}
    references = {home: _references(out, home) for home, _ in homes}
    folders = {home / method for home, method in homes}
    folders |= {out / name / method for home, method in homes for name in references[home]}
    records, _ = current(read_records(sorted(folder for folder in folders if folder.is_dir())))
    wanted = {folder.name for folder in named}
    boards: dict[str, list[MeasuredRecord]] = {}
    for record in records:
        boards.setdefault(record.board, []).append(measure_record(record))
    return [
        summary
        for _, runs in sorted(boards.items())
        for summary in _summaries(runs, wanted, {home.name: names for home, names in references.items()})
    ]


def _summaries(runs: list[MeasuredRecord], wanted: set[str], references: dict[str, tuple[str, ...]]) -> list[Summary]:
    """Those of a board that hold a wanted record."""
    losses, levels = drops(runs), floors(runs)
    groups: dict[tuple[str, str, str], list[MeasuredRecord]] = {}
    for run in runs:
        if run.completed:
            groups.setdefault((run.record.benchmark, run.record.method, run.row), []).append(run)
    found = []
    for (benchmark, method, row), group in sorted(groups.items()):
        if not any(run.record.path is not None and run.record.path.parent.name in wanted for run in group):
            continue
        lost = [(run.miou, losses[run.record.fingerprint]) for run in group if run.record.fingerprint in losses]
        floor = mean(level.scores.miou for level in levels if level.benchmark == benchmark for _ in level.seeds)
        found.append(
            Summary(
                benchmark, method, row, tuple(sorted(run.record.seed for run in group)),
                miou=mean(run.miou for run in group), std=spread(run.miou for run in group), floor=floor,
                in_domain=mean(miou + loss for miou, loss in lost) if lost else NAN,
                drop=mean(loss for _, loss in lost) if lost else NAN,
                gap=group[0].record.gap != "none",
                references=() if group[0].record.gap == "none" else references[benchmark],
            )
        )  # fmt: skip
    return found


def _references(out: Path, home: Path) -> tuple[str, ...]:
    """Benchmarks without gap of the dataset of another one: those of the suite, and those with results."""
    record = _any_record(home)
    if record is None:
        return ()
    known = {**builtin_benchmarks(), **further_benchmarks()}
    names = {name for name, other in known.items() if (other.dataset, other.gap) == (record.dataset, "none")}
    for folder in out.iterdir():
        other = _any_record(folder) if folder.is_dir() and folder.name not in known else None
        if other is not None and (other.dataset, other.gap) == (record.dataset, "none"):
            names.add(folder.name)
    return tuple(sorted(names))


def _any_record(home: Path) -> Record | None:
    """A record of a benchmark, which says what the benchmark is."""
    for path in home.glob(f"*/*/{RECORD_FILE}"):
        try:
            return read_record(path)
        except RecordError:
            continue
    return None
