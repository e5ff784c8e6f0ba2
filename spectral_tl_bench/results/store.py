"""The record store: one folder per cell, with a JSON record and, beside it, the Parquet evidence for its scores.

The evidence has one row per target chip and checkpoint: that chip's confusion matrix. Scores are never taken on
trust: they are computed from the evidence when a record is written, and again when it is verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation.metrics import released_from_strict, score
from spectral_tl_bench.files import digest, write_bytes, write_json
from spectral_tl_bench.results.evidence import Evidence, check_frame, from_parquet, to_parquet
from spectral_tl_bench.results.places import mean_iou
from spectral_tl_bench.results.schema import Record, ScoreBlock

RECORD_FILE = "record.json"
_TOLERANCE = 1e-9  # sums of float64 may round otherwise in another numpy; an edited score differs by more
_MEASURED = ("selection", "seconds", "peak_memory_mb", "stages")  # where NaN can come up and means: unknown


def block(matrices: Mapping[str, NDArray[np.int64]]) -> ScoreBlock:
    """The scores of one checkpoint.

    Args:
        matrices: Confusion matrix (K, K) of each target domain.

    Returns:
        Scores over the pooled domains, and the mIoU of each.

    Raises:
        RecordError: If there is no labelled pixel at all.
    """
    total = np.sum(list(matrices.values()), axis=0)
    if not total.sum():
        raise RecordError("the target has no labelled pixel, so there is nothing to score")
    scores = score(total)
    # The release's rule only differs where a class without ground truth was predicted.
    strange = total.sum(axis=0)[total.sum(axis=1) == 0].any()
    released = released_from_strict(total).miou if strange else scores.miou
    names = sorted(matrices)
    stack = np.stack([matrices[name] for name in names])
    right = np.diagonal(stack, axis1=1, axis2=2)
    by_domain = mean_iou(right, stack.sum(axis=1) + stack.sum(axis=2) - right)
    per_domain = {name: _known(float(value)) for name, value in zip(names, by_domain, strict=True)}
    measured = {name: value for name, value in per_domain.items() if value is not None}
    return ScoreBlock(
        miou=scores.miou,
        iou=tuple(_known(value) for value in scores.iou),
        oa=scores.oa,
        mean_f1=scores.mean_f1,
        kappa=_known(scores.kappa),
        per_domain=per_domain,
        worst_domain=min(measured, key=lambda name: (measured[name], name)),
        release_miou=_known(released),
    )


def record_folder(root: Path, benchmark: str, method: str, fingerprint: str) -> Path:
    """The folder of one cell in a store."""
    return root / benchmark / method / fingerprint[:16]


def write_record(folder: Path, record_fields: Mapping[str, Any], evidence: pd.DataFrame | None = None) -> Path:
    """Store one cell, evidence first, so that no record ever points at evidence that is missing.

    Args:
        folder: Root of the store; the record goes to ``<benchmark>/<method>/<fingerprint[:16]>/record.json`` in it.
        record_fields: Fields of ``Record`` without ``scores`` and ``evidence``, which are made here.
        evidence: One row per target chip and checkpoint with the columns ``chip``, ``domain``, ``site``,
            ``checkpoint`` (selected, last, oracle) and ``matrix`` (K, K) or flattened; None for a failed cell.

    Returns:
        Path of the JSON file.

    Raises:
        RecordError: If a field is missing, unknown or wrong, or the evidence does not fit the fields.
        ValueError: If ``scores`` or ``evidence`` are given as fields.
    """
    fields = {key: _without_nan(value) if key in _MEASURED else value for key, value in record_fields.items()}
    if fields.get("scores") is not None or fields.get("evidence") is not None:
        raise ValueError("scores and evidence are computed from the evidence frame; do not give them as fields")
    content = b""
    if evidence is not None:
        where, num_classes = "the evidence frame", len(fields.get("classes") or ())
        checked = check_frame(evidence, num_classes, where)
        content = to_parquet(checked)
        sha256 = hashlib.sha256(content).hexdigest()
        blocks = {name: block(matrices) for name, matrices in checked.by_domain.items()}
        fields |= {"scores": blocks, "evidence": {"file": f"evidence-{sha256[:16]}.parquet", "sha256": sha256}}
    record = _validated(fields, "the fields of a new record")
    if evidence is not None:
        _check_chips(record, checked, where)
    value = record.model_dump(mode="json")
    _refuse_non_finite(value)

    path = record_folder(Path(folder), record.benchmark, record.method, record.fingerprint) / RECORD_FILE
    replaced = _evidence_file_of(path)
    if record.evidence is not None:
        write_bytes(path.parent / record.evidence.file, content)
    write_json(path, value)
    if replaced is not None and (record.evidence is None or replaced.name != record.evidence.file):
        replaced.unlink(missing_ok=True)
    return path


def read_record(path: Path) -> Record:
    """Read and check one record; its scores are not verified yet, see ``verify``.

    Raises:
        RecordError: If the file cannot be read or a key is missing, unknown or wrong; it names file and key.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordError(f"the record cannot be read: {reason}", where=path) from None
    if not isinstance(value, dict):
        raise RecordError("a record is a JSON object", where=path)
    if value.get("schema_version") == 1:  # its identity was a hash over source text, which says nothing here
        value["schema_version"] = 2
    return _validated(value, path).at(path)


def read_records(roots: Iterable[Path]) -> list[Record]:
    """Read every ``record.json`` below the given folders (or the given files themselves), sorted by path.

    Raises:
        RecordError: If a root does not exist or a record cannot be used.
    """
    paths: set[Path] = set()
    for root in map(Path, roots):
        if not root.exists():
            raise RecordError("there is no such folder of records", where=root)
        paths.update([root] if root.is_file() else root.rglob(RECORD_FILE))
    return [read_record(path) for path in sorted(paths)]


def load_evidence(record: Record) -> Evidence:
    """The evidence of a completed record, checked, as arrays.

    Raises:
        RecordError: If it is missing, was changed, or does not fit the record.
    """
    if record.path is None or record.evidence is None:
        raise RecordError(
            "this record has no stored evidence", where=record.path, expected="a completed, stored record"
        )
    path = record.path.parent / record.evidence.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"the evidence cannot be read: {error.strerror}", where=path) from None
    if hashlib.sha256(content).hexdigest() != record.evidence.sha256:
        raise RecordError(
            "the evidence is not the file that the record was written with (key 'evidence.sha256')",
            where=path,
            fix="restore both files from where they were made, or run the cell again",
        )
    found = from_parquet(content, len(record.classes), path)
    _check_chips(record, found, path)
    return found


def target_digest(record: Record, found: Evidence) -> str:
    """A hash of the chips and their ground truth: equal where two records were evaluated on the same pixels."""
    truth = found.matrices["selected"].sum(axis=2).tolist()
    return digest(list(record.classes), found.chips, found.domains, truth)[:16]


def evidence(record: Record) -> pd.DataFrame:
    """As ``load_evidence``, as a table: chip, domain, site, checkpoint, matrix (K * K,) int64, row-major."""
    return load_evidence(record).frame()


def verify(record: Record) -> dict[str, ScoreBlock]:
    """Compute a completed record's scores again from its evidence.

    Returns:
        The recomputed blocks, by checkpoint.

    Raises:
        RecordError: If a stored score is another one; it names the key.
    """
    return check_scores(record, load_evidence(record))


def check_scores(record: Record, found: Evidence | pd.DataFrame) -> dict[str, ScoreBlock]:
    """As ``verify``, for evidence that was loaded already."""
    if record.scores is None:
        raise RecordError("this record has no scores", where=record.path)
    if isinstance(found, pd.DataFrame):
        found = check_frame(found, len(record.classes), record.path)
    stored = record.scores.blocks()
    checkpoints = set(found.matrices)
    if checkpoints != set(stored):
        raise RecordError(
            f"key 'scores' has {', '.join(sorted(stored))}, its evidence {', '.join(sorted(checkpoints))}",
            where=record.path,
        )
    computed = {name: block(found.by_domain[name]) for name in stored}
    for name, wanted in computed.items():
        for key in ScoreBlock.model_fields:
            value, told = getattr(wanted, key), getattr(stored[name], key)
            if not _same(value, told):
                raise RecordError(
                    f"key 'scores.{name}.{key}' is {told!r:.120}, but the evidence says {value!r:.120}",
                    where=record.path,
                    fix="the score was edited, or written by other code; run the cell again",
                )
    return computed


def _validated(fields: Mapping[str, Any], where: object) -> Record:
    try:
        return Record.model_validate(dict(fields))
    except ValidationError as error:
        problems = []
        # what is wrong says more than what is missing, which a wrong key often explains
        for item in sorted(error.errors(), key=lambda item: item["type"] == "missing"):
            key = ".".join(str(part) for part in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"key {key!r}: {message}" if key else message)
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise RecordError(
            "this is not a valid record:\n    " + "\n    ".join(problems[:5]) + more, where=where
        ) from None


def _check_chips(record: Record, found: Evidence, where: object) -> None:
    unknown = sorted(set(found.domains) - set(record.target_domains))
    if unknown:
        raise RecordError(
            f"the evidence has chips of domain {unknown[0]!r}", where=where, expected=", ".join(record.target_domains)
        )
    wanted = record.data.chips.target if record.data is not None else None
    if len(found.chips) != wanted:
        raise RecordError(
            f"the evidence has {len(found.chips)} target chips, key 'data.chips.target' says {wanted}", where=where
        )


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= _TOLERANCE
    return bool(left == right)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _refuse_non_finite(value: Mapping[str, Any]) -> None:
    for key, item in value.items():
        try:
            json.dumps(item, allow_nan=False)
        except ValueError:
            raise RecordError(f"key {key!r} holds a number that is not finite, which JSON cannot say") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return value


def _evidence_file_of(path: Path) -> Path | None:
    """The evidence of the record that is about to be replaced, where there is a readable one."""
    with contextlib.suppress(RecordError):
        old = read_record(path)
        if old.evidence is not None:
            return path.parent / old.evidence.file
    return None


__all__ = [
    "RECORD_FILE",
    "Record",
    "ScoreBlock",
    "block",
    "check_scores",
    "evidence",
    "load_evidence",
    "read_record",
    "read_records",
    "record_folder",
    "target_digest",
    "verify",
    "write_record",
]
