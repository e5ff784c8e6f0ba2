"""Which columns of a table say anything: one that is the same in every row becomes a sentence, or nothing."""

from __future__ import annotations

from collections.abc import Iterable

from spectral_tl_bench.leaderboard.frames import Fields

_PRINTED = 5e-5
"""Half a digit of what is printed."""


def telling(lines: Iterable[Fields]) -> tuple[frozenset[str], list[str]]:
    """Look at the columns that a table may leave out.

    Args:
        lines: Rows of a board, or entries.

    Returns:
        Names of those among ``release``, ``last``, ``oracle``, ``worst``, ``variants``, ``seeds`` and ``in_domain``
        that are not the same throughout, and what the others would have said, in sentences.
    """
    known = [line for line in lines if not line.get("is_floor") and line.get("miou", line.get("mean")) is not None]
    has, same = set(), []
    if _differ(known, "inflation", None):
        has.add("release")
    elif any(line.get("inflation") is not None for line in known):
        same.append("The metric of the SpectralX release gives the same numbers here.")
    has |= {name for name, column in (("last", "last"), ("worst", "worst_miou")) if _differ(known, column, "miou")}
    has |= {name for name in ("oracle", "in_domain") if any(line.get(name) is not None for line in known)}
    if any((line.get("variants") or 0) > 1 for line in known):
        has.add("variants")
    seeds = {line["seeds"] for line in known if line["seeds"]}
    if len(seeds) > 1:
        has.add("seeds")
    elif seeds:
        one = seeds.pop()
        same.append(f"All rows: seed{'s' if ',' in one else ''} {one}.")
    return frozenset(has), same


def _differ(lines: Iterable[Fields], column: str, other: str | None) -> bool:
    """Whether a column is ever printed unlike another one, or unlike 0."""
    pairs = [(line[column], line[other] if other else 0.0) for line in lines if column in line]
    return any(value is not None and abs(value - base) >= _PRINTED for value, base in pairs)
