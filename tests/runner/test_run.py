"""Whole runs on tiny trees: records that verify, work that is found again, and failures that stay where they are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import SIZES, install, make_request, make_tree

from spectral_tl_bench.cli import main
from spectral_tl_bench.data.sample import build
from spectral_tl_bench.data.source import SYNTHETIC
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.leaderboard.records import evidence, read_record, read_records, verify
from spectral_tl_bench.leaderboard.report import write_report
from spectral_tl_bench.runner import cell as cell_module
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.fit import Hardware, load_state

CPU = Hardware("cpu")
SMALL = ("--steps", "2", "--pretrain-steps", "1", "--batch-size", "2", "--validations", "1", "--accelerator", "cpu",
         *(part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")))  # fmt: skip

BREAKS = '''
from pathlib import Path
from torch import nn
from spectral_tl_bench.methods.base import Method, Stage

class Breaks(Method):
    """Does what the file at ``order`` says."""
    order: str

    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

    def stages(self, task):
        def loss(module, batch):
            order = Path(self.order).read_text()
            if order == "raise":
                raise RuntimeError("the method's own mistake")
            if order == "interrupt":
                raise KeyboardInterrupt
            return module(batch["image"]).square().mean()
        return [Stage("segment", task.budget.steps, loss=loss)]
'''


def quiet(_: str) -> None:
    pass


def run(request, out: Path, hardware: Hardware = CPU, workers: int = 0, say=quiet, fresh: bool = False):
    cells, broken = plan(request, say)
    assert broken == []
    return execute(cells, out, hardware, workers, say, fresh)


def stbench(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["stbench", *map(str, arguments)])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


@pytest.fixture(scope="module")
def first(tree, tmp_path_factory):
    """Two methods, run once: the request, the folder of records, the outcomes and what was said."""
    out, said = tmp_path_factory.mktemp("runs"), []
    request = make_request(tree, "full", "spectralx", steps=3, pretrain_steps=2)
    return request, out, run(request, out, say=said.append), said


@pytest.fixture
def order(tmp_path, monkeypatch):
    """The file that the breaking method obeys, the method being installed."""
    install(tmp_path / "site", "tiny_breaks", BREAKS, {"breaks": "tiny_breaks:Breaks"}, monkeypatch)
    path = tmp_path / "order.txt"
    path.write_text("work")
    return path


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
        assert 0 < record.parameters.trainable <= record.parameters.total
        assert record.fingerprint == outcome.cell.fingerprint(outcome.cell.split())
        assert outcome.record.parent.name == record.fingerprint[:16]
        assert {path.name for path in outcome.record.parent.iterdir()} == {
            "record.json", record.evidence.file, "selected.safetensors",
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

        def untrained(module, *arguments, weights=weights, seen=seen, **options):
            """Instead of training: the stored weights."""
            load_state(module, weights)
            seen.append(module)
            return cell_module.Fitted(module, [], [(0, 0.0)], (0, weights), (0, weights))

        monkeypatch.setattr(cell_module, "fit", untrained)
        cell = outcome.cell
        _, frame, _ = cell_module._measure(cell, cell.split(), CPU, 0, quiet)
        assert seen
        matrices = frame.loc[frame["checkpoint"] == "selected", "matrix"]
        assert score(sum(matrices)).miou == pytest.approx(outcome.miou, abs=1e-9)


def test_finished_work_is_found_and_not_done_again(first, monkeypatch):
    request, out, outcomes, _ = first
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    def never(*arguments, **options):
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(cell_module, "fit", never)
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
    assert [run(make_request(tree, "full", steps=4, validations=4, oracle=flag), tmp_path)[0].state for flag in (True, False)] == ["found"] * 2  # fmt: skip


# ---------------------------------------------------------------------------------------------- the sample


@pytest.fixture
def tiny_sample(tmp_path, monkeypatch):
    """The bundled sample, but tiny, in a cache of its own."""
    monkeypatch.setattr(build, "PARAMETERS", {"mts12": {"chip": 32, "north": 8, "south": 4}})
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STBENCH_DATA", raising=False)


def test_sample_results_say_what_they_are(tiny_sample, tmp_path, monkeypatch, capsys):
    out = tmp_path / "runs"
    assert stbench(monkeypatch, "run", "-m", "full", "-b", "mts12-n2s", "--out", out, *SMALL) == 0
    text = capsys.readouterr().out
    assert "bundled synthetic sample" in text and "not a real result" in text
    (record,) = read_records([out])
    assert (record.track, record.data.kind, record.statement) == ("sample", "sample", SYNTHETIC)

    assert stbench(monkeypatch, "report", "--records", out) == 0
    assert sorted(path.name for path in out.glob("board*")) == ["board-sample.csv", "board-sample.md"]
    board = (out / "board-sample.md").read_text()
    assert SYNTHETIC in board and "not a result on real data" in board and "mts12-n2s" in board
    assert not (out / "board.md").exists()


def test_reports_come_from_records_alone(first, tmp_path):
    _, out, _, _ = first
    paths = write_report(read_records([out]), tmp_path / "boards")
    assert {path.name for path in paths} == {"board-partial.md", "board-partial.csv"}
    assert not (tmp_path / "boards" / "board.md").exists()


# ---------------------------------------------------------------------------------------------- what goes wrong


def test_a_method_that_raises_ends_its_own_cell_only(tree, tmp_path, order, monkeypatch, capsys):
    out = tmp_path / "runs"
    order.write_text("raise")
    arguments = (
        "run",
        "-m",
        "full",
        "-m",
        "spectralx",
        "-b",
        "mts12-n2s",
        "--data-root",
        tree,
        "--allow-partial",
        "--out",
        out,
    )
    assert stbench(monkeypatch, *arguments, *SMALL) == 0
    breaks = (
        "run",
        "-m",
        "breaks",
        "-b",
        "mts12-n2s,mts12-s2n",
        "-o",
        f"order={order}",
        "--data-root",
        tree,
        "--allow-partial",
    )
    assert stbench(monkeypatch, *breaks, "--out", out, *SMALL) == 1
    text = capsys.readouterr().out
    assert "failed: RuntimeError: the method's own mistake" in text and "error.txt" in text
    by_status = {status: [r for r in read_records([out]) if r.status == status] for status in ("completed", "failed")}
    assert len(by_status["completed"]) == 2 and len(by_status["failed"]) == 2
    for record in by_status["failed"]:
        assert record.error.kind == "RuntimeError" and record.error.message == "the method's own mistake"
        log = (record.path.parent / "error.txt").read_text()
        assert log.startswith("Traceback") and "tiny_breaks.py" in log

    order.write_text("work")  # mended: a failed cell is not taken for finished
    assert stbench(monkeypatch, *breaks, "--out", out, *SMALL) == 0
    records = read_records([out])
    assert len(records) == 4 and all(record.status == "completed" for record in records)
    assert not list(out.rglob("error.txt")), "the old traceback is gone"


def test_other_cells_go_on_after_a_failure(tree, tmp_path, order):
    order.write_text("raise")
    cells = [
        *plan(make_request(tree, "breaks", options={"order": str(order)}), quiet)[0],
        *plan(make_request(tree, "full"), quiet)[0],
    ]
    said: list[str] = []
    outcomes = execute(cells, tmp_path / "runs", CPU, 0, said.append)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert outcomes[0].miou is None and "RuntimeError" in outcomes[0].message
    assert said[0].startswith("[1/2]") and said[-1].startswith("[2/2]") and "target mIoU" in said[-1]


def test_a_benchmark_without_data_is_reported_and_the_others_run(tree, tmp_path, monkeypatch, capsys):
    out = tmp_path / "runs"
    request = make_request(tree, "full", benchmarks=("dfc2020-spring", "mts12-n2s"))
    cells, broken = plan(request, quiet)
    assert [cell.opened.benchmark.id for cell in cells] == ["mts12-n2s"]
    assert [name for name, _ in broken] == ["dfc2020-spring"] and isinstance(broken[0][1], UserError)
    arguments = ("-m", "full", "-b", "dfc2020-spring,mts12-n2s", "--data-root", tree, "--allow-partial", "--out", out)
    assert stbench(monkeypatch, "run", *arguments, *SMALL) == 2
    captured = capsys.readouterr()
    assert "dfc2020-spring cannot run: no DFC2020 data" in captured.err and "Traceback" not in captured.err
    assert [record.benchmark for record in read_records([out])] == ["mts12-n2s"]


def test_a_source_that_cannot_be_cut_is_found_before_anything_trains(tmp_path):
    root = make_tree(tmp_path / "data", north=1, south=3)
    cells, broken = plan(make_request(root, "full", benchmarks=("mts12-n2s", "mts12-s2n")), quiet)
    assert [cell.opened.benchmark.id for cell in cells] == ["mts12-s2n"]
    assert [name for name, _ in broken] == ["mts12-n2s"] and "1 usable chip" in str(broken[0][1])


def test_damaged_pixels_end_with_a_message(tree, tmp_path, monkeypatch, capsys):
    shutil.copytree(tree, tmp_path / "data")
    chip = next((tmp_path / "data" / "MTS12" / "image" / "test").glob("*.tif"))
    chip.write_bytes(chip.read_bytes()[:200])
    arguments = (
        "-m",
        "full",
        "-b",
        "mts12-n2s",
        "--data-root",
        tmp_path / "data",
        "--allow-partial",
        "--out",
        tmp_path / "runs",
    )
    assert stbench(monkeypatch, "run", *arguments, *SMALL) == 2
    error = capsys.readouterr().err
    assert "1 of 12 chips cannot be used" in error and chip.stem in error and "Traceback" not in error
    assert read_records([tmp_path]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"benchmarks": ("mts12-n2x",)}, "did you mean mts12-n2s"),
        ({"options": {"rank": 3}}, "has no option 'rank'"),
        ({"backbone": "vit-hug"}, "there is no backbone 'vit-hug'"),
        ({"window": 20}, "a window of 20 px does not suit mts12-n2s"),
    ],
)
def test_mistakes_in_a_request_come_before_training(tree, wrong, message):
    with pytest.raises(UserError, match=message):
        plan(make_request(tree, "full", **wrong), quiet)


def test_without_permission_an_incomplete_copy_is_refused(tree):
    cells, broken = plan(make_request(tree, "full", allow_partial=False), quiet)
    assert cells == [] and "--allow-partial" in str(broken[0][1])


# ---------------------------------------------------------------------------------------------- interruptions


def test_an_interruption_keeps_what_was_finished_and_nothing_else(tree, tmp_path, order, monkeypatch, capsys):
    out = tmp_path / "runs"
    order.write_text("interrupt")
    request = make_request(tree, "breaks", options={"order": str(order)})
    cells = [
        *plan(make_request(tree, "full"), quiet)[0],
        *plan(request, quiet)[0],
        *plan(make_request(tree, "frozen"), quiet)[0],
    ]
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        execute(cells, out, CPU, 0, quiet)
    (record,) = read_records([out])
    verify(record)
    assert record.method == "full" and not (out / "mts12-n2s" / "breaks").exists()
    assert signal.getsignal(signal.SIGINT) is handler

    arguments = (
        "-m",
        "breaks",
        "-b",
        "mts12-n2s",
        "-o",
        f"order={order}",
        "--data-root",
        tree,
        "--allow-partial",
        "--out",
        out,
    )
    assert stbench(monkeypatch, "run", *arguments, *SMALL) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert len(read_records([out])) == 1

    order.write_text("work")
    assert [outcome.state for outcome in execute(cells, out, CPU, 0, quiet)] == ["found", "done", "done"]


@pytest.mark.slow
def test_control_c_ends_the_process_with_130(tree, tmp_path):
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "spectral_tl_bench.cli", "run", "-m", "full", "-b", "mts12-n2s", "--data-root", tree,
               "--allow-partial", "--out", out, *SMALL, "--steps", "100000", "--validations", "10000"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        started = time.monotonic()
        while "source-validation mIoU" not in process.stdout.readline():
            assert time.monotonic() - started < 120 and process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in error and "Traceback" not in error
    assert not list(out.rglob("record.json"))
