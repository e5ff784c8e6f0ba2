"""``stbench submit RUN...``: check records, then copy them into the results."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.check import (
    Checked,
    Checker,
    Matrices,
    flat,
    load,
    matrices_of,
    read_evidence,
)
from spectral_tl_bench.leaderboard.submit.drawn_chips import draw_shared
from spectral_tl_bench.leaderboard.submit.findings import Finding, any_refused, refused, warning
from spectral_tl_bench.leaderboard.submit.intake import find_records
from spectral_tl_bench.leaderboard.submit.place import destination, put_in_place, stage, staging
from spectral_tl_bench.leaderboard.submit.text import shown
from spectral_tl_bench.leaderboard.submit.together import case_clashes, check_together, place_of
from spectral_tl_bench.leaderboard.submit.tree import record_folders


@dataclass(frozen=True)
class Submission:
    """How a submission went.

    Attributes:
        checked: The records, in the order they were found.
        findings: All findings, of records and of the whole.
        placed: Folders that were put into the results, relative to these; none where anything was refused.
    """

    checked: tuple[Checked, ...]
    findings: tuple[Finding, ...]
    placed: tuple[Path, ...]

    @property
    def ok(self) -> bool:
        """Whether the records are on the leaderboard."""
        return not any_refused(self.findings)


def submit(runs: Sequence[Path], results: Path, checker: Checker, replace: bool = False) -> Submission:
    """Check records and put them into the results, all or none.

    Args:
        runs: Records, their folders, or stores.
        results: Root of the results.
        checker: What they are compared with.
        replace: Whether records of the same row, benchmark and seed are replaced.

    Returns:
        What was found, and what was placed.

    Raises:
        UserError: If a run does not exist, or the results cannot be written.
    """
    paths = list(dict.fromkeys(path for run in runs for path in find_records(run)))
    unique = {path.parent.resolve() / path.name: path for path in reversed(paths)}
    with staging(results) as work:
        checked, staged = [], {}
        for number, path in enumerate(reversed(unique.values())):
            where = shown(path.parent, 300)
            copy = work / f"new-{number}"
            try:
                stage(path, copy)
            except UserError as error:
                checked.append(Checked(where, None, None, [refused(where, flat(error))]))
                continue
            checked.append(checker.check(copy, where))
            staged[where] = copy
        benchmarks = {one.record.benchmark for one in checked if one.record is not None}
        old = [card(folder, results, benchmarks) for folder in record_folders(results)]
        replaced = _replaced(checked, old) if replace else []
        old = [one for one in old if one not in replaced]
        findings = [finding for one in checked for finding in one.findings]
        findings += [
            warning(one.where, "is on the leaderboard but cannot be read") for one in old if one.record is None
        ]
        findings += check_together(checked, old)
        folders = {destination(one.record): staged[one.where] for one in checked if one.record and one.where in staged}
        findings += _clashes(list(folders), [Path(one.where) for one in old])
        if not checked or any_refused(findings):
            return Submission(tuple(checked), tuple(findings), ())
        gone = [Path(one.where) for one in replaced]
        folders |= draw_shared(folders, results, work, findings)
        put_in_place(folders, gone, results, work)
        return Submission(tuple(checked), tuple(findings), tuple(folders))


def card(folder: Path, results: Path, benchmarks: set[str]) -> Checked:
    """A record that is on the leaderboard already, not checked again.

    Args:
        folder: Its folder.
        results: Root of the results.
        benchmarks: Benchmarks whose evidence is looked at, to find copies.
    """
    where = folder.relative_to(results).as_posix()
    try:
        record = load(folder)
    except UserError:
        return Checked(where, None)
    matrices: Matrices | None = None
    if record.benchmark in benchmarks and record.status == "completed":
        with contextlib.suppress(UserError):  # what is wrong with it is told by --check
            matrices = matrices_of(read_evidence(record))
    return Checked(where, record, matrices)


def _replaced(new: Sequence[Checked], old: Sequence[Checked]) -> list[Checked]:
    places = {place_of(one.record) for one in new if one.record is not None}
    prints = {one.record.fingerprint[:16] for one in new if one.record is not None}
    return [
        one
        for one in old
        if one.record is not None and (place_of(one.record) in places or one.record.fingerprint[:16] in prints)
    ]


def _clashes(new: Sequence[Path], old: Sequence[Path]) -> list[Finding]:
    every = {part.as_posix() for path in [*new, *old] for part in (path, *path.parents)}
    mine = {part.as_posix() for path in new for part in (path, *path.parents)}
    return [
        refused(name if name in mine else other, f"differs from {other if name in mine else name} in nothing but case")
        for name, other in case_clashes(every)
        if name in mine or other in mine
    ]
