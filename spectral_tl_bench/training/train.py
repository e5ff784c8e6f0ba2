"""Train a module through the stages of its method, and keep the checkpoints that testing needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spectral_tl_bench.console import in_percent
from spectral_tl_bench.data.batches import on_device
from spectral_tl_bench.data.loaders import EvaluationData, SourceData
from spectral_tl_bench.data.shares import mine
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.objectives.base import Average, Objective
from spectral_tl_bench.pulse import at
from spectral_tl_bench.training.active_objectives import ActiveObjectives
from spectral_tl_bench.training.checkpoints import CheckpointStore
from spectral_tl_bench.training.closed_form import solve_stage
from spectral_tl_bench.training.gradient import GradientStage, Validation, ValidationTrace, train_stage
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.plateau import UntilPlateau
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.resume import Keeper, StageKeeper, put_results, results_of
from spectral_tl_bench.training.selection import BestOnSource
from spectral_tl_bench.training.task import StageTask, warm_up
from spectral_tl_bench.training.trained import (
    StageSummary,
    TrainedModel,
    load_state,
    read_checkpoint,
    state_of,
)


@dataclass(frozen=True)
class FirstStageDone:
    """A first stage whose weights the module holds already.

    Attributes:
        summary: What it did.
        carried: Names of the weights that came with it; checkpoints hold them, whether they train or not.
    """

    summary: StageSummary
    carried: frozenset[str]


@dataclass(frozen=True)
class TrainingRun:
    """What is trained, on what and how.

    Attributes:
        stages: Its stages; the last one must be labelled, its checkpoint is selected.
        validations: How often the last stage is validated.
        weight_seed: Seed of everything random in training but the data order.
        folder: Where checkpoints go.
        title: What is running, for progress.
        selection: Which checkpoint counts.
        target: The target's chips, for a selection that wants them; no other ever gets them.
        keep_all: Keep every validated checkpoint, for the oracle.
        first: The first stage, where it is done already.
        objectives: What labelled stages are trained with, by name.
        store: Where checkpoints are kept from which training goes on after it was cut off; None keeps none.
        logs: Where loggers write.
    """

    module: nn.Module
    stages: Sequence[Stage]
    source: SourceData
    budget: Budget
    num_classes: int
    validations: int
    weight_seed: int
    folder: Path
    hardware: Hardware
    say: Say
    title: str
    selection: BestOnSource = field(default_factory=BestOnSource)
    target: EvaluationData | None = None
    keep_all: bool = False
    first: FirstStageDone | None = None
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    store: CheckpointStore | None = None
    logs: Path | None = None

    def is_last(self, number: int) -> bool:
        """Whether a stage is the one whose checkpoint is selected."""
        return number == len(self.stages) - 1

    def selects(self, number: int) -> bool:
        """Whether the best checkpoint of a stage by gradients goes on: nothing but closed form comes after it."""
        return all(stage.fit is not None or not stage.steps for stage in self.stages[number + 1 :])

    def seed(self, number: int) -> int:
        """Seed of whatever is random in a stage, by its number."""
        return seed_from("train", self.weight_seed, number)

    def validation(self) -> Validation:
        """How the last stage is validated."""
        chips = self.target if self.target is not None else self.source.validation
        return Validation(chips, self.num_classes, self.validations, self.selection)


Runner = Callable[[TrainingRun, int, set[str], TrainedModel, Keeper], None]
"""Runs one kind of stage, by its number; the set names the parameters that required a gradient at the start."""


def train(run: TrainingRun) -> TrainedModel:
    """Train a module through its stages, or through what is left of them.

    Raises:
        UserError: If the stages cannot lead to a selected checkpoint.
        Paused: If somebody has asked for it; what is done is kept, if the run keeps checkpoints.
    """
    _check(run)
    declared = {name for name, parameter in run.module.named_parameters() if parameter.requires_grad}
    trained = TrainedModel(run.module)
    keeper = Keeper(run.store, run.module, {"work": run.folder})
    trained.earlier, trained.resumed = keeper.earlier, keeper.resumed
    if keeper.found:
        put_results(trained, keeper.found, run.folder)
        _remember(run, keeper)
    for number, stage in enumerate(run.stages):
        if stage.steps and number >= keeper.stage:
            at(stage.name, 0, stage.steps)
            kind_of(run, number)(run, number, declared, trained, keeper)
            keeper.between_stages(number + 1, functools.partial(_results, run, trained, number + 1))
    return trained


def _results(run: TrainingRun, trained: TrainedModel, number: int) -> dict[str, Any]:
    """What the stages before one have left."""
    memories = {
        str(earlier): stage.memory.save(run.module)
        for earlier, stage in enumerate(run.stages[:number])
        if stage.memory is not None and stage.steps
    }
    return {**results_of(trained, run.folder), "memories": memories}


def _remember(run: TrainingRun, keeper: Keeper) -> None:
    """Put back what stages that are over remember: testing, or what is stored, may depend on it."""
    if keeper.stage == len(run.stages):
        run.say(f"{run.title} | trained before, testing what was kept")
    for number, memory in (keeper.found or {})["memories"].items():
        memorised = run.stages[int(number)].memory
        if memorised is not None:
            memorised.load(run.module, memory)


def kind_of(run: TrainingRun, number: int) -> Runner:
    """What runs a stage: one function for each kind there is."""
    if number == 0 and run.first is not None:
        return take_over
    return solve if run.stages[number].fit is not None else descend


def take_over(run: TrainingRun, _number: int, _declared: set[str], trained: TrainedModel, _keeper: Keeper) -> None:
    """A first stage that is done: the module holds its weights."""
    if run.first is not None:
        trained.stages.append(run.first.summary)
        trained.settled |= run.first.carried


def solve(run: TrainingRun, number: int, declared: set[str], trained: TrainedModel, _keeper: Keeper) -> None:
    """A stage in closed form: there is one state, so nothing is selected from."""
    stage = run.stages[number]
    solved = solve_stage(
        run.module, stage, run.source, declared, seed=run.seed(number), device=run.hardware.device, say=run.say,
        title=run.title, validation=run.validation() if run.is_last(number) else None,
    )  # fmt: skip
    options = {**stage.options, "closed_form": True}
    if run.hardware.precision != "32-true":
        options["precision"] = "32-true"  # of what is solved, whatever is asked for
    trained.stages.append(StageSummary(stage.name, stage.steps, solved.seconds, solved.trainable, options))
    if solved.miou is not None:
        trained.trace = [(stage.steps, solved.miou)]
        trained.selected = trained.last = (stage.steps, {**trained.settled_state(), **solved.state})
    trained.settle()


def descend(run: TrainingRun, number: int, declared: set[str], trained: TrainedModel, keeper: Keeper) -> None:
    """A stage by gradients; the last labelled one is validated, and one of its checkpoints selected."""
    stage, last = run.stages[number], run.selects(number) and run.stages[number].labelled
    keep_all = run.keep_all and run.is_last(number)
    trace = ValidationTrace(run.folder / stage.name, keep_all, run.selection.takes_last) if last else None
    # Methods name their stages freely; the last one must see the same windows whatever its name.
    order = "segment" if last else stage.name
    objectives = None
    if run.objectives and stage.labelled:
        folder = run.folder / "average" if last else None
        objectives = ActiveObjectives(run.objectives, stage, run.source, run.num_classes, order, folder)
    plateau = _until_plateau(run, stage) if last else None
    task, summary = train_stage(
        GradientStage(
            run.module, stage, run.source, run.budget, declared, run.folder, order, run.seed(number), run.hardware,
            run.say, run.title, [trace] if trace else [], run.validation() if last else None, objectives,
            StageKeeper(keeper, number, stage, objectives, functools.partial(_results, run, trained, number)),
            run.logs, plateau,
        )
    )  # fmt: skip
    trained.stages.append(summary)
    if objectives is not None and (facts := objectives.facts()):
        summary.options["objectives"] = facts
    if trace is not None and mine().rank == 0:  # which tests and writes
        _select(run, trace, task, trained, summary.steps)
        trained.convergence = plateau.convergence(summary.steps) if plateau else None
        _average(run, stage, task, trained)
        if not run.is_last(number):
            _go_on_from_selected(summary, trained)
    trained.settle()


def _until_plateau(run: TrainingRun, stage: Stage) -> UntilPlateau | None:
    """What ends a validated stage, where its budget asks for it."""
    rule = run.budget.plateau
    if rule is None:
        return None
    # The most steps are a limit that should not shape what comes before it: the rate is up at the first validation.
    warm = min(warm_up(stage, run.budget), rule.validate_every) if run.budget.warmup_share else 0
    return UntilPlateau(rule, warm, stage.plateau_after)


def _select(run: TrainingRun, trace: ValidationTrace, task: StageTask, trained: TrainedModel, steps: int) -> None:
    """Take the selected and the last checkpoint of the last stage, which had so many steps."""
    step, best = read_checkpoint(Path(trace.best_model_path))
    state = {name: value.detach().cpu().clone() for name, value in task.trained_state().items()}
    # A checkpoint holds what its own stage trains; the rest of the trained weights no longer changes.
    rest = trained.settled_state()
    trained.trace = trace.trace
    trained.selected = (step, {**rest, **best})
    trained.last = (steps, {**rest, **state})
    trained.checkpoints = sorted(Path(str(trace.dirpath)).glob("*.ckpt")) if run.keep_all else []


def _go_on_from_selected(summary: StageSummary, trained: TrainedModel) -> None:
    """What comes in closed form begins with the selected checkpoint, and leaves one of its own."""
    step, state = trained.selected
    summary.options["selected"] = {"step": step, "value": trained.selected_value}
    load_state(trained.module, state)
    trained.trace, trained.averaged = [], None


def _average(run: TrainingRun, stage: Stage, task: StageTask, trained: TrainedModel) -> None:
    """Select the average of weights, where an objective makes one; the module keeps the last weights."""
    average = task.objectives.average() if task.objectives is not None else None
    if average is None:
        return
    trained.averaged = take_average(task, average, run.source, run.validation(), run.hardware.device)
    names = set(task.trained_state())
    trained.selected = (average.end, {**trained.settled_state(), **state_of(run.module, names)})
    load_state(run.module, trained.last[1])
    run.say(f"{run.title} | {stage.name}: average of weights | {run.selection.name} {in_percent(trained.averaged)}")


def _check(run: TrainingRun) -> None:
    stages = run.stages
    if run.selection.on_target != (run.target is not None):
        raise ValueError("the target's chips are for a selection that wants them, and for no other")
    if not stages or not stages[-1].labelled or stages[-1].steps < 1:
        raise UserError("the last stage of a method must be labelled and have at least one step", where=run.title)
    if run.objectives and not any(stage.labelled and stage.steps and stage.fit is None for stage in stages):
        raise UserError(
            "no objective can act on a method in closed form, which has no training steps: "
            f"{', '.join(run.objectives)}",
            where=run.title,
            fix="run the method without objectives",
        )


STATISTICS_BATCHES = 100
"""Source training batches, at most, from which batch statistics are computed again."""


def take_average(
    task: StageTask, average: Average, source: SourceData, validation: Validation, device: torch.device
) -> float:
    """Put averaged weights into the module that a task has trained.

    The mean of weights has no batch statistics of its own: those of layers that track them in training are computed
    again, as plain means over source training windows without augmentation.

    Args:
        validation: How the average is validated.

    Returns:
        The mIoU on source validation.
    """
    module = task.module
    module.load_state_dict(average.state, strict=False)
    module.to(device)
    task.train()
    tracking = [
        child for child in module.modules() if child.training and getattr(child, "running_mean", None) is not None
    ]
    if tracking:
        normalise = source.normaliser().to(device)
        _track_again(module, tracking, normalise, source, min(task.stage.steps, STATISTICS_BATCHES))
    table = evaluate(module, source.normaliser(), validation.chips, validation.num_classes, device)
    return validation.selection.value(np.sum(list(table["matrix"]), axis=0))


@torch.no_grad()
def _track_again(
    module: nn.Module, layers: list[nn.Module], normalise: nn.Module, source: SourceData, batches: int
) -> None:
    momenta = [layer.momentum for layer in layers]
    device = next(module.parameters()).device
    for layer in layers:
        layer.reset_running_stats()  # type: ignore[operator]
        layer.momentum = None  # type: ignore[assignment]
    try:
        for batch in source.train_loader(batches, False, "batch statistics of an average"):
            module(normalise(on_device(batch["image"], device)))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
