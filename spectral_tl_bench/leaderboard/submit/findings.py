"""What was found wrong or odd with records, in words that are safe to print."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from spectral_tl_bench.leaderboard.submit.text import shown


@dataclass(frozen=True)
class Finding:
    """One reason to refuse a record, or one thing that a reader should look at.

    Attributes:
        level: ``refused`` or ``warning``.
        where: File or folder, as the user knows it.
        reason: One sentence or two. Text from records is quoted, cut and freed of what a terminal would act on.
    """

    level: Literal["refused", "warning"]
    where: str
    reason: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.level}: {self.where}: {self.reason}"


def refused(where: object, reason: object) -> Finding:
    """A reason to refuse."""
    return Finding("refused", shown(where, 300), shown(reason, 900))


def warning(where: object, reason: object) -> Finding:
    """Something to look at."""
    return Finding("warning", shown(where, 300), shown(reason, 900))


def any_refused(findings: Iterable[Finding]) -> bool:
    """Whether something must not go onto the leaderboard."""
    return any(finding.level == "refused" for finding in findings)
