"""Evidence that was not written by the suite is checked as it is read."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.evidence import COLUMNS, check_frame, from_parquet, to_parquet

TYPES = [*((name, pa.string()) for name in COLUMNS[:-1]), ("matrix", pa.list_(pa.int64()))]


def parquet(frame, types=TYPES, **columns) -> bytes:
    """The frame as Parquet with other columns, unchecked."""
    values = {name: frame[name].tolist() for name in COLUMNS} | columns
    stream = io.BytesIO()
    pq.write_table(pa.table(values, schema=pa.schema(types)), stream)
    return stream.getvalue()


def test_read_is_what_was_checked_whatever_the_order(frame):
    checked = check_frame(frame(1), 4, "here")
    for content in (to_parquet(checked), parquet(frame(1).sample(frac=1, random_state=0))):
        found = from_parquet(content, 4, "here")
        assert (found.chips, found.domains, found.sites) == (checked.chips, checked.domains, checked.sites)
        assert all(np.array_equal(found.matrices[name], checked.matrices[name]) for name in checked.matrices)
        assert to_parquet(found) == to_parquet(checked)
    for checkpoint, by_domain in found.by_domain.items():
        assert sum(by_domain.values()).tolist() == found.matrices[checkpoint].sum(axis=0).tolist()


def _with(frame, change):
    matrices = [matrix.tolist() for matrix in frame["matrix"]]
    matrices[5] = change(matrices[5])
    return matrices


@pytest.mark.parametrize(
    "change",
    [
        lambda m: None,
        lambda m: [],
        lambda m: m[:9],
        lambda m: [*m[:-1], None],
        lambda m: [-1, *m[1:]],
    ],
)
def test_what_is_no_confusion_matrix_is_refused(frame, change):
    given = frame(1)
    with pytest.raises(RecordError, match=f"matrix of chip '{given['chip'][5]}' is not a confusion matrix of 4"):
        from_parquet(parquet(given, matrix=_with(given, change)), 4, "here")


def test_other_faults_are_refused(frame):
    given = frame(1)
    with pytest.raises(RecordError, match="column 'site' of the evidence holds None"):
        from_parquet(parquet(given, site=[None, *given["site"][1:]]), 4, "here")
    with pytest.raises(RecordError, match="confusion matrix of 5 classes"):
        from_parquet(parquet(given), 5, "here")
    with pytest.raises(RecordError, match=r"has the columns .*matrix: list<.*: int32>"):
        from_parquet(parquet(given, types=[*TYPES[:-1], ("matrix", pa.list_(pa.int32()))]), 4, "here")
    with pytest.raises(RecordError, match="checkpoints none"):
        from_parquet(parquet(given.iloc[:0]), 4, "here")
    moved = given["site"].where(given["checkpoint"] != "last", "elsewhere").tolist()
    with pytest.raises(RecordError, match="chip 'c1' differs in place or ground truth"):
        from_parquet(parquet(given, site=moved), 4, "here")
    with pytest.raises(RecordError, match="comes twice"):
        from_parquet(parquet(given, chip=["c1"] * len(given)), 4, "here")
