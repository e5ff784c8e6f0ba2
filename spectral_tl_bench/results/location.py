"""Where a record is stored: in a run's own folder, with its evidence and its picture beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.evidence import Evidence, from_parquet

if TYPE_CHECKING:
    from spectral_tl_bench.results.schema import Record

CHANGED = "the evidence is not what the record was written with (key 'evidence.sha256')"
RESTORE = "restore both files from where they were made, or run the cell again"


class Location(Protocol):
    """Where a record is stored, and how to get at what belongs to it."""

    @property
    def path(self) -> Path:
        """The file that the record was read from."""

    def evidence(self, record: Record) -> Evidence:
        """The evidence of a completed record, checked by itself and not yet held against the record.

        Raises:
            RecordError: If it cannot be read.
        """

    def evidence_path(self, record: Record) -> Path:
        """The file that holds the evidence of a completed record."""

    def picture(self, record: Record) -> bytes | None:
        """The PNG with the predictions that the record shows; None where it is not kept."""

    def chips(self, record: Record, target: str) -> Path:
        """The folder of image and label of the chips that all records of one target show, which may be missing.

        Args:
            target: As ``store.target_digest`` gives it.
        """


@dataclass(frozen=True)
class Folder:
    """A run's own folder.

    Attributes:
        path: The ``record.json``.
    """

    path: Path

    def evidence(self, record: Record) -> Evidence:
        """See ``Location``; of a record of schema 1, the bytes of the file are held against the record here."""
        if record.evidence is None:
            raise RecordError("this record has no evidence", where=self.path)
        path = self.evidence_path(record)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RecordError(f"the evidence cannot be read: {error.strerror}", where=path) from None
        by_bytes = record.evidence.earlier_file is not None
        if by_bytes and hashlib.sha256(content).hexdigest() != record.evidence.sha256:
            raise RecordError(CHANGED, where=path, fix=RESTORE)
        return from_parquet(content, len(record.classes), path)

    def evidence_path(self, record: Record) -> Path:
        """See ``Location``."""
        return self.path.parent / record.evidence.file if record.evidence is not None else self.path

    def picture(self, record: Record) -> bytes | None:
        """See ``Location``."""
        if record.pictures is None:
            return None
        path = self.path.parent / record.pictures.file
        return path.read_bytes() if path.is_file() else None

    def chips(self, record: Record, target: str) -> Path:
        """See ``Location``."""
        return chips_in_runs(self.path.parents[3], record.benchmark, target)


def chips_in_runs(root: Path, benchmark: str, target: str) -> Path:
    """The folder of drawn chips in a store of runs, once for all runs of a target."""
    return root / benchmark / f"pictures-{target}"
