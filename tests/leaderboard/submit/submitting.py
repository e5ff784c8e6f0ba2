"""Records that are right in everything, made without training, for the tests to spoil."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError
from tiny import make_request

from spectral_tl_bench.identity import RunIdentity, backbone_inputs
from spectral_tl_bench.leaderboard.submit.check import Checker
from spectral_tl_bench.leaderboard.submit.definitions import Definitions
from spectral_tl_bench.leaderboard.submit.measured import SampleTruths, measure
from spectral_tl_bench.leaderboard.submit.submit import Submission, submit
from spectral_tl_bench.leaderboard.submit.tree import TreeCheck, check_tree
from spectral_tl_bench.leaderboard.submit.truth import Truth, read_truths
from spectral_tl_bench.results.predictions import predictions_png
from spectral_tl_bench.results.schema import BackboneFacts, Record
from spectral_tl_bench.results.store import evidence, read_record, write_record
from spectral_tl_bench.runner.cell import common_fields
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.run import plan

TREES = {"mts12": {"chip": 32, "north": 8, "south": 4}}


def matrices_for(truth: Truth, seed: int, quality: float) -> pd.DataFrame:
    """Evidence with the right ground truth and some mistakes."""
    rng, rows, number = np.random.default_rng(seed), [], len(truth.classes)
    for chip, (domain, site, pixels) in truth.rows.items():
        for checkpoint in ("selected", "last"):
            matrix = np.zeros((number, number), dtype=np.int64)
            for label, count in enumerate(pixels):
                right = int(count * quality)
                matrix[label] = rng.multinomial(count - right, [1 / number] * number)
                matrix[label, label] += right
            rows.append({"chip": chip, "domain": domain, "site": site, "checkpoint": checkpoint, "matrix": matrix})
    return pd.DataFrame(rows)


def fields_of(cell: Cell, **changes: Any) -> dict[str, Any]:
    """What a run of this cell would have stored."""
    split = cell.split()
    steps = cell.settings.budget.steps
    train = cell.opened.index.frame.loc[split.chips("train"), "class_counts"]
    measured = {
        "status": "completed",
        "majority_class": int(np.argmax(np.sum(train.tolist(), axis=0))),
        "parameters": {"total": 900, "trainable": 900},
        "stages": [{"name": "segment", "steps": steps, "seconds": 1.5, "trainable": 900}],
        "seconds": {"train": 1.5, "evaluate": 0.5, "total": 2.0},
        "device": "x86_64 CPU",
        "selection": {"step": steps, "value": 0.5, "trace": [[steps, 0.5]]},
    }
    return sealed({**common_fields(cell, split, cell.identity(split), threads=1), **measured, **changes})


def sealed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the fingerprint that follows from them, as a careful forger would leave them."""
    try:
        given = fields["backbone"]
        backbone = given and BackboneFacts.model_validate(given).model_dump(mode="json")
        identity = RunIdentity(
            benchmark=fields["benchmark"], definition=fields["definition"], manifest=fields["data"]["manifest_hash"],
            split=fields["data"]["split_hash"], method=fields["method"], options=fields["options"],
            objectives=fields["objectives"], backbone=backbone_inputs(backbone), settings=fields["settings"],
            stage=fields["given_stage"], seed=fields["seed"], numerics=fields["numerics"],
        )  # fmt: skip
    except (KeyError, TypeError, ValidationError):
        return fields
    return {**fields, "fingerprint": identity.fingerprint}


def write_cell(store: Path, cell: Cell, quality: float = 0.6, pictures: bool = False, **changes: Any) -> Path:
    """Store what a run of this cell might have left."""
    fields = fields_of(cell, **changes)
    truth = truth_of(cell)
    frame = matrices_for(truth, int(fields["fingerprint"][:8], 16), quality)
    if pictures:
        chips = sorted(truth.rows)[:2]
        side = truth.chip_side
        name, sha256, content = predictions_png(
            cell.opened.benchmark, {chip: np.full((side, side), 1, np.uint8) for chip in chips}
        )
        fields["pictures"] = {"file": name, "sha256": sha256, "chips": chips}
    path = write_record(store, fields, frame)
    if pictures:
        (path.parent / name).write_bytes(content)
    return path


_TRUTHS: dict[tuple[str, str, str], Truth] = {}


def truth_of(cell: Cell) -> Truth:
    opened = cell.opened
    key = (opened.benchmark.id, opened.index.manifest, opened.source.kind)
    if key not in _TRUTHS:
        _TRUTHS[key] = measure(opened.benchmark, opened.index, opened.source.kind)
    return _TRUTHS[key]


@dataclass
class World:
    """A checkout with a leaderboard, and a folder of runs beside it."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "checkout" / "leaderboard" / "results"

    @property
    def truths(self) -> Path:
        return self.results.parent / "truth"

    @property
    def examples(self) -> Path:
        return self.root / "checkout" / "docs" / "examples"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def checker(self) -> Checker:
        return Checker(Definitions(self.examples), read_truths(self.truths), SampleTruths())

    def submit(self, *runs: Path, replace: bool = False) -> Submission:
        return submit(runs or [self.runs], self.results, self.checker(), replace)

    def check(self, **more: Any) -> TreeCheck:
        return check_tree(self.results, self.checker(), **more)

    def files(self) -> list[str]:
        """All files below the results, links too."""
        return sorted(p.relative_to(self.results).as_posix() for p in self.results.rglob("*") if not p.is_dir())


def cells_of(*methods: str, seeds: Sequence[int] = (0,), root: Path | None = None, **more: Any) -> list[Cell]:
    """Cells on the small sample, or on the tree below ``root``."""
    more.setdefault("backbone", "compact")
    cells, broken = plan(make_request(root, *methods, seeds=seeds, **more), lambda _: None)
    assert not broken, broken
    return cells


def edit(path: Path, change: Callable[[dict[str, Any]], Any], seal: bool = False) -> None:
    """Change the JSON of a record, or of the only record of a published pair.

    Args:
        path: The file.
        change: Changes what it says.
        seal: Whether the fingerprint is made to follow.
    """
    value = json.loads(path.read_text())
    change(value)
    value = sealed(value) if seal else value
    path.write_text(json.dumps(value, sort_keys=True) + "\n")


def forge(
    record: Record, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame, **fields: Any
) -> Record:
    """Write a record again with other evidence or fields, with hashes, names and scores that go with it."""
    frame = change(evidence(record).copy())
    value = sealed({**record.model_dump(mode="json", exclude={"scores", "evidence"}), **fields})
    store = record.path.parents[3]
    kept = {path.name: path.read_bytes() for path in record.path.parent.glob("*.png")}
    shutil.rmtree(record.path.parent)
    path = write_record(store, value, frame)
    for name, content in kept.items():
        (path.parent / name).write_bytes(content)
    return read_record(path)


def reasons(done: Submission | TreeCheck) -> str:
    """All refusals, one per line."""
    return "\n".join(finding.reason for finding in done.findings if finding.level == "refused")
