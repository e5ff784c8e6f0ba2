"""Evidence: one confusion matrix per target chip and checkpoint, as arrays, as a table and as Parquet bytes."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.schema import Checkpoint

TEXT_COLUMNS = ("chip", "domain", "site", "checkpoint")
COLUMNS = (*TEXT_COLUMNS, "matrix")
SCHEMA = pa.schema([*[(name, pa.string()) for name in TEXT_COLUMNS], ("matrix", pa.list_(pa.int64()))])
_CHECKPOINTS: tuple[str, ...] = get_args(Checkpoint)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Checked evidence of one record.

    Attributes:
        chips: The target chips, sorted.
        sites: Place of each chip: city, site or grid block.
        matrices: Confusion matrices (chips, K, K) int64 by checkpoint; the ground truth is the same in all.
    """

    chips: tuple[str, ...]
    domains: tuple[str, ...]
    sites: tuple[str, ...]
    matrices: dict[str, NDArray[np.int64]]

    def frame(self) -> pd.DataFrame:
        """The stored form: columns ``COLUMNS``, sorted by checkpoint and chip, ``matrix`` as int64 (K * K,)."""
        parts = [
            pd.DataFrame({
                "chip": self.chips, "domain": self.domains, "site": self.sites, "checkpoint": checkpoint,
                "matrix": pd.Series(list(matrices.reshape(len(matrices), -1)), dtype=object),
            })
            for checkpoint, matrices in self.matrices.items()
        ]  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def sha256(self) -> str:
        """A hash of the content (64 hex digits): the same in every file and with every version of PyArrow."""
        names = sorted(self.matrices)
        total = hashlib.sha256(json.dumps([self.chips, self.domains, self.sites, names]).encode())
        for name in names:
            total.update(np.ascontiguousarray(self.matrices[name], dtype="<i8").data)
        return total.hexdigest()

    @cached_property
    def by_domain(self) -> dict[str, dict[str, NDArray[np.int64]]]:
        """The confusion matrix (K, K) of each domain, by checkpoint."""
        domains = np.array(self.domains)
        masks = {name: domains == name for name in sorted(set(self.domains))}
        return {
            checkpoint: {name: matrices[mask].sum(axis=0) for name, mask in masks.items()}
            for checkpoint, matrices in self.matrices.items()
        }


def check_frame(frame: pd.DataFrame, num_classes: int, where: object) -> Evidence:
    """Check evidence that comes as a table.

    Args:
        frame: Columns as ``COLUMNS``, rows in any order; ``matrix`` is (K, K) or (K * K,) of integers.
        num_classes: K.
        where: Named in errors.

    Raises:
        RecordError: If a column is missing or unknown, a matrix is no confusion matrix, a chip comes twice, or
            the checkpoints were not evaluated on the same pixels.
    """
    if set(frame.columns) != set(COLUMNS):
        raise RecordError(
            f"the evidence has the columns {', '.join(map(str, frame.columns))}",
            where=where,
            expected=", ".join(COLUMNS),
        )
    table = {name: frame[name].tolist() for name in TEXT_COLUMNS}
    _check_text(table, where)
    matrices = [
        _flat(matrix, num_classes, chip, where) for matrix, chip in zip(frame["matrix"], table["chip"], strict=True)
    ]
    return _checked(table, np.array(matrices, dtype=np.int64).reshape(-1, num_classes, num_classes), where)


def to_parquet(evidence: Evidence) -> bytes:
    """Parquet bytes; the same evidence gives the same bytes."""
    stream = io.BytesIO()
    pq.write_table(to_table(evidence), stream, compression="zstd")
    return stream.getvalue()


def from_parquet(content: bytes, num_classes: int, where: object) -> Evidence:
    """Read and check what ``to_parquet`` wrote.

    Raises:
        RecordError: If the bytes are no Parquet, have other columns or types, or as in ``check_frame``.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"the evidence is not Parquet: {error}", where=where) from None
    return from_table(table, num_classes, where)


def to_table(evidence: Evidence) -> pa.Table:
    """The evidence as an Arrow table with the columns ``COLUMNS``, sorted by checkpoint and chip."""
    checkpoints, chips = list(evidence.matrices), len(evidence.chips)
    texts = [evidence.chips, evidence.domains, evidence.sites]
    columns = [pa.array(list(values) * len(checkpoints), type=pa.string()) for values in texts]
    columns.append(pa.array([name for name in checkpoints for _ in range(chips)], type=pa.string()))
    flat = np.concatenate([evidence.matrices[name].reshape(chips, -1) for name in checkpoints])
    ends = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
    columns.append(
        pa.ListArray.from_arrays(pa.array(ends), pa.array(flat.reshape(-1)), type=SCHEMA.field("matrix").type)
    )
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def from_table(table: pa.Table, num_classes: int, where: object) -> Evidence:
    """Check evidence that comes as an Arrow table with the columns ``COLUMNS``.

    Raises:
        RecordError: If it has other columns or types, or as in ``check_frame``.
    """
    if not table.schema.equals(SCHEMA):
        columns = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
        expected = ", ".join(f"{field.name}: {field.type}" for field in SCHEMA)
        raise RecordError(f"the evidence has the columns {columns}", where=where, expected=expected)
    texts = {name: table.column(name).to_pylist() for name in TEXT_COLUMNS}
    _check_text(texts, where)
    lists = table.column("matrix").combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    values = lists.flatten()
    if lists.null_count or values.null_count or (lengths != num_classes * num_classes).any():
        wrong = [value is None or None in value or len(value) != num_classes**2 for value in lists.to_pylist()]
        raise _no_confusion_matrix(texts["chip"][wrong.index(True)], num_classes, where)
    matrices = values.to_numpy().reshape(-1, num_classes, num_classes)
    if matrices.size and matrices.min() < 0:
        raise _no_confusion_matrix(texts["chip"][int((matrices < 0).any(axis=(1, 2)).argmax())], num_classes, where)
    return _checked(texts, matrices, where)


def _check_text(table: dict[str, list[Any]], where: object) -> None:
    for name, values in table.items():
        for value in values:
            if not isinstance(value, str) or not value:
                raise RecordError(f"column {name!r} of the evidence holds {value!r}", where=where, expected="text")


def _flat(matrix: Any, num_classes: int, chip: str, where: object) -> NDArray[np.int64]:
    try:
        values = np.asarray(matrix)
    except ValueError:
        values = np.empty(0)
    sizes = {(num_classes, num_classes), (num_classes * num_classes,)}
    if values.shape not in sizes or values.dtype.kind not in "iu" or (values < 0).any():
        raise _no_confusion_matrix(chip, num_classes, where)
    return values.astype(np.int64).reshape(-1)


def _no_confusion_matrix(chip: str, num_classes: int, where: object) -> RecordError:
    return RecordError(
        f"the matrix of chip {chip!r} is not a confusion matrix of {num_classes} classes",
        where=where,
        expected=f"{num_classes * num_classes} integers of at least 0",
    )


def _checked(table: dict[str, list[str]], matrices: NDArray[np.int64], where: object) -> Evidence:
    """Sort by checkpoint and chip, and check that every checkpoint was evaluated on the same pixels."""
    keys = list(zip(table["checkpoint"], table["chip"], strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    checkpoints = sorted(set(table["checkpoint"]))
    if not {"selected", "last"} <= set(checkpoints) <= set(_CHECKPOINTS):
        raise RecordError(
            f"the evidence has the checkpoints {', '.join(checkpoints) or 'none'}",
            where=where,
            expected="selected and last, and perhaps oracle",
        )
    if len(set(keys)) != len(keys):
        twice = next(row for row, next_row in itertools.pairwise(order) if keys[row] == keys[next_row])
        raise RecordError(f"chip {table['chip'][twice]!r} comes twice for one checkpoint", where=where)
    rows = {name: [row for row in order if table["checkpoint"][row] == name] for name in checkpoints}
    places = {
        name: [(table["chip"][r], table["domain"][r], table["site"][r]) for r in rows[name]] for name in checkpoints
    }
    parts = {name: matrices[rows[name]] for name in checkpoints}
    truth = {name: part.sum(axis=2) for name, part in parts.items()}
    for name in checkpoints:
        if places[name] != places["selected"] or not np.array_equal(truth[name], truth["selected"]):
            chip = _first_difference(places[name], truth[name], places["selected"], truth["selected"])
            raise RecordError(
                f"chip {chip!r} differs in place or ground truth between 'selected' and {name!r}",
                where=where,
                expected="all checkpoints evaluated on the same pixels",
            )
    chips, domains, sites = zip(*places["selected"], strict=True)
    return Evidence(chips, domains, sites, parts)


def _first_difference(
    places: list[tuple[str, str, str]],
    truth: NDArray[np.int64],
    others: list[tuple[str, str, str]],
    other_truth: NDArray[np.int64],
) -> str:
    left, right = (
        {place[0]: (place, row.tobytes()) for place, row in zip(chip_places, rows, strict=True)}
        for chip_places, rows in ((places, truth), (others, other_truth))
    )
    return min(chip for chip in left.keys() | right.keys() if left.get(chip) != right.get(chip))
