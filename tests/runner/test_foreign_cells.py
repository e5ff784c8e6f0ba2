"""Cells with code of other packages: whatever it does ends its own cell, with a failed record, and the others go on."""

from __future__ import annotations

import json
import sys

import pytest
from tiny import install, make_request

from spectral_tl_bench.results.store import load_evidence, read_records
from spectral_tl_bench.runner.cell import is_foreign
from spectral_tl_bench.runner.processes import execute_in_processes
from spectral_tl_bench.runner.run import plan
from spectral_tl_bench.training.hardware import Hardware

CPU = Hardware("cpu")

UNRULY = '''
import ctypes, os, signal, subprocess, sys, time
import torch
from torch import nn
from spectral_tl_bench.methods.base import Method

class Unruly(Method):
    """Does what its option says."""
    family = "floor"
    uses_backbone = False
    how: str = "work"
    lasting: str = ""

    def kept_features(self):
        if self.how == "asked":
            os._exit(4)
        if self.how == "crash when asked":
            ctypes.string_at(0)

    def build(self, task):
        print("a word of the method")
        if self.how == "exit":
            os._exit(3)
        if self.how == "leave":
            sys.exit("done with it")
        if self.how == "crash":
            ctypes.string_at(0)
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "interrupt":
            raise KeyboardInterrupt
        if self.how == "hang":
            time.sleep(60)
        if self.how == "spoil":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            os.chdir("/")
            os.environ["STBENCH_CACHE"] = "/nowhere"
            torch.set_default_dtype(torch.float64)
            torch.set_num_threads(2)
            torch.use_deterministic_algorithms(True)
            return nn.Conv2d(task.num_bands, task.num_classes, 1).float()
        return nn.Conv2d(task.num_bands, task.num_classes, 1)
'''

UNRULY_PARTS = '''
import os
from spectral_tl_bench.models.backbones import Backbone, Card
from spectral_tl_bench.objectives.base import Objective

class Leaves(Objective):
    """Ends its process."""
    reference = "nobody"

    def risk(self, losses, state=None, *more):
        os._exit(5)

def make(spec, in_chans, image_size):
    os._exit(6)

BAD = Backbone("bad-vit", width=32, depth=2, heads=2, patch=8, make=make, card=Card(citation="nobody"))
LAMBDA = Backbone("lambda-vit", width=32, depth=2, heads=2, patch=8, make=lambda *_: 1, card=Card(citation="nobody"))
'''

REASONS = {
    "hang": ("Hung", "no line and no step for 0.15 minutes: it was stopped"),
    "exit": ("ProcessDied", "exited with code 3"),
    "leave": ("SystemExit", "it called sys.exit('done with it')"),
    "crash": ("ProcessDied", "killed by signal 11 (SIGSEGV)"),
    "killed": ("ProcessDied", "killed by signal 9 (SIGKILL), as it happens when memory runs out"),
    "interrupt": ("KeyboardInterrupt", "it raised KeyboardInterrupt"),
}


def quiet(_: str) -> None:
    pass


@pytest.fixture
def unruly(tree, tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny_unruly", UNRULY, {"unruly": "tiny_unruly:Unruly"}, monkeypatch)

    def cells(how: str):
        return plan(make_request(tree, "unruly", options={"how": how}), quiet)[0]

    return cells


def test_each_ends_its_own_cell_with_the_reason_and_the_others_go_on(tree, tmp_path, unruly):
    out, said = tmp_path / "runs", []
    cells = [cell for how in REASONS for cell in unruly(how)] + plan(make_request(tree, "nearest-mean"), quiet)[0]
    assert [is_foreign(cell) for cell in cells] == [True] * len(REASONS) + [False]
    outcomes = execute_in_processes(cells, out, CPU, 0, said.append, False, 2, hang_after=0.15)
    assert [outcome.state for outcome in outcomes] == ["failed"] * len(REASONS) + ["done"]
    assert said.count("a word of the method") == len(REASONS), "what a method prints is passed on"
    failed = {record.options["how"]: record for record in read_records([out]) if record.status == "failed"}
    for (how, (kind, message)), outcome in zip(REASONS.items(), outcomes, strict=False):
        error = failed[how].error
        assert error.kind == kind and error.message.startswith(message)
        log = (failed[how].path.parent / "error.txt").read_text()
        assert message in log or "Traceback" in log
        assert f"failed: {kind}: {message}" in "\n".join(said) and "error.txt" in outcome.message
    assert "a word of the method" in (failed["exit"].path.parent / "error.txt").read_text()
    assert "tiny_unruly.py" in (failed["hang"].path.parent / "error.txt").read_text(), "where it hung"
    assert "tiny_unruly.py" in (failed["crash"].path.parent / "error.txt").read_text(), "where it crashed"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes cannot be copied here")
@pytest.mark.parametrize(
    ("how", "fate"), [("asked", "it ended its process with code 4"), ("crash when asked", "it died of SIGSEGV")]
)
def test_what_ends_its_process_when_it_is_asked_is_refused_and_the_others_can_run(tree, unruly, how, fate):
    cells, broken = plan(make_request(tree, "unruly", "nearest-mean", options={}), quiet)
    assert len(cells) == 2 and not broken
    cells, ((name, error),) = plan(make_request(tree, "unruly", options={"how": how}), quiet)
    assert not cells and name == "unruly on mts12-n2s" and fate in str(error)


def test_one_after_the_other_it_is_the_same_and_what_is_mended_runs_again(tree, tmp_path, unruly):
    out, other = tmp_path / "runs", plan(make_request(tree, "nearest-mean"), quiet)[0]
    outcomes = execute_in_processes([*unruly("exit"), *other, *unruly("work")], out, CPU, 0, quiet, False, 1)
    assert [outcome.state for outcome in outcomes] == ["failed", "done", "done"]
    (path,) = [record.path for record in read_records([out]) if record.status == "failed"]
    value = json.loads(path.read_text())
    assert value["environment"]["threads"] == "1" and value["scores"] is None
    again = execute_in_processes([*unruly("exit"), *unruly("work")], out, CPU, 0, quiet, False, 1)
    assert [outcome.state for outcome in again] == ["failed", "found"], "a failed cell is tried again"


def test_what_a_method_does_to_its_process_reaches_no_other_cell(tree, tmp_path, unruly):
    later = [*plan(make_request(tree, "full"), quiet)[0], *unruly("work")]
    alone = execute_in_processes(later, tmp_path / "alone", CPU, 0, quiet, False, 1)
    after = execute_in_processes([*unruly("spoil"), *later], tmp_path / "after", CPU, 0, quiet, False, 1)
    assert [outcome.state for outcome in after[1:]] == ["done", "done"]
    for one, other in zip(alone, after[1:], strict=True):
        assert matrices(tmp_path / "alone", one) == matrices(tmp_path / "after", other)


def matrices(out, outcome):
    (record,) = [record for record in read_records([out]) if record.path == outcome.record]
    return {name: value.tolist() for name, value in load_evidence(record).matrices.items()}


def test_objectives_and_backbones_of_others_are_apart_too(tree, tmp_path, monkeypatch):
    install(tmp_path / "o", "tiny_parts", UNRULY_PARTS, {"leaves": "tiny_parts:Leaves"}, monkeypatch, "objectives")
    entries = {"bad-vit": "tiny_more:BAD", "lambda-vit": "tiny_more:LAMBDA"}
    install(tmp_path / "b", "tiny_more", UNRULY_PARTS, entries, monkeypatch, "backbones")
    cells = plan(make_request(tree, "full+leaves"), quiet)[0]
    for backbone in ("bad-vit", "lambda-vit"):
        cells += plan(make_request(tree, "frozen", backbone=backbone, backbone_sizes={}), quiet)[0]
    said: list[str] = []
    outcomes = execute_in_processes(cells, tmp_path / "runs", CPU, 0, said.append, False, 1)
    assert [outcome.state for outcome in outcomes] == ["failed"] * 3
    assert "exited with code 5" in outcomes[0].message and "exited with code 6" in outcomes[1].message
    assert any("cannot have a process of its own, it runs in this one" in line for line in said)
    assert "ProcessDied" not in outcomes[2].message, "it has failed by itself"


def test_a_method_that_fails_when_asked_about_its_stages_leaves_the_others(tree, tmp_path, monkeypatch):
    code = f"{UNRULY}\n    def kept_features(self):\n        sys.exit(2)\n"
    install(tmp_path / "site", "tiny_early", code, {"early": "tiny_early:Unruly"}, monkeypatch)
    cells, broken = plan(make_request(tree, "early", "nearest-mean"), quiet)
    assert [cell.method_name for cell in cells] == ["nearest-mean"]
    assert "early" in broken[0][0] and "it called sys.exit(2)" in str(broken[0][1])


def test_the_command_says_so(tree, tmp_path, unruly, stbench, capsys):
    arguments = ["-m", "unruly", "-m", "nearest-mean", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial"]
    small = ["--steps", 2, "--pretrain-steps", 0, "--batch-size", 2, "--validations", 1, "--out", tmp_path / "runs"]
    assert stbench("run", *arguments, *small, "-o", "how=exit") == 2, "nearest-mean has no such option"
    assert stbench("run", "-m", "unruly", *arguments[4:], *small, "-o", "how=exit", "--hang-after", 1) == 1
    shown = capsys.readouterr().out
    assert "failed: ProcessDied: exited with code 3" in shown and "Traceback" not in shown
