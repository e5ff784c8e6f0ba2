"""The wish that work stops where it can go on later: asked for by a signal, granted between two steps of training.

A signal only sets a flag: what is written inside a signal's handler may be torn, or wait for a lock for ever.
"""

from __future__ import annotations

EXIT_CODE = 75
"""Of a command that has paused, and goes on when it is given again: that of sysexits.h for what may be tried again."""

_asked = False


class Paused(BaseException):
    """Work has stopped, and what it needs to go on is stored: no error of anything that runs."""


def ask() -> None:
    """Have work stop at the next step; it may be called in a signal's handler, and more than once."""
    global _asked  # noqa: PLW0603
    _asked = True


def asked() -> bool:
    """Whether somebody has asked."""
    return _asked


def clear() -> None:
    """Forget it, before other work begins."""
    global _asked  # noqa: PLW0603
    _asked = False


def check() -> None:
    """Stop here, where nothing is lost by it.

    Raises:
        Paused: If somebody has asked.
    """
    if _asked:
        raise Paused
