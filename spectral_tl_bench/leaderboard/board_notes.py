"""What a reader of a board must know: rows that were not run alike, or are not of the same classes or code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from spectral_tl_bench.leaderboard.measured import MeasuredRecord, choice_of, searched
from spectral_tl_bench.provenance import LIBRARIES
from spectral_tl_bench.results.schema import Record


def differing_settings(records: Iterable[MeasuredRecord]) -> str:
    """Which settings are not the same in all rows, as a sentence; empty where all are."""
    settings = {run.key: flat_settings(searched(run.record)[1]) for run in records}
    names = sorted({name for values in settings.values() for name in values})
    by_name = {name: sorted({values.get(name, "none") for values in settings.values()}) for name in names}
    listed = "; ".join(f"{name} is {' or '.join(values)}" for name, values in by_name.items() if len(values) > 1)
    if not listed:
        return ""
    return f"Not all rows were run with the same settings: {listed}. A rank takes no account of that."


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text, those of the budget as ``budget.steps`` and so on."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def mixed_choices(records: Iterable[MeasuredRecord]) -> list[str]:
    """Say where seeds of a tuned row were not run with the same choice."""
    choices: dict[tuple[str, str, str], set[str]] = {}
    for run in records:
        if run.record.tuning is not None:
            row = (run.record.benchmark, run.record.method, run.row)
            choices.setdefault(row, set()).add(choice_of(run.record))
    return [
        f"{benchmark}: the seeds of {method}, tuned, were run with several choices ({'; '.join(sorted(chosen))})."
        for (benchmark, method, _), chosen in sorted(choices.items())
        if len(chosen) > 1
    ]


def mixed_code(rows: Mapping[str, Mapping[str, Mapping[int, MeasuredRecord]]]) -> list[str]:
    """Say where results were not made by the same code: numerics within a row, libraries on the whole board."""
    notes = set()
    for group in rows.values():
        done = [run.record for by_seed in group.values() for run in by_seed.values() if run.completed]
        versions: dict[str, set[str]] = {}
        for record in done:
            for name, version in (record.numerics or {}).items():
                versions.setdefault(name, set()).add(version)
        mixed = {name: ", ".join(sorted(several)) for name, several in versions.items() if len(several) > 1}
        notes |= {
            f"{done[0].method}: its results come from several numerics versions of {name} ({several})."
            for name, several in mixed.items()
        }
    runs = [run for group in rows.values() for by_seed in group.values() for run in by_seed.values()]
    completed = [run.record for run in runs if run.completed]
    unknown = sum(record.identity() is None for record in completed)
    if unknown:
        notes.add(f"Of {unknown} of {len(completed)} results it is not known which code they belong to.")
    for name in LIBRARIES:
        several = {record.environment.get(name, "unknown") for record in completed}
        if len(several) > 1:
            notes.add(f"The results were made with several versions of {name}: {', '.join(sorted(several))}.")
    return sorted(notes)


def class_notes(records: Iterable[Record]) -> list[str]:
    """Say where a drop compares different lists of classes."""
    classes: dict[str, dict[bool, set[tuple[str, ...]]]] = {}
    for record in records:
        classes.setdefault(record.dataset, {}).setdefault(record.gap == "none", set()).add(record.classes)
    return [
        f"{dataset}: the in-domain reference has other classes than the benchmarks with a gap, so that the drop holds "
        "more than the gap."
        for dataset, sides in sorted(classes.items())
        if len(sides) == 2 and sides[True] != sides[False]
    ]
