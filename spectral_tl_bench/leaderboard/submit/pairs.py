"""Published pairs, read as carefully as what strangers send: a pull request may have changed them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.check import Checked, flat, load, matrices_of, read_evidence
from spectral_tl_bench.leaderboard.submit.findings import refused
from spectral_tl_bench.leaderboard.submit.intake import RECORD_BYTES, bound_pair
from spectral_tl_bench.leaderboard.submit.text import shown
from spectral_tl_bench.results.published import LINES, Pair
from spectral_tl_bench.results.schema import TRACKS, Record


def pair_files(results: Path) -> list[Path]:
    """The files of lines on the leaderboard, without a look at anything else."""
    return sorted(path for track in TRACKS for path in (results / track).glob(f"*{LINES}"))


def label(file: str, record: Record) -> str:
    """What a published record is called in findings."""
    return shown(f"{file} ({record.benchmark}, seed {record.seed}, {record.fingerprint[:16]})", 300)


def read_lines(path: Path, name: str) -> list[tuple[bytes, Checked]]:
    """The lines of a pair, each with its record; one that cannot be read carries the finding.

    Args:
        path: The file of lines.
        name: What the file is called in findings.

    Raises:
        RecordError: If a file of the pair is missing, a link or too large.
    """
    pair, lines = Pair(path), []
    for number, line in enumerate(bound_pair(path), start=1):
        where = f"{name}, line {number}"
        try:
            if len(line) > RECORD_BYTES:
                raise UserError(f"the record has {len(line):,} bytes, at most {RECORD_BYTES:,} are allowed")
            record = load(line, pair, where)
            lines.append((line, Checked(label(name, record), record)))
        except UserError as error:
            lines.append((line, Checked(where, None, None, [refused(where, flat(error))])))
    return lines


def card(entry: Checked, benchmarks: Collection[str]) -> Checked:
    """A record that is on the leaderboard already and is not checked again, with what shows copies of it.

    Args:
        entry: The record as ``read_lines`` gives it.
        benchmarks: Benchmarks whose evidence is looked at, to find copies.
    """
    record, matrices = entry.record, None
    if record is not None and record.benchmark in benchmarks and record.status == "completed":
        with contextlib.suppress(UserError):  # what is wrong with it is told by --check
            matrices = matrices_of(read_evidence(record))
    return Checked(entry.where, record, matrices)


def known_records(results: Path) -> list[Checked]:
    """All records of the leaderboard; of a pair that cannot be read, one that has no record."""
    records = []
    for path in pair_files(results):
        name = path.relative_to(results).as_posix()
        try:
            records += [entry for _, entry in read_lines(path, name)]
        except UserError as error:
            records.append(Checked(name, None, None, [refused(name, flat(error))]))
    return records
