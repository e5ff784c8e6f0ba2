"""What reports keep of records: the same bytes with it and without, and nothing that has changed is taken from it."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard import board, kept
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.leaderboard.report import write_report
from spectral_tl_bench.results import store as results

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
REFERENCE = {"benchmark": "mts12-id", "gap": "none"}


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """A cache of the test's own, for files that count from their first moment."""
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_SETTLED", -1e9)


@pytest.fixture
def records(store, fail):
    """The folder of a small store."""
    places = [store(q, method=m, **b) for m, q in (("lora", 0.7), ("full", 0.4)) for b in ({}, SPRING, REFERENCE)]
    fail(method="broken")
    return places[0].path.parents[3]


def report(root, out, with_kept=True, formats=("csv",)):
    """A report and how many records it measured."""
    opened = []
    original = board.measure_record
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "measure_record", lambda record: opened.append(record) or original(record))
        found = Kept([root]) if with_kept else None
        stored = results.read_records([root], found.read_before) if found else results.read_records([root])
        paths = write_report(stored, out, formats, pd.DataFrame(), kept=found)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}, sum(
        record.status == "completed" for record in opened
    )


def test_the_second_report_opens_nothing_and_gives_the_same_bytes(records, tmp_path):
    formats = ("csv", "md", "site")
    plain, measured = report(records, tmp_path / "plain", with_kept=False, formats=formats)
    assert measured == 6
    first, measured = report(records, tmp_path / "first", formats=formats)
    assert measured == 6 and first == plain
    second, measured = report(records, tmp_path / "second", formats=formats)
    assert measured == 0 and second == plain


def test_one_new_record_is_the_only_one_that_is_opened(records, store, tmp_path):
    report(records, tmp_path / "first")
    store(0.5, method="rein")
    again, measured = report(records, tmp_path / "again")
    assert measured == 1 and again == report(records, tmp_path / "plain", with_kept=False)[0]


def test_changed_evidence_is_found_as_without(records, tmp_path):
    report(records, tmp_path / "first")
    path, other = sorted(records.rglob("evidence-*.parquet"))[:2]
    times = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # who puts the time back does not hide it
    with pytest.raises(RecordError, match="not what the record was written with"):
        report(records, tmp_path / "again")


def test_scores_that_differ_from_the_records_in_the_last_digit_are_kept_as_they_were_computed(records, tmp_path):
    path = sorted(records.rglob("record.json"))[0]
    fields = json.loads(path.read_text())
    fields["scores"]["selected"]["miou"] = math.nextafter(fields["scores"]["selected"]["miou"], 1.0)
    path.write_text(json.dumps(fields))
    plain, _ = report(records, tmp_path / "plain", with_kept=False)
    report(records, tmp_path / "first")
    assert report(records, tmp_path / "again") == (plain, 0)
    kept_apart = [entry for entry in Kept([records])._records.values() if entry["blocks"] is not None]
    assert len(kept_apart) == 1


def test_an_edited_score_is_found_as_without(records, tmp_path):
    report(records, tmp_path / "first")
    path = sorted(records.rglob("record.json"))[0]
    path.write_text(path.read_text().replace('"miou": 0.', '"miou": 0.9', 1))
    with pytest.raises(RecordError, match="the evidence says"):
        report(records, tmp_path / "again")


def test_a_key_that_came_in_twice_is_found_as_without(records, tmp_path):
    report(records, tmp_path / "first")
    path = sorted(records.rglob("record.json"))[0]
    path.write_text(path.read_text().replace('"seed":', '"seed": 7, "seed":', 1))
    with pytest.raises(RecordError, match="given twice"):
        report(records, tmp_path / "again")


@pytest.mark.parametrize("spoil", ["one byte", "half", "empty", "other code"])
def test_a_spoilt_file_is_made_again(records, tmp_path, monkeypatch, spoil):
    plain, _ = report(records, tmp_path / "first")
    (path,) = (tmp_path / "cache/boards").glob("*.bin")
    content = path.read_bytes()
    if spoil == "one byte":
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif spoil == "other code":
        monkeypatch.setattr(kept, "_made_by", lambda: "other code")
    else:
        path.write_bytes(content[: len(content) // 2] if spoil == "half" else b"")
    again, measured = report(records, tmp_path / "again")
    assert measured == 6 and again == plain
    assert report(records, tmp_path / "third") == (plain, 0)


def test_a_file_that_may_still_change_is_not_kept(records, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "_SETTLED", 3600.0)
    plain, _ = report(records, tmp_path / "first")
    assert report(records, tmp_path / "again") == (plain, 6)


def test_without_a_place_to_keep_it_a_report_is_made_all_the_same(records, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "file"))
    plain, _ = report(records, tmp_path / "first")
    assert report(records, tmp_path / "again") == (plain, 6)


def test_what_is_no_longer_asked_for_goes(records, tmp_path):
    report(records, tmp_path / "first")
    (path,) = (tmp_path / "cache/boards").glob("*.bin")
    whole = path.stat().st_size
    for folder in records.glob("*/full"):
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
    report(records, tmp_path / "again")
    assert path.stat().st_size < 0.7 * whole


def test_draws_come_back_as_they_were(tmp_path):
    values = np.random.default_rng(0).random(1000)
    first = Kept([tmp_path])
    first.draws("a", lambda: values)
    first.save()
    second = Kept([tmp_path])
    np.testing.assert_array_equal(second.draws("a", lambda: values * 0), values)


def test_what_came_since_is_kept_beside_until_it_is_much(records, store, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "_FEW", 10.0)
    report(records, tmp_path / "first")
    (large,) = (tmp_path / "cache/boards").glob("*.bin")
    content = large.read_bytes()
    store(0.5, method="rein")
    again, _ = report(records, tmp_path / "again")
    small = large.with_name(f"{large.stem}-since.bin")
    assert large.read_bytes() == content and small.stat().st_size < len(content) / 2
    assert report(records, tmp_path / "third") == (again, 0)
    small.write_bytes(small.read_bytes()[:-1])
    assert report(records, tmp_path / "fourth") == (again, 1)
    monkeypatch.setattr(kept, "_FEW", 0.01)
    assert report(records, tmp_path / "fifth") == (again, 0)
    assert not small.exists() and large.stat().st_size > len(content)
