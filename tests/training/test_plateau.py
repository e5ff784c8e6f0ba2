"""Training until source validation no longer gains: when the rate falls, when training stops, what is kept of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CPU, fit, make_request, make_source, quiet
from torch import nn

from spectral_tl_bench import pause
from spectral_tl_bench.methods.base import Budget, Plateau, Stage
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.plateau import UntilPlateau, plateaus
from spectral_tl_bench.training.task import StageTask

CLASSES = 8
RULE = Plateau(validate_every=10, patience=2, gain=0.002)


def trace_of(*values: float) -> list[tuple[int, float]]:
    return [(10 * number, value) for number, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), ()),
        ((0.1, 0.2, 0.3, 0.4, 0.5), ()),
        ((0.5, 0.4), ()),
        ((0.5, 0.4, 0.3), (30,)),
        ((0.5, 0.4, 0.6, 0.5), ()),  # a gain begins the count again
        ((0.5, 0.5, 0.5, 0.5, 0.5, 0.9), (30, 50)),  # nothing after the second is looked at
        ((0.5, 0.501, 0.5015, 0.502, 0.5021), (30,)),  # less than a gain each; together one, after the first plateau
        ((0.5, 0.501, 0.502, 0.503, 0.504), ()),  # a slow climb is no plateau
        ((0.5, 0.5, 0.5, 0.7, 0.7, 0.7), (30, 60)),
        ((0.0, 0.0, 0.0, 0.0, 0.0), (30, 50)),
        ((float("nan"), float("nan"), float("nan")), (20,)),
    ],
)
def test_plateaus_of_a_trace(values, found):
    assert plateaus(trace_of(*values), RULE) == found


def test_no_plateau_is_seen_before_a_stage_is_through_with_its_own_schedule():
    flat = trace_of(*[0.5] * 8)
    assert plateaus(flat, RULE) == (30, 50)
    assert plateaus(flat, RULE, after=50) == (60, 80)
    assert plateaus(flat, replace_rule(gain=0.0), after=0) == (30, 50), "an equal value is no gain"


def replace_rule(**more: object) -> Plateau:
    return RULE.model_copy(update=more)


# ---------------------------------------------------------------------------------------------- one stage


class Scripted(nn.Module):
    """Its validation follows a script over its steps; notes nothing else."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order, self.weight = order, nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        chosen = self.order[min(len(self.order) - 1, max(0, int(self.steps) - 1))]
        logits = torch.zeros(len(images), CLASSES, *images.shape[-2:])
        logits[:, chosen] = 1
        return logits + 0 * self.weight


def count(module: nn.Module, *_: object) -> None:
    module.steps += 1


SCRIPT = Stage("segment", 40, loss=lambda module, _: -module.weight, after_step=count)


@pytest.fixture(scope="module")
def source(tree):
    return make_source(tree)


@pytest.fixture(scope="module")
def by_value(source) -> list[int]:
    """Classes from the rarest on: the more common the class that is said everywhere, the higher the mIoU."""
    truths = [source.validation.truth(chip).ravel() for chip in source.validation.rows]
    counts = np.sum([np.bincount(truth, minlength=256)[:CLASSES] for truth in truths], axis=0)
    ranked = [int(number) for number in np.argsort(counts) if counts[number]]
    assert len(set(counts[ranked][-3:])) == 3
    return ranked


@pytest.fixture
def rates(monkeypatch) -> list[float]:
    """The learning rate of every step."""
    seen: list[float] = []
    true_step = StageTask.training_step

    def note(self, batch, batch_idx):
        seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return true_step(self, batch, batch_idx)

    monkeypatch.setattr(StageTask, "training_step", note)
    return seen


def run_stage(tmp_path, source, order, stage=SCRIPT, every=2, patience=2, **more):
    rule = Plateau(validate_every=every, patience=patience)
    budget = Budget(learning_rate=1.0, weight_decay=0.0, plateau=rule, **more)
    return fit(Scripted(order), [stage], source, budget, CLASSES, folder=tmp_path, validations=1)


def test_the_rate_falls_at_a_plateau_and_training_stops_at_the_second(tmp_path, source, by_value, rates):
    *_, rare, middle, common = by_value
    order = [rare] * 2 + [middle] * 2 + [common] * 2 + [middle] * 30
    fitted = run_stage(tmp_path, source, order, warmup_share=0.1)
    assert [step for step, _ in fitted.trace] == [2, 4, 6, 8, 10, 12, 14]
    assert fitted.convergence is not None
    assert (fitted.convergence.converged, fitted.convergence.step) == (True, 14)
    assert fitted.convergence.plateaus == (10, 14)
    assert rates == pytest.approx([0.5] + [1.0] * 9 + [0.1] * 4), "up at the first validation, down right after one"
    assert fitted.selected[0] == 6 and fitted.last[0] == 14
    (summary,) = fitted.stages
    assert summary.steps == 14


def test_steps_that_run_out_are_no_convergence(tmp_path, source, by_value, rates):
    fitted = run_stage(tmp_path, source, by_value[:1] * 40, stage=SCRIPT.with_steps(7), warmup_share=0.0)
    assert fitted.convergence is not None and not fitted.convergence.converged
    assert fitted.convergence.step == 7 and fitted.convergence.plateaus == (6,)
    assert rates == pytest.approx([1.0] * 6 + [0.1])
    assert fitted.stages[0].steps == fitted.last[0] == 7


def test_fewer_steps_than_a_validation_takes_are_validated_once(tmp_path, source, by_value):
    fitted = run_stage(tmp_path, source, by_value, stage=SCRIPT.with_steps(3), every=100)
    assert [step for step, _ in fitted.trace] == [3] and not fitted.convergence.converged


def test_a_stage_with_a_schedule_of_its_own_is_waited_for(tmp_path, source, by_value):
    fitted = run_stage(tmp_path, source, by_value[:1], stage=replace(SCRIPT, plateau_after=12))
    assert fitted.convergence.plateaus == (14, 18)


def test_training_with_a_number_of_steps_says_nothing(tmp_path, source, by_value):
    budget = Budget(learning_rate=1.0)
    fitted = fit(Scripted(by_value), [SCRIPT.with_steps(4)], source, budget, CLASSES, folder=tmp_path, validations=2)
    assert fitted.convergence is None


def test_a_checkpoint_knows_the_validations_before():
    watch = UntilPlateau(RULE, 1)
    watch.trace = trace_of(0.5, 0.5, 0.5)
    other = UntilPlateau(RULE, 1)
    other.load_state_dict(watch.state_dict())
    assert other.plateaus == watch.plateaus == (30,)


# ---------------------------------------------------------------------------------------------- whole runs

SETTINGS = {"steps": 40, "until_plateau": True, "validate_every": 2, "patience": 2, "validations": None}
KEPT = {"options": {"cache": True, "train_patch_embed": False}}


def cell_of(tree, method: str, **more):
    (cell,), broken = plan(make_request(tree, method, **{**SETTINGS, **more}), quiet)
    assert broken == []
    return cell


@pytest.mark.parametrize(("method", "more"), [pytest.param("pixel-mlp", {}, marks=pytest.mark.slow), ("frozen", KEPT)])
def test_a_run_until_a_plateau_that_is_cut_off_ends_as_if_nothing_had_happened(
    tree, tmp_path, monkeypatch, method, more
):
    """Also on kept features; cut off before and after the rate has fallen."""
    cell = cell_of(tree, method, learning_rate=0.05, **more)
    (quietly,) = execute([cell], tmp_path / "peace", CPU, 0, quiet)
    peace = read_record(quietly.record)
    ending = peace.selection.convergence
    assert ending is not None and ending.converged and ending.step < 40
    assert peace.stages[-1].steps == ending.step == peace.selection.trace[-1][0]

    true_step, seen, stop = StageTask.training_step, [], [ending.plateaus[0] - 1, 4]

    def step(self, batch, batch_idx):
        seen.append(batch_idx)
        if stop and len(seen) == stop[0]:
            raise pause.Paused
        return true_step(self, batch, batch_idx)

    monkeypatch.setattr(StageTask, "training_step", step)
    often = replace(CPU, checkpoint_steps=1)
    while stop:
        (outcome,) = execute([cell], tmp_path / "cut", often, 0, quiet)
        assert outcome.state == "paused"
        seen.clear()
        stop.pop(0)
    (outcome,) = execute([cell], tmp_path / "cut", often, 0, quiet)
    record = read_record(outcome.record)
    assert 0 < len(seen) < ending.step and record.environment["resumed"] == "2"
    assert record.selection == peace.selection and record.scores == peace.scores


def test_until_a_plateau_is_another_run(tree):
    prints = {
        "steps": cell_of(tree, "pixel-mlp", until_plateau=False, validate_every=None, patience=None).fingerprint(),
        "plateau": cell_of(tree, "pixel-mlp").fingerprint(),
        "every": cell_of(tree, "pixel-mlp", validate_every=3).fingerprint(),
        "patience": cell_of(tree, "pixel-mlp", patience=3).fingerprint(),
        "most": cell_of(tree, "pixel-mlp", steps=41).fingerprint(),
    }
    assert len(set(prints.values())) == len(prints)
    assert cell_of(tree, "pixel-mlp").numerics()["plateau"] == "1"
    assert (
        "plateau" not in cell_of(tree, "pixel-mlp", until_plateau=False, validate_every=None, patience=None).numerics()
    )
