"""A cell on two devices that is paused or killed goes on, and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import left_by, record_in
from tiny import CPU, install, make_request, quiet
from torch import nn

from spectral_tl_bench import pause
from spectral_tl_bench.data.shares import Share
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.methods.base import Stage
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import resume
from spectral_tl_bench.training.checkpoints import CheckpointStore, Rhythm
from spectral_tl_bench.training.resume import Keeper, StageKeeper, random_states, theirs_of
from spectral_tl_bench.training.task import StageTask

TWO = replace(CPU, devices=2)
OFTEN = replace(TWO, checkpoint_steps=2)

OWN_WAYS = '''
import torch
from torch import nn
from spectral_tl_bench.methods.base import Method, Shared, Stage

class OwnWays(Method):
    """Each process draws and remembers what no other does, in a shared first stage and in the last one."""

    def build(self, task):
        module = nn.Sequential(nn.Conv2d(task.num_bands, 8, 3, padding=1), nn.Dropout(0.3),
                               nn.Conv2d(8, task.num_classes, 1))
        module.register_buffer("seen", torch.zeros(()))
        return module

    def stages(self, task):
        def smooth(module, batch):
            module.seen.add_(batch["image"].mean())
            return (module[1](module[0](batch["image"])) * (1 + module.seen.sigmoid())).square().mean()
        own = Shared(self, lambda name: name.startswith("0."), lambda name: False)
        return [Stage("smooth", task.budget.pretrain_steps, labelled=False, loss=smooth, shared=own,
                      trainable=lambda name: name.startswith("0.")), Stage("segment", task.budget.steps)]
'''


def cells_of(tree: Path, method: str, **more):
    settings = {"steps": 9, "validations": 3, "pretrain_steps": 5, "batch_size": 3, **more}
    cells, broken = plan(make_request(tree, method, **settings), quiet)
    assert broken == []
    return cells


def run(cells, out: Path, hardware, say=quiet):
    (outcome,) = execute(cells, out, hardware, 0, say)
    assert not torch.distributed.is_initialized()
    return outcome


def at_step(monkeypatch, number: int, what) -> None:
    """Have something happen in the first process, in its n-th training step of all stages together."""
    true_step, seen = StageTask.training_step, []

    def step(self, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == number:
            what()
        return true_step(self, batch, batch_idx)

    monkeypatch.setattr(StageTask, "training_step", step)


def stop() -> None:
    raise pause.Paused  # at once, without a checkpoint: the others are killed


@pytest.fixture(autouse=True)
def nobody_has_asked():
    yield
    pause.clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("own-ways", {}),
        ("lora", {"options": {"dropout": 0.2}, "oracle": True}),
        ("full+swad", {"validations": 9}),
        ("adalora", {"schedule": "cosine"}),
    ],
)
def test_two_processes_end_as_if_nothing_had_happened(tree, tmp_path, monkeypatch, method, settings):
    install(tmp_path / "site", "own_ways", OWN_WAYS, {"own-ways": "own_ways:OwnWays"}, monkeypatch)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache-one"))
    cells = cells_of(tree, method, **settings)
    quietly = left_by(run(cells, tmp_path / "peace", TWO).record)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache-two"))
    out = tmp_path / "cut"
    for number, what in ((4, pause.ask), (4, stop)):
        with monkeypatch.context() as within:
            at_step(within, number, what)
            assert run(cells, out, OFTEN).state == "paused"
        pause.clear()
        assert list(out.glob(".resume/*/last.ckpt"))
    said: list[str] = []
    outcome = run(cells, out, OFTEN, said.append)
    assert outcome.state == "done", outcome.message
    assert any("going on after step" in line for line in said)
    assert left_by(outcome.record) == quietly
    assert not (out / ".resume").exists()


@pytest.mark.slow
def test_a_pause_between_stages_and_before_the_first_step(tree, tmp_path, monkeypatch):
    cells = cells_of(tree, "pixel-mlp", steps=6)
    quietly = left_by(run(cells, tmp_path / "peace", TWO).record)
    for number, kept in ((6, True), (1, True)):  # asked for in the last step, and in the first
        out = tmp_path / f"cut-{number}"
        with monkeypatch.context() as within:
            at_step(within, number, pause.ask)
            assert run(cells, out, OFTEN).state == "paused"
        pause.clear()
        assert bool(list(out.glob(".resume/*/last.ckpt"))) is kept
        assert left_by(run(cells, out, OFTEN).record) == quietly


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_devices_goes_on(tree, tmp_path, monkeypatch, before, after):
    cells, said = cells_of(tree, "lora", options={"dropout": 0.2}), []
    with monkeypatch.context() as within:
        at_step(within, 5, stop)
        assert run(cells, tmp_path, replace(OFTEN, devices=before)).state == "paused"
    outcome = run(cells, tmp_path, replace(OFTEN, devices=after), said.append)
    assert outcome.state == "done", outcome.message
    assert any("going on after step 4" in line for line in said)
    assert any("another number of devices" in line for line in said)
    assert read_record(outcome.record).environment.get("devices", "1") == str(after)


@pytest.mark.slow
def test_a_command_on_two_devices_pauses_and_is_killed(tree, tmp_path):
    arguments = ["-m", "lora", "-o", "dropout=0.2", "-b", "mts12-n2s", "--data-root", str(tree), "--allow-partial",
                 "--steps", "120", "--batch-size", "3", "--backbone", "compact", "--window", "16", "--devices", "2",
                 "--accelerator", "cpu"]  # fmt: skip
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", *arguments, "--out"]
    subprocess.run([*command, str(tmp_path / "peace")], check=True, capture_output=True, timeout=200)
    out = tmp_path / "cut"
    for sent, code in ((signal.SIGUSR1, pause.EXIT_CODE), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(
            [*command, str(out), "--checkpoint-every", ".1s"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        before, last = _stamp(out), time.monotonic() + 120
        while _stamp(out) == before and time.monotonic() < last and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, sent)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
    subprocess.run([*command, str(out)], check=True, capture_output=True, timeout=200)
    assert left_by(record_in(out)) == left_by(record_in(tmp_path / "peace"))
    assert read_record(record_in(out)).environment["resumed"] == "2"


def _stamp(out: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in out.glob(".resume/*/last.ckpt")]


# ------------------------------------------------------------------------------------------- without processes


def test_a_process_finds_what_is_its_own(monkeypatch):
    found = {"others": [{"random": "of 1"}, {"random": "of 2"}]}
    for rank, expected in enumerate([{}, {"random": "of 1"}, {"random": "of 2"}]):
        monkeypatch.setattr(resume, "mine", lambda: Share(rank, 3))  # noqa: B023
        assert theirs_of(found) == expected
    for size in (1, 2, 4):
        monkeypatch.setattr(resume, "mine", lambda: Share(0, size))  # noqa: B023
        assert theirs_of(found) is None
    monkeypatch.setattr(resume, "mine", Share)
    assert theirs_of({}) == {}, "a checkpoint of one process"


def kept(folder: Path, module: nn.Module, say=quiet) -> Keeper:
    return Keeper(CheckpointStore(folder, {"cell": "a"}, Rhythm(), say, "cell"), module, {})


def test_chance_begins_anew_on_another_number_of_devices(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(resume, "mine", lambda: Share(0, 2))
    monkeypatch.setattr(resume, "agreed", lambda value: value)
    monkeypatch.setattr(resume, "gathered", lambda value: [value, ({"random": random_states(), "weights": {}}, "")])
    keeper = kept(tmp_path, nn.Linear(2, 2))
    keeper.save(0, lambda: {"done": 4, "random": random_states(), "stage_seconds": 0.0})
    torch.rand(1), random.random(), np.random.rand()
    monkeypatch.setattr(resume, "mine", Share)
    drawn = []
    for seed in (1, 1, 2):
        again = StageKeeper(kept(tmp_path, nn.Linear(2, 2), said.append), 0, Stage("s", 9), None, dict)
        torch.manual_seed(seed)
        again._restore_chance(again._found)
        drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))
    assert drawn[0] == drawn[1] and all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    assert "another number of devices" in said[0]


def test_a_process_that_cannot_read_the_checkpoint_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "mine", lambda: Share(1, 2))
    monkeypatch.setattr(resume, "agreed", lambda _: True)
    with pytest.raises(DataError, match="process 1 cannot read the checkpoint"):
        kept(tmp_path / "not-shared", nn.Linear(2, 2))


def test_only_the_first_process_decides_and_not_in_every_step(tmp_path, monkeypatch):
    asked: list[tuple] = []

    def ask(value):
        asked.append(value)
        return False, False

    monkeypatch.setattr(resume, "mine", lambda: Share(1, 2))
    monkeypatch.setattr(resume, "agreed", lambda _: False)
    keeper = StageKeeper(kept(tmp_path, nn.Linear(2, 2)), 0, Stage("s", 40), None, dict)
    monkeypatch.setattr(resume, "agreed", ask)
    pause.ask()  # of a process that decides nothing
    for step in range(33):
        keeper.on_train_batch_start(None, None, None, step)
    assert len(asked) == 5
