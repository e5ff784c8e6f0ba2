"""Whole runs on tiny trees: records that verify, work that is found again, and failures that stay where they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import make_request

from spectral_tl_bench.data.source import SYNTHETIC
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.leaderboard.report import write_report
from spectral_tl_bench.results.store import evidence, read_record, read_records, verify
from spectral_tl_bench.runner import cell as cell_module
from spectral_tl_bench.runner.build import Workplace
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.sample import build
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.trained import StageSummary, TrainedModel, load_state

CPU = Hardware("cpu")


def quiet(_: str) -> None:
    pass


def run(request, out: Path, hardware: Hardware = CPU, workers: int = 0, say=quiet, fresh: bool = False):
    cells, broken = plan(request, say)
    assert broken == []
    return execute(cells, out, hardware, workers, say, fresh)


@pytest.fixture(scope="module")
def first(tree, tmp_path_factory):
    """Two methods, run once: the request, the folder of records, the outcomes and what was said."""
    out, said = tmp_path_factory.mktemp("runs"), []
    request = make_request(tree, "full", "spectralx", steps=3, pretrain_steps=2)
    return request, out, run(request, out, say=said.append), said


# ---------------------------------------------------------------------------------------------- records


def test_a_run_leaves_records_that_verify(first, tree):
    _, out, outcomes, said = first
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert [record.method for record in read_records([out])] == ["full", "spectralx"]
    for outcome in outcomes:
        record = read_record(outcome.record)
        blocks = verify(record)
        assert blocks["selected"].miou == outcome.miou and set(blocks) == {"selected", "last"}
        assert (record.status, record.track, record.statement, record.seed) == ("completed", "partial", None, 0)
        assert record.data.kind == "files" and record.data.chips.target == 4
        assert record.selection.value == max(value for _, value in record.selection.trace)
        assert record.selection.step in {step for step, _ in record.selection.trace} <= {1, 2, 3}
        assert 0 < record.parameters.decoder < record.parameters.trainable <= record.parameters.total
        assert record.fingerprint == outcome.cell.identity(outcome.cell.split()).fingerprint
        assert outcome.record.parent.name == record.fingerprint[:16]
        assert {path.name for path in outcome.record.parent.iterdir()} == {
            "record.json", record.evidence.file, record.pictures.file, "selected.safetensors", "log.txt",
            "model-card.md",
        }  # fmt: skip
        assert str(tree) not in json.dumps(record.model_dump(mode="json")), "a record names no folder of a machine"
    stages = [[(stage.name, stage.steps) for stage in read_record(outcome.record).stages] for outcome in outcomes]
    assert stages == [[("segment", 3)], [("reconstruct", 2), ("segment", 3)]]
    assert any("incomplete" in line or "published are" in line for line in said)
    assert any(line.startswith("[2/2] mts12-n2s | spectralx | seed 0 | target mIoU ") for line in said)


def test_evidence_is_of_the_target_and_complete(first):
    _, _, outcomes, _ = first
    for outcome in outcomes:
        frame = evidence(read_record(outcome.record))
        target = outcome.cell.split().chips("target")
        for checkpoint in ("selected", "last"):
            assert frame.loc[frame["checkpoint"] == checkpoint, "chip"].tolist() == target
        counts = outcome.cell.opened.index.frame.loc[target, "class_counts"]
        for chip, matrix in zip(frame["chip"], frame["matrix"], strict=True):
            assert matrix.reshape(8, 8).sum(axis=1).tolist() == list(counts[chip])


def test_stored_weights_fit_the_method_and_give_the_stored_score(first, monkeypatch):
    _, _, outcomes, _ = first
    for outcome in outcomes:
        weights = load_file(outcome.record.parent / "selected.safetensors")
        seen = []

        def untrained(built, folder, store, _target, weights=weights, seen=seen):
            """Instead of training: the stored weights."""
            load_state(built.trainee, weights)
            seen.append(built.trainee)
            return TrainedModel(
                built.trainee, [StageSummary("none", 0, 0.0, 0)], [(0, 0.0)], (0, weights), (0, weights)
            )

        monkeypatch.setattr(cell_module, "train", untrained)
        out = outcome.record.parents[3]
        fields, _ = cell_module.facts_of(outcome.cell, out, 1)
        frame = cell_module._measure(outcome.cell, Workplace(out, CPU, 0, quiet), fields)[2].evidence
        assert seen
        matrices = frame.loc[frame["checkpoint"] == "selected", "matrix"]
        assert score(sum(matrices)).miou == pytest.approx(outcome.miou, abs=1e-9)


def test_finished_work_is_found_and_not_done_again(first, monkeypatch):
    request, out, outcomes, _ = first
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    def never(*arguments, **options):
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(cell_module, "train", never)
    said: list[str] = []
    # Neither the readers nor the device are part of what a result is.
    again = run(request, out, Hardware("auto"), workers=2, say=said.append)
    assert [outcome.state for outcome in again] == ["found", "found"]
    assert [outcome.miou for outcome in again] == [outcome.miou for outcome in outcomes]
    assert sum("finished before, target mIoU" in line for line in said) == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == stamps


def test_fresh_runs_again_and_the_result_is_the_same(first, tmp_path):
    request, out, outcomes, _ = first
    shutil.copytree(out, tmp_path / "runs")
    again = run(request, tmp_path / "runs", workers=1, fresh=True)
    assert [outcome.state for outcome in again] == ["done", "done"]
    for before, after in zip(outcomes, again, strict=True):
        one, other = read_record(before.record), read_record(after.record)
        verify(other)
        assert (one.scores, one.selection, one.evidence) == (other.scores, other.selection, other.evidence)
    assert len(read_records([tmp_path / "runs"])) == 2


def test_another_setting_or_seed_is_another_record(tree, tmp_path):
    outcomes = run(make_request(tree, "full", seeds=(0, 1)), tmp_path)
    outcomes += run(make_request(tree, "full", steps=1), tmp_path)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    assert len({outcome.record for outcome in outcomes}) == 3 == len(read_records([tmp_path]))


def test_oracle_is_marked_and_never_below_the_selected(tree, tmp_path):
    plain = run(make_request(tree, "full", steps=4, validations=4), tmp_path)[0]
    assert read_record(plain.record).scores.oracle is None
    request = make_request(tree, "full", steps=4, validations=4, oracle=True)
    outcome = run(request, tmp_path)[0]
    assert outcome.state == "done", "a record without the oracle does not answer a request for one"
    record = read_record(outcome.record)
    verify(record)
    scores = record.scores
    assert scores.oracle.miou >= max(scores.selected.miou, scores.last.miou)
    assert set(evidence(record)["checkpoint"]) == {"selected", "last", "oracle"}
    assert outcome.record == plain.record and outcome.miou == plain.miou, "looking at the target must not move the rest"
    assert [
        run(make_request(tree, "full", steps=4, validations=4, oracle=flag), tmp_path)[0].state
        for flag in (True, False)
    ] == ["found"] * 2


# ---------------------------------------------------------------------------------------------- the sample


@pytest.fixture
def tiny_sample(tmp_path, monkeypatch):
    """The bundled sample, but tiny, in a cache of its own."""
    monkeypatch.setattr(build, "PARAMETERS", {"mts12": {"chip": 32, "north": 8, "south": 4}})
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STBENCH_DATA", raising=False)


def test_sample_results_say_what_they_are(tiny_sample, tmp_path, capsys, stbench, small):
    out = tmp_path / "runs"
    assert stbench("run", "-m", "full", "-b", "mts12-n2s", "--out", out, *small) == 0
    text = capsys.readouterr().out
    assert "bundled synthetic sample" in text and "not a real result" in text
    (record,) = read_records([out])
    assert (record.track, record.data.kind, record.statement) == ("sample", "sample", SYNTHETIC)

    assert stbench("report", "--records", out) == 0
    assert {path.name for path in (out / "tables").glob("*.md")} == {"board-sample.md", "board-reported.md"}
    board = (out / "tables" / "board-sample.md").read_text()
    assert SYNTHETIC in board and "not a result on real data" in board and "mts12-n2s" in board


def test_reports_come_from_records_alone(first, tmp_path):
    _, out, _, _ = first
    paths = write_report(read_records([out]), tmp_path / "boards", ("md",))
    assert {path.name for path in paths} == {"board-partial.md", "board-reported.md"}
