"""Errors that are written for the person who reads them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend: printed as plain text, exit code 2, no traceback.

    Args:
        what: What was wrong, in one sentence.
        where: The file, band, key or chip it was found at.
        expected: What would have been right.
        fix: What to do next.
    """

    def __init__(self, what: str, *, where: object = None, expected: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.expected, self.fix = what, where, expected, fix
        super().__init__(str(self))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process, which keyword arguments alone would not."""
        return (_rebuild, (type(self), self.what, self.where, self.expected, self.fix))

    def __str__(self) -> str:
        """All parts that are known, one per line."""
        lines = [self.what]
        for label, value in (("where", self.where), ("expected", self.expected), ("to do", self.fix)):
            if value is not None:
                lines.append(f"  {label}: {value}")
        return "\n".join(lines)


class BenchmarkError(UserError):
    """A benchmark definition that cannot be used."""


class DataError(UserError):
    """Chips, labels or tables that are missing, unreadable or contradict the benchmark."""


class MethodError(UserError):
    """A method that is unknown, cannot be loaded or got options that it does not have."""


class RecordError(UserError):
    """A stored result that cannot be read or contradicts itself."""


class AdapterError(UserError):
    """Stored trained weights that cannot be read, or do not fit a module."""


class StorageError(UserError):
    """A folder of results or of a cache that cannot be used, or in which there is no room left."""


class StageError(UserError):
    """A stored training stage that cannot be read, or does not fit a run."""


def _rebuild(kind: type[UserError], what: str, where: object, expected: str | None, fix: str | None) -> UserError:
    return kind(what, where=where, expected=expected, fix=fix)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known names, or all of them when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}" if known else "none is known"
