"""Joining archives that are had in pieces."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from spectral_tl_bench.data.sources.fetching import CHUNK, NOTES, PART, read_notes
from spectral_tl_bench.data.sources.listing import SourceFile
from spectral_tl_bench.data.sources.progress import Progress, Say
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import fsync_folder, write_json


def join(file: SourceFile, target: Path, where: Callable[[SourceFile], Path], say: Say) -> None:
    """Put the pieces of an archive together, unless that was done; fetched pieces are removed then.

    Args:
        file: With pieces, which are all here and checked.
        target: Where it is put, beside which lies ``NAME.part.json`` with its version.
        where: The place of a piece.
        say: Prints one line.

    Raises:
        DataError: If it is not as long as its pieces should be together.
    """
    part, notes = (target.with_name(target.name + end) for end in (PART, NOTES))
    progress, written = Progress(f"{file.name}, joined", file.size, 0, say), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as stream:
        for piece in file.pieces:
            with where(piece).open("rb") as source:
                shutil.copyfileobj(source, stream, CHUNK)
            written = stream.tell()
            progress.at(written)
        stream.flush()
        os.fsync(stream.fileno())
    if file.size is not None and written != file.size:
        part.unlink()
        raise DataError(f"{file.name} has {written} bytes", where=target, expected=f"{file.size}: get its pieces again")
    write_json(notes, {"version": file.version})
    part.replace(target)
    fsync_folder(target.parent)
    for piece in file.pieces:
        if piece.local is None:
            where(piece).unlink(missing_ok=True)
            where(piece).with_name(where(piece).name + NOTES).unlink(missing_ok=True)


def is_joined(file: SourceFile, target: Path) -> bool:
    """Whether an earlier start has joined just these pieces."""
    return target.exists() and read_notes(target.with_name(target.name + NOTES)) == file.version != ""
