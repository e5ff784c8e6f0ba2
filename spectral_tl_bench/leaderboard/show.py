"""One stored result for a terminal: found by path or fingerprint, verified against its evidence."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.cells import all_options
from spectral_tl_bench.leaderboard.text import NOTHING, as_json, one_decimal, percent, plain, warnings
from spectral_tl_bench.results.schema import Record, ScoreBlock
from spectral_tl_bench.results.store import RECORD_FILE, check_scores, load_evidence, read_record, records_like

UNKNOWN_IDENTITY = "not known: it comes from an earlier version of the suite and does not say which code it belongs to"
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def find_record(name: str, roots: Sequence[Path]) -> Record:
    """Read the record that a user means.

    Args:
        name: Path of a ``record.json`` or of its folder, or the first digits (at least 4) of a fingerprint, also of
            the one that schema 1 gave.
        roots: Folders to look for fingerprints in.

    Raises:
        RecordError: If there is no such record, or more than one.
    """
    path = Path(name)
    if path.is_dir():
        path = path / RECORD_FILE
    if path.is_file():
        return read_record(path)
    where = ", ".join(map(str, roots))
    if not _PREFIX.fullmatch(name):
        raise RecordError(
            f"there is no record {name!r}",
            where=where,
            expected="a record.json, its folder, or at least 4 hexadecimal digits that a fingerprint begins with",
        )
    found = records_like(name, roots)
    if not found:
        raise RecordError(f"no fingerprint begins with {name!r}", where=where)
    if len(found) > 1:
        raise RecordError(
            f"{len(found)} records have a fingerprint that begins with {name!r}",
            where=", ".join(f"{record.path} ({record.fingerprint[:16]})" for record in found[:5]),
            fix="give more digits, or the path",
        )
    return found[0]


def show(record: Record, console: Console | None = None) -> None:
    """Print what, where from, scores as the evidence gives them, selection, cost, identity, environment.

    Args:
        record: As stored; all of its text is printed as it stands, without markup or terminal codes.
        console: Where to; default: standard output.

    Raises:
        RecordError: If the evidence is missing or changed, or a score contradicts it.
    """
    blocks, places = {}, 0
    if record.status == "completed":  # before the first line: no half shown result
        found = load_evidence(record)
        blocks, places = check_scores(record, found), len(set(found.sites))
    screen = console or Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    _facts(screen, "", _what(record))
    if record.error is not None:
        _facts(screen, "failed", [("kind", record.error.kind), ("message", record.error.message)])
    if blocks:
        _scores(screen, record, blocks, places)
    if record.selection is not None:
        step, value = record.selection.step, record.selection.value
        _facts(screen, "selection", [("by", record.selection.metric), ("step", step), ("value", percent(value))])
        if record.selection.trace:
            trace = [(str(at), percent(seen), "selected" if at == step else "") for at, seen in record.selection.trace]
            _print_table(screen, ("step", "validation mIoU, %", ""), trace, right=(0, 1))
    _facts(screen, "cost", _cost(record))
    if record.stages:
        rows = [(one.name, str(one.steps), one_decimal(one.seconds), f"{one.trainable:,}", as_json(one.options))
                for one in record.stages]  # fmt: skip
        _print_table(screen, ("stage", "steps", "seconds", "trainable", "options"), rows, right=(1, 2, 3))
    _facts(screen, "identity", _identity(record))
    _facts(screen, "made with", sorted(record.environment.items()))


def _what(record: Record) -> list[tuple[str, object]]:
    backbone = record.backbone
    facts: list[tuple[str, object]] = [
        ("benchmark", f"{record.benchmark} {record.benchmark_version}, {record.dataset}, gap: {record.gap}"),
        ("method", f"{record.method} ({record.family})"),
        ("options", as_json(all_options(record))),
        ("backbone", "none" if backbone is None else
         f"{backbone.name}, pretrained: {backbone.pretrained}, patch embedding: {backbone.patch_embedding}, width "
         f"{backbone.width}, depth {backbone.depth}, heads {backbone.heads}, patch {backbone.patch}"),
        ("protocol", record.protocol),
        ("seed", record.seed),
        ("settings", as_json(record.settings)),
        ("track", record.track),
        ("status", record.status),
        ("source", ", ".join(record.source_domains)),
        ("target", ", ".join(record.target_domains)),
    ]  # fmt: skip
    facts += [("note", text) for text in warnings(record.board)]
    if record.statement:
        facts.append(("data", record.statement))
    if record.data is not None:
        chips = record.data.chips
        facts.append(("chips", f"train {chips.train}, validation {chips.validation}, target {chips.target}"))
        facts += [("split", record.data.split_hash), ("manifest", record.data.manifest_hash)]
        facts += [("note", note) for note in record.data.notes]
    return [*facts, ("created", record.created.isoformat()), ("file", record.path or NOTHING)]


def _identity(record: Record) -> list[tuple[str, object]]:
    """What the result depends on, by name; or that this is not known."""
    facts: list[tuple[str, object]] = [("fingerprint", record.fingerprint)]
    if record.earlier_fingerprint is not None:
        facts.append(("earlier", f"{record.earlier_fingerprint}, by schema 1"))
    identity = record.identity()
    if identity is None:
        return [*facts, ("note", UNKNOWN_IDENTITY)]
    values = identity.model_dump(mode="json", exclude={"options", "objectives", "settings", "backbone"})
    return [*facts, *((name, _text(value)) for name, value in values.items())]


def _text(value: object) -> str:
    """A value of an identity."""
    return NOTHING if value is None else value if isinstance(value, str) else as_json(value)


def compare_identities(first: Record, second: Record, console: Console | None = None) -> None:
    """Print what two results depend on and do not share, and where they were made otherwise.

    Args:
        first: A record.
        second: Another one.
        console: Where to; default: standard output.
    """
    screen = console or Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    head = ("", first.fingerprint[:16], second.fingerprint[:16])
    one, other = first.identity(), second.identity()
    if one is None or other is None:
        unknown = ", ".join(each.fingerprint[:16] for each in (first, second) if each.identity() is None)
        _facts(screen, "identity", [("note", f"{unknown}: {UNKNOWN_IDENTITY}")])
    elif not (different := one.differences(other)):
        _facts(screen, "identity", [("note", "the same: their numbers must be the same, too")])
    else:
        rows = [(name, *map(_text, values)) for name, values in different.items()]
        _print_table(screen, ("identity", *head[1:]), rows)
    made = [{**record.environment, "device": record.device or NOTHING} for record in (first, second)]
    names = sorted(made[0].keys() | made[1].keys())
    rows = [(name, made[0].get(name, NOTHING), made[1].get(name, NOTHING)) for name in names]
    rows = [row for row in rows if row[1] != row[2]]
    if rows:
        _print_table(screen, ("made with", *head[1:]), rows)
    else:
        _facts(screen, "made with", [("note", "the same code, libraries and device")])


def _scores(screen: Console, record: Record, blocks: dict[str, ScoreBlock], places: int) -> None:
    _facts(screen, "scores", [("verified", f"computed again from {record.evidence.file if record.evidence else ''}, "
                               f"{places} places; in per cent")])  # fmt: skip
    rows = [
        (name, percent(one.miou), percent(one.oa), percent(one.mean_f1),
         NOTHING if one.kappa is None else f"{one.kappa:.3f}",
         f"{one.worst_domain} {percent(one.per_domain[one.worst_domain])}", percent(one.release_miou))
        for name, one in blocks.items()
    ]  # fmt: skip
    head = ("checkpoint", "mIoU", "OA", "mean F1", "kappa", "worst domain", "release")
    _print_table(screen, head, rows, right=(1, 2, 3, 4, 6))
    names = list(blocks)
    domains = [(domain, *(percent(blocks[name].per_domain.get(domain)) for name in names))
               for domain in blocks["selected"].per_domain]  # fmt: skip
    _print_table(screen, ("domain, mIoU", *names), domains, right=range(1, 1 + len(names)))
    classes = [(label, *(percent(blocks[name].iou[place]) for name in names))
               for place, label in enumerate(record.classes)]  # fmt: skip
    _print_table(screen, ("class, IoU", *names), classes, right=range(1, 1 + len(names)))


def _cost(record: Record) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = []
    if record.parameters is not None:
        facts.append(("parameters", f"{record.parameters.trainable:,} of {record.parameters.total:,} trained"))
    if record.seconds is not None:
        times = record.seconds
        facts.append(("seconds", f"train {times.train:.1f}, evaluate {times.evaluate:.1f}, total {times.total:.1f}"))
    if record.peak_memory_mb is not None and not math.isnan(record.peak_memory_mb):
        facts.append(("peak memory", f"{one_decimal(record.peak_memory_mb)} MB"))
    if record.device is not None:
        facts.append(("device", record.device))
    return facts


def _facts(screen: Console, heading: str, facts: Iterable[tuple[str, object]]) -> None:
    rows = [(plain(name), plain(value)) for name, value in facts]
    if not rows:
        return
    if heading:
        screen.print()
        screen.print(Text(heading, style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    screen.print(grid)


def _print_table(
    screen: Console, head: Sequence[str], rows: Sequence[Sequence[Any]], right: Iterable[int] = ()
) -> None:
    flush_right = set(right)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(head):
        table.add_column(Text(name), justify="right" if place in flush_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row))
    screen.print()
    screen.print(table)
