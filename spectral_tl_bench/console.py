"""What the verbs of ``stbench`` share: printing, reading names, paths and ``name=value``. Nothing heavy is imported."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectral_tl_bench.endings import OutputClosed
from spectral_tl_bench.errors import UserError


def show_what_can_be_shown() -> None:
    """Have both outputs write what the terminal cannot show with backslashes, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stream that somebody has put there may be of any kind
            stream.reconfigure(errors="backslashreplace")


def user_path(path: Path | str) -> Path:
    """A path as a user writes it, ``~`` for the home folder; what lies here under that very name comes first.

    Raises:
        UserError: If there is no such home folder.
    """
    try:
        return Path(path) if os.path.lexists(path) else Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"{str(path)!r} begins with ~, and there is no such home folder", fix="give a full path"
        ) from None


def is_text(name: str) -> bool:
    """Whether a name of a file is text in UTF-8; Python gives others with characters that stand for bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_file(name: str) -> bool:
    """Whether a user's path is that of a file; no name is too long or too strange to ask."""
    return os.path.isfile(user_path(name))  # noqa: PTH113 - Path.is_file raises where a name is too long


def split_names(entry: str) -> list[str]:
    """Names divided by commas; the path of a file that exists stays whole, whatever commas are in it."""
    parts, names = entry.split(","), []
    while parts:
        ends = range(len(parts), 1, -1)
        end = next((end for end in ends if is_file(",".join(parts[:end]).strip())), 1)
        names.append(",".join(parts[:end]).strip())
        parts = parts[end:]
    return [name for name in names if name]


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


def print_folded(
    rows: Sequence[tuple[str, ...]], whole: Collection[str] = (), styles: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Print a table with a head: on a terminal long cells are folded, elsewhere each row is one line.

    Args:
        whole: Names of the columns that are not folded.
        styles: Of cells on a terminal, by column and text.
    """
    if not sys.stdout.isatty():
        print_rows(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    of_columns = [(styles or {}).get(name, {}) for name in rows[0]]
    for row in rows[1:]:
        table.add_row(*(Text(text, style=known.get(text, "")) for text, known in zip(row, of_columns, strict=True)))
    Console(file=sys.stdout, highlight=False).print(table)


def say_broken(noun: str, entries: Iterable[object]) -> None:
    """Print what installed packages offer and cannot be used, a line for each."""
    for entry in entries:
        say(f"broken {noun}: {entry}")


ACCELERATORS = ("auto", "cpu", "gpu")
ON_OOM = ("fail", "split")
"""What may become of a cell whose memory runs out."""


def one_of(flag: str, value: str, known: Sequence[str]) -> None:
    """Refuse a word that an option does not know.

    Raises:
        UserError: If it is none of those.
    """
    if value not in known:
        raise UserError(f"{flag} is {value!r}", expected=f"one of {', '.join(known)}")


def read_values(entries: Sequence[str] | Mapping[str, Any], flag: str, advice: str = "") -> dict[str, Any]:
    """Values by name.

    Args:
        entries: Texts of the form name=value; or the values themselves, as Python gives them.
        flag: The option they were given with.
        advice: What to do where a name comes twice, with places for the name and both values.

    Raises:
        UserError: If a text is of another form, or a name comes twice.
    """
    if isinstance(entries, Mapping):
        return {name.replace("-", "_"): value for name, value in entries.items()}
    values: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UserError(f"{flag} {entry!r} is not of the form name=value")
        enter_once(values, key.strip().replace("-", "_"), value.strip(), flag, advice=advice)
    return values


def confirm(question: str) -> None:
    """Ask the user; anything but yes ends the command.

    Raises:
        UserError: If there is no terminal to ask.
    """
    import typer

    if not sys.stdin.isatty():
        raise UserError(f"{question} there is no terminal to ask", fix="add --yes")
    typer.confirm(question, abort=True)


_UNITS = {"s": 1, "m": 60, "h": 3600}


def read_duration(text: str, flag: str) -> float:
    """Seconds from a text such as ``30s``, ``10m`` or ``1.5h``; 0 needs no unit.

    Args:
        flag: The option it was given with.

    Raises:
        UserError: If it is of another form.
    """
    wanted = text.strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)([smh])", wanted)
    if match is not None:
        return float(match[1]) * _UNITS[match[2]]
    if wanted in ("0", "0.0"):
        return 0.0
    raise UserError(
        f"{flag} {text!r} is no time", expected="a number with a unit, such as 30s, 10m or 1h, or 0 for never"
    )


def clock(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def enter_once(values: dict[str, str], name: str, value: str, flag: str, prefix: str = "", advice: str = "") -> None:
    """Put a value among others by its name.

    Args:
        values: Gets the value.
        flag: The option it was given with.
        prefix: Stands before the name in the message.
        advice: What to do then, with places for the name and both values.

    Raises:
        UserError: If there is one of that name.
    """
    if name in values:
        full = f"{prefix}{name}"
        raise UserError(
            f"{flag} {full} is given twice: {full}={values[name]} and {full}={value}",
            expected="each name once",
            fix=advice.format(full, values[name], value) or None,
        )
    values[name] = value


def counted(number: int, noun: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_percent(fraction: float | None) -> str:
    """A score as every screen prints it: in per cent, with two decimals; a dash where there is none."""
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f} %"


def backbone_sizes(entries: Sequence[str] | Mapping[str, Any]) -> dict[str, int]:
    """Whole numbers by name, from ``--backbone-size`` or as Python gives them.

    Raises:
        UserError: If a text is not of the form name=number.
    """
    return {key: _whole(value, key) for key, value in read_values(entries, "--backbone-size").items()}


def _whole(value: Any, name: str) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UserError(f"--backbone-size {name}={value}", expected="a whole number") from None
