"""Evidence: one confusion matrix per target chip and checkpoint, as a table and as Parquet bytes."""

from __future__ import annotations

import io
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.schema import Checkpoint

TEXT_COLUMNS = ("chip", "domain", "site", "checkpoint")
COLUMNS = (*TEXT_COLUMNS, "matrix")
_SCHEMA = pa.schema([*[(name, pa.string()) for name in TEXT_COLUMNS], ("matrix", pa.list_(pa.int64()))])
_CHECKPOINTS: tuple[str, ...] = get_args(Checkpoint)


def check_frame(frame: pd.DataFrame, num_classes: int, where: object) -> pd.DataFrame:
    """Check evidence and bring it into its stored form.

    Args:
        frame: Columns as ``COLUMNS``, in any order; ``matrix`` is (K, K) or (K * K,) of integers.
        num_classes: K.
        where: Named in errors.

    Returns:
        A new frame, sorted by checkpoint and chip, with ``matrix`` as int64 (K * K,).

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
    for name, values in table.items():
        wrong = next((value for value in values if not isinstance(value, str) or not value), None)
        if wrong is not None or None in values:
            raise RecordError(f"column {name!r} of the evidence holds {wrong!r}", where=where, expected="text")
    matrices = [
        _flat(matrix, num_classes, chip, where) for matrix, chip in zip(frame["matrix"], table["chip"], strict=True)
    ]
    result = pd.DataFrame({**table, "matrix": pd.Series(matrices, dtype=object)})
    result = result.sort_values(["checkpoint", "chip"], kind="stable", ignore_index=True)
    _check_checkpoints(result, num_classes, where)
    return result


def pooled(frame: pd.DataFrame, checkpoint: str, num_classes: int) -> dict[str, NDArray[np.int64]]:
    """The confusion matrix (K, K) of each domain, of one checkpoint."""
    part = frame[frame["checkpoint"] == checkpoint]
    return {
        str(domain): np.sum(np.stack(list(rows["matrix"])), axis=0).reshape(num_classes, num_classes)
        for domain, rows in part.groupby("domain", sort=True)
    }


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Parquet bytes of a checked frame; the same frame gives the same bytes."""
    columns = [pa.array(frame[name].tolist(), type=_SCHEMA.field(name).type) for name in COLUMNS]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), stream, compression="zstd")
    return stream.getvalue()


def from_parquet(content: bytes, where: object) -> pd.DataFrame:
    """Read what ``to_parquet`` wrote; the content is not checked yet.

    Raises:
        RecordError: If the bytes are no Parquet or have other columns or types.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"the evidence is not Parquet: {error}", where=where) from None
    if not table.schema.equals(_SCHEMA):
        found = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
        expected = ", ".join(f"{field.name}: {field.type}" for field in _SCHEMA)
        raise RecordError(f"the evidence has the columns {found}", where=where, expected=expected)
    return pd.DataFrame({name: table.column(name).to_pylist() for name in COLUMNS})


def _flat(matrix: Any, num_classes: int, chip: str, where: object) -> NDArray[np.int64]:
    try:
        values = np.asarray(matrix)
    except ValueError:
        values = np.empty(0)
    sizes = {(num_classes, num_classes), (num_classes * num_classes,)}
    if values.shape not in sizes or values.dtype.kind not in "iu" or (values < 0).any():
        raise RecordError(
            f"the matrix of chip {chip!r} is not a confusion matrix of {num_classes} classes",
            where=where,
            expected=f"{num_classes * num_classes} integers of at least 0",
        )
    return values.astype(np.int64).reshape(-1)


def _check_checkpoints(frame: pd.DataFrame, num_classes: int, where: object) -> None:
    found = set(frame["checkpoint"])
    if not {"selected", "last"} <= found <= set(_CHECKPOINTS):
        raise RecordError(
            f"the evidence has the checkpoints {', '.join(sorted(found)) or 'none'}",
            where=where,
            expected="selected and last, and perhaps oracle",
        )
    twice = frame[frame.duplicated(["checkpoint", "chip"])]
    if len(twice):
        raise RecordError(f"chip {twice['chip'].iloc[0]!r} comes twice for one checkpoint", where=where)
    reference = _ground_truth(frame, "selected", num_classes)
    for checkpoint in sorted(found - {"selected"}):
        other = _ground_truth(frame, checkpoint, num_classes)
        different = sorted(chip for chip in reference.keys() | other.keys() if reference.get(chip) != other.get(chip))
        if different:
            raise RecordError(
                f"chip {different[0]!r} differs in place or ground truth between 'selected' and {checkpoint!r}",
                where=where,
                expected="all checkpoints evaluated on the same pixels",
            )


def _ground_truth(frame: pd.DataFrame, checkpoint: str, num_classes: int) -> dict[str, tuple[str, str, bytes]]:
    part = frame[frame["checkpoint"] == checkpoint]
    return {
        chip: (domain, site, matrix.reshape(num_classes, num_classes).sum(axis=1).tobytes())
        for chip, domain, site, matrix in zip(part["chip"], part["domain"], part["site"], part["matrix"], strict=True)
    }
