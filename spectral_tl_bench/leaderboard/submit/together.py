"""What can be said about records only together: seeds, divisions, duplicates, copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spectral_tl_bench.leaderboard.measured import RowKey, row_key
from spectral_tl_bench.leaderboard.submit.check import Checked
from spectral_tl_bench.leaderboard.submit.findings import Finding, refused, warning
from spectral_tl_bench.leaderboard.submit.rules import SEEDS, USUAL_SEEDS
from spectral_tl_bench.results.schema import Record

Place = tuple[str, str, RowKey, int]
"""Board, benchmark, row and seed: where a record stands."""


def place_of(record: Record) -> Place:
    """Where a record stands; two records cannot stand there."""
    return record.board, record.benchmark, row_key(record), record.seed


def check_together(new: Sequence[Checked], old: Sequence[Checked] = ()) -> list[Finding]:
    """Compare records with each other.

    Args:
        new: The records that findings are about.
        old: Records that stand on the leaderboard already and stay there.
    """
    readable = [entry for entry in new if entry.record is not None]
    others = [entry for entry in old if entry.record is not None]
    return [
        *_duplicates(readable, others),
        *_seeds(readable, others),
        *_divisions(readable, others),
        *_searches(readable, others),
        *_copies(readable, others),
        *_unranked(readable, others),
    ]


def _duplicates(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    findings = []
    fingerprints: dict[str, Checked] = {}
    places: dict[Place, Checked] = {}
    for entry in [*old, *new]:
        record = _record(entry)
        first = fingerprints.setdefault(record.fingerprint[:16], entry)
        if first is not entry:
            findings.append(
                refused(entry.where, f"has the same fingerprint as {first.where}; --replace puts it in its place")
            )
            continue
        first = places.setdefault(place_of(record), entry)
        if first is not entry:
            findings.append(
                refused(
                    entry.where,
                    f"seed {record.seed} of this row on {record.benchmark} is already there, as {first.where}; "
                    "--replace puts the new one in its place",
                )
            )
    about = {entry.where for entry in new}
    return [finding for finding in findings if finding.where in about]


def _seeds(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    rows: dict[tuple[str, RowKey], dict[str, set[int]]] = {}
    first: dict[tuple[str, RowKey], Checked] = {}
    for entry in [*new, *old]:
        record = _record(entry)
        row = (record.board, row_key(record))
        rows.setdefault(row, {}).setdefault(record.benchmark, set()).add(record.seed)
        first.setdefault(row, entry)
    touched = {(_record(entry).board, row_key(_record(entry))) for entry in new}
    findings = []
    for row in sorted(touched):
        by_benchmark, entry = rows[row], first[row]
        record = _record(entry)
        every = set().union(*by_benchmark.values())
        for benchmark, seeds in sorted(by_benchmark.items()):
            if seeds != every:
                missing = ", ".join(map(str, sorted(every - seeds)))
                findings.append(
                    refused(entry.where, f"{record.method} lacks seed {missing} on {benchmark}, which it has elsewhere")
                )
        lacking = sorted(SEEDS.get(record.track, frozenset()) - every)
        if lacking:
            needed = ", ".join(map(str, sorted(SEEDS[record.track])))
            findings.append(
                refused(
                    entry.where,
                    f"{record.method} lacks seed {', '.join(map(str, lacking))}; "
                    f"the track {record.track} needs {needed}",
                )
            )
        elif every != set(range(len(every))):
            listed = ", ".join(map(str, sorted(every)))
            findings.append(
                warning(entry.where, f"{record.method} has the seeds {listed}, not the first {len(every)}: chosen?")
            )
        elif len(every) < USUAL_SEEDS:
            findings.append(warning(entry.where, f"{record.method} has {len(every)} of the {USUAL_SEEDS} usual seeds"))
    return findings


def _divisions(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """Two records of the same data and seed have the same division, whichever method they are of."""
    known: dict[tuple[str, str, str, int], tuple[str, str]] = {}
    findings = []
    for entry in [*old, *new]:
        record = _record(entry)
        if record.data is None:
            continue
        key = (record.benchmark, record.benchmark_version, record.data.manifest_hash, record.seed)
        digest, where = known.setdefault(key, (record.data.split_hash, entry.where))
        if digest != record.data.split_hash:
            findings.append(
                refused(
                    entry.where, f"its division of the chips is another than that of {where}, of the same data and seed"
                )
            )
    return findings


def _searches(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """The seeds of a tuned row stem from one search on each benchmark: a search for each seed would be a larger one."""
    known: dict[tuple[str, str, RowKey], Checked] = {}
    findings = []
    for entry in [*old, *new]:
        record = _record(entry)
        if record.tuning is None:
            continue
        first = known.setdefault((record.board, record.benchmark, row_key(record)), entry)
        if _record(first).tuning != record.tuning:
            reason = f"its draws are not those of {first.where}, another seed of the same tuned row"
            findings.append(refused(entry.where, reason))
    return findings


def _copies(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """Equal confusion matrices of different runs; such as predict one class everywhere prove nothing."""
    known: dict[tuple[str, str], Checked] = {}
    findings = []
    for entry in [*old, *new]:
        record = _record(entry)
        if entry.matrices is None or entry.matrices.constant:
            continue
        first = known.setdefault((record.benchmark, entry.matrices.digest), entry)
        if first is entry:
            continue
        other = _record(first)
        same = f"its confusion matrices are those of {first.where}"
        if record.method != other.method:
            findings.append(refused(entry.where, f"{same}, of another method: a copied result"))
        elif record.seed != other.seed and _trained(record):
            findings.append(
                refused(entry.where, f"{same}, of another seed: a copied result, or a seed that does not act")
            )
        elif record.seed == other.seed and place_of(record) != place_of(other):
            findings.append(warning(entry.where, f"{same}, of other options or settings, which then do not act"))
    return findings


def _unranked(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """The first record of a benchmark takes the rank from all rows that lack it, even where it is of a failure."""
    known: dict[str, set[str]] = {}
    for entry in old:
        known.setdefault(_record(entry).board, set()).add(_record(entry).benchmark)
    findings = []
    for entry in new:
        record = _record(entry)
        benchmarks = known.get(record.board)
        if benchmarks is not None and record.benchmark not in benchmarks and record.gap != "none":
            benchmarks.add(record.benchmark)
            reason = f"is the first of {record.benchmark} on the board {record.board}: rows without it lose their rank"
            findings.append(warning(entry.where, reason))
    return findings


def _trained(record: Record) -> bool:
    """Whether a seed must show: not where the module is set in closed form."""
    return record.parameters is not None and record.parameters.trainable > 0 and any(s.steps > 1 for s in record.stages)


def _record(entry: Checked) -> Record:
    if entry.record is None:
        raise ValueError(f"{entry.where} has no readable record")
    return entry.record


def case_clashes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of paths that are one and the same where case does not count."""
    seen: dict[str, str] = {}
    clashes = []
    for name in sorted(names):
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            clashes.append((name, first))
    return clashes
