"""One cell on several devices: nothing is seen twice, nothing is left out, and the numbers are those of one device."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import install, make_request, make_source, make_tree
from torch import nn

from spectral_tl_bench.cli.main import main
from spectral_tl_bench.data import shares
from spectral_tl_bench.data.shares import BatchParts, Share
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate, evaluate_together
from spectral_tl_bench.methods.base import Stage
from spectral_tl_bench.results.store import read_record, verify
from spectral_tl_bench.runner.apart import Call, run_apart
from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.runner.together import divisible, why_alone
from spectral_tl_bench.training import hardware as hardware_module
from spectral_tl_bench.training.gradient import GradientStage, _parts
from spectral_tl_bench.training.hardware import Hardware, checked_hardware, chosen_gpus
from spectral_tl_bench.training.parts import Parts
from spectral_tl_bench.training.task import StageTask
from spectral_tl_bench.training.trainer import JoinedProcesses, make_trainer

CLASSES = 8


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def source(tree):
    return make_source(tree, batch_size=5)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("length", [1, 4, 5, 32])
def test_shares_are_all_of_it_and_nothing_twice(size, length):
    batch, chips = list(range(length)), [f"chip {number}" for number in range(length)]
    parts = [batch[Share(rank, size).part(length)] for rank in range(size)]
    assert [window for part in parts for window in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    held = [chip for rank in range(size) for chip in Share(rank, size).chips(chips)]
    assert sorted(held) == sorted(chips) and len(set(held)) == length


@pytest.mark.parametrize("size", [2, 3])
def test_devices_see_the_windows_of_one_device(source, size):
    """Every batch, in the same order, with unequal parts where it does not divide."""
    whole = list(source.train_loader(3, True, "segment"))
    loaders = [source.train_loader(3, True, "segment", Share(rank, size)) for rank in range(size)]
    assert {len(loader) for loader in loaders} == {3}
    for batch, *parts in zip(whole, *loaders, strict=True):
        for name, value in batch.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), value), name


def test_an_unfinished_batch_is_left_out_by_all():
    parts = [list(BatchParts(range(7), 3, Share(rank, 2))) for rank in range(2)]
    assert parts == [[[0], [3]], [[1, 2], [4, 5]]] and len(BatchParts(range(7), 3, Share(0, 2))) == 2


def test_augmentation_of_a_window_is_the_same_on_every_device(source):
    """Both that of the protocol and that of an objective, whose draws depend on the size of a batch."""
    from spectral_tl_bench.objectives.registry import make_objectives
    from spectral_tl_bench.training.active_objectives import ActiveObjectives

    stage, module = Stage("segment", 4), nn.Conv2d(24, CLASSES, 1)
    active = ActiveObjectives(make_objectives("full+spectralaug", {}), stage, source, CLASSES, "segment")

    def prepared(share):
        parts = Parts(5, True, share)
        task = StageTask(
            module, source.normaliser(), stage, None, {"weight"}, source.augmentation("segment"), None, CLASSES,
            objectives=active, parts=parts,
        )  # fmt: skip
        (batch,) = source.train_loader(1, True, "segment", share)
        return parts.narrowed(task._prepared(parts.widened(batch), 3))

    whole, parts = prepared(Share()), [prepared(Share(rank, 2)) for rank in range(2)]
    assert [len(part["image"]) for part in parts] == [2, 3]
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), value), name


def _sent(sent, value):
    sent.append(value)
    return sent


def test_evaluation_by_shares_is_the_whole(source, monkeypatch):
    """Of a number of chips that does not divide; what the processes send each other goes through lists here."""
    torch.manual_seed(1)
    module, data, cpu = nn.Conv2d(24, CLASSES, 1), source.validation, torch.device("cpu")
    chips, size = len(data.rows), 1 + len(data.rows)
    assert chips > 1
    seen: dict[str, np.ndarray] = {}
    whole = evaluate(module, source.normaliser(), data, CLASSES, cpu, on_chip=seen.setdefault)
    for size in (2, chips + 1):  # with more processes than chips one of them has nothing to do
        sent: list = []
        monkeypatch.setattr("spectral_tl_bench.evaluation.evaluate.agreed", lambda _: list(data.rows))
        monkeypatch.setattr("spectral_tl_bench.evaluation.evaluate.gathered", functools.partial(_sent, sent))
        shown: dict[str, np.ndarray] = {}
        for rank in [*range(1, size), 0]:  # the first process comes last, when all have sent
            monkeypatch.setattr("spectral_tl_bench.evaluation.evaluate.mine", lambda: Share(rank, size))  # noqa: B023
            table = evaluate_together(
                module, source.normaliser(), data, CLASSES, cpu, on_chip=shown.setdefault, shown=list(data.rows)
            )
        assert [len(rows) for rows, _ in sent].count(0) == max(0, size - chips)
        pd.testing.assert_frame_equal(table.drop(columns="matrix"), whole.drop(columns="matrix"))
        assert all(np.array_equal(*pair) for pair in zip(table["matrix"], whole["matrix"], strict=True))
        assert shown.keys() == seen.keys() and all(np.array_equal(shown[chip], seen[chip]) for chip in seen)


def test_lightning_takes_no_part_in_slurm(monkeypatch, tmp_path):
    """In a job, as outside: no handlers, no requeueing, no rank of SLURM's."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
                        "SLURM_NODEID": "0", "SLURM_JOB_NAME": "cells"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    trainer = make_trainer(Hardware("cpu"), 1, [], tmp_path, None)
    environment = trainer._accelerator_connector.cluster_environment
    assert trainer.global_rank == 0 and trainer.world_size == 1 and isinstance(environment, JoinedProcesses)


def test_what_cannot_be_in_parts_is_refused(tree, source):
    cells, broken = plan(make_request(tree, "full", "full+erm", batch_size=3), quiet)
    assert broken == []
    able, refused = divisible(cells, Hardware("cpu", devices=4))
    assert able == [] and all("a batch of 3 windows is too small for 4 devices" in str(error) for _, error in refused)
    assert divisible(cells, Hardware("cpu", devices=3)) == (cells, [])
    job = GradientStage(
        nn.Conv2d(24, CLASSES, 1), Stage("s", 1), source, None, set(), None, "s", 0, Hardware("cpu"), quiet, ""
    )
    with pytest.raises(UserError, match="5 windows is too small for 6 devices"):
        _parts(job, Share(0, 6))
    assert _parts(job, Share()) is None, "one device goes the way it always went"


def test_what_has_nothing_to_divide_runs_on_one_device(tree):
    (floor, kept, full), _ = plan(make_request(tree, "majority", "linear-probe", "full"), quiet)
    assert "no training by gradients" in why_alone(floor) and why_alone(full) == "" == why_alone(kept)
    (cached,), _ = plan(make_request(tree, "linear-probe", options={"cache": True}), quiet)
    assert "kept features" in why_alone(cached)


def test_batch_normalisation_on_cpus_is_refused(source, monkeypatch):
    from spectral_tl_bench.training.gradient import _sync_statistics

    def task(module):
        return StageTask(module, nn.Identity(), Stage("s", 1), None, {n for n, _ in module.named_parameters()}, None,
                         None, CLASSES)  # fmt: skip

    normalising = nn.Sequential(nn.Conv2d(24, CLASSES, 1), nn.BatchNorm2d(CLASSES))
    assert _sync_statistics(task(normalising), Hardware("cpu"), Share()) is False
    with pytest.raises(UserError, match="only GPUs can share"):
        _sync_statistics(task(normalising), Hardware("cpu"), Share(0, 2))
    assert _sync_statistics(task(nn.Conv2d(24, CLASSES, 1)), Hardware("cpu"), Share(0, 2)) is False
    frozen = nn.Sequential(nn.BatchNorm2d(24).requires_grad_(False), nn.Conv2d(24, CLASSES, 1))
    module = StageTask(frozen, nn.Identity(), Stage("s", 1), None, {"1.weight", "1.bias"}, None, None, CLASSES)
    assert _sync_statistics(module, Hardware("cpu"), Share(0, 2)) is False


def test_gpus_are_checked_before_anything_starts(monkeypatch, tmp_path, capsys):
    with pytest.raises(UserError, match="PyTorch sees no GPU here"):
        chosen_gpus("0,1")
    assert chosen_gpus("") == []
    monkeypatch.setattr(sys, "argv", ["stbench", "run", "-m", "full", "-b", "mts12-n2s", "--gpus", "0,1",
                                      "--out", str(tmp_path / "runs")])  # fmt: skip
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 2 and "--gpus names '0'" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert chosen_gpus("1, 0") == ["1", "0"] and chosen_gpus("GPU-1a2b") == ["GPU-1a2b"]
    for wrong, word in {"0,2": "numbers from 0 to 1", "0,0": "twice", "first": "names 'first'"}.items():
        with pytest.raises(UserError, match=word):
            chosen_gpus(wrong)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-77")
    assert chosen_gpus("0,1") == ["4", "GPU-77"], "numbers count what this process may see"


def test_processes_are_those_of_all_nodes():
    assert checked_hardware("cpu", devices=3).processes == 3
    assert checked_hardware("cpu", devices=3, nodes=2).processes == 6


def test_records_say_what_is_unusual_alone(monkeypatch):
    assert Hardware("cpu").facts() == {}
    assert Hardware("cpu", devices=2, passes=4).facts() == {"devices": "2", "micro-batches": "4"}
    monkeypatch.setattr(hardware_module, "mine", lambda: Share(1, 2))
    assert Hardware("cpu").device == torch.device("cpu")
    assert automatic_jobs(["a", "b", "c"], Hardware("cpu"), ["0", "1"]) == 2
    assert automatic_jobs(["a", "b", "c"], Hardware("cpu", devices=2), ["0", "1"]) == 1
    assert automatic_jobs(["a"], Hardware("cpu", devices=2)) == 1


def probe(seconds: float) -> tuple[str, str]:
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "none"), os.environ.get("PROBE", "none")


def test_a_process_gets_variables_of_its_own(monkeypatch):
    monkeypatch.setenv("PROBE", "everybody's")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first = Call.of(probe, 0.0)
    calls = [(0, Call(first.content, {"CUDA_VISIBLE_DEVICES": "3"})), (1, first)]
    ended = dict(run_apart(calls, 2, quiet, quiet))
    assert ended[0].value == ("3", "everybody's") and ended[1].value == ("none", "everybody's")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


TELLS = '''
import os
import time
from torch import nn
from spectral_tl_bench.methods.base import Method

class Tells(Method):
    """Says which GPUs its process may see."""

    def build(self, task):
        print("sees", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
        time.sleep(1)
        return nn.Conv2d(task.num_bands, task.num_classes, 1)
'''


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_each_process_has_gpus_of_its_own(tree, tmp_path, monkeypatch, devices):
    install(tmp_path / "site", "telling", TELLS, {"tells": "telling:Tells"}, monkeypatch)
    cells, _ = plan(make_request(tree, "tells", seeds=(0, 1, 2, 3), steps=1), quiet)
    said: list[str] = []
    hardware = Hardware("cpu", devices=devices)
    gpus = ["4", "5", "6", "7"][: 2 * devices]
    outcomes = execute_in_processes(cells, tmp_path / "runs", hardware, 0, said.append, False, 2, gpus=gpus)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4, [outcome.message for outcome in outcomes]
    seen = [line.removeprefix("sees ") for line in said if line.startswith("sees")]
    wanted = ["4", "5"] if devices == 1 else ["4,5", "6,7"]
    assert len(seen) == 4 and sorted(set(seen)) == wanted, "freed ones are used again"


# ------------------------------------------------------------------------------------------- two processes

PLAIN = '''
import os
import torch
from torch import nn
import torch.distributed as processes
from spectral_tl_bench.methods.base import Method, Shared, Stage
from spectral_tl_bench.methods.losses import segmentation_loss

class Plain(Method):
    """Nothing random, and what is told happens in one of the processes."""
    order: str = ""

    def build(self, task):
        return nn.Sequential(nn.Conv2d(task.num_bands, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, task.num_classes, 1))

    def stages(self, task):
        def loss(module, batch):
            rank = processes.get_rank() if processes.is_initialized() else -1
            if self.order == "die" and rank == 1:
                os.kill(os.getpid(), 9)
            if self.order == "memory" and rank == 1 and len(batch["image"]) > 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            if self.order == "raise" and rank == 1:
                raise ValueError("a mistake of one of them")
            return segmentation_loss(module, batch)
        last = Stage("segment", task.budget.steps, loss=loss if self.order not in ("", "shared") else None)
        if self.order != "shared":
            return [last]
        def smooth(module, batch):
            return module[0](batch["image"]).square().mean()
        own = Shared(self, lambda name: name.startswith("0."), lambda name: False)
        first = Stage("smooth", task.budget.pretrain_steps, labelled=False, loss=smooth, shared=own,
                      trainable=lambda name: name.startswith("0."))
        return [first, last]
'''


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("odd"), north=9, south=5)


@pytest.fixture
def plain(odd, tmp_path, monkeypatch):
    install(tmp_path / "site", "plain_method", PLAIN, {"plain": "plain_method:Plain"}, monkeypatch)

    def cells(order="", **more):
        settings = {"steps": 6, "batch_size": 3, "learning_rate": 1e-3} | more
        made, broken = plan(make_request(odd, "plain", options={"order": order}, **settings), quiet)
        assert broken == []
        return made

    return cells


@pytest.mark.slow
@pytest.mark.parametrize("passes", [1, 2])
def test_two_processes_do_what_one_does(plain, tmp_path, passes):
    """Five target chips and batches of three windows, for two."""
    cells = plain()
    (one,) = execute(cells, tmp_path / "one", Hardware("cpu"), 0, quiet)
    (two,) = execute(cells, tmp_path / "two", Hardware("cpu", devices=2, passes=passes), 0, quiet)
    assert (one.state, two.state) == ("done", "done"), two.message
    first, second = read_record(one.record), read_record(two.record)
    assert first.fingerprint == second.fingerprint
    assert second.environment["devices"] == "2" and "devices" not in first.environment
    steps = [step for step, _ in first.selection.trace]
    assert [step for step, _ in second.selection.trace] == steps
    assert np.allclose([v for _, v in first.selection.trace], [v for _, v in second.selection.trace], atol=1e-3)
    verify(second)
    whole, shared = (pd.read_parquet(one.path.parent / one.evidence.file) for one in (first, second))
    pd.testing.assert_frame_equal(whole.drop(columns="matrix"), shared.drop(columns="matrix"))
    off = sum(np.abs(np.subtract(*pair)).sum() / 2 for pair in zip(whole["matrix"], shared["matrix"], strict=True))
    assert off <= 3, "pixels of 10,000; the weights differ by rounding"
    assert second.pictures.chips == first.pictures.chips


@pytest.mark.slow
def test_two_processes_stop_at_the_same_plateau(plain, tmp_path):
    """Nothing is learned at this rate, so that plateaus come as soon as they can."""
    settings = {"learning_rate": 1e-9, "steps": 40, "until_plateau": True, "validate_every": 2, "patience": 2}
    cells = plain(**settings, validations=None)
    two = Hardware("cpu", devices=2, checkpoint_steps=2)
    (outcome,) = execute(cells, tmp_path / "two", two, 0, quiet)
    assert outcome.state == "done", outcome.message
    ending = read_record(outcome.record).selection.convergence
    assert (ending.converged, ending.step, ending.plateaus) == (True, 10, (6, 10))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full+swad", "adalora", "full+spectralaug", "self-training"])
def test_methods_with_more_to_them_run_on_two(odd, tmp_path, monkeypatch, method):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    cells, broken = plan(make_request(odd, method, steps=4, batch_size=4, pretrain_steps=2), quiet)
    assert broken == []
    (outcome,) = execute(cells, tmp_path / "two", Hardware("cpu", devices=2), 0, quiet)
    assert outcome.state == "done", outcome.message
    record = read_record(outcome.record)
    assert record.environment["devices"] == "2" and verify(record)


@pytest.mark.slow
def test_a_shared_stage_is_trained_together_and_found_again(plain, tmp_path, monkeypatch):
    cells = plain("shared", pretrain_steps=3)
    results = {}
    for name, devices in {"one": 1, "two": 2}.items():
        monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / name / "cache"))
        for again in ("", "again"):
            out = tmp_path / name / f"runs{again}"
            (outcome,) = execute(cells, out, Hardware("cpu", devices=devices), 0, quiet)
            assert outcome.state == "done", outcome.message
            record = read_record(outcome.record)
            assert record.stages[0].options["reused"] is bool(again)
            results[name + again] = record.scores.selected.miou
    assert results["one"] == results["oneagain"] and results["two"] == results["twoagain"]
    assert abs(results["one"] - results["two"]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("order", ["die", "raise"])
def test_a_process_that_fails_ends_the_cell_and_says_why(plain, tmp_path, order):
    started = time.monotonic()
    (outcome,) = execute(plain(order), tmp_path / "two", Hardware("cpu", devices=2), 0, quiet)
    assert outcome.state == "failed" and time.monotonic() - started < 120
    word = {"die": "process 1 of 2 was killed by signal 9 (SIGKILL)", "raise": "a mistake of one of them"}[order]
    assert word in read_record(outcome.record).error.message
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_memory_that_runs_out_in_one_of_them(plain, tmp_path):
    cells = plain("memory", batch_size=4)
    (failed,) = execute(cells, tmp_path / "one", Hardware("cpu", devices=2), 0, quiet)
    assert read_record(failed.record).error.kind == "OutOfMemory"
    (split,) = execute(cells, tmp_path / "two", Hardware("cpu", devices=2, on_oom="split"), 0, quiet)
    assert split.state == "done", split.message
    assert read_record(split.record).environment["micro-batches"] == "2"


@pytest.mark.slow
def test_ctrl_c_leaves_no_process(odd, tmp_path):
    code = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", "-m", "full", "-b", "mts12-n2s", "--data-root",
            str(odd), "--allow-partial", "--steps", "100000", "--batch-size", "2", "--devices", "2", "--accelerator",
            "cpu", "--out", str(tmp_path / "runs")]  # fmt: skip
    started = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)  # fmt: skip
    assert started.stdout is not None
    for line in started.stdout:
        if "loss" in line:
            break
    family = _descendants(started.pid)
    assert len(family) >= 2
    os.kill(started.pid, signal.SIGINT)
    assert started.wait(60) == 130
    time.sleep(3)
    assert [pid for pid in family if _alive(pid)] == []


def _descendants(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in text.splitlines()]
    found, front = [], [pid]
    while front:
        front = [child for child, parent in pairs if parent in front]
        found += front
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_process_is_no_group():
    assert shares.mine() == Share() and shares.agreed("x") == "x" and shares.gathered(1) == [1]
    value = torch.ones(2)
    assert shares.summed(value) is value
