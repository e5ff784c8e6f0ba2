"""A batch in parts has the gradient of the whole one, and memory that runs out is told, or got along with."""

from __future__ import annotations

import pytest
import torch
from tiny import install, make_request, make_source
from torch import nn

from spectral_tl_bench.data.shares import Share
from spectral_tl_bench.endings import how_ended
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import VOID, Budget, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.objectives.registry import make_objectives
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.apart import Ended
from spectral_tl_bench.runner.display import Display
from spectral_tl_bench.runner.processes import _Run
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.gradient import GradientStage, train_stage
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.oom import is_out_of_memory
from spectral_tl_bench.training.parts import Parts


class Plain(nn.Module):
    """Two convolutions, and nothing random or across windows."""

    def __init__(self, bands: int = 24, classes: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(bands, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, classes, 1))

    def forward(self, images):
        return self.body(images)


@pytest.fixture(scope="module")
def uneven(tree):
    """Source data of five windows per batch, of which some have hardly a label."""
    source = make_source(tree, batch_size=5)
    make = source.train_loader

    def train_loader(*arguments):
        for number, batch in enumerate(make(*arguments)):
            if "mask" in batch:
                batch["mask"][0] = VOID
                batch["mask"][number % 3 + 1, :, 3:] = VOID
            yield batch

    source.train_loader = train_loader
    return source


def trained(tmp_path, source, passes, *, precision="32-true", **stage):
    torch.manual_seed(3)
    module = Plain()
    steps = stage.pop("steps", 4)
    job = GradientStage(
        module, Stage("segment", steps, **stage), source, Budget(steps=steps, batch_size=5, learning_rate=1e-2),
        {name for name, _ in module.named_parameters()}, tmp_path, "segment", 1,
        Hardware("cpu", passes=passes, precision=precision), lambda _: None, "",
    )  # fmt: skip
    train_stage(job)
    return torch.cat([value.flatten() for value in module.state_dict().values()])


@pytest.mark.parametrize("passes", [2, 3, 5, 8])
def test_weights_are_those_of_whole_batches(tmp_path, uneven, passes):
    whole = trained(tmp_path, uneven, 1)
    assert torch.allclose(trained(tmp_path, uneven, passes), whole, rtol=1e-3, atol=1e-5)
    start = torch.cat([value.flatten() for value in _fresh().state_dict().values()])
    assert (whole - start).abs().max() > 1e-2, "and something was learned"


def _fresh():
    torch.manual_seed(3)
    return Plain()


def test_a_mean_of_means_would_be_another_gradient(tmp_path, uneven, monkeypatch):
    """The same comparison fails with weights by windows: it can see what it is there for."""
    whole = trained(tmp_path, uneven, 1)
    kept = Parts._weights
    monkeypatch.setattr(Parts, "_weights", lambda self, batch, pieces: kept(self, {"image": batch["image"]}, pieces))
    assert not torch.allclose(trained(tmp_path, uneven, 3), whole, rtol=1e-3, atol=1e-5)


def test_a_loss_of_the_method_s_own_counts_by_windows(tmp_path, uneven):
    def loss(module, batch):
        return module(batch["image"]).square().mean()

    for labelled in (True, False):
        whole = trained(tmp_path, uneven, 1, loss=loss, labelled=labelled)
        assert torch.allclose(trained(tmp_path, uneven, 2, loss=loss, labelled=labelled), whole, rtol=1e-3, atol=1e-5)


def test_half_precision(tmp_path, uneven):
    whole = trained(tmp_path, uneven, 1, precision="bf16-mixed", steps=2)
    assert torch.allclose(trained(tmp_path, uneven, 2, precision="bf16-mixed", steps=2), whole, atol=6e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_parts_of_devices_make_up_the_whole(size):
    """Weights and gradients of all devices' parts, as DDP takes their mean, are those of the batch."""
    torch.manual_seed(0)
    module, batch = Plain(3, 4), {"image": torch.randn(7, 3, 8, 8), "mask": torch.randint(0, 4, (7, 8, 8))}
    batch["mask"][:2] = VOID
    batch["mask"][3, 1:] = VOID
    segmentation_loss(module, batch).backward()
    wanted = [parameter.grad.clone() for parameter in module.parameters()]
    labelled = (batch["mask"] != VOID).sum()
    sums = [torch.zeros_like(value) for value in wanted]
    for rank in range(size):
        own = {name: value[Share(rank, size).part(7)] for name, value in batch.items()}
        module.zero_grad()
        part = Parts(7, True, Share(rank, size))
        count = (own["mask"] != VOID).sum()
        # What ``summed`` finds on all devices is put in by hand: here is one process.
        weight = part._weights(own, [slice(0, len(own["image"]))]) * count.clamp(min=1) / labelled
        (segmentation_loss(module, own) * weight[0] * size).backward()
        for total, parameter in zip(sums, module.parameters(), strict=True):
            total.add_(parameter.grad / size)
    for total, value in zip(sums, wanted, strict=True):
        assert torch.allclose(total, value, atol=1e-6)


def test_objectives_across_a_batch_are_refused(tree, tmp_path, capsys):
    from spectral_tl_bench.runner.together import divisible

    for name, across in {"groupdro": True, "coral": True, "mixstyle": True, "erm": False, "swad": False,
                         "spectralaug": False, "vrex": True}.items():  # fmt: skip
        (objective,) = make_objectives(f"full+{name}", {}).values()
        assert objective.looks_across() is across, name
    cells, broken = plan(make_request(tree, "full+erm", "full+mixstyle", benchmarks=("mts12-n2s",)), lambda _: None)
    able, refused = divisible(cells, Hardware("cpu", passes=2))
    assert [cell.method_name for cell in able] == ["full+erm"]
    assert not broken or "mixstyle" in str(broken)
    for name, error in refused:
        assert "mixstyle" in name and isinstance(error, UserError) and "all windows of a batch" in str(error)
    assert divisible(cells, Hardware("cpu"))[1] == []


GREEDY = '''
import torch
from torch import nn
from spectral_tl_bench.methods.base import Method, Stage
from spectral_tl_bench.methods.losses import segmentation_loss

class Greedy(Method):
    """Runs out of memory where it gets more windows than fit."""
    fit: int = 1
    kind: str = "cuda"

    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

    def stages(self, task):
        def loss(module, batch):
            if len(batch["image"]) > self.fit:
                if self.kind == "cuda":
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                if self.kind == "cpu":
                    raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't "
                                       "allocate memory: you tried to allocate 99 bytes")
                raise RuntimeError("shapes do not fit")
            return segmentation_loss(module, batch)
        return [Stage("segment", task.budget.steps, loss=loss)]
'''


@pytest.fixture
def greedy(tree, tmp_path, monkeypatch):
    install(tmp_path / "site", "greedy_method", GREEDY, {"greedy": "greedy_method:Greedy"}, monkeypatch)

    def cells(**options):
        made, broken = plan(make_request(tree, "greedy", options=options, batch_size=4), lambda _: None)
        assert broken == []
        return made

    return cells


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_memory_that_runs_out_is_told_with_sizes_and_remedies(greedy, tmp_path, kind):
    (outcome,) = execute(greedy(kind=kind), tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "failed"
    record = read_record(outcome.record)
    assert record.error.kind == "OutOfMemory"
    for word in ("batch of 4 windows of 32 px", "--micro-batches 2", "--on-oom split", "--batch-size", "bf16-mixed"):
        assert word in record.error.message, word
    assert "micro-batches" not in record.environment


def test_memory_that_runs_out_is_got_along_with(greedy, tmp_path):
    said: list[str] = []
    (outcome,) = execute(greedy(), tmp_path / "runs", Hardware("cpu", on_oom="split"), 0, said.append)
    assert outcome.state == "done", outcome.message
    record = read_record(outcome.record)
    assert record.environment["micro-batches"] == "4" and record.stages[-1].steps == 2
    assert len([line for line in said if "again, with each batch in" in line]) == 2
    (direct,) = execute(greedy(), tmp_path / "other", Hardware("cpu", passes=4), 0, lambda _: None)
    other = read_record(direct.record)
    assert other.fingerprint == record.fingerprint and other.scores == record.scores


def test_what_does_not_fit_in_any_part_ends(greedy, tmp_path):
    (outcome,) = execute(greedy(fit=0), tmp_path / "runs", Hardware("cpu", on_oom="split"), 0, lambda _: None)
    assert outcome.state == "failed" and "in 4 parts" in read_record(outcome.record).error.message


def test_another_mistake_is_not_tried_again(greedy, tmp_path):
    said: list[str] = []
    (outcome,) = execute(greedy(kind="x"), tmp_path / "runs", Hardware("cpu", on_oom="split"), 0, said.append)
    assert outcome.state == "failed" and read_record(outcome.record).error.kind == "RuntimeError"
    assert not any("again" in line for line in said)


def test_a_killed_process_is_told_the_batch(greedy, tmp_path):
    (cell,) = greedy()
    run = _Run(tmp_path / "runs", Hardware("cpu"), 0, Display(lambda _: None), False, 2, 0, ())
    outcome = run._outcome(cell, Ended(reason=how_ended(-9)), 0.0)
    message = read_record(outcome.record).error.message
    assert "SIGKILL" in message and "batch of 4 windows" in message and "--micro-batches" in message
    outcome = run._outcome(cell, Ended(reason=how_ended(-11)), 0.0)
    assert "batch of" not in read_record(outcome.record).error.message


def test_what_counts_as_memory():
    error = RuntimeError("lost the other")
    assert not is_out_of_memory(error)
    error.__cause__ = torch.cuda.OutOfMemoryError("x")
    assert is_out_of_memory(error) and is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("CUDA"))
