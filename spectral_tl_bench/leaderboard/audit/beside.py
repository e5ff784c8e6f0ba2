"""Audits that lie beside records, for the pages of the boards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from spectral_tl_bench.data.audit.facts import Audit, read_audit
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.leaderboard.audit.lines import BASES, Line, lines
from spectral_tl_bench.leaderboard.text import parts_of
from spectral_tl_bench.results.schema import Record

FOLDER, RESULTS = "audits", "results"


class Shown(NamedTuple):
    """What the page of a benchmark says of its data: how it was found, a table, warnings, and the shifts of classes."""

    basis: str
    lines: list[Line]
    warnings: list[str]
    classes: list[tuple[str, float, float | None]]


def read_audits(roots: Iterable[Path]) -> list[Audit]:
    """The audits in ``audits/`` of folders of records, or beside one that is called ``results``.

    Raises:
        DataError: If a file is no audit, or two are of the same benchmark and the same kind of data.
    """
    found: dict[tuple[str, str], tuple[Path, Audit]] = {}
    for root in dict.fromkeys(roots):
        folders = [root / FOLDER, *([root.parent / FOLDER] if root.name == RESULTS else [])]
        for path in sorted(path for folder in folders if folder.is_dir() for path in folder.rglob("*.json")):
            audit = read_audit(path)
            other, _ = found.setdefault((audit.basis, audit.benchmark), (path, audit))
            if other != path:
                raise DataError(
                    f"two audits of {audit.benchmark} on the same kind of data ({audit.basis}): {other} and {path}",
                    fix="remove one",
                )
    return [audit for _, audit in found.values()]


def for_page(audits: Iterable[Audit], board: str, benchmark: str, records: Iterable[Record]) -> Shown | None:
    """What the page of a benchmark shows; None where nothing was measured.

    Args:
        audits: All there are.
        board: Name of the page's board: a sample's page has the sample's audit.
        records: Of this board.
    """
    track = parts_of(board).track
    wanted = [track, *(["definition"] if track in ("reproduced", "partial") else [])]
    mine = {audit.basis: audit for audit in audits if audit.benchmark == benchmark and audit.basis in wanted}
    audit = next((mine[basis] for basis in wanted if basis in mine), None)
    if audit is None:
        return None
    manifests = {record.data.manifest_hash for record in records if record.data and record.benchmark == benchmark}
    warnings = list(audit.faults)
    if audit.manifest and audit.manifest not in manifests:
        warnings.append("Measured on other data than the results of this page.")
    if audit.broken:
        warnings.append(f"{len(audit.broken)} chips could not be read.")
    shifted = [one for one in audit.pixels.classes if one.in_std is not None] if audit.pixels else []
    shifted.sort(key=lambda one: -(one.in_std or 0.0))
    return Shown(
        BASES[audit.basis], lines(audit), warnings, [(one.name, one.in_std or 0.0, one.angle) for one in shifted]
    )
