"""``stbench submit --check``: the results as a whole, down to the last file."""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.changes import Changes
from spectral_tl_bench.leaderboard.submit.check import Checked, Checker, flat
from spectral_tl_bench.leaderboard.submit.findings import Finding, any_refused, refused
from spectral_tl_bench.leaderboard.submit.intake import MEBIBYTE, read_bounded
from spectral_tl_bench.leaderboard.submit.place import STAGING, destination, files_of
from spectral_tl_bench.leaderboard.submit.text import name_problem, text_problem
from spectral_tl_bench.leaderboard.submit.together import case_clashes, check_together
from spectral_tl_bench.results.schema import Track
from spectral_tl_bench.results.store import RECORD_FILE

TRACKS: tuple[str, ...] = get_args(Track)
REPORTED = "reported"
_DEPTH = 4
_SHARED = re.compile(r"pictures-[0-9a-f]{16}")
_DOCUMENTS = ("README.md", ".gitkeep")


@dataclass
class Layout:
    """What lies below the results.

    Attributes:
        records: Folders of records.
        shared: Folders of drawn sample chips.
        reported: Tables of numbers from papers.
        files: All files, relative.
        findings: What has no place there.
    """

    records: list[Path] = field(default_factory=list)
    shared: list[Path] = field(default_factory=list)
    reported: list[Path] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class TreeCheck:
    """How a check of the results went.

    Attributes:
        checked: All records; those that did not change carry no findings of their own.
        findings: Everything that was found.
    """

    checked: tuple[Checked, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing has to be refused."""
        return not any_refused(self.findings)


def record_folders(results: Path) -> Iterator[Path]:
    """The folders on the level of records, without a look at anything else."""
    for track in TRACKS:
        yield from sorted(path.parent for path in results.glob(f"{track}/*/*/*/{RECORD_FILE}"))


def survey(results: Path) -> Layout:
    """Look at every file below the results.

    Raises:
        UserError: If there is no such folder.
    """
    if not results.is_dir():
        raise UserError("there are no results to check", where=results)
    found = Layout()
    _walk(results, results, found)
    paths = {part for name in found.files for part in _prefixes(name)}
    found.findings += [
        refused(name, f"differs from {other} in nothing but case") for name, other in case_clashes(paths)
    ]
    return found


def check_tree(results: Path, checker: Checker, changes: Changes | None = None, replace: bool = False) -> TreeCheck:
    """Check the results: layout, every record (or every changed one), and all of them together.

    Args:
        results: Root of the results.
        checker: What records are compared with.
        changes: What a pull request changes; None checks everything.
        replace: Whether records that were there already may be changed or removed.

    Raises:
        UserError: If there is no such folder.
    """
    from spectral_tl_bench.leaderboard.submit.drawn_chips import check_shared
    from spectral_tl_bench.leaderboard.submit.submit import card

    layout = survey(results)
    findings = list(layout.findings)
    if changes is not None and not replace:
        findings += [
            refused(
                name, "was on the leaderboard already and is changed or removed; a maintainer allows it with --replace"
            )
            for name in changes.touched
        ]
    names = {folder: folder.relative_to(results).as_posix() for folder in layout.records}
    new: list[Checked] = []
    old: list[Checked] = []
    for folder, where in names.items():
        if changes is None or where in changes.folders:
            new.append(checker.check(folder, where))
            findings += [*new[-1].findings, *_place(folder, new[-1])]
    benchmarks = {one.record.benchmark for one in new if one.record is not None}
    seen = {one.where for one in new}
    old = [card(folder, results, benchmarks) for folder, where in names.items() if where not in seen]
    findings += check_together(new, old)
    every = [one.record for one in [*new, *old] if one.record is not None and one.record.pictures is not None]
    with tempfile.TemporaryDirectory() as work:
        for number, folder in enumerate(layout.shared):
            owners = [one for one in every if one.benchmark == folder.parent.name and one.track == "sample"]
            redraw = Path(work, str(number)) if checker.samples.made else None
            findings += check_shared(folder, folder.relative_to(results).as_posix(), owners, redraw)
    for path in layout.reported:
        findings += _reported(path, path.relative_to(results).as_posix())
    return TreeCheck((*new, *old), tuple(findings))


def _walk(folder: Path, results: Path, found: Layout) -> None:
    depth = len(folder.relative_to(results).parts)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        where = path.relative_to(results).as_posix()
        if entry.is_symlink() or not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            found.findings.append(refused(where, "is a symbolic link, or no plain file"))
        elif entry.is_file(follow_symlinks=False):
            found.files.append(where)
            _file(path, where, depth, found)
        elif depth == 0 and entry.name.startswith(STAGING):
            found.findings.append(refused(where, "is left from a submission that was interrupted; remove it"))
        elif depth == 0 and entry.name == REPORTED:
            _walk(path, results, found)
        elif _stray_folder(where, depth, entry.name):
            found.findings.append(refused(where, _stray_folder(where, depth, entry.name)))
        elif depth == 2 and where.startswith("sample/") and _SHARED.fullmatch(entry.name):
            found.shared.append(path)
            found.files += sorted(f"{where}/{one.name}" for one in path.iterdir())
        elif depth == _DEPTH - 1:
            found.records.append(path)
            _walk(path, results, found)
        else:
            _walk(path, results, found)


def _stray_folder(where: str, depth: int, name: str) -> str | None:
    if depth == 0 and name not in TRACKS:
        return f"is no track; there are {', '.join(TRACKS)} and {REPORTED}"
    if depth >= _DEPTH or where.startswith(f"{REPORTED}/"):
        return "is a folder where none belongs"
    return name_problem(name)


def _file(path: Path, where: str, depth: int, found: Layout) -> None:
    if depth == 0 and path.name in _DOCUMENTS:
        return
    if depth == 1 and where.startswith(f"{REPORTED}/") and (path.suffix == ".csv" or path.name in _DOCUMENTS):
        if path.suffix == ".csv":
            found.reported.append(path)
        return
    if depth == _DEPTH:
        return  # looked at with its record
    found.findings.append(refused(where, "does not belong here; only records and their evidence do"))


def _place(folder: Path, one: Checked) -> list[Finding]:
    """A record's folder is what its content says, and holds nothing else."""
    if one.record is None:
        return []
    found = []
    wanted = destination(one.record).as_posix()
    if wanted != one.where:
        found.append(refused(one.where, f"its content says that it belongs to {wanted}"))
    allowed = {RECORD_FILE, *files_of(one.record)}
    found += [
        refused(f"{one.where}/{path.name}", "does not belong to the record beside it")
        for path in sorted(folder.iterdir())
        if path.name not in allowed
    ]
    return found


def _reported(path: Path, where: str) -> list[Finding]:
    try:
        lines = list(csv.reader(io.StringIO(read_bounded(path, MEBIBYTE).decode("utf-8"), newline="")))
    except UserError as error:
        return [refused(where, flat(error))]
    except (UnicodeDecodeError, csv.Error) as error:
        return [refused(where, f"is no CSV in UTF-8: {error}")]
    for number, line in enumerate(lines, start=1):
        for cell in line:
            problem = None if re.fullmatch(r"-?\d+(\.\d+)?", cell) else text_problem(cell, "a cell")
            if problem is not None:
                return [refused(where, f"line {number}: {problem}")]
    return []


def _prefixes(name: str) -> Iterator[str]:
    path = Path(name)
    yield name
    for parent in path.parents:
        if parent.parts:
            yield parent.as_posix()
