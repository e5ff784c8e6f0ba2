"""Records of schema 1 keep their numbers; their identity is rebuilt where their own facts suffice, and only there."""

from __future__ import annotations

import hashlib
import json

import pytest
from tiny import make_request

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.bring_over import KNOWN_CODE, bring_over
from spectral_tl_bench.results.store import load_evidence, read_record, read_records, verify
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

BENCHMARK = builtin_benchmarks()["mts12-n2s"]


@pytest.fixture(scope="module")
def today(tree, tmp_path_factory):
    """A finished record of this version of the suite."""
    cells, _ = plan(make_request(tree, "pixel-mlp+spectralaug"), lambda _: None)
    (outcome,) = execute(cells, tmp_path_factory.mktemp("runs"), Hardware("cpu"), 0, lambda _: None)
    return read_record(outcome.record)


@pytest.fixture
def earlier(today, tmp_path):
    """Writes the same record as schema 1 had it, with changes."""

    def write(**changes):
        value = today.model_dump(mode="json")
        for key in ("definition", "numerics", "given_stage", "earlier_fingerprint"):
            del value[key]
        content = (today.path.parent / today.evidence.file).read_bytes()
        environment = {**value["environment"], "suite code": next(iter(KNOWN_CODE))}
        known = {"file": "evidence-0.parquet", "sha256": hashlib.sha256(content).hexdigest()}
        value |= {"schema_version": 1, "fingerprint": "ab" * 32, "evidence": known, "environment": environment}
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "evidence-0.parquet").write_bytes(content)
        (folder / "record.json").write_text(json.dumps({**value, **changes}))
        return read_record(folder / "record.json")

    return write


def test_schema_1_is_read_and_its_evidence_known_by_its_bytes(today, earlier):
    record = earlier()
    assert record.identity() is None and record.fingerprint == "ab" * 32
    assert verify(record) == verify(today)
    path = record.path.parent / "evidence-0.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(RecordError, match="not what the record was written with"):
        load_evidence(record)


def test_the_identity_is_that_of_a_run_of_today(today, earlier):
    record = earlier()
    new, reason = bring_over(record, load_evidence(record), BENCHMARK)
    assert reason == "" and new.identity() == today.identity()
    assert new.fingerprint == today.fingerprint and new.earlier_fingerprint == "ab" * 32
    added = {"earlier_fingerprint", "environment"}
    assert new.model_dump(exclude=added) == today.model_dump(exclude=added)
    again, reason = bring_over(new, load_evidence(record), BENCHMARK)
    assert again == new and reason == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"environment": {"suite code": "0" * 16}}, "nothing is known about the numbers of the code"),
        ({"environment": {"suite code": next(iter(KNOWN_CODE))}}, "its method is not of"),
        ({"benchmark_version": "0.9"}, "version 0.9 of its benchmark"),
        ({"options": {"hidden": 4}}, "other options"),
        ({"options": {"no such": 4}}, "no such"),
        ({"method": "pixel-mlp+nothing"}, "nothing"),
        (
            {"stages": [{"name": "s", "steps": 1, "seconds": 1, "trainable": 1, "options": {"given": True}}]},
            "given first",
        ),
    ],
)
def test_where_the_facts_do_not_suffice_the_record_stays_as_it_is(earlier, changes, reason):
    record = earlier(**changes)
    new, told = bring_over(record, load_evidence(record), BENCHMARK)
    assert reason in told and new.identity() is None
    assert new.fingerprint == record.fingerprint and new.numerics is None and new.earlier_fingerprint is None
    assert new.scores == record.scores and new.evidence.sha256 == load_evidence(record).sha256


def test_every_published_record_has_an_identity(request):
    results = request.config.rootpath / "leaderboard" / "results"
    if not results.is_dir():
        pytest.skip("not in a checkout of the whole repository")
    records = read_records([results])
    assert len(records) >= 300 and all(record.identity() is not None for record in records)
    assert len({record.fingerprint for record in records}) == len(records)
