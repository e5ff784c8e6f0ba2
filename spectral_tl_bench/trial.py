"""Foreign code tried in a copy of this process first: what it does to its process is then known, and harmless."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds that the code may take."""


def fate_of(action: Callable[[], object], patience: float = PATIENCE) -> str:
    """What becomes of a process that does something.

    Args:
        action: What to do; what it raises is left to who does it in earnest.
        patience: Seconds that it may take.

    Returns:
        How the process ended if it did not come to the end of the action; empty if it did, and where processes cannot
        be copied.
    """
    if not sys.platform.startswith("linux"):
        return ""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _try(action, theirs)
    os.close(theirs)
    try:
        came = select.select([ours], [], [], patience)[0]
        ended = bool(came) and os.read(ours, 1) == b"."
        if not ended and not came:
            os.kill(process, signal.SIGKILL)
    except BaseException:
        os.kill(process, signal.SIGKILL)
        raise
    finally:
        os.close(ours)
        _, status = os.waitpid(process, 0)
    if ended:
        return ""
    if not came:
        return f"it did not end within {patience:.0f} seconds"
    code = os.waitstatus_to_exitcode(status)
    return f"it ended its process with code {code}" if code >= 0 else f"it died of {signal.Signals(-code).name}"


def _try(action: Callable[[], object], done: int) -> None:
    """In the copy: do it in silence, and say that it is done; nothing else of this program may go on here."""
    try:
        faulthandler.disable()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        action()
    except BaseException:  # noqa: S110 - it is raised again in earnest
        pass
    finally:
        os.write(done, b".")
        os._exit(0)
