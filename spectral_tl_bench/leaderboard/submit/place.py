"""Putting checked records onto the leaderboard: all of them or none, and never a half-written file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.files import write_json
from spectral_tl_bench.leaderboard.generated import remove_empty
from spectral_tl_bench.leaderboard.submit.check import load, read_evidence
from spectral_tl_bench.leaderboard.submit.definitions import Definitions
from spectral_tl_bench.leaderboard.submit.intake import (
    EVIDENCE_BYTES,
    LINES_BYTES,
    PICTURE_BYTES,
    RECORD_BYTES,
    ROWS_BYTES,
    read_bounded,
)
from spectral_tl_bench.results.bring_over import bring_over
from spectral_tl_bench.results.location import Folder
from spectral_tl_bench.results.published import Pair, write_lines, write_rows
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE

STAGING = ".submit-"

Move = tuple[Path | None, Path]
"""A file that is put in a place; None takes away what is there."""


@contextmanager
def staging(results: Path) -> Iterator[Path]:
    """A folder beside the results, on the same file system, that is gone in the end.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=results, prefix=STAGING))
    except OSError as error:
        raise UserError(f"the results cannot be written: {error.strerror}", where=results) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stage_run(path: Path, folder: Path, definitions: Definitions) -> Record:
    """Make a private copy of a run's record: what is checked is what is published, whatever happens to the original.

    The files that it names are copied, and nothing else that lies beside it. A record of schema 1 is brought over.

    Args:
        path: A ``record.json``.
        folder: The copy's folder, which is made.
        definitions: Benchmarks.

    Raises:
        RecordError: If a file is missing, a link or too large, or the record cannot be read.
    """
    folder.mkdir(parents=True)
    content = _copy(path, folder / RECORD_FILE, RECORD_BYTES)
    record = load(content, Folder(folder / RECORD_FILE), path)
    if record.evidence is not None:
        _copy(path.parent / record.evidence.file, folder / record.evidence.file, EVIDENCE_BYTES)
    if record.track == "sample" and record.pictures is not None:  # those of other data are not ours to publish
        _copy(path.parent / record.pictures.file, folder / record.pictures.file, PICTURE_BYTES)
    by_bytes = record.evidence is not None and record.evidence.earlier_file is not None
    return _brought_over(record, folder, definitions) if by_bytes or record.identity() is None else record


def stage_pair(path: Path, folder: Path) -> Path:
    """Make a private copy of two published files.

    Raises:
        RecordError: If one is missing, a link or too large.
    """
    folder.mkdir(parents=True)
    copy = folder / path.name
    _copy(path, copy, LINES_BYTES)
    _copy(Pair(path).rows, Pair(copy).rows, ROWS_BYTES)
    return copy


def _brought_over(record: Record, folder: Path, definitions: Definitions) -> Record:
    evidence = read_evidence(record) if record.evidence is not None else None
    try:
        benchmark = definitions.of(record)
    except UserError:  # told by the check
        benchmark = None
    new, _ = bring_over(record, evidence, benchmark)
    if record.evidence is not None and new.evidence is not None:
        (folder / record.evidence.file).rename(folder / new.evidence.file)
    write_json(folder / RECORD_FILE, new.model_dump(mode="json"))
    return new.at(Folder(folder / RECORD_FILE))


def pair_moves(kept: Sequence[Record], new: Sequence[Record], gone: bool, place: Path, work: Path) -> list[Move]:
    """Write both files of a pair and say how they come into place, so that no moment sees a record without evidence.

    The rows come before the lines that need them. What is replaced leaves the lines first: until the new rows are
    there, the old ones are of no record, which harms nothing and is put right by the next submission.

    Args:
        kept: Records of the pair that stay.
        new: Records that come in.
        gone: Whether others leave.
        place: The file of lines on the leaderboard.
        work: A new folder for the files.

    Raises:
        RecordError: If evidence is not what its record says.
    """
    target = Pair(place)
    moves: list[Move] = []
    if gone and kept:
        write_lines(kept, work / "kept.jsonl")
        moves.append((work / "kept.jsonl", target.path))
    elif gone:
        moves.append((None, target.path))
    if not kept and not new:
        return [*moves, (None, target.rows)]
    made = Pair(work / place.name)
    write_rows([*kept, *new], made.rows)
    write_lines([*kept, *new], made.path)
    return [*moves, (made.rows, target.rows), (made.path, target.path)]


def put_in_place(moves: Sequence[Move], results: Path, work: Path) -> None:
    """Rename complete files into the results; if one cannot be, all that was done is undone.

    Args:
        moves: In this order; sources are on the same file system.
        results: Root of the results.
        work: A folder for what is replaced.

    Raises:
        UserError: If a file cannot be renamed; the results are then as before.
    """
    before: dict[Path, Path | None] = {}
    try:
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target not in before:
                before[target] = _backup(target, work / f"before-{len(before)}")
            _move(source, target)
    except OSError as error:
        for target, copy in reversed(before.items()):
            if copy is not None:
                copy.replace(target)
            else:
                target.unlink(missing_ok=True)
                remove_empty(target.parent, results)
        raise UserError(f"nothing was submitted: {error.strerror or error}", where=error.filename or results) from None


def _backup(target: Path, copy: Path) -> Path | None:
    if not target.exists():
        return None
    shutil.copyfile(target, copy)
    return copy


def _move(source: Path | None, target: Path) -> None:
    if source is None:
        target.unlink()
    else:
        source.replace(target)


def _copy(source: Path, target: Path, limit: int) -> bytes:
    content = read_bounded(source, limit)
    try:
        with target.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RecordError(f"the copy cannot be written: {error.strerror}", where=target) from None
    return content
