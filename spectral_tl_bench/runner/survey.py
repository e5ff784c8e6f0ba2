"""What of a plan is done, and what is left and why: a look at the records, which verifies nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spectral_tl_bench.endings import check_stopped
from spectral_tl_bench.identity import Texts, backbone_inputs, flat
from spectral_tl_bench.provenance import package_code
from spectral_tl_bench.results.store import RECORD_FILE, record_folder
from spectral_tl_bench.runner.cell import finished
from spectral_tl_bench.runner.definitions import Cell, Outcome
from spectral_tl_bench.training.progress import Say

State = Literal["done", "failed", "changed", "new"]
Identity = dict[str, Any]
"""Values by name, members of mappings as ``field.name``."""

SHOWN = 4
"""Fields that differ, before there are too many to be read."""


@dataclass(frozen=True)
class Look:
    """What there is of a cell.

    Attributes:
        path: Where its record is, or will be.
        state: ``done``; ``failed``: it was tried; ``changed``: there is a record of something near; ``new``.
        reason: Why it is left, in words.
        record: What its record says, of a cell that is done.
    """

    cell: Cell
    fingerprint: str
    path: Path
    state: State
    reason: str = ""
    record: Mapping[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state == "done"


@dataclass(frozen=True)
class Survey:
    """What there is of a plan.

    Attributes:
        looks: One for each cell, in their order.
        finished: Finished records by path: those of its cells, and others of the benchmarks and methods of what is
            left.
    """

    looks: list[Look]
    finished: dict[Path, Mapping[str, Any]]

    @property
    def left(self) -> list[Look]:
        """What is to be run."""
        return [look for look in self.looks if not look.done]


def survey(cells: Sequence[Cell], out: Path) -> Survey:
    """Look for the records of cells.

    A record counts as one where it is complete and of the cell's very identity; scores and evidence are not verified.

    Args:
        out: Root of the record store, which need not be there.
    """
    texts = Texts()
    store = _Store(out, {cell.fingerprint(texts)[:16] for cell in cells})
    looks = [_look(cell, store) for cell in cells]
    finished = {look.path: look.record for look in looks if look.record is not None}
    for folder in {look.path.parent.parent for look in looks if not look.done}:
        finished |= {folder / name / RECORD_FILE: record for name, record, _ in store.others(folder)}
    return Survey(looks, finished)


def _look(cell: Cell, store: _Store) -> Look:
    fingerprint = cell.fingerprint()
    folder = record_folder(store.out, cell.opened.benchmark.id, cell.method_name, fingerprint)
    path = folder / RECORD_FILE
    record = read_lightly(path) if store.has(folder) else None
    if record is not None and record.get("fingerprint") == fingerprint:
        if record.get("status") == "failed":
            error = record.get("error") or {}
            words = str(error.get("message", "")).strip().splitlines() or [""]
            return Look(cell, fingerprint, path, "failed", f"{error.get('kind', 'failed')}: {words[0]:.160}")
        scores = record.get("scores") or {}
        if cell.oracle and not scores.get("oracle"):
            return Look(cell, fingerprint, path, "new", "its record has no oracle")
        if record.get("status") == "completed" and scores:
            return Look(cell, fingerprint, path, "done", record=record)
    elif folder.name in store.names(folder.parent):
        why = "its record cannot be read" if path.exists() else "begun, and not finished yet"
        return Look(cell, fingerprint, path, "new", why)
    near = store.nearest(folder.parent, cell)
    if near is None:
        return Look(cell, fingerprint, path, "new")
    name, differences = near
    shown = [f"{key}: {_short(theirs)} -> {_short(mine)}" for key, (mine, theirs) in differences.items()]
    more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return Look(cell, fingerprint, path, "changed", f"{name} has other {', '.join(shown[:SHOWN])}{more}")


class _Store:
    """Folders and records below a root, each read once."""

    def __init__(self, out: Path, planned: set[str]) -> None:
        self.out, self.planned = out, planned
        self._names: dict[Path, set[str]] = {}
        self._others: dict[Path, list[tuple[str, dict[str, Any], Identity]]] = {}

    def names(self, folder: Path) -> set[str]:
        """The folders of cells of one benchmark and method."""
        if folder not in self._names:
            try:
                self._names[folder] = {entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")}
            except OSError:
                self._names[folder] = set()
        return self._names[folder]

    def has(self, folder: Path) -> bool:
        """Whether there is the folder of a cell."""
        return folder.name in self.names(folder.parent)

    def others(self, folder: Path) -> list[tuple[str, dict[str, Any], Identity]]:
        """Finished records of a benchmark and method that are of no planned cell: folder, content, identity."""
        if folder not in self._others:
            read = {name: read_lightly(folder / name / RECORD_FILE) for name in self.names(folder) - self.planned}
            self._others[folder] = [
                (name, record, identity)
                for name, record in sorted(read.items())
                if record is not None and (identity := _identity_of(record)) is not None
            ]
        return self._others[folder]

    def nearest(self, folder: Path, cell: Cell) -> tuple[str, dict[str, tuple[Any, Any]]] | None:
        """The one of ``others`` with the seed of a cell that differs from it in least fields.

        Returns:
            The name of its folder, and the values of the cell and of the record by field.
        """
        others = [(name, identity) for name, _, identity in self.others(folder) if identity["seed"] == cell.seed]
        if not others:
            return None
        own = flat(cell.identity(cell.split()).model_dump(mode="json"))
        return min(((name, _differences(own, other)) for name, other in others), key=lambda one: len(one[1]))


def read_lightly(path: Path) -> dict[str, Any] | None:
    """What a record says, without any check; None where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _identity_of(record: Mapping[str, Any]) -> Identity | None:
    """The fields of ``RunIdentity`` that a completed record has; None where it does not say it all."""
    if record.get("status") != "completed" or not isinstance(record.get("data"), dict):
        return None
    data = record["data"]
    return flat({
        **{name: record.get(name) for name in ("benchmark", "definition", "method", "options", "settings", "seed")},
        "manifest": data.get("manifest_hash"), "split": data.get("split_hash"),
        "objectives": record.get("objectives") or {}, "backbone": backbone_inputs(record.get("backbone")),
        "stage": record.get("given_stage"), "numerics": record.get("numerics"),
    })  # fmt: skip


def _differences(own: Identity, other: Identity) -> dict[str, tuple[Any, Any]]:
    names = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
    if "backbone.name" in names:  # of which the rest follows
        names = [name for name in names if name == "backbone.name" or not name.startswith("backbone.")]
    return {name: (own.get(name), other.get(name)) for name in names}


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def confirmed(found: Survey, say: Say) -> dict[int, Outcome]:
    """The outcomes of the cells that are done, by their number: their records are verified, and nothing is loaded.

    One whose record or evidence is damaged is left out, so that it is made again.
    """
    outcomes = {}
    for number, look in enumerate(found.looks):
        if not look.done:
            continue
        check_stopped()
        code = package_code(type(look.cell.method).__module__)
        record = finished(look.cell, look.path, {"environment": {"method code": code}}, say)
        if record is not None and record.scores is not None:
            outcomes[number] = Outcome(look.cell, "found", look.path, record.scores.selected.miou)
    return outcomes
