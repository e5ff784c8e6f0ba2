"""The verbs ``stbench cache``: list what is kept on disk, clear it."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.console import confirm, print_rows, say
from spectral_tl_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from spectral_tl_bench.storage import Entry, Kind

cache_app = typer.Typer(help="List what is kept on disk and can be made again, or clear it.", rich_markup_mode=None)


@cache_app.callback(invoke_without_command=True)
def list_cache(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False
) -> None:
    """List the kinds of what is kept: entries, size, oldest use, and where it is."""
    if context.invoked_subcommand is not None:
        return
    from spectral_tl_bench import storage

    kept = {kind: kind.entries() for kind in storage.KINDS.values()}
    limit = storage.cache_limit()
    if as_json:
        kinds = {
            kind.name: {"entries": len(entries), "size": sum(entry.size for entry in entries),
                        "oldest_use": _day(entries) if entries else None}
            for kind, entries in kept.items()
        }  # fmt: skip
        facts = {"folder": str(storage.cache_folder()), "limit": limit and limit.size, "kinds": kinds}
        say(json.dumps(facts, indent=2))
        return
    rows = [("kind", "entries", "size", "oldest use", "what")]
    rows += [
        (kind.name, str(len(entries)), _size(entries), _day(entries) if entries else "-", kind.title)
        for kind, entries in kept.items()
    ]
    print_rows(rows, right=(1, 2))
    say("")
    say(f"folder  {storage.cache_folder()} ({storage.CACHE_VARIABLE} moves it)")
    say(f"limit   {storage.in_words(limit.size) if limit else 'none'} ({storage.LIMIT_VARIABLE} sets it)")


@cache_app.command("clear")
def clear_cache(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Kinds; all by default.")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only what was not used for so long: 30d, or hours and minutes as 12:00.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove entries, after a question; what a process is making or using stays."""
    from spectral_tl_bench import storage

    going, staying = storage.to_clear(_named(kinds or []), _duration(older_than))
    for entry in staying:
        say(f"stays   {entry.path} (in use, or behind a link)")
    if not going:
        say("nothing to remove")
        return
    for entry in going:
        say(f"{_size([entry]):>10}  {_day([entry])}  {entry.path}")
    question = f"remove {len(going)} of them, {_size(going)}?"
    if not yes:
        confirm(question)
    left = storage.clear(going)
    for path in left:
        say(f"could not be removed: {path}")
    say(f"removed {len(going) - len(left)} entries")


def _named(names: list[str]) -> list[Kind]:
    from spectral_tl_bench.storage import KINDS

    for name in names:
        if name not in KINDS:
            raise UserError(f"there is no kind {name!r}", expected=nearest(name, KINDS))
    return [kind for name, kind in KINDS.items() if name in names or not names]


def _duration(text: str | None) -> timedelta:
    from pydantic import TypeAdapter, ValidationError

    try:
        duration = TypeAdapter(timedelta).validate_python(text or "0d")
    except ValidationError:
        raise UserError(f"--older-than is {text!r}", expected="days as 30d, or hours and minutes as 12:00") from None
    return duration


def _size(entries: list[Entry]) -> str:
    from spectral_tl_bench.storage import in_words

    return in_words(sum(entry.size for entry in entries))


def _day(entries: list[Entry]) -> str:
    """The day of the oldest use."""
    return time.strftime("%Y-%m-%d", time.localtime(min(entry.used for entry in entries)))
