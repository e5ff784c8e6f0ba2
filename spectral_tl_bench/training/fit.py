"""Train a method through its stages and keep the checkpoints that evaluation needs."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from spectral_tl_bench.data.loaders import EvaluationData, SourceData
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.models.weights import State
from spectral_tl_bench.objectives.base import Objective
from spectral_tl_bench.training.active_objectives import Acting
from spectral_tl_bench.training.averaging import take_average
from spectral_tl_bench.training.closed_form import solve_stage
from spectral_tl_bench.training.compiling import compiled, forgiving
from spectral_tl_bench.training.progress import ProgressLines, Say
from spectral_tl_bench.training.task import VALIDATION_METRIC, StageTask

FEATURE_LIMIT = 50.0
"""Room for stored features where the user sets no other, in GiB."""


@dataclass(frozen=True)
class Hardware:
    """How to compute.

    Attributes:
        accelerator: Kind of device, as Lightning names it.
        precision: Of training; like ``compile`` it changes results a little and is one of the run's settings.
        compile: Whether training steps are compiled.
        feature_limit: Room for stored features, in GiB; 0 stores none. It changes no result.
    """

    accelerator: str = "auto"
    precision: str = "32-true"
    compile: bool = False
    feature_limit: float = FEATURE_LIMIT

    @property
    def device(self) -> torch.device:
        """Where to compute what Lightning does not run."""
        cuda = torch.cuda.is_available() and self.accelerator in ("auto", "gpu", "cuda")
        return torch.device("cuda" if cuda else "cpu")


def checked_hardware(accelerator: str, feature_limit: float = FEATURE_LIMIT) -> Hardware:
    """The hardware by the name of its accelerator.

    Args:
        accelerator: Kind of device.
        feature_limit: Room for stored features, in GiB.

    Raises:
        UserError: If a GPU is asked for and PyTorch sees none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("--accelerator gpu, but PyTorch sees no GPU here", fix="use --accelerator auto or cpu")
    return Hardware(accelerator, feature_limit=feature_limit)


@dataclass
class StageSummary:
    """What one stage did."""

    name: str
    steps: int
    seconds: float
    trainable: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fitted:
    """A trained module and its checkpoints.

    Attributes:
        module: The module, holding the last weights.
        stages: What was done.
        trace: (step, source-validation mIoU) of the last stage; one value where it is in closed form.
        selected: Step and weights of the checkpoint that is best on source validation, or of an average of weights.
        last: Step and weights at the end of training.
        checkpoints: Files of every validated checkpoint, where all were kept.
        averaged: Source-validation mIoU of the selected checkpoint, where it is an average.
    """

    module: nn.Module
    stages: list[StageSummary] = field(default_factory=list)
    trace: list[tuple[int, float]] = field(default_factory=list)
    selected: tuple[int, State] = (0, {})
    last: tuple[int, State] = (0, {})
    checkpoints: list[Path] = field(default_factory=list)
    averaged: float | None = None

    @property
    def selected_value(self) -> float:
        """Source-validation mIoU of the selected checkpoint."""
        return max(value for _, value in self.trace) if self.averaged is None else self.averaged

    def all_states(self) -> Iterator[tuple[int, State]]:
        """Every kept checkpoint, read one at a time."""
        for path in self.checkpoints:
            yield _read_checkpoint(path)


class _Trace(ModelCheckpoint):
    """The best checkpoint on source validation, and the values at every validation beside it."""

    def __init__(self, folder: Path, keep_all: bool) -> None:
        super().__init__(
            dirpath=folder, filename="{step}", monitor=VALIDATION_METRIC, mode="max", save_top_k=-1 if keep_all else 1,
            save_weights_only=True, every_n_epochs=None, save_on_train_epoch_end=False, enable_version_counter=False,
        )  # fmt: skip
        self.trace: list[tuple[int, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: StageTask) -> None:
        """Note the value, then let Lightning decide whether to keep the weights."""
        self.trace.append((trainer.global_step, float(trainer.callback_metrics[VALIDATION_METRIC])))
        super().on_validation_end(trainer, pl_module)


def fit(
    module: nn.Module,
    stages: list[Stage],
    source: SourceData,
    budget: Budget,
    num_classes: int,
    *,
    folder: Path,
    validations: int,
    weight_seed: int,
    hardware: Hardware,
    say: Say,
    title: str,
    keep_all: bool = False,
    done: StageSummary | None = None,
    carried: frozenset[str] = frozenset(),
    objectives: Mapping[str, Objective] | None = None,
) -> Fitted:
    """Train ``module`` through ``stages``.

    Args:
        module: What the method built.
        stages: Its stages; the last one must be labelled, its checkpoint is selected on source validation.
        source: Training windows and validation chips.
        budget: Optimiser settings.
        num_classes: Number of classes.
        folder: Where checkpoints go.
        validations: How often the last stage is validated.
        weight_seed: Seed of everything random in training but the data order.
        hardware: Device and precision.
        say: Prints one line of progress.
        title: What is running, for progress.
        keep_all: Keep every validated checkpoint, for the oracle.
        done: What the first stage did, where the module holds its result already; it is not trained then.
        carried: Names of the weights that came with ``done``; checkpoints hold them, whether they train or not.
        objectives: What labelled stages are trained with, by name.

    Raises:
        UserError: If the stages cannot lead to a selected checkpoint.
    """
    if not stages or not stages[-1].labelled or stages[-1].steps < 1:
        raise UserError("the last stage of a method must be labelled and have at least one step", where=title)
    if objectives and not any(stage.labelled and stage.steps and stage.fit is None for stage in stages):
        raise UserError(
            f"no objective can act on a method in closed form, which has no training steps: {', '.join(objectives)}",
            where=title,
            fix="run the method without objectives",
        )
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    fitted = Fitted(module)
    earlier: set[str] = set()
    for number, stage in enumerate(stages):
        if stage.steps < 1:
            continue
        if number == 0 and done is not None:
            fitted.stages.append(done)
            earlier |= carried
            continue
        final = number == len(stages) - 1
        if stage.fit is not None:
            solved = solve_stage(
                module, stage, source, declared, seed=seed_from("train", weight_seed, number), device=hardware.device,
                say=say, title=title, validation=(source.validation, num_classes) if final else None,
            )  # fmt: skip
            options = {**stage.options, "closed_form": True}
            fitted.stages.append(StageSummary(stage.name, stage.steps, solved.seconds, solved.trainable, options))
            if solved.miou is not None:  # there is one state, so nothing is selected from
                fitted.trace = [(stage.steps, solved.miou)]
                fitted.selected = fitted.last = (stage.steps, {**_states(module, earlier), **solved.state})
            earlier |= {name for name, parameter in module.named_parameters() if parameter.requires_grad}
            continue
        trace = _Trace(folder / stage.name, keep_all) if final else None
        # Methods name their stages freely; the last one must see the same windows whatever its name.
        order = "segment" if final else stage.name
        acting = None
        if objectives and stage.labelled:
            acting = Acting(objectives, stage, source, num_classes, order, folder / "average" if final else None)
        task, summary = train_stage(
            module, stage, source, budget, declared, folder=folder, order=order,
            seed=seed_from("train", weight_seed, number), hardware=hardware, say=say, title=title,
            callbacks=[trace] if trace else [],
            validation=(source.validation, num_classes, validations) if final else None, acting=acting,
        )  # fmt: skip
        fitted.stages.append(summary)
        if acting is not None and (facts := acting.facts()):
            summary.options["objectives"] = facts
        if trace is not None:
            fitted.trace = trace.trace
            step, best = _read_checkpoint(Path(trace.best_model_path))
            state = {name: value.detach().cpu().clone() for name, value in task.trained_state().items()}
            # A checkpoint holds what its own stage trains; the rest of the trained weights no longer changes.
            rest = _states(module, earlier)
            fitted.selected = (step, {**rest, **best})
            fitted.last = (stage.steps, {**rest, **state})
            fitted.checkpoints = sorted((folder / stage.name).glob("*.ckpt")) if keep_all else []
            average = acting.average() if acting is not None else None
            if average is not None:
                fitted.averaged = take_average(task, average, source, num_classes, hardware.device)
                fitted.selected = (average.end, {**rest, **_states(module, set(task.trained_state()))})
                load_state(module, fitted.last[1])
                say(f"{title} | {stage.name}: average of weights | source-validation mIoU {fitted.averaged:.3f}")
        earlier |= {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return fitted


def train_stage(
    module: nn.Module,
    stage: Stage,
    source: SourceData,
    budget: Budget,
    declared: set[str],
    *,
    folder: Path,
    order: str,
    seed: int,
    hardware: Hardware,
    say: Say,
    title: str,
    callbacks: Sequence[Callback] = (),
    validation: tuple[EvaluationData, int, int] | None = None,
    acting: Acting | None = None,
) -> tuple[StageTask, StageSummary]:
    """Train ``module`` through one stage.

    Args:
        module: What the method built.
        stage: The stage.
        source: Training windows.
        budget: Optimiser settings.
        declared: Parameters that required a gradient when the module was built.
        folder: Where checkpoints go, if a callback writes any.
        order: Name of the data order.
        seed: Seed of everything random in training but the data order.
        hardware: Device and precision.
        say: Prints one line of progress.
        title: What is running, for progress.
        callbacks: Lightning callbacks; a ``ModelCheckpoint`` among them is used.
        validation: Source chips for validation, number of classes, and how often it is done; None for no validation.
        acting: The objectives of the run, or None.

    Returns:
        The task that trained, and what it did.
    """
    _quiet()
    torch.manual_seed(seed)
    chips, num_classes, validations = validation or (None, 0, 0)
    options = dict(stage.options)
    fast = None
    if hardware.compile and acting is not None and acting.hooked:
        options["compiled"] = f"no: {acting.hooked} puts hooks into the model, which compiled code passes by"
    elif hardware.compile:
        fast, options["compiled"] = compiled(module, hardware.device, say, f"{title} | {stage.name}")
    task = StageTask(
        module, source.normaliser(), stage, budget, declared, source.augmentation(order), chips, num_classes, fast,
        acting,
    )  # fmt: skip
    every = max(1, stage.steps // max(1, validations))
    trainer = Trainer(
        accelerator=hardware.accelerator, devices=1, precision=hardware.precision,
        max_steps=stage.steps, max_epochs=1,
        callbacks=[ProgressLines(say, f"{title} | {stage.name}", stage.steps), *callbacks],
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        val_check_interval=every if chips else None, limit_val_batches=None if chips else 0, default_root_dir=folder,
    )  # fmt: skip
    started = time.monotonic()
    drawn = source.balanced_domains() if acting is not None and acting.balanced else source
    loader = drawn.train_loader(stage.steps, stage.labelled, order)
    with forgiving() if fast is not None else contextlib.nullcontext():
        _run(trainer, task, loader, chips.loader() if chips else None)
    trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return task, StageSummary(stage.name, stage.steps, time.monotonic() - started, trainable, options)


def _run(trainer: Trainer, task: StageTask, loader: Any, validation: Any) -> None:
    """``trainer.fit``, with an interruption that arrives as one.

    Depending on its version, Lightning returns from an interruption or leaves the whole process with exit code 1,
    and goes on to ignore the signal.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, loader, validation)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    if trainer.interrupted:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt


def load_state(module: nn.Module, state: State) -> None:
    """Put a checkpoint's weights into the module they came from.

    Raises:
        RuntimeError: If the checkpoint holds names that the module does not have.
    """
    unexpected = module.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise RuntimeError(f"the checkpoint holds unknown weights: {unexpected[:3]}")


def _states(module: nn.Module, names: set[str]) -> State:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items() if name in names}


def _read_checkpoint(path: Path) -> tuple[int, State]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return int(content["global_step"]), {
        name.removeprefix("module."): value for name, value in content["state_dict"].items()
    }


def _quiet() -> None:
    """Lightning's advice is for its own users; ours get progress lines."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in (
        ".*does not have many workers.*", ".*Checkpoint directory.*", ".*log_every_n_steps.*", ".*max_epochs.*",
        ".*`isinstance.treespec.*", ".*Precision .* is not supported.*", ".*but have no `val_dataloader`.*",
        ".*in eval mode at the start of training.*",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", message=pattern)
