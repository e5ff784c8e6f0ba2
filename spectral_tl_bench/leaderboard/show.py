"""One stored result for a terminal: found by path or fingerprint, verified against its evidence."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spectral_tl_bench.evaluation.metrics import ReleasedScores, released_from_strict
from spectral_tl_bench.leaderboard.measured import all_options
from spectral_tl_bench.leaderboard.text import (
    AS_PUBLISHED,
    NOTHING,
    WHY_RELEASE,
    as_json,
    fixed,
    number,
    one_decimal,
    percent,
    plain,
    signed,
    warnings,
)
from spectral_tl_bench.results.schema import Record, ScoreBlock, Selection
from spectral_tl_bench.results.store import check_scores, load_evidence
from spectral_tl_bench.results.tuning import Tuning

UNKNOWN_IDENTITY = "not known: it comes from an earlier version of the suite and does not say which code it belongs to"
ABOUT_TRACE = (
    "what the release would have printed at each validation, all of them on the target. Its confusion matrix is never "
    "reset: each number is over all passes until then, from the sanity pass of the untrained model on, so that it "
    "follows the model late and is the score of no checkpoint; those stand above. It chooses nothing: each checkpoint "
    "replaces the one before, and the last one counts."
)


def show(record: Record, console: Console | None = None) -> None:
    """Print what, where from, scores as the evidence gives them, selection, cost, identity, environment.

    Args:
        record: As stored; all of its text is printed as it stands, without markup or terminal codes.
        console: Where to; default: standard output.

    Raises:
        RecordError: If the evidence is missing or changed, or a score contradicts it.
    """
    blocks, places, released = {}, 0, {}
    if record.status == "completed":  # before the first line: no half shown result
        evidence = load_evidence(record)
        blocks, places = check_scores(record, evidence), len(set(evidence.sites))
        released = {name: released_from_strict(evidence.matrices[name].sum(axis=0)) for name in blocks}
    screen = console or Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    _facts(screen, "", _what(record))
    if record.error is not None:
        _facts(screen, "failed", record.error)
    if blocks:
        _scores(screen, record, blocks, released, places)
    if record.selection is not None:
        _selection(screen, record.selection, record.protocol)
    if record.tuning is not None:
        _tuning(screen, record.tuning)
    _facts(screen, "cost", _cost(record))
    _print_table(screen, ("stage", "steps", "seconds", "trainable", "options"), [
        (stage.name, stage.steps, one_decimal(stage.seconds), f"{stage.trainable:,}", as_json(stage.options))
        for stage in record.stages
    ], right=(1, 2, 3))  # fmt: skip
    _facts(screen, "identity", _identity(record))
    _facts(screen, "made with", sorted(record.environment.items()))


def _what(record: Record) -> list[tuple[str, object]]:
    backbone = record.backbone
    facts: list[tuple[str, object]] = [
        ("benchmark", f"{record.benchmark} {record.benchmark_version}, {record.dataset}, gap: {record.gap}"),
        ("method", f"{record.method} ({record.family})"),
        ("options", as_json(all_options(record))),
        ("backbone", "none" if backbone is None else
         f"{backbone.name}, pretrained: {backbone.pretrained}, patch embedding: {backbone.reading}, width "
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
        console: Where to; default: standard output.
    """
    screen = console or Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    head = ("", first.fingerprint[:16], second.fingerprint[:16])
    identity, other = first.identity(), second.identity()
    if identity is None or other is None:
        unknown = ", ".join(each.fingerprint[:16] for each in (first, second) if each.identity() is None)
        _facts(screen, "identity", [("note", f"{unknown}: {UNKNOWN_IDENTITY}")])
    elif not (different := identity.differences(other)):
        _facts(screen, "identity", [("note", "the same: their numbers must be the same, too")])
    else:
        rows = [(name, *map(_text, values)) for name, values in different.items()]
        _print_table(screen, ("identity", *head[1:]), rows, right=())
    made = [{**record.environment, "device": record.device or NOTHING} for record in (first, second)]
    names = sorted(made[0].keys() | made[1].keys())
    rows = [(name, made[0].get(name, NOTHING), made[1].get(name, NOTHING)) for name in names]
    rows = [row for row in rows if row[1] != row[2]]
    if rows:
        _print_table(screen, ("made with", *head[1:]), rows, right=())
    else:
        _facts(screen, "made with", [("note", "the same code, libraries and device")])


def _scores(
    screen: Console, record: Record, blocks: dict[str, ScoreBlock], released: dict[str, ReleasedScores], places: int
) -> None:
    file = record.evidence.file if record.evidence else ""
    _facts(screen, "scores", [("verified", f"computed again from {file}, {places} places; in per cent")])
    _print_table(screen, ("checkpoint", "mIoU", "OA", "mean F1", "kappa", "worst domain"), [
        (name, percent(block.miou), percent(block.oa), percent(block.mean_f1), fixed(block.kappa, 3),
         f"{block.worst_domain} {percent(block.per_domain[block.worst_domain])}")
        for name, block in blocks.items()
    ], right=(1, 2, 3, 4))  # fmt: skip
    _both_metrics(screen, blocks, released)
    for head, lines in (
        ("domain, mIoU", {name: [block.per_domain.get(name) for block in blocks.values()]
                          for name in blocks["selected"].per_domain}),
        ("class, IoU", dict(zip(record.classes, zip(*(block.iou for block in blocks.values()), strict=True),
                                strict=True))),
    ):  # fmt: skip
        rows = [(name, *map(percent, values)) for name, values in lines.items()]
        _print_table(screen, (head, *blocks), rows, right=range(1, 1 + len(blocks)))


def _both_metrics(screen: Console, blocks: Mapping[str, ScoreBlock], released: Mapping[str, ReleasedScores]) -> None:
    """The strict metric and that of the release from the same confusion matrices, and by how much they differ."""
    _facts(screen, "both metrics, from the same confusion matrices", [("note", WHY_RELEASE)])
    _print_table(screen, ("checkpoint", "metric", "strict", "release", "difference"), [
        (checkpoint, name, write(ours), write(theirs), signed(number(theirs) - number(ours), digits, scale))
        for checkpoint, block in blocks.items()
        for name, ours, theirs, write, digits, scale in (
            ("mIoU, %", block.miou, released[checkpoint].miou, percent, 2, 100),
            ("OA, %", block.oa, released[checkpoint].oa, percent, 2, 100),
            ("kappa", block.kappa, released[checkpoint].kappa, partial(fixed, digits=3), 3, 1),
        )
    ], right=(2, 3, 4))  # fmt: skip


def _selection(screen: Console, selection: Selection, protocol: str) -> None:
    """By what the checkpoint was chosen, and what was seen at every validation."""
    facts = [("by", selection.metric), ("step", selection.step), ("value", percent(selection.value))]
    if (ending := selection.convergence) is not None:
        at = ", ".join(map(str, ending.plateaus)) or NOTHING
        facts += [("converged", f"{'yes' if ending.converged else 'no, out of steps'}, after step {ending.step}"),
                  ("plateaus", f"at step {at}")]  # fmt: skip
    head = "validation mIoU, %"
    if protocol == AS_PUBLISHED:
        facts.append(("note", ABOUT_TRACE))
        head = "printed by the release, %"
    _facts(screen, "selection", facts)
    _print_table(screen, ("step", head, ""), [
        (at, percent(seen), "selected" if at == selection.step else "") for at, seen in selection.trace
    ], right=(0, 1))  # fmt: skip


def _tuning(screen: Console, tuning: Tuning) -> None:
    """The search that the configuration stems from, with all that was tried."""
    _facts(screen, "tuned", [
        ("search", f"{tuning.search}, {len(tuning.draws)} of {tuning.budget} draws, seed {tuning.seed}"),
        *((f"space: {name}", text) for name, text in tuning.space.items()),
    ])  # fmt: skip
    _print_table(screen, ("draw", "validation mIoU, %", *tuning.space, ""), [
        (number, NOTHING if draw.value is None else percent(draw.value),
         *(_text(draw.configuration[name]) for name in tuning.space),
         draw.error or ("chosen" if number == tuning.chosen else ""))
        for number, draw in enumerate(tuning.draws)
    ], right=(0, 1))  # fmt: skip


def _cost(record: Record) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = []
    if record.parameters is not None:
        counts = record.parameters
        inside = "" if counts.decoder is None else f", {counts.decoder:,} of them in the decoder"
        facts.append(("parameters", f"{counts.trainable:,} of {counts.total:,} trained{inside}"))
    if record.seconds is not None:
        times = record.seconds
        facts.append(("seconds", f"train {times.train:.1f}, evaluate {times.evaluate:.1f}, total {times.total:.1f}"))
    if record.peak_memory_mb is not None and not math.isnan(record.peak_memory_mb):
        facts.append(("peak memory", f"{one_decimal(record.peak_memory_mb)} MB"))
    if record.device is not None:
        facts.append(("device", record.device))
    return facts


def _facts(screen: Console, heading: str, facts: Iterable[tuple[str, object]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for fact in facts:
        grid.add_row(*_texts(fact))
    if grid.row_count:
        if heading:
            screen.print()
            screen.print(Text(heading, style="bold"))
        screen.print(grid)


def _print_table(
    screen: Console, head: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[int]
) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(head):
        table.add_column(Text(name), justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*_texts(row))
    if rows:
        screen.print()
        screen.print(table)


def _texts(row: Iterable[object]) -> Iterator[Text]:
    return (Text(plain(value)) for value in row)
