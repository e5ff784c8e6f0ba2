"""How a check ended, in words for the author of a method."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["pass", "fail", "not applicable"]

OURS = ("spectral_tl_bench", "spectralx")
"""Packages of the suite; what went wrong is shown at the last line that is in neither of them nor in a library."""


@dataclass(frozen=True)
class Verdict:
    """How one check of a method ended.

    Attributes:
        check: Short name of the check.
        title: What is checked, in a few words.
        state: ``pass``, ``fail``, or ``not applicable``.
        reason: Why, where it is no pass; for a pass, a note where there is one.
        fix: What to do about a fail.
        seconds: How long it took.
    """

    check: str
    title: str
    state: State
    reason: str = ""
    fix: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line per part, for assertion messages."""
        text = f"{self.check}: {self.state}" + (f": {self.reason}" if self.reason else "")
        return f"{text}\n  to do: {self.fix}" if self.fix else text

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "check": self.check,
            "title": self.title,
            "state": self.state,
            "reason": self.reason,
            "fix": self.fix,
            "seconds": round(self.seconds, 3),
        }


class FailedCheckError(Exception):
    """What a check raises when a method does not pass it.

    Args:
        reason: What was found.
        fix: What to do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


class NotApplicableError(Exception):
    """What a check raises when it has nothing to look at; the message says why."""


def described(error: BaseException) -> str:
    """Kind and first line of an error, and the line of the method's own code that it came from."""
    text = (str(error).strip().splitlines() or ["(no message)"])[0][:300]
    where = line_of(error)
    return f"{type(error).__name__}: {text}" + (f" ({where})" if where else "")


def line_of(error: BaseException) -> str:
    """File and line of the innermost code that belongs neither to the suite nor to an installed library."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        folders = set(path.parts)
        if path.is_file() and not folders & {"site-packages", "dist-packages", *OURS} and not _standard(path):
            return f"{'/'.join(path.parts[-2:])}, line {frame.lineno}"
    return ""


def _standard(path: Path) -> bool:
    return path.is_relative_to(Path(traceback.__file__).parent)
