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
    readable = [one for one in new if one.record is not None]
    others = [one for one in old if one.record is not None]
    return [
        *_duplicates(readable, others),
        *_seeds(readable, others),
        *_divisions(readable, others),
        *_copies(readable, others),
        *_unranked(readable, others),
    ]


def _duplicates(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    found = []
    fingerprints: dict[str, Checked] = {}
    places: dict[Place, Checked] = {}
    for one in [*old, *new]:
        record = _record(one)
        first = fingerprints.setdefault(record.fingerprint[:16], one)
        if first is not one:
            found.append(
                refused(one.where, f"has the same fingerprint as {first.where}; --replace puts it in its place")
            )
            continue
        first = places.setdefault(place_of(record), one)
        if first is not one:
            found.append(
                refused(
                    one.where,
                    f"seed {record.seed} of this row on {record.benchmark} is already there, as {first.where}; "
                    "--replace puts the new one in its place",
                )
            )
    about = {one.where for one in new}
    return [finding for finding in found if finding.where in about]


def _seeds(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    rows: dict[tuple[str, RowKey], dict[str, set[int]]] = {}
    first: dict[tuple[str, RowKey], Checked] = {}
    for one in [*new, *old]:
        record = _record(one)
        row = (record.board, row_key(record))
        rows.setdefault(row, {}).setdefault(record.benchmark, set()).add(record.seed)
        first.setdefault(row, one)
    touched = {(_record(one).board, row_key(_record(one))) for one in new}
    found = []
    for row in sorted(touched):
        by_benchmark, one = rows[row], first[row]
        record = _record(one)
        every = set().union(*by_benchmark.values())
        for benchmark, seeds in sorted(by_benchmark.items()):
            if seeds != every:
                missing = ", ".join(map(str, sorted(every - seeds)))
                found.append(
                    refused(one.where, f"{record.method} lacks seed {missing} on {benchmark}, which it has elsewhere")
                )
        lacking = sorted(SEEDS.get(record.track, frozenset()) - every)
        if lacking:
            needed = ", ".join(map(str, sorted(SEEDS[record.track])))
            found.append(
                refused(
                    one.where,
                    f"{record.method} lacks seed {', '.join(map(str, lacking))}; "
                    f"the track {record.track} needs {needed}",
                )
            )
        elif every != set(range(len(every))):
            listed = ", ".join(map(str, sorted(every)))
            found.append(
                warning(one.where, f"{record.method} has the seeds {listed}, not the first {len(every)}: chosen?")
            )
        elif len(every) < USUAL_SEEDS:
            found.append(warning(one.where, f"{record.method} has {len(every)} of the {USUAL_SEEDS} usual seeds"))
    return found


def _divisions(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """Two records of the same data and seed have the same division, whichever method they are of."""
    known: dict[tuple[str, str, str, int], tuple[str, str]] = {}
    found = []
    for one in [*old, *new]:
        record = _record(one)
        if record.data is None:
            continue
        key = (record.benchmark, record.benchmark_version, record.data.manifest_hash, record.seed)
        digest, where = known.setdefault(key, (record.data.split_hash, one.where))
        if digest != record.data.split_hash:
            found.append(
                refused(
                    one.where, f"its division of the chips is another than that of {where}, of the same data and seed"
                )
            )
    return found


def _copies(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """Equal confusion matrices of different runs; such as predict one class everywhere prove nothing."""
    known: dict[tuple[str, str], Checked] = {}
    found = []
    for one in [*old, *new]:
        record = _record(one)
        if one.matrices is None or one.matrices.constant:
            continue
        first = known.setdefault((record.benchmark, one.matrices.digest), one)
        if first is one:
            continue
        other = _record(first)
        same = f"its confusion matrices are those of {first.where}"
        if record.method != other.method:
            found.append(refused(one.where, f"{same}, of another method: a copied result"))
        elif record.seed != other.seed and _trained(record):
            found.append(refused(one.where, f"{same}, of another seed: a copied result, or a seed that does not act"))
        elif record.seed == other.seed and place_of(record) != place_of(other):
            found.append(warning(one.where, f"{same}, of other options or settings, which then do not act"))
    return found


def _unranked(new: Sequence[Checked], old: Sequence[Checked]) -> list[Finding]:
    """The first record of a benchmark takes the rank from all rows that lack it, even where it is of a failure."""
    known: dict[str, set[str]] = {}
    for one in old:
        known.setdefault(_record(one).board, set()).add(_record(one).benchmark)
    found = []
    for one in new:
        record = _record(one)
        here = known.get(record.board)
        if here is not None and record.benchmark not in here and record.gap != "none":
            here.add(record.benchmark)
            reason = f"is the first of {record.benchmark} on the board {record.board}: rows without it lose their rank"
            found.append(warning(one.where, reason))
    return found


def _trained(record: Record) -> bool:
    """Whether a seed must show: not where the module is set in closed form."""
    return record.parameters is not None and record.parameters.trainable > 0 and any(s.steps > 1 for s in record.stages)


def _record(one: Checked) -> Record:
    if one.record is None:
        raise ValueError(f"{one.where} has no readable record")
    return one.record


def case_clashes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of paths that are one and the same where case does not count."""
    seen: dict[str, str] = {}
    clashes = []
    for name in sorted(names):
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            clashes.append((name, first))
    return clashes
