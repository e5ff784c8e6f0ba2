"""Writes golden values whose numerics version has been raised: ``python tests/golden/write.py [COMPONENT ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests share

from cases import CASES
from golden import RefusedError, write


def main(names: list[str]) -> int:
    """Write the named components, or all; gives the exit code."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        sys.stderr.write(f"error: there is no component {unknown[0]!r}; there are {', '.join(CASES)}\n")
        return 2
    refused = 0
    for name in names or CASES:
        try:
            if write(CASES[name]):
                sys.stdout.write(f"written: {CASES[name].path.name}\n")
        except RefusedError as error:
            refused += 1
            sys.stderr.write(f"refused: {error}\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
