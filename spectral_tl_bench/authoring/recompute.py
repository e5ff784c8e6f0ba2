"""Stored results made again: cells trained anew, and their confusion matrices held against those of the records."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spectral_tl_bench.benchmarks import read_benchmark
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import digest, file_digest
from spectral_tl_bench.later_options import as_recorded
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.methods.registry import load_method
from spectral_tl_bench.models.backbones import load_backbone
from spectral_tl_bench.objectives.registry import load_objective
from spectral_tl_bench.plugins import SUITE
from spectral_tl_bench.protocol.names import AS_PUBLISHED
from spectral_tl_bench.protocol.settings import RATES, Overrides
from spectral_tl_bench.results.evidence import Evidence
from spectral_tl_bench.results.schema import BackboneFacts, Record
from spectral_tl_bench.results.store import load_evidence, read_record
from spectral_tl_bench.runner.run import Request, execute, plan
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import Say

TOLERANCE, ELSEWHERE = 0.02, 0.10
"""Share of the labelled pixels that may be predicted as another class when a cell is trained again: with the libraries
that the record names, and with others.

On the same machine with the same libraries none are. Elsewhere sums of floating point numbers end in other digits,
training carries them on, and pixels between two classes change sides: 0 to 5 % of them in cells of the sample, trained
with torch 2.14 instead of the records' 2.15. Another seed moves 19 % in the median, and less than 5 % in 1 of 100 rows.
"""


@dataclass(frozen=True)
class Recomputed:
    """How one record fared.

    Attributes:
        moved: Share of the labelled pixels that are predicted as another class now, by checkpoint; empty where nothing
            was trained.
        reason: Why nothing was trained, or why the training failed.
        failed: Whether the training was tried and failed.
        elsewhere: What it was made with and is not made with here: library or device, with both values.
    """

    record: Record
    moved: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    failed: bool = False
    elsewhere: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the record; what cannot be trained here does not."""
        return not self.failed and max(self.moved.values(), default=0.0) <= self.allowed

    @property
    def allowed(self) -> float:
        """The share of pixels that may have moved."""
        return ELSEWHERE if self.elsewhere else TOLERANCE


def choose(records: Iterable[Record], number: int, seed: int) -> list[Record]:
    """A sample of the completed records: the same whenever records, number and seed are the same.

    Args:
        seed: Another one gives another sample.
    """
    completed = [record for record in records if record.status == "completed"]
    return sorted(completed, key=lambda record: digest(seed, record.fingerprint))[:number]


def recompute(
    record: Record, work: Path, data_root: Path | None, definitions: Path | None, say: Say, trusted: bool = False,
    weights: Path | None = None,
) -> Recomputed:  # fmt: skip
    """Train the cell of a record again and compare.

    Args:
        record: A completed record.
        work: A folder for the new record.
        data_root: Where the data are, if not on the sample.
        definitions: Where users' benchmarks are kept, ``docs/examples``.
        trusted: Whether links and VRTs may lead out of the data root.
        weights: Folder of files of weights, which are known by their digests.
    """
    known = record.identity()
    if known is None:
        return Recomputed(record, reason="its identity is not known")
    try:
        cells, broken = plan(replace(request_of(record, data_root, definitions, weights), trust_data=trusted), say)
        if not cells:
            raise broken[0][1]
        cell = cells[0]
        different = known.differences(cell.identity(cell.split()))
    except UserError as error:
        return Recomputed(record, reason=error.what)
    if different:
        return Recomputed(record, reason=f"it would be another cell here: {', '.join(different)} differ")
    outcome = execute([cell], work, Hardware(), 0, say)[0]
    if outcome.record is None or outcome.state not in ("done", "found"):
        return Recomputed(record, reason=outcome.message, failed=True)
    again = read_record(outcome.record)
    return Recomputed(record, moved_pixels(load_evidence(record), load_evidence(again)), elsewhere=_made(record, again))


def moved_pixels(first: Evidence, second: Evidence) -> dict[str, float]:
    """The share of the labelled pixels that two results of the same target predict as different classes, at least.

    Returns:
        From 0 to 1 by checkpoint; 1 where they are not of the same chips and ground truth.
    """
    shares = {}
    for name in first.matrices.keys() | second.matrices.keys():
        before, after = first.matrices.get(name), second.matrices.get(name)
        shares[name] = 1.0
        if before is None or after is None or first.chips != second.chips or before.shape != after.shape:
            continue
        if np.array_equal(before.sum(axis=2), after.sum(axis=2)):
            shares[name] = float(np.abs(before - after).sum() / 2 / max(1, before.sum()))
    return shares


def request_of(
    record: Record, data_root: Path | None, definitions: Path | None, weights: Path | None = None
) -> Request:
    """What a user would ask for to get this record.

    Raises:
        UserError: If something that it needs is not here.
    """
    budget: Any = record.settings["budget"]
    chosen = {name: value for name, value in as_recorded(Budget, budget).items() if name in RATES}
    names = ["window", "stride", "validations", "precision", "compile"]
    if (plateau := budget.get("plateau")) is not None:
        names.remove("validations")
        chosen |= {"until_plateau": True, "validate_every": plateau["validate_every"], "patience": plateau["patience"]}
    chosen |= {key: record.settings[key] for key in names if key in record.settings}
    return Request(
        benchmarks=[_definition(record, definitions)],
        methods=[record.method],
        options=as_recorded(load_method(record.method), record.options),
        seeds=[record.seed],
        data_root=data_root if record.track != "sample" else None,
        allow_partial=record.track == "partial",
        protocol=record.protocol,
        as_published=record.protocol == AS_PUBLISHED,
        overrides=Overrides.model_validate(chosen),
        oracle=record.scores is not None and record.scores.oracle is not None,
        objective_options={key: as_recorded(load_objective(key), own) for key, own in record.objectives.items()},
        **(_backbone(record.backbone, weights) if record.backbone is not None else {}),
    )


def _backbone(facts: BackboneFacts, folder: Path | None = None) -> dict[str, Any]:
    weights = "none"
    if facts.weights is not None:
        weights = facts.weights.source
        if weights == "file":
            found = next((path for path, known in _digests(folder) if known == facts.weights.digest), None)
            if found is None:
                missing = f"the weights of {facts.name} were a file with SHA-256 {facts.weights.digest[:12]}"
                raise UserError(f"{missing}, which is not {f'in {folder}' if folder else 'known (--weights-root)'}")
            weights = str(found)
    sizes = {name: getattr(facts, name) for name in load_backbone(facts.name).sizes}
    return {
        "backbone": facts.name,
        "backbone_sizes": sizes,
        "weights": weights,
        "patch_embedding": facts.patch_embedding,
        "input_scale": str(facts.input_scale),
        "level_norm": facts.level_norm,
        "input_norm": facts.input_norm,
    }


@functools.cache
def _digests(folder: Path | None) -> list[tuple[Path, str]]:
    """The files of a folder with their digests."""
    files = sorted(folder.iterdir()) if folder is not None else []
    return [(path, file_digest(path)) for path in files if path.is_file()]


def _definition(record: Record, folder: Path | None) -> str:
    if record.track != "demonstration":
        return record.benchmark
    for path in sorted(folder.glob("[!_]*.yaml")) if folder is not None else ():
        try:
            if read_benchmark(path).id == record.benchmark:
                return str(path)
        except UserError:
            continue
    raise UserError(f"the definition of {record.benchmark} is not here")


def _made(record: Record, again: Record) -> dict[str, tuple[str, str]]:
    old = {**record.environment, "device": record.device or ""}
    new = {**again.environment, "device": again.device or ""}
    # Which of the suite's code changed numbers say the numerics versions; its own version makes no other machine.
    suite = (SUITE, f"method package {SUITE}")
    names: Sequence[str] = [name for name in old if name in new and name not in suite and not name.endswith(" code")]
    return {name: (old[name], new[name]) for name in names if old[name] != new[name]}
