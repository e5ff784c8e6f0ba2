"""--compile: training steps go through the compiled module, and through the module itself where nothing compiles."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import Pixelwise, fit, make_request, make_source, make_tree

from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner import test as test_module
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import gradient
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.task import StageTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("compiling"))


@pytest.fixture(scope="module")
def source(small_tree):
    return make_source(small_tree)


def train(folder, source, compile: bool, say=lambda _: None):
    torch.manual_seed(0)
    return fit(
        Pixelwise(dropout=0.0), [Stage("segment", 4)], source, Budget(batch_size=2), 8, folder=folder, validations=2,
        weight_seed=0, hardware=Hardware("cpu", compile=compile), say=say, title="toy",
    )  # fmt: skip


class Spy(torch.nn.Module):
    """Stands for a compiled module, and counts."""

    def __init__(self, module):
        super().__init__()
        self.inner, self.modes = [module], []

    def forward(self, images):
        self.modes.append(self.inner[0].training)
        return self.inner[0](images)


def test_training_steps_are_compiled_and_validation_is_not(tmp_path, source, monkeypatch):
    spies: list[Spy] = []
    monkeypatch.setattr(gradient, "why_not", lambda device: None)
    monkeypatch.setattr(gradient.torch, "compile", lambda module: spies.append(Spy(module)) or spies[-1])
    plain, fast = train(tmp_path / "a", source, False), train(tmp_path / "b", source, True)
    (spy,) = spies
    assert spy.modes == [True] * 4
    assert fast.trace == plain.trace and fast.last[1].keys() == plain.last[1].keys()
    assert all(torch.equal(value, plain.last[1][name]) for name, value in fast.last[1].items())
    assert fast.stages[0].options == {"compiled": "yes"} and plain.stages[0].options == {}


def test_without_a_compiler_training_goes_on_and_says_so(tmp_path, source, monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("\n  InvalidCxxCompiler: no working C++ compiler\nmore")

    monkeypatch.setattr(gradient.torch, "compile", missing)
    said: list[str] = []
    fast = train(tmp_path / "a", source, True, said.append)
    assert fast.trace == train(tmp_path / "b", source, False).trace
    (line,) = [line for line in said if "--compile" in line]
    assert "goes on without it" in line and "no working C++ compiler" in line
    assert fast.stages[0].options["compiled"].startswith("RuntimeError: InvalidCxxCompiler")


def test_wrong_results_of_a_compiler_are_found(monkeypatch):
    monkeypatch.setattr(gradient.torch, "compile", lambda run, **_: lambda values: run(values) + 1)
    assert "wrong results" in (gradient.why_not(CPU) or "")
    monkeypatch.setattr(gradient.torch, "compile", lambda run, **_: run)
    assert gradient.why_not(CPU) is None


def test_it_is_a_setting_of_the_run_and_of_a_shared_stage(small_tree):
    (plain,), _ = plan(make_request(small_tree, "spectralx"), lambda _: None)
    (fast,), _ = plan(make_request(small_tree, "spectralx", compile=True), lambda _: None)
    assert fast.settings.compile and not plain.settings.compile
    assert fast.identity(fast.split()).fingerprint != plain.identity(plain.split()).fingerprint
    from spectral_tl_bench.runner.stages import identity_of
    from spectral_tl_bench.training.pretrain import shared_stage

    prints = {identity_of(one, one.split(), *shared_stage(one.method, one.task())).fingerprint for one in (plain, fast)}
    assert len(prints) == 2


@pytest.mark.slow
def test_really_compiled(tmp_path, source):
    reason = gradient.why_not(CPU)
    if reason:
        pytest.skip(f"nothing can be compiled here: {reason}")
    plain, fast = train(tmp_path / "a", source, False), train(tmp_path / "b", source, True)
    assert fast.stages[0].options == {"compiled": "yes"}
    for name, value in plain.last[1].items():
        torch.testing.assert_close(fast.last[1][name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["lora", "frozen", "spectralx"])
def test_half_precision_trains_and_the_target_is_float32(small_tree, tmp_path, method, monkeypatch):
    losses, logits = [], []
    step, evaluate = StageTask.training_step, test_module.evaluate_together

    def watched_step(self, batch, batch_idx):
        assert torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        losses.append(step(self, batch, batch_idx))
        return losses[-1]

    def watched_evaluate(module, *more, **options):
        hook = module.register_forward_hook(lambda _m, _i, output: logits.append(output.dtype))
        assert not torch.is_autocast_enabled("cpu")
        try:
            return evaluate(module, *more, **options)
        finally:
            hook.remove()

    monkeypatch.setattr(StageTask, "training_step", watched_step)
    monkeypatch.setattr(test_module, "evaluate_together", watched_evaluate)
    cells, _ = plan(make_request(small_tree, method, precision="bf16-mixed", steps=3), lambda _: None)
    (outcome,) = execute(cells, tmp_path, Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message
    assert len(losses) >= 3 and all(math.isfinite(loss.item()) for loss in losses)
    assert logits and set(logits) == {torch.float32}
    assert read_record(outcome.record).settings["precision"] == "bf16-mixed"
