"""Records are whole or not there, and no score is believed that the evidence does not bear out."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import jaccard_score

import spectral_tl_bench.results.store as module
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.evidence import check_frame, to_parquet
from spectral_tl_bench.results.store import (
    block,
    evidence,
    load_evidence,
    read_record,
    read_records,
    verify,
    write_record,
)


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_round_trip(store, tmp_path, frame):
    record = store()
    assert record.path == tmp_path / "store" / "mts12-n2s" / "lora" / record.fingerprint[:16] / "record.json"
    assert sorted(path.name for path in record.path.parent.iterdir()) == [record.evidence.file, "record.json"]
    assert read_records([tmp_path / "store"]) == [record]
    assert record.scores.selected == verify(record)["selected"]
    given = frame(int(record.fingerprint[:8], 16))
    stored = evidence(record).set_index(["checkpoint", "chip"])
    for row in given.itertuples():
        np.testing.assert_array_equal(stored.loc[(row.checkpoint, row.chip), "matrix"], row.matrix)
    text = record.path.read_text()
    assert "NaN" not in text
    assert record.peak_memory_mb is None and record.selection.trace[1] == (10, None)


def test_a_record_of_before_does_not_say_what_is_in_the_decoder(store):
    """Published ones are compared byte by byte."""
    before = store()
    assert before.parameters.decoder is None
    assert json.loads(before.path.read_text())["parameters"] == {"total": 1000, "trainable": 100}
    counts = {"total": 1000, "trainable": 100, "decoder": 0}
    assert json.loads(store(parameters=counts, seed=5).path.read_text())["parameters"] == counts


def test_scores_are_those_of_the_pixels(store):
    record = store()
    rows = evidence(record).query("checkpoint == 'last'")
    matrices = {"all": sum(rows["matrix"]), "south": sum(rows[rows["domain"] == "south"]["matrix"])}
    expected = {}
    for name, flat in matrices.items():
        pairs = np.repeat(np.arange(16), flat)
        expected[name] = jaccard_score(pairs // 4, pairs % 4, average="macro", zero_division=0)
    scores = record.scores.last
    assert scores.miou == pytest.approx(expected["all"])
    assert scores.per_domain["south"] == pytest.approx(expected["south"])
    assert scores.worst_domain == min(scores.per_domain, key=scores.per_domain.get)
    assert scores.iou[3] == 0  # never true, but predicted
    assert scores.release_miou > scores.miou


def test_block_says_none_where_there_is_nothing():
    one = np.array([[5, 0, 0], [0, 0, 0], [0, 0, 0]])
    scores = block({"b": one, "a": np.zeros_like(one)})
    assert (scores.kappa, scores.iou, scores.per_domain) == (None, (1.0, None, None), {"a": None, "b": 1.0})
    assert scores.worst_domain == "b"
    with pytest.raises(RecordError, match="no labelled pixel"):
        block({"a": np.zeros_like(one)})


def test_matrices_may_be_square_and_rows_in_any_order(tmp_path, fields, frame):
    given = frame(1)
    square = given.assign(matrix=[matrix.reshape(4, 4) for matrix in given["matrix"]]).sample(frac=1, random_state=0)
    a = read_record(write_record(tmp_path / "a", fields(), given))
    b = read_record(write_record(tmp_path / "b", fields(), square))
    assert a.model_dump() == b.model_dump()  # the hash of the evidence included


def test_edited_scores_are_refused(store):
    for key, value in (
        ("miou", 0.99),
        ("worst_domain", "north"),
        ("release_miou", None),
        ("per_domain", {"north": 1.0}),
    ):
        record = store()
        assert getattr(record.scores.selected, key) != value

        def change(stored, key=key, value=value):
            stored["scores"]["selected"][key] = value

        edit(record.path, change)
        with pytest.raises(RecordError, match=rf"scores\.selected\.{key}.*evidence says"):
            verify(read_record(record.path))


def test_tampered_missing_or_foreign_evidence_is_refused(store, frame):
    record = store()
    path = record.path.parent / record.evidence.file
    path.write_bytes(to_parquet(check_frame(frame(5), 4, "here")))
    with pytest.raises(RecordError, match="not what the record was written with"):
        verify(record)
    path.unlink()
    with pytest.raises(RecordError, match="cannot be read") as caught:
        evidence(record)
    assert str(path) in str(caught.value)
    path.write_text("no parquet")
    with pytest.raises(RecordError, match="not Parquet"):
        evidence(record)


def test_evidence_is_known_by_its_content_and_not_by_the_bytes_of_a_file(store):
    """Another version of PyArrow, or another order of rows, changes nothing."""
    record = store()
    path = record.path.parent / record.evidence.file
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(len(table)))[::-1]), path, compression="none")
    assert verify(record)["selected"] == record.scores.selected
    found = load_evidence(record)
    other = dataclasses.replace(found, sites=("elsewhere", *found.sites[1:]))
    assert found.sha256 == record.evidence.sha256 != other.sha256


def test_evidence_swapped_together_with_its_hash_is_refused(store):
    record, better = store(quality=0.5), store(quality=0.9, seed=1)
    target = record.path.parent / better.evidence.file
    target.write_bytes((better.path.parent / better.evidence.file).read_bytes())
    edit(record.path, lambda value: value.update(evidence=better.evidence.model_dump()))
    with pytest.raises(RecordError, match=r"scores\.selected\.miou"):
        verify(read_record(record.path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="site"), "columns"),
        (lambda f: f.assign(extra=1), "columns"),
        (lambda f: f.assign(domain="moon"), "domain 'moon'"),
        (lambda f: f.assign(site=3), "column 'site'"),
        (lambda f: f.assign(site=None), "column 'site'"),
        (lambda f: f[f["checkpoint"] != "last"], "checkpoints"),
        (lambda f: f.assign(checkpoint=f["checkpoint"].replace("oracle", "best")), "checkpoints"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "comes twice"),
        (lambda f: f[f["chip"] != "c1"], "3 target chips"),
        (lambda f: f.iloc[1:], "differs in place or ground truth"),
        (lambda f: f.assign(matrix=[-m for m in f["matrix"]]), "not a confusion matrix"),
        (lambda f: f.assign(matrix=[m / 2 for m in f["matrix"]]), "not a confusion matrix"),
        (lambda f: f.assign(matrix=[m[:9] for m in f["matrix"]]), "not a confusion matrix"),
        (lambda f: f.assign(matrix=[m + (n == 0) for n, m in enumerate(f["matrix"])]), "ground truth"),
    ],
)
def test_unfit_evidence_is_not_stored(tmp_path, change, message, fields, frame):
    with pytest.raises(RecordError, match=message):
        write_record(tmp_path / "store", fields(), change(frame(1)))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "../up"}, "benchmark"),
        ({"method": "a/b"}, "method"),
        ({"method": ".hidden"}, "method"),
        ({"fingerprint": "../../../etc/passwd!"}, "fingerprint"),
        ({"colour": "red"}, "colour"),
        ({"seed": -1}, "seed"),
        ({"majority_class": 4}, "majority_class 4"),
        ({"device": None}, "needs device"),
        ({"track": "sample"}, "kind 'files'|statement"),
        ({"error": {"kind": "x", "message": "y"}}, "has no error"),
        ({"options": {"clip": float("nan")}}, "options"),
        ({"settings": {"clip": float("inf")}}, "settings"),
        ({"created": "2026-01-02T03:04:05"}, "created"),
    ],
)
def test_unfit_fields_are_not_stored(tmp_path, changes, message, fields, frame):
    given = fields(**changes) | {"data": fields()["data"]}
    given.pop("statement", None)
    with pytest.raises(RecordError, match=message):
        write_record(tmp_path / "store", given, frame(1))
    assert not (tmp_path / "store").exists()


def test_scores_cannot_be_given(tmp_path, store, fields, frame):
    scores = store().scores
    with pytest.raises(ValueError, match="computed from the evidence"):
        write_record(tmp_path, fields(scores=scores), frame(1))


def test_failed_records(fail, store):
    record = fail()
    assert record.status == "failed" and record.scores is None and record.error.message == "out of memory"
    assert [path.name for path in record.path.parent.iterdir()] == ["record.json"]
    with pytest.raises(RecordError, match="no stored evidence"):
        verify(record)
    edit(record.path, lambda value: value.update(scores=store().scores.model_dump()))
    with pytest.raises(RecordError, match="neither scores nor evidence"):
        read_record(record.path)


@pytest.mark.parametrize("broken", ["to_parquet", "write_bytes", "write_json"])
def test_an_exception_leaves_no_record(tmp_path, monkeypatch, broken, fields, frame):
    def boom(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(module, broken, boom)
    with pytest.raises(OSError, match="disk full"):
        write_record(tmp_path, fields(), frame(1))
    assert list(tmp_path.rglob("record.json")) == []
    assert read_records([tmp_path]) == []


def test_evidence_is_written_before_the_record(tmp_path, monkeypatch, fields, frame):
    original, seen = module.write_json, []

    def spy(path, value):
        seen.append((path.parent / f"evidence-{value['evidence']['sha256'][:16]}.parquet").is_file())
        original(path, value)

    monkeypatch.setattr(module, "write_json", spy)
    write_record(tmp_path, fields(), frame(1))
    assert seen == [True]


def test_a_broken_rewrite_leaves_the_old_record_valid(tmp_path, monkeypatch, fields, frame):
    path = write_record(tmp_path, fields(), frame(1))
    before = verify(read_record(path))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(module, "write_json", lambda *a: (_ for _ in ()).throw(OSError("full")))
        write_record(tmp_path, fields(), frame(2))
    assert verify(read_record(path)) == before
    write_record(tmp_path, fields(), frame(3))
    after = read_record(path)
    assert verify(after) != before
    first = [name.name for name in path.parent.glob("*.parquet")]
    assert after.evidence.file in first and len(first) == 2  # the interrupted one's, and ours; the replaced is gone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "JSON object"),
        ('{"seed": NaN}', "NaN is not JSON"),
        ('{"seed": 1, "seed": 2}', "'seed' is given twice"),
        ('{"seed": "x"}', "key 'seed'"),
    ],
)
def test_unreadable_records_name_file_and_key(tmp_path, text, message):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_a_root_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="no such folder"):
        read_records([tmp_path / "nowhere"])


def test_seed_zero_is_a_seed_and_floats_survive(store):
    record = store()
    assert record.seed == 0
    again = verify(record)["selected"].miou
    assert record.scores.selected.miou == again and not math.isnan(again)
    assert len(record.scores.selected.iou) == 4
