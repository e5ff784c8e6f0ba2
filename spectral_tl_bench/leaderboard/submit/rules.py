"""What the protocol allows a run to be set to. The rules are data: each says in a record's refusal why it is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.text import quoted, shown
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.protocol.settings import RunSettings
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.results.schema import Record

_PAPER = STRICT.budgets["paper"][0]


@dataclass(frozen=True)
class Bound:
    """One number of the settings.

    Attributes:
        key: Where it stands below ``settings``.
        low: The least that is allowed.
        high: The most.
    """

    key: str
    low: float
    high: float
    why: str


BOUNDS = (
    Bound("budget.steps", 0, _PAPER.steps, "no method trains longer than the published one"),
    Bound("budget.pretrain_steps", 0, _PAPER.pretrain_steps, "no first stage is longer than the published one"),
    Bound("budget.batch_size", 1, 4 * _PAPER.batch_size, "larger batches are another experiment"),
    Bound("budget.learning_rate", 0, 1, "an AdamW learning rate above 1 is a slip of the pen"),
    Bound("budget.weight_decay", 0, 1, "likewise"),
    Bound("window", 8, 1_024, "windows of training and evaluation"),
    Bound("stride", 1, 1_024, "windows of evaluation"),
    Bound(
        "validations", 1, 450, "each validation is a chance to select; 20 are the default, one in 100 steps is the most"
    ),
)
"""Rows of other settings stand on the board as rows of their own, so these only keep out what is no comparison."""

PRODUCTS = (
    ("budget.steps", _PAPER.steps * _PAPER.batch_size),
    ("budget.pretrain_steps", _PAPER.pretrain_steps * _PAPER.batch_size),
)
"""Most windows that a stage may see: steps times batch size."""

MEASURED = (
    ("parameters.total", 1e13),
    ("parameters.trainable", 1e13),
    ("seconds.train", 1e9),
    ("seconds.evaluate", 1e9),
    ("seconds.total", 1e9),
    ("peak_memory_mb", 1e9),
)
"""The most that a measured number may be: far above any run, and far below what breaks a table."""

LARGEST_SEED = 2**31 - 1
SEEDS = {"reproduced": frozenset({0, 1, 2})}
"""Seeds that every row of a track needs; elsewhere fewer than three are only pointed out."""
USUAL_SEEDS = 3


def protocol_of(record: Record) -> Protocol:
    """The protocol of a record; where it is not installed here, ``strict``, whose rules are then those that hold."""
    try:
        return get_protocol(record.protocol)
    except UserError:
        return STRICT


def resized_to(record: Record) -> int | None:
    """The side in pixels at which chips are measured; None for chips as they are."""
    return None if protocol_of(record).pixels.windows.overlaps else int(str(record.settings["window"]))


def breaches(record: Record, chip_side: int | None) -> list[str]:
    """Where a record's settings are outside the rules, with the reasons.

    Args:
        chip_side: Side of the target's chips in pixels, where it is known.
    """
    try:
        settings = RunSettings.model_validate(record.settings)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(["settings", *map(str, item["loc"])])
        return [f"key {quoted(key)}: {shown(item['msg'])} (got {quoted(item['input'])})"]
    problems = []
    if record.protocol != settings.protocol:
        problems.append(
            f"key 'protocol' is {quoted(record.protocol)}, key 'settings.protocol' {quoted(settings.protocol)}"
        )
    if not _written_alike(record.settings, settings.model_dump(mode="json")):
        problems.append("key 'settings' holds values of another kind than a run writes, such as true for 1")
    values = settings.model_dump()
    for bound in BOUNDS:
        value = _at(values, bound.key)
        if not bound.low <= value <= bound.high:
            problems.append(
                f"key 'settings.{bound.key}' is {shown(value)}, allowed is {bound.low:g} to {bound.high:g}: {bound.why}"
            )
    for key, most in PRODUCTS:
        windows = _at(values, key) * settings.budget.batch_size
        if windows > most:
            problems.append(
                f"key 'settings.{key}' times the batch size is {windows:,} windows, the published budget has {most:,}"
            )
    windows = protocol_of(record).pixels.windows
    if not windows.overlaps and settings.stride != settings.window:
        problems.append(f"key 'settings.stride' is {settings.stride}, a whole chip is a window of {settings.window} px")
    if windows.overlaps and settings.side_by_side(chip_side):
        problems.append(
            f"key 'settings.stride' is {settings.stride}, the window {settings.window} px: the protocol asks for "
            "windows that overlap, unless one covers the chip"
        )
    if chip_side is not None and settings.window > windows.largest(chip_side):
        problems.append(f"key 'settings.window' is {settings.window} px, the chips have {chip_side} px")
    if record.seed > LARGEST_SEED:
        problems.append(f"key 'seed' is {shown(record.seed, 40)}, allowed is 0 to {LARGEST_SEED}")
    return problems + _stages(record, settings) + _measured(record)


def _written_alike(values: dict[str, Any], complete: dict[str, Any]) -> bool:
    """Whether all that was found has the same JSON text; settings that came later than the record may be missing."""
    return all(
        _written_alike(value, complete[key])
        if isinstance(value, dict)
        else json.dumps(value) == json.dumps(complete[key])
        for key, value in values.items()
    )


def _at(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _measured(record: Record) -> list[str]:
    values = record.model_dump(include={"parameters", "seconds", "peak_memory_mb"}, exclude_none=True)
    problems = [
        f"key '{key}' is {shown(_at(values, key), 40)}, allowed is 0 to {most:g}"
        for key, most in MEASURED
        if key.partition(".")[0] in values and _at(values, key) > most
    ]
    if record.parameters is not None and record.parameters.trainable > record.parameters.total:
        problems.append("key 'parameters' counts more trainable parameters than there are")
    if record.parameters is not None and (record.parameters.decoder or 0) > record.parameters.trainable:
        problems.append("key 'parameters' counts more parameters in the decoder than are trainable")
    return problems


def _stages(record: Record, settings: RunSettings) -> list[str]:
    """Stages may be shorter than the budget, for example in closed form, but not longer."""
    most = max(settings.budget.steps, settings.budget.pretrain_steps, 1)
    problems = [
        f"stage {quoted(stage.name)} has {stage.steps:,} steps, the budget allows {most:,}"
        for stage in record.stages
        if stage.steps > most
    ]
    if record.selection is not None:
        if record.selection.metric != (name := protocol_of(record).selection.name):
            problems.append(
                f"key 'selection.metric' is {quoted(record.selection.metric)}, under protocol "
                f"{quoted(record.protocol)} it is {quoted(name)}"
            )
        steps = [step for step, _ in record.selection.trace]
        values = [value for _, value in [*record.selection.trace, (0, record.selection.value)] if value is not None]
        if steps != sorted(steps) or max([record.selection.step, *steps]) > most:
            problems.append("key 'selection' names steps that are not those of the training")
        if any(not 0 <= value <= 1 for value in values):
            problems.append("key 'selection' holds a validation mIoU outside 0 to 1")
    return problems
