"""All that can be said about one record by itself."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.source import SYNTHETIC
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.files import digest
from spectral_tl_bench.leaderboard.submit.definitions import Definitions, disagreements
from spectral_tl_bench.leaderboard.submit.findings import Finding, any_refused, refused, warning
from spectral_tl_bench.leaderboard.submit.identities import check_environment, check_identity
from spectral_tl_bench.leaderboard.submit.intake import bound_evidence, bound_picture, check_json
from spectral_tl_bench.leaderboard.submit.measured import SampleTruths
from spectral_tl_bench.leaderboard.submit.png import check_picture
from spectral_tl_bench.leaderboard.submit.rules import breaches
from spectral_tl_bench.leaderboard.submit.text import name_problem, quoted, strings, text_problem
from spectral_tl_bench.leaderboard.submit.truth import Truth, check_against, check_split, same_pixels
from spectral_tl_bench.results.evidence import Evidence
from spectral_tl_bench.results.location import Location
from spectral_tl_bench.results.reading import parse_record
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import check_scores, load_evidence

_HOME = re.compile(r"(^|[\s'\"=:])(/home/|/Users/|/root/|[A-Za-z]:\\)")
_CLOCKS = timedelta(days=1)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Matrices:
    """What identifies a result among others.

    Attributes:
        digest: Of the selected checkpoint's confusion matrices, chip by chip.
        constant: Whether every pixel was predicted as the same class, so that equal results prove nothing.
    """

    digest: str
    constant: bool


@dataclass(frozen=True)
class Checked:
    """A record and what was found.

    Attributes:
        where: Its name, as the user knows it.
        record: None where it cannot be read.
        matrices: None where there are none, or they were not looked at.
        findings: In the order of the checks.
    """

    where: str
    record: Record | None
    matrices: Matrices | None = None
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Checker:
    """What records are compared with.

    Attributes:
        truths: Ground truth by benchmark, version and manifest.
        samples: Ground truth of the sample as it is made here.
    """

    definitions: Definitions
    truths: dict[tuple[str, str, str], Truth]
    samples: SampleTruths

    def check(self, record: Record, where: str) -> Checked:
        """Check a stored record, as ``load`` reads it."""
        try:
            return self._check(record, where)
        except Exception as error:  # whatever a record that was made to break this breaks: it is not taken
            return Checked(where, record, None, [refused(where, f"cannot be checked: {type(error).__name__}: {error}")])

    def _check(self, record: Record, where: str) -> Checked:
        findings = [refused(where, problem) for problem in _names(record)]
        findings += check_environment(record, where)
        findings += [
            warning(where, f"key {quoted(key)} holds a path of a machine: {quoted(text)}")
            for key, text in _paths(record)
        ]
        try:
            benchmark = self.definitions.of(record)
        except RecordError as error:
            return Checked(where, record, None, [*findings, refused(where, flat(error))])
        findings += [refused(where, problem) for problem in disagreements(record, benchmark)]
        matrices = None
        if not any_refused(findings):
            truth, notes = self._truth(record, where)
            findings += notes
            findings += [refused(where, problem) for problem in breaches(record, truth.chip_side if truth else None)]
            findings += [refused(where, problem) for problem in _track(record)]
            if truth is not None:
                findings += [refused(where, problem) for problem in check_split(record, truth)]
                if record.seed not in truth.by_seed:
                    kept = f"{min(truth.by_seed)} to {max(truth.by_seed)}" if truth.by_seed else "none"
                    reason = f"no division is kept for seed {record.seed}; those of seeds {kept} can be checked"
                    findings.append(refused(where, reason))
            if record.status == "completed":
                matrices, problems = _evidence(record, benchmark, truth)
                findings += [refused(where, problem) for problem in problems]
            if not any_refused(findings):
                findings += check_identity(record, benchmark, where)
        return Checked(where, record, matrices, findings)

    def _truth(self, record: Record, where: str) -> tuple[Truth | None, list[Finding]]:
        truth, findings = self._find_truth(record, where)
        if truth is not None and record.data is not None and truth.kind != record.data.kind:
            # The sample's ground truth is kept, too: synthetic scenes must not pass for published data with it.
            kinds = {"sample": "synthetic scenes", "files": "files"}
            reason = f"key 'data.kind' says {kinds[record.data.kind]}, but its data are {kinds[truth.kind]}"
            return None, [*findings, refused(where, reason)]
        return truth, findings

    def _find_truth(self, record: Record, where: str) -> tuple[Truth | None, list[Finding]]:
        if record.data is None:
            return None, []
        manifest = record.data.manifest_hash
        kept = self.truths.get((record.benchmark, record.benchmark_version, manifest))
        sample = self.samples.get(record.benchmark) if record.track == "sample" else None
        if sample is not None:
            if manifest == sample.manifest:
                return sample, []
            if kept is None or same_pixels(kept, sample):
                note = "the pixels of its sample differ from those that are made here; the ground truth is compared"
                return sample, [warning(where, note)]
            return sample, [refused(where, "its ground truth is not that of the sample as it is made here")]
        if kept is not None:
            return kept, []
        known = [key for key in self.truths if key[0] == record.benchmark]
        reason = "no ground truth of its data is known"
        if known:
            reason += f" (manifest {quoted(manifest[:16])}; known: {', '.join(sorted(key[2][:16] for key in known))})"
        todo = f"stbench submit --write-truth {record.benchmark} --data-root FOLDER"
        return None, [
            refused(
                where,
                f"{reason}; where the data are, run `{todo}` and send its files first: a maintainer confirms them",
            )
        ]


def load(content: bytes, location: Location, where: object) -> Record:
    """Read a record after its depth and texts were looked at; its evidence is not opened.

    Args:
        content: Its JSON, whose size was looked at before.
        location: Where it is stored.

    Raises:
        RecordError: If it cannot be taken.
    """
    value = check_json(content, where)
    for key, text in strings(value):
        problem = text_problem(text, key)
        if problem is not None:
            raise RecordError(problem)
    return parse_record(content.decode("utf-8"), where).at(location)


def read_evidence(record: Record) -> Evidence:
    """The evidence of a stored record, after it was made sure that it does not burst.

    Raises:
        RecordError: If it is missing, was changed, or does not fit the record.
    """
    bound_evidence(record)
    return load_evidence(record)


def matrices_of(evidence: Evidence) -> Matrices:
    """What identifies the result that evidence holds."""
    selected = evidence.matrices["selected"]
    predicted = selected.sum(axis=(0, 1))
    content = hashlib.sha256(selected.astype("<i8").tobytes()).hexdigest()
    return Matrices(digest(evidence.chips, content), int((predicted > 0).sum()) <= 1)


def _paths(record: Record) -> list[tuple[str, str]]:
    """Texts that tell where somebody's files are, which need not be published."""
    return [(key, text) for key, text in strings(record.model_dump(mode="json")) if _HOME.search(text)][:1]


def _names(record: Record) -> list[str]:
    problems = [name_problem(name) for name in (record.benchmark, record.method, record.fingerprint[:16])]
    return [problem for problem in problems if problem is not None]


def _track(record: Record) -> list[str]:
    problems = []
    if record.track == "sample" and record.statement != SYNTHETIC:
        problems.append("key 'statement' of a record of synthetic scenes is not the sentence that the suite writes")
    if record.track != "sample" and record.statement is not None:
        problems.append("key 'statement' is for synthetic scenes alone")
    if record.created > datetime.now(UTC) + _CLOCKS:
        problems.append(f"key 'created' is {record.created:%Y-%m-%d}, which is yet to come")
    return problems


def _evidence(record: Record, benchmark: Benchmark, truth: Truth | None) -> tuple[Matrices | None, list[str]]:
    problems: list[str] = []
    try:
        evidence = read_evidence(record)
        problems += _texts(evidence)
        if truth is not None:
            problems += check_against(record, evidence, truth)
        blocks = check_scores(record, evidence)
        if "oracle" in blocks and blocks["oracle"].miou < max(blocks["selected"].miou, blocks["last"].miou) - _ROUNDING:
            problems.append("its oracle is worse on the target than another checkpoint, of which it is the best")
        picture = bound_picture(record)
        if picture is not None and record.pictures is not None:
            check_picture(picture, record.pictures, benchmark, record.path)
            strange = set(record.pictures.chips) - set(evidence.chips)
            if strange:
                problems.append(f"the picture shows {quoted(min(strange))}, which is not a chip of the target")
    except RecordError as error:
        return None, [*problems, flat(error)]
    return matrices_of(evidence), problems


def _texts(evidence: Evidence) -> list[str]:
    different = {("chip", text) for text in evidence.chips}
    different |= {("domain", text) for text in evidence.domains} | {("site", text) for text in evidence.sites}
    problems = (text_problem(text, f"evidence.{name}") for name, text in sorted(different))
    return [problem for problem in problems if problem is not None][:3]


def flat(error: UserError) -> str:
    """An error for people on one line, without the path that the finding names anyway."""
    parts = [error.what]
    if error.expected:
        parts.append(f"expected: {error.expected}")
    if error.fix:
        parts.append(f"to do: {error.fix}")
    return "; ".join(parts)
