"""What installed packages offer through entry points; nothing of theirs is imported here."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points

from spectral_tl_bench.errors import MethodError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a method, preset or objective may be called: its name becomes part of a folder name."""


def installed(group: str, kind: str) -> dict[str, EntryPoint]:
    """All entry points of a group by name.

    Args:
        group: The entry-point group.
        kind: What the group holds, for the message.

    Raises:
        MethodError: If two different packages offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise MethodError(
                f"two installed packages offer {kind} {entry.name!r}: {other.value} and {entry.value}",
                fix="uninstall one of them, or rename its entry point",
            )
        found[entry.name] = entry
    return dict(sorted(found.items()))
