"""Published pairs say the same as the folders of runs, in fewer files, and the same records give the same bytes."""

from __future__ import annotations

import hashlib
import json
import random

import pyarrow.parquet as pq
import pytest

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.published import Pair, pair_path, read_pair, write_lines, write_rows
from spectral_tl_bench.results.store import load_evidence, read_records, records_like, verify

PICTURE = b"bytes of a picture"
SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def several(store, fail):
    """Records of one method on the sample: two seeds, one with a picture, and a failure."""
    shown = {"file": f"pictures-{SHA256[:16]}.png", "sha256": SHA256, "chips": ["c1"]}
    first = store(track="sample", pictures=shown)
    (first.path.parent / shown["file"]).write_bytes(PICTURE)
    return [first, store(track="sample", seed=1), fail(track="sample", seed=2, statement="Synthetic scenes, seed 1.")]


def publish(records, root):
    path = pair_path(root, records[0].track, records[0].method)
    write_rows(records, Pair(path).rows)
    write_lines(records, path)
    return path


def test_nothing_is_lost_on_the_way(several, tmp_path):
    path = publish(several, tmp_path / "published")
    assert path == tmp_path / "published" / "sample" / "lora.jsonl"
    found = read_records([tmp_path / "published"])
    assert [record.seed for record in found] == [0, 1, 2]
    for record, original in zip(found, several, strict=True):
        assert record.model_dump() == original.model_dump() and record.path == path
        if original.status == "completed":
            assert verify(record) == verify(original)
            assert load_evidence(record).frame().astype(str).equals(load_evidence(original).frame().astype(str))
    assert [record.location.picture(record) for record in found] == [PICTURE, None, None]


def test_the_same_records_give_the_same_bytes_from_either_form(several, tmp_path):
    first = publish(several, tmp_path / "a")
    shuffled = random.Random(3).sample(several, 3)
    for again in (publish(shuffled, tmp_path / "b"), publish(read_pair(first), tmp_path / "c")):
        assert again.read_bytes() == first.read_bytes()
        assert Pair(again).rows.read_bytes() == Pair(first).rows.read_bytes()


def test_a_line_is_a_record_and_a_change_of_one_changes_its_line_alone(several, tmp_path):
    path = publish(several, tmp_path)
    before = path.read_text().splitlines()
    assert [json.loads(line)["seed"] for line in before] == [0, 1, 2]
    publish([several[0].model_copy(update={"device": "another"}).at(several[0].location), *several[1:]], tmp_path)
    after = path.read_text().splitlines()
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]


def test_pictures_of_other_data_are_not_published(store, tmp_path):
    record = store(pictures={"file": f"pictures-{SHA256[:16]}.png", "sha256": SHA256, "chips": ["c1"]})
    (record.path.parent / record.pictures.file).write_bytes(PICTURE)
    (published,) = read_pair(publish([record], tmp_path))
    assert published.pictures == record.pictures and published.location.picture(published) is None
    assert PICTURE not in Pair(published.path).rows.read_bytes()


def test_rows_of_no_record_harm_nothing(several, tmp_path):
    """As after a submission that was interrupted between its two files."""
    path = publish(several, tmp_path)
    write_lines(several[1:], path)
    (completed, failed) = read_pair(path)
    assert verify(completed) == verify(several[1]) and failed.status == "failed"


def test_missing_or_swapped_rows_are_refused(several, tmp_path):
    path = publish(several, tmp_path)
    write_rows(several[1:], Pair(path).rows)
    with pytest.raises(RecordError, match=r"evidence of .* is missing") as caught:
        load_evidence(read_pair(path)[0])
    assert str(Pair(path).rows) in str(caught.value)
    table = pq.read_table(Pair(publish(several, tmp_path)).rows)
    names = table.column("fingerprint").to_pylist()
    swap = dict(zip(sorted(set(names)), sorted(set(names), reverse=True), strict=True))
    with pq.ParquetWriter(Pair(path).rows, table.schema) as writer:
        for name in dict.fromkeys(names):
            part = table.filter([one == name for one in names])
            writer.write_table(part.set_column(0, table.schema.field(0), [[swap[name]] * len(part)]))
    with pytest.raises(RecordError, match="not what the record was written with"):
        load_evidence(read_pair(path)[0])
    Pair(path).rows.unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        load_evidence(read_pair(path)[0])


def test_a_line_twice_and_a_broken_line_are_named(several, tmp_path):
    path = publish(several, tmp_path)
    text = path.read_text()
    path.write_text(text + text)
    with pytest.raises(RecordError, match=r"comes twice(.|\n)*line 4"):
        read_pair(path)
    path.write_text(text + "{\n")
    with pytest.raises(RecordError, match=r"cannot be read(.|\n)*line 4"):
        read_records([tmp_path / "sample"])


def test_both_forms_are_found_below_one_root_and_by_fingerprint(several, store, tmp_path):
    run = store(method="full")
    earlier = several[0].model_copy(update={"earlier_fingerprint": "ab" * 32}).at(several[0].location)
    publish([earlier, *several[1:]], tmp_path / "store")
    found = read_records([tmp_path / "store"])
    assert len(found) == 7 and {record.path.suffix for record in found} == {".json", ".jsonl"}
    assert [record.path for record in records_like(run.fingerprint[:8], [tmp_path])] == [run.path]
    assert [record.seed for record in records_like("abababab", [tmp_path])] == [0]
    assert records_like("ffffffffffff", [tmp_path]) == []
