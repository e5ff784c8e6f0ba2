"""What the verbs of ``stbench`` share: printing, and reading ``name=value``. Nothing heavy is imported."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence

from spectral_tl_bench.endings import OutputClosed
from spectral_tl_bench.errors import UserError


def say(text: str) -> None:
    """Print one line at once, also into a pipe or a log file.

    Raises:
        OutputClosed: If nobody reads on.
    """
    with _read_on():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def complain(text: str) -> None:
    """Print to standard error, unless nobody reads it."""
    with contextlib.suppress(OutputClosed), _read_on():
        sys.stderr.write(text + "\n")


@contextlib.contextmanager
def _read_on() -> Iterator[None]:
    """Tell a closed pipe from an error of whatever is running."""
    try:
        yield
    except BrokenPipeError:
        raise OutputClosed from None


def print_rows(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> None:
    """Print a table in columns; the columns numbered in ``right`` are flush right, as numbers should be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        say("  ".join(cells).rstrip())


def say_broken(noun: str, entries: Iterable[object]) -> None:
    """Print what installed packages offer and cannot be used, a line for each."""
    for entry in entries:
        say(f"broken {noun}: {entry}")


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
