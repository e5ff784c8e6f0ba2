"""The store of records: written by runs into a folder per cell, read from there and from published results.

A run's folder holds ``record.json`` and, beside it, the Parquet evidence for its scores: one row per target chip and
checkpoint, with that chip's confusion matrix. Scores are never taken on trust: they are computed from the evidence when
a record is written, and again when it is verified. Published results are the same in fewer files, see ``published``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_tl_bench.defaults import RESULTS_VARIABLE
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.files import digest, write_bytes, write_json
from spectral_tl_bench.results.evidence import Evidence, check_frame, to_parquet
from spectral_tl_bench.results.location import CHANGED, RESTORE, Folder
from spectral_tl_bench.results.published import LINES, Pair, is_pair, read_pair
from spectral_tl_bench.results.reading import parse_record, validated
from spectral_tl_bench.results.schema import Record, ScoreBlock
from spectral_tl_bench.results.scores import block, check_scores
from spectral_tl_bench.results.tuning import Tuning

RECORD_FILE = "record.json"
WEIGHTS_FILE = "selected.safetensors"
_FOLDER_DIGITS = 16  # of the fingerprint, in the name of a record's folder
_MEASURED = ("selection", "seconds", "peak_memory_mb", "stages")  # where NaN can come up and means: unknown


def record_folder(root: Path, benchmark: str, method: str, fingerprint: str) -> Path:
    """The folder of one cell in a store."""
    return root / benchmark / method / fingerprint[:_FOLDER_DIGITS]


def write_record(folder: Path, record_fields: Mapping[str, Any], evidence: pd.DataFrame | None = None) -> Path:
    """Store one cell, evidence first, so that no record ever points at evidence that is missing.

    Args:
        folder: Root of the store; the record goes to ``<benchmark>/<method>/<fingerprint[:16]>/record.json`` in it.
        record_fields: Fields of ``Record`` without ``scores`` and ``evidence``, which are made here.
        evidence: One row per target chip and checkpoint with the columns ``chip``, ``domain``, ``site``,
            ``checkpoint`` (selected, last, oracle) and ``matrix`` (K, K) or flattened; None for a failed cell.

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
        blocks = {name: block(matrices) for name, matrices in checked.by_domain.items()}
        fields |= {"scores": blocks, "evidence": {"sha256": checked.sha256}}
    record = validated(fields, "the fields of a new record")
    if evidence is not None:
        _check_chips(record, checked, where)
    value = record.model_dump(mode="json")
    _refuse_non_finite(value)

    path = record_folder(Path(folder), record.benchmark, record.method, record.fingerprint) / RECORD_FILE
    old = _old(path)
    tuned = old.tuning if old is not None and record.tuning is None else None
    if tuned is not None and not tuned.disagreements(record.options, record.settings):
        value["tuning"] = tuned.model_dump(mode="json")  # the number still stems from a search
    replaced = path.parent / old.evidence.file if old is not None and old.evidence is not None else None
    if record.evidence is not None:
        write_bytes(path.parent / record.evidence.file, content)
    write_json(path, value)
    if replaced is not None and (record.evidence is None or replaced.name != record.evidence.file):
        replaced.unlink(missing_ok=True)
    return path


def mark_tuned(record: Record, tuning: Tuning) -> Record:
    """Have a stored record of a run say which search its configuration stems from.

    Raises:
        RecordError: If the search chose another configuration.
        OSError: If it cannot be written; then it is what it was.
    """
    if record.path is None:
        raise ValueError("only a stored record can be marked")
    marked = validated({**record.model_dump(mode="json"), "tuning": tuning.model_dump(mode="json")}, record.path)
    write_json(record.path, marked.model_dump(mode="json"))
    return read_record(record.path)


def read_record(path: Path, *, read_before: bool = False) -> Record:
    """Read and check the record of a run's folder; its scores are not verified yet, see ``verify``.

    Args:
        path: The ``record.json``.
        read_before: Whether this very file was read before and found to be in order, which is faster.

    Raises:
        RecordError: If the file cannot be read or a key is missing, unknown or wrong; it names file and key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordError(f"the record cannot be read: {reason}", where=path) from None
    return parse_record(text, path, read_before=read_before).at(Folder(path))


def read_records(roots: Iterable[Path], read_before: Callable[[Path], bool] = lambda _: False) -> list[Record]:
    """Read every record below the given folders, or in the given files, sorted by path.

    Both forms are found: the ``record.json`` of runs, and published pairs.

    Args:
        roots: The folders and files.
        read_before: Whether a ``record.json`` is the very file that was read before and found to be in order.

    Raises:
        RecordError: If a root does not exist or a record cannot be used.
    """
    records: list[Record] = []
    for path in _files(roots):
        records += read_pair(path) if path.name != RECORD_FILE else [read_record(path, read_before=read_before(path))]
    return records


def records_like(prefix: str, roots: Iterable[Path]) -> list[Record]:
    """The records whose fingerprint, today's or the earlier one, begins with some digits; others are not read.

    Raises:
        RecordError: If a root does not exist, or such a record cannot be used.
    """
    records: list[Record] = []
    for path in _files(roots):
        if path.name != RECORD_FILE:
            pair, word = Pair(path), f'"{prefix}'
            with path.open(encoding="utf-8") as lines:
                records += [parse_record(line, path).at(pair) for line in lines if word in line]
        elif path.parent.name.startswith(prefix[:_FOLDER_DIGITS]):
            records.append(read_record(path))
    known = [(record, (record.fingerprint, record.earlier_fingerprint or "")) for record in records]
    return [record for record, prints in known if any(text.startswith(prefix) for text in prints)]


def _files(roots: Iterable[Path]) -> list[Path]:
    """Files of records below the given folders, sorted."""
    paths: set[Path] = set()
    for root in map(Path, roots):
        if not root.exists():
            raise RecordError(
                "there is no such folder of records", where=root, fix=f"name it: --records, or {RESULTS_VARIABLE}"
            )  # fmt: skip
        paths.update([root] if root.is_file() else _walk(root))
    return sorted(paths, key=lambda path: path.parts)  # as paths are sorted, ten times as fast


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]  # what runs need to go on, no results
        for name in names:
            if name == RECORD_FILE or (name.endswith(LINES) and is_pair(Path(folder, name))):
                yield Path(folder, name)


def load_evidence(record: Record) -> Evidence:
    """The evidence of a completed record, checked, as arrays.

    Raises:
        RecordError: If it is missing, was changed, or does not fit the record.
    """
    if record.location is None or record.evidence is None:
        raise RecordError(
            "this record has no stored evidence", where=record.path, expected="a completed, stored record"
        )
    evidence = record.location.evidence(record)
    if record.evidence.earlier_file is None and evidence.sha256 != record.evidence.sha256:
        raise RecordError(CHANGED, where=record.path, fix=RESTORE)
    _check_chips(record, evidence, record.path)
    return evidence


def target_digest(record: Record, evidence: Evidence) -> str:
    """A hash of the chips and their ground truth: equal where two records were evaluated on the same pixels."""
    truth = evidence.matrices["selected"].sum(axis=2).tolist()
    return digest(list(record.classes), evidence.chips, evidence.domains, truth)[:16]


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


def _check_chips(record: Record, evidence: Evidence, where: object) -> None:
    unknown = sorted(set(evidence.domains) - set(record.target_domains))
    if unknown:
        raise RecordError(
            f"the evidence has chips of domain {unknown[0]!r}", where=where, expected=", ".join(record.target_domains)
        )
    wanted = record.data.chips.target if record.data is not None else None
    if len(evidence.chips) != wanted:
        raise RecordError(
            f"the evidence has {len(evidence.chips)} target chips, key 'data.chips.target' says {wanted}", where=where
        )


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


def _old(path: Path) -> Record | None:
    """The record that is about to be replaced, where there is a readable one."""
    with contextlib.suppress(RecordError):
        return read_record(path)
    return None
