"""What the verbs of ``stbench`` share: printing, and reading ``name=value``. Nothing heavy is imported."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from spectral_tl_bench.errors import UserError


def say(text: str) -> None:
    """Print one line at once, also into a pipe or a log file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print to standard error."""
    sys.stderr.write(text + "\n")


def print_rows(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> None:
    """Print a table in columns; the columns numbered in ``right`` are flush right, as numbers should be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join(cells).rstrip())


def read_values(entries: Sequence[str], flag: str) -> dict[str, str]:
    """Values by name.

    Args:
        entries: Texts of the form name=value.
        flag: The option they were given with.

    Raises:
        UserError: If a text is of another form.
    """
    values = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UserError(f"{flag} {entry!r} is not of the form name=value")
        values[key.strip().replace("-", "_")] = value.strip()
    return values


def backbone_sizes(entries: Sequence[str]) -> dict[str, int]:
    """Whole numbers by name, from ``--backbone-size``.

    Raises:
        UserError: If a text is not of the form name=number.
    """
    return {key: _whole(value, key) for key, value in read_values(entries, "--backbone-size").items()}


def _whole(value: str, name: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f"--backbone-size {name}={value}", expected="a whole number") from None
