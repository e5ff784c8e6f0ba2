"""Chips on two sides that are copies of each other, or nearly so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.data.audit.facts import Alike, Copies

NEAR = 0.97
"""From this correlation of their signatures on, two chips are taken for nearly the same."""
WORST = 10
"""Pairs that are named."""
SHOWN_FROM = 0.8
"""Pairs that are less alike are not worth a look."""
AT_ONCE = 512

Floats = NDArray[np.float32]


def find_copies(
    one: Sequence[str], other: Sequence[str], signatures: tuple[Floats, Floats], hashes: tuple[list[str], list[str]]
) -> Copies:
    """Pairs of chips of two sides that look alike.

    Args:
        one: Names of a side.
        other: Of the other.
        signatures: Of both, (N, D) and (M, D).
        hashes: Of their pixels; empty for those that are of one value.
    """
    exact = near = 0
    found: list[tuple[float, int, int, bool]] = []
    second = np.array(hashes[1], dtype=object)
    for start in range(0, len(one), AT_ONCE):
        alike = signatures[0][start : start + AT_ONCE] @ signatures[1].T
        first = np.array(hashes[0][start : start + AT_ONCE], dtype=object)
        same = (first[:, None] == second[None]) & (first != "")[:, None]
        exact, near = exact + int(same.sum()), near + int(((alike >= NEAR) & ~same).sum())
        alike[same] = 1.0
        lines, columns = np.nonzero(alike >= SHOWN_FROM)
        order = np.lexsort((columns, lines, -alike[lines, columns], ~same[lines, columns]))[:WORST]
        found += [
            (float(alike[i, j]), start + int(i), int(j), bool(same[i, j]))
            for i, j in zip(lines[order], columns[order], strict=True)
        ]
    found.sort(key=lambda pair: (not pair[3], -pair[0], pair[1], pair[2]))
    worst = tuple(
        Alike(one=one[i], other=other[j], exact=same, correlation=min(1.0, value))
        for value, i, j, same in found[:WORST]
    )
    return Copies(exact=exact, near=near, worst=worst)
