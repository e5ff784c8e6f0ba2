"""``stbench submit RUN...``: check records, then publish them among the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.check import Checked, Checker, flat
from spectral_tl_bench.leaderboard.submit.drawn_chips import draw_shared
from spectral_tl_bench.leaderboard.submit.findings import Finding, any_refused, refused, warning
from spectral_tl_bench.leaderboard.submit.intake import find_records
from spectral_tl_bench.leaderboard.submit.pairs import card, known_records, label, read_lines
from spectral_tl_bench.leaderboard.submit.place import pair_moves, put_in_place, stage_pair, stage_run, staging
from spectral_tl_bench.leaderboard.submit.text import shown
from spectral_tl_bench.leaderboard.submit.together import case_clashes, check_together, place_of
from spectral_tl_bench.results.published import pair_path
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE


@dataclass(frozen=True)
class Submission:
    """How a submission went.

    Attributes:
        checked: The records, in the order they were found.
        findings: All findings, of records and of the whole.
        placed: Files that were written or changed, relative to the results; none where anything was refused.
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
        runs: Records, their folders, published files, or stores.
        results: Root of the results.
        checker: What they are compared with.
        replace: Whether records of the same row, benchmark and seed are replaced.

    Raises:
        UserError: If a run does not exist, or the results cannot be written.
    """
    paths = list(dict.fromkeys(path for run in runs for path in find_records(run)))
    unique = {path.parent.resolve() / path.name: path for path in reversed(paths)}
    with staging(results) as work:
        checked = []
        for number, path in enumerate(reversed(unique.values())):
            checked += _staged(path, work / f"new-{number}", checker)
        benchmarks = {entry.record.benchmark for entry in checked if entry.record is not None}
        old = [card(entry, benchmarks) for entry in known_records(results)]
        replaced = _replaced(checked, old) if replace else []
        old = [entry for entry in old if entry not in replaced]
        findings = [finding for entry in checked for finding in entry.findings]
        new = [entry.record for entry in checked if entry.record is not None]
        findings += [_unreadable(entry, new) for entry in old if entry.record is None]
        findings += check_together(checked, old)
        stay, gone = _records(old), _records(replaced)
        findings += _clashes(new, stay)
        if not checked or any_refused(findings):
            return Submission(tuple(checked), tuple(findings), ())
        moves = draw_shared(new, results, work, findings)
        for number, place in enumerate(sorted({_place(record) for record in [*new, *gone]})):
            folder = work / f"pair-{number}"
            folder.mkdir()
            of_pair = [[record for record in records if _place(record) == place] for records in (stay, new, gone)]
            moves += pair_moves(of_pair[0], of_pair[1], bool(of_pair[2]), results / place, folder)
        put_in_place(moves, results, work)
        placed = dict.fromkeys(target.relative_to(results) for _, target in moves if target.exists())
        return Submission(tuple(checked), tuple(findings), tuple(placed))


def _staged(path: Path, copy: Path, checker: Checker) -> list[Checked]:
    """What is checked of a file that was named: a private copy of it."""
    if path.name == RECORD_FILE:
        where = shown(path.parent, 300)
        try:
            return [checker.check(stage_run(path, copy, checker.definitions), where)]
        except UserError as error:
            return [Checked(where, None, None, [refused(where, flat(error))])]
    where = shown(path, 300)
    try:
        lines = [entry for _, entry in read_lines(stage_pair(path, copy), where)]
    except UserError as error:
        return [Checked(where, None, None, [refused(where, flat(error))])]
    return [
        entry if entry.record is None else checker.check(entry.record, label(where, entry.record)) for entry in lines
    ]


def _place(record: Record) -> Path:
    return pair_path(Path(), record.track, record.method)


def _records(several: Sequence[Checked]) -> list[Record]:
    return [entry.record for entry in several if entry.record is not None]


def _unreadable(entry: Checked, new: Sequence[Record]) -> Finding:
    """A record of the leaderboard that cannot be read: it would be lost if its file were written again."""
    file = entry.where.partition(",")[0]
    if any(_place(record).as_posix() == file for record in new):
        return refused(entry.where, "cannot be read and would be lost if the file were written again; mend it first")
    return warning(entry.where, "is on the leaderboard but cannot be read")


def _replaced(new: Sequence[Checked], old: Sequence[Checked]) -> list[Checked]:
    places = {place_of(entry.record) for entry in new if entry.record is not None}
    prints = {entry.record.fingerprint[:16] for entry in new if entry.record is not None}
    return [
        entry
        for entry in old
        if entry.record is not None and (place_of(entry.record) in places or entry.record.fingerprint[:16] in prints)
    ]


def _clashes(new: Sequence[Record], old: Sequence[Record]) -> list[Finding]:
    mine = {_place(record).as_posix() for record in new}
    return [
        refused(name if name in mine else other, f"differs from {other if name in mine else name} in nothing but case")
        for name, other in case_clashes(mine | {_place(record).as_posix() for record in old})
        if name in mine or other in mine
    ]
