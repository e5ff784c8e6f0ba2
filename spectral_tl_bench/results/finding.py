"""The stored records that a user means: those of some folders, or one by path or fingerprint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from spectral_tl_bench.defaults import results_folder
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, read_record, read_records, records_like

PUBLISHED = Path("leaderboard") / "results"
"""Folder of published records in a checkout."""

_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def find_records(named: Sequence[Path] | None, read_before: Callable[[Path], bool] = lambda _: False) -> list[Record]:
    """The stored records of the folders that a user names, or of where they are kept.

    Args:
        named: The folders; none for the usual one.
        read_before: As of ``read_records``.

    Raises:
        UserError: If there are none.
    """
    roots = existing_roots(named)
    records = read_records(roots, read_before)
    if not records:
        raise nothing_found(roots)
    return records


def roots_of(named: Sequence[Path] | None) -> list[Path]:
    """The folders that a user names, or the usual one."""
    return list(named or [results_folder()])


def existing_roots(named: Sequence[Path] | None) -> list[Path]:
    """The folders that are meant; where none is named, the usual one has to be there.

    Raises:
        UserError: If it is not.
    """
    roots = roots_of(named)
    if not named and not roots[0].exists():
        raise nothing_found(roots)
    return roots


def nothing_found(roots: Sequence[Path]) -> UserError:
    """What a user is told where there are no records."""
    published = f"; those of the committed board: --records {PUBLISHED}" if PUBLISHED.is_dir() else ""
    return UserError(
        "there are no records yet",
        where=", ".join(map(str, roots)),
        fix=f"run something first: stbench run -m pixel-mlp -b dfc2020-summer{published}",
    )


def find_record(name: str, roots: Sequence[Path]) -> Record:
    """Read the record that a user means.

    Args:
        name: Path of a ``record.json`` or of its folder, or the first digits (at least 4) of a fingerprint, also of
            the one that schema 1 gave.
        roots: Folders to look for fingerprints in.

    Raises:
        RecordError: If there is no such record, or more than one.
    """
    path = Path(name)
    if path.is_dir():
        path = path / RECORD_FILE
    if path.is_file():
        return read_record(path)
    where = ", ".join(map(str, roots))
    if not is_fingerprint(name):
        raise RecordError(
            f"there is no record {name!r}",
            where=where,
            expected="a record.json, its folder, or at least 4 hexadecimal digits that a fingerprint begins with",
        )
    records = records_like(name, roots)
    if not records:
        raise RecordError(f"no fingerprint begins with {name!r}", where=where)
    if len(records) > 1:
        raise RecordError(
            f"{len(records)} records have a fingerprint that begins with {name!r}",
            where=", ".join(f"{record.path} ({record.fingerprint[:16]})" for record in records[:5]),
            fix="give more digits, or the path",
        )
    return records[0]


def is_fingerprint(name: str) -> bool:
    """Whether a fingerprint may begin so."""
    return _PREFIX.fullmatch(name) is not None
