"""``stbench submit --check``: the results as a whole, down to the last file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.changes import Changes
from spectral_tl_bench.leaderboard.submit.check import Checked, Checker, flat, read_evidence
from spectral_tl_bench.leaderboard.submit.drawn_chips import check_shared
from spectral_tl_bench.leaderboard.submit.findings import Finding, any_refused, refused
from spectral_tl_bench.leaderboard.submit.intake import MEBIBYTE, bound_picture, read_bounded
from spectral_tl_bench.leaderboard.submit.pairs import card, read_lines
from spectral_tl_bench.leaderboard.submit.place import STAGING
from spectral_tl_bench.leaderboard.submit.text import name_problem, quoted, text_problem
from spectral_tl_bench.leaderboard.submit.together import case_clashes, check_together
from spectral_tl_bench.results.published import CHIPS, LINES, ROWS, Pair, pair_path, place_in_pair, record_line
from spectral_tl_bench.results.schema import TRACKS

REPORTED = "reported"
_DOCUMENTS = ("README.md", ".gitkeep")


@dataclass
class Layout:
    """What lies below the results.

    Attributes:
        line_files: Those of published pairs.
        shared: Folders of drawn sample chips.
        reported: Tables of numbers from papers.
        files: All files, relative.
        findings: What has no place there.
    """

    line_files: list[Path] = field(default_factory=list)
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


def survey(results: Path) -> Layout:
    """Look at every file below the results.

    Raises:
        UserError: If there is no such folder.
    """
    if not results.is_dir():
        raise UserError("there are no results to check", where=results)
    layout = Layout()
    _walk(results, results, layout)
    paths = {part for name in layout.files for part in _prefixes(name)}
    layout.findings += [
        refused(name, f"differs from {other} in nothing but case") for name, other in case_clashes(paths)
    ]
    return layout


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
    layout = survey(results)
    findings = list(layout.findings)
    new: list[Checked] = []
    others: list[Checked] = []
    lines_here: dict[str, set[bytes]] = {}
    for path in layout.line_files:
        name = path.relative_to(results).as_posix()
        try:
            lines = read_lines(path, name)
            findings += _order(lines, Pair(path), name)
        except UserError as error:
            findings.append(refused(name, flat(error)))
            continue
        lines_here[name] = {line for line, _ in lines}
        before = set(changes.before.get(name, [line for line, _ in lines])) if changes is not None else set()
        for line, entry in lines:
            if line in before:
                others.append(entry)
                findings += _kept(entry) if changes is not None and name in changes.before else []
                continue
            new.append(entry if entry.record is None else checker.check(entry.record, entry.where))
            findings += new[-1].findings
    if changes is not None and not replace:
        findings += _touched(changes, lines_here)
    benchmarks = {entry.record.benchmark for entry in new if entry.record is not None}
    old = [card(entry, benchmarks) for entry in others]
    findings += check_together(new, old)
    findings += _shared(layout, [*new, *old], checker, results)
    for path in layout.reported:
        findings += _reported(path, path.relative_to(results).as_posix())
    return TreeCheck((*new, *old), tuple(findings))


def _order(lines: Sequence[tuple[bytes, Checked]], pair: Pair, name: str) -> list[Finding]:
    """A pair holds records of its own track and method alone, as they are written, and no rows besides."""
    records = [entry.record for _, entry in lines if entry.record is not None]
    findings = []
    for line, entry in lines:
        if entry.record is None:
            continue
        wanted = pair_path(Path(), entry.record.track, entry.record.method).as_posix()
        if wanted != name:
            findings.append(refused(entry.where, f"its content says that it belongs to {wanted}"))
        elif line.decode("utf-8") != record_line(entry.record):
            findings.append(refused(entry.where, "its line is not written as `stbench submit` writes it"))
    if records != sorted(records, key=place_in_pair):
        findings.append(refused(name, "its records are not in the order of benchmark, seed and fingerprint"))
    if len(records) == len(lines):
        strays = set(pair.groups()) - {record.fingerprint for record in records if record.evidence is not None}
        if strays:
            findings.append(refused(pair.rows.name, f"holds rows of no record: {quoted(min(strays))}; submit again"))
    return findings


def _kept(entry: Checked) -> list[Finding]:
    """A record that was there before: its line has not changed, so its evidence and picture must not have either."""
    if entry.record is None or entry.record.evidence is None:
        return entry.findings
    try:
        read_evidence(entry.record)
        picture = bound_picture(entry.record)
    except UserError as error:
        return [refused(entry.where, flat(error))]
    named = entry.record.pictures
    if picture is not None and named is not None and hashlib.sha256(picture).hexdigest() != named.sha256:
        return [refused(entry.where, "the picture is not the one that the record was written with")]
    return []


def _touched(changes: Changes, lines: dict[str, set[bytes]]) -> list[Finding]:
    findings = []
    for name, before in changes.before.items():
        for line in before:
            if line not in lines.get(name, ()):
                what = quoted(json.loads(line).get("fingerprint", "")[:16])
                reason = (
                    "was on the leaderboard already and is changed or removed; a maintainer allows it with --replace"
                )
                findings.append(refused(f"{name} ({what})", reason))
    return findings


def _shared(layout: Layout, every: Sequence[Checked], checker: Checker, results: Path) -> list[Finding]:
    shown = [entry.record for entry in every if entry.record is not None and entry.record.pictures is not None]
    owners = [record for record in shown if record.track == "sample"]
    findings = []
    with tempfile.TemporaryDirectory() as work:
        for number, folder in enumerate(layout.shared):
            redraw = Path(work, str(number)) if checker.samples.made else None
            findings += check_shared(folder, folder.relative_to(results).as_posix(), owners, redraw)
    return findings


def _walk(folder: Path, results: Path, layout: Layout) -> None:
    depth = len(folder.relative_to(results).parts)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        where = path.relative_to(results).as_posix()
        if entry.is_symlink() or not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            layout.findings.append(refused(where, "is a symbolic link, or no plain file"))
        elif entry.is_file(follow_symlinks=False):
            layout.files.append(where)
            _file(path, where, depth, layout)
        elif depth == 0 and entry.name.startswith(STAGING):
            layout.findings.append(refused(where, "is left from a submission that was interrupted; remove it"))
        elif depth == 0 and entry.name not in (*TRACKS, REPORTED):
            reason = f"is no track; there are {', '.join(TRACKS)} and {REPORTED}"
            layout.findings.append(refused(where, reason))
        elif depth == 0 or where == f"sample/{CHIPS}":
            _walk(path, results, layout)
        elif depth == 2 and where.startswith(f"sample/{CHIPS}/") and name_problem(entry.name) is None:
            layout.shared.append(path)
            layout.files += sorted(f"{where}/{file.name}" for file in path.iterdir())
        else:
            layout.findings.append(refused(where, "is a folder where none belongs"))


def _file(path: Path, where: str, depth: int, layout: Layout) -> None:
    reported = where.startswith(f"{REPORTED}/")
    if (depth == 0 or reported) and path.name in _DOCUMENTS:
        return
    if depth == 1 and reported and path.suffix == ".csv":
        layout.reported.append(path)
        return
    if depth == 1 and not reported and path.suffix in (LINES, ROWS):
        problem = name_problem(path.stem)
        other = path.with_name(path.stem + (ROWS if path.suffix == LINES else LINES))
        if problem is None and not other.is_file():
            problem = f"stands alone; {other.name} belongs to it"
        if problem is not None:
            layout.findings.append(refused(where, problem))
        elif path.suffix == LINES:
            layout.line_files.append(path)
        return
    layout.findings.append(refused(where, "does not belong here; only records and their evidence do"))


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
