"""``docs/robustness.md`` names tests that are there."""

from __future__ import annotations

import re

from shared import REPOSITORY

TABLE = REPOSITORY / "docs" / "robustness.md"


def test_every_line_names_tests_that_are_there():
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if "`tests/" in line]
    assert len(rows) >= 80
    for row in rows:
        file = ""
        for place in re.findall(r"`(tests/[^`]*|::[^`]*)`", row.rsplit(" | ", 1)[1]):
            named, _, function = place.partition("::")
            file = named or file
            content = (REPOSITORY / file).read_text(encoding="utf-8")
            assert not function or f"def {function}(" in content, f"{place} of {row[:80]}"
