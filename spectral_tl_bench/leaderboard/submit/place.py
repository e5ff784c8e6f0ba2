"""Putting checked records onto the leaderboard: all of them or none, and never a half-written one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.leaderboard.submit.check import load
from spectral_tl_bench.leaderboard.submit.intake import EVIDENCE_BYTES, PICTURE_BYTES, RECORD_BYTES, read_bounded
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE

STAGING = ".submit-"


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


def stage(path: Path, folder: Path) -> None:
    """Make a private copy of a record: what is checked is what is put in place, whatever happens to the original.

    The files that it names are copied, and nothing else that lies beside it.

    Args:
        path: A ``record.json``.
        folder: The copy's folder, which is made.

    Raises:
        RecordError: If a file is missing, a link or too large, or the record cannot be read.
    """
    folder.mkdir(parents=True)
    _copy(path, folder / RECORD_FILE, RECORD_BYTES)
    record = load(folder)
    for name, limit in files_of(record).items():
        _copy(path.parent / name, folder / name, limit)


def files_of(record: Record) -> dict[str, int]:
    """The files that belong to a record on the leaderboard beside ``record.json``, with the most bytes they may have.

    Pictures of data that are not the suite's own stay where they were made.
    """
    files = {record.evidence.file: EVIDENCE_BYTES} if record.evidence is not None else {}
    if record.track == "sample" and record.pictures is not None:
        files[record.pictures.file] = PICTURE_BYTES
    return files


def destination(record: Record) -> Path:
    """The folder of a record, relative to the results."""
    return Path(record.track, record.benchmark, record.method, record.fingerprint[:16])


def put_in_place(folders: Mapping[Path, Path], gone: Sequence[Path], results: Path, work: Path) -> None:
    """Rename complete folders into the results; if one cannot be, all that was done is undone.

    Args:
        folders: Complete folder by its place relative to ``results``.
        gone: Places relative to ``results`` whose folders are replaced.
        results: Root of the results.
        work: A folder on the same file system, for what is replaced.

    Raises:
        UserError: If a folder cannot be renamed; the results are then as before.
    """
    done: list[tuple[Path, Path]] = []
    try:
        for number, place in enumerate(gone):
            _move(results / place, work / f"gone-{number}", done)
        for place, folder in folders.items():
            (results / place).parent.mkdir(parents=True, exist_ok=True)
            if (results / place).exists():
                raise FileExistsError(17, "it appeared meanwhile", str(results / place))
            _move(folder, results / place, done)
    except OSError as error:
        for source, target in reversed(done):
            target.rename(source)
        for place in folders:
            _remove_empty((results / place).parent, results)
        raise UserError(f"nothing was submitted: {error.strerror or error}", where=error.filename or results) from None
    for place in gone:
        _remove_empty((results / place).parent, results)


def _move(source: Path, target: Path, done: list[tuple[Path, Path]]) -> None:
    source.rename(target)
    done.append((source, target))


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _copy(source: Path, target: Path, limit: int) -> None:
    content = read_bounded(source, limit)
    try:
        with target.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RecordError(f"the copy cannot be written: {error.strerror}", where=target) from None
