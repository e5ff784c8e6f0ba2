"""One stage by gradients, on Lightning's trainer."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from spectral_tl_bench.data.loaders import EvaluationData, SourceData
from spectral_tl_bench.data.shares import Share, mine, summed
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.training.active_objectives import ActiveObjectives
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.loggers import CellLogs
from spectral_tl_bench.training.measured import StepClock
from spectral_tl_bench.training.oom import StepMemoryError, is_out_of_memory
from spectral_tl_bench.training.parts import Parts
from spectral_tl_bench.training.plateau import UntilPlateau
from spectral_tl_bench.training.progress import ProgressLines, Say
from spectral_tl_bench.training.resume import StageKeeper
from spectral_tl_bench.training.selection import BestOnSource, Matrix
from spectral_tl_bench.training.task import VALIDATION_METRIC, StageTask
from spectral_tl_bench.training.trained import StageSummary
from spectral_tl_bench.training.trainer import make_trainer


@dataclass(frozen=True)
class Validation:
    """How a stage is validated.

    Attributes:
        chips: Chips for validation: of the source, unless the selection says that it wants the target's.
        times: How often.
        selection: What their value is.
    """

    chips: EvaluationData
    num_classes: int
    times: int
    selection: BestOnSource


@dataclass(frozen=True)
class GradientStage:
    """A stage that is trained by gradients, with all that it needs.

    Attributes:
        declared: Parameters that required a gradient when the module was built.
        folder: Where checkpoints go, if a callback writes any.
        seed: Seed of everything random in training but the data order.
        title: What is running, for progress.
        callbacks: Lightning callbacks; a ``ModelCheckpoint`` among them is used.
        validation: How it is validated; None for not at all.
        objectives: The objectives of the run, or None.
        keeper: Keeps checkpoints to go on from, and knows where to go on; None keeps none.
        logs: Where loggers write, in a folder of the stage; None for no loggers.
        plateau: Sets the rate and may end the stage before its steps are over; None for neither.
    """

    module: nn.Module
    stage: Stage
    source: SourceData
    budget: Budget
    declared: set[str]
    folder: Path
    order: str
    seed: int
    hardware: Hardware
    say: Say
    title: str
    callbacks: Sequence[Callback] = ()
    validation: Validation | None = None
    objectives: ActiveObjectives | None = None
    keeper: StageKeeper | None = None
    logs: Path | None = None
    plateau: UntilPlateau | None = None


_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class ValidationTrace(ModelCheckpoint):
    """The checkpoint that counts, the best one or the last, and the values at every validation beside it."""

    def __init__(self, folder: Path, keep_all: bool, takes_last: bool = False) -> None:
        super().__init__(
            dirpath=folder, filename="{step}", monitor=None if takes_last else VALIDATION_METRIC, mode="max",
            save_top_k=-1 if keep_all else 1,
            save_weights_only=True, every_n_epochs=None, save_on_train_epoch_end=False, enable_version_counter=False,
        )  # fmt: skip
        self.trace: list[tuple[int, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Note the value, then let Lightning decide whether to keep the weights."""
        self.trace.append((trainer.global_step, float(trainer.callback_metrics[VALIDATION_METRIC])))
        super().on_validation_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: files by their names, since the folder may be another one next time."""
        state = super().state_dict()
        state |= {key: Path(value).name for key, value in state.items() if key in _PATHS and value}
        models = {Path(path).name: value for path, value in state["best_k_models"].items()}
        return {**state, "dirpath": "", "best_k_models": models, "trace": list(self.trace)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The values and checkpoints before training was cut off."""
        folder = Path(str(self.dirpath))
        state = {**state_dict, "dirpath": self.dirpath}
        state |= {key: str(folder / value) for key, value in state.items() if key in _PATHS and value}
        state["best_k_models"] = {str(folder / name): value for name, value in state_dict["best_k_models"].items()}
        self.trace = [(int(step), float(value)) for step, value in state.pop("trace")]
        super().load_state_dict(state)


def train_stage(job: GradientStage) -> tuple[StageTask, StageSummary]:
    """Train a module through one stage.

    Returns:
        The task that trained, and what it did.
    """
    _quiet()
    share = mine()
    stage, hardware, validation, keeper = job.stage, job.hardware, job.validation, job.keeper
    begins = keeper is None or not keeper.done
    untrained = look_before(job, share) if validation and validation.selection.never_resets and begins else None
    # Dropout and the like differ between devices, which otherwise would draw the same for different windows.
    torch.manual_seed(job.seed if share.rank == 0 else seed_from(job.seed, "device", share.rank))
    options = dict(stage.options)
    parts = _parts(job, share)
    fast = _compiled(job, options)
    chips = validation.chips if validation else None
    if chips is not None and share.size > 1:
        chips = chips.share(share)
    task = StageTask(
        job.module, job.source.normaliser(), stage, job.budget, job.declared, job.source.augmentation(job.order),
        chips, validation.num_classes if validation else 0, fast, job.objectives,
        validation.selection if validation else None, parts,
    )  # fmt: skip
    if untrained is not None:
        task.passes.append(untrained)
    clock = StepClock(job.source.settings.batch_size, hardware.device)
    every = max(1, stage.steps // max(1, validation.times)) if validation else None
    if job.plateau is not None:
        every = min(stage.steps, job.plateau.rule.validate_every)
    trainer = make_trainer(
        hardware, stage.steps,
        [ProgressLines(job.say, f"{job.title} | {stage.name}", stage.steps, value=task.selection.name), clock,
         *job.callbacks, *([job.plateau] if job.plateau else []),
         *([keeper] if keeper else [])], job.folder, every,
        _sync_statistics(task, hardware, share), _logs(job, share),
    )  # fmt: skip
    if hardware.passes > 1:
        job.say(
            f"{job.title} | {stage.name}: each batch in {hardware.passes} parts; dropout, and batch statistics that "
            "are trained, are then other ones than in one pass"
        )
    if hardware.precision != "32-true":
        options["precision"] = hardware.precision
    started = time.monotonic()
    balanced = job.objectives is not None and job.objectives.balanced
    windows = job.source.balanced_domains() if balanced else job.source
    done, path, before = (keeper.done, keeper.path, keeper.earlier) if keeper else (0, None, 0.0)
    if done:
        job.say(f"{job.title} | {stage.name}: going on after step {done} of {stage.steps}")
    loader = windows.train_loader(stage.steps, stage.labelled, job.order, share, done)
    with forgiving() if fast is not None else contextlib.nullcontext():
        _run(trainer, task, loader, _validation_loader(validation, chips), path)
    trainable = sum(parameter.numel() for parameter in job.module.parameters() if parameter.requires_grad)
    seconds = before + time.monotonic() - started
    steps = trainer.global_step if job.plateau else stage.steps
    return task, StageSummary(stage.name, steps, seconds, trainable, options, clock.facts)


LOOKED_AT = 2
"""Batches that the release validates before training begins, as Lightning does by default."""


def look_before(job: GradientStage, share: Share) -> Matrix:
    """The confusion matrix (K, K) of a module before its stage, over the first chips of the validation.

    Args:
        share: Which part of the chips is this process's.
    """
    validation = job.validation
    if validation is None:
        raise ValueError(f"stage {job.stage.name!r} is not validated")
    first = list(validation.chips.rows)[: LOOKED_AT * job.source.settings.batch_size]
    found = np.zeros((validation.num_classes, validation.num_classes), dtype=np.int64)
    if own := share.chips(first):
        table = evaluate(
            job.module, job.source.normaliser(), validation.chips.only(own), validation.num_classes, job.hardware.device
        )
        found += np.sum(list(table["matrix"]), axis=0)
    return summed(torch.from_numpy(found)).numpy()


def _parts(job: GradientStage, share: Share) -> Parts | None:
    """How the stage's batches are divided; None where one device takes each at once."""
    size, passes = job.source.settings.batch_size, job.hardware.passes
    if share.size * passes == 1:
        return None
    if size < share.size:
        raise UserError(f"a batch of {size} windows is too small for {share.size} devices", fix="use fewer devices")
    if job.objectives is not None and (name := job.objectives.looks_across()):
        raise UserError(
            f"objective {name} needs all windows of a batch together, not in parts",
            fix="run it on one device, without --micro-batches",
        )
    return Parts(size, job.stage.labelled and job.stage.loss is None, share, passes)


def _logs(job: GradientStage, share: Share) -> CellLogs | None:
    """The loggers of the stage, if there are any; the first process has them."""
    if job.logs is None or not job.hardware.loggers or share.rank:
        return None
    return CellLogs(job.hardware.loggers, job.logs / job.stage.name, f"{job.title} | {job.stage.name}", job.stage.steps)


def _sync_statistics(task: StageTask, hardware: Hardware, share: Share) -> bool:
    """Whether devices must share batch statistics."""
    if share.size == 1 or not any(
        isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training for child in task.modules()
    ):
        return False
    if hardware.device.type == "cpu":
        raise UserError(
            "the method trains batch normalisation, whose statistics only GPUs can share with each other",
            fix="run it on one device",
        )
    return True


def _validation_loader(validation: Validation | None, chips: EvaluationData | None) -> Any:
    """Windows of this process's chips; one for which there is none goes through a chip that is not counted."""
    if validation is None or chips is None:
        return None
    return (chips if chips.rows else validation.chips.share(Share(0, len(validation.chips.rows)))).loader()


def _compiled(job: GradientStage, options: dict[str, Any]) -> nn.Module | None:
    """The module in compiled form, where that is asked for and possible; ``options`` gets a word about it."""
    if not job.hardware.compile:
        return None
    if job.objectives is not None and job.objectives.hooked:
        hooked = job.objectives.hooked
        options["compiled"] = f"no: {hooked} puts hooks into the model, which compiled code passes by"
        return None
    fast, options["compiled"] = compiled(job.module, job.hardware.device, job.say, f"{job.title} | {job.stage.name}")
    return fast


def _run(trainer: Trainer, task: StageTask, loader: Any, validation: Any, path: Path | None) -> None:
    """``trainer.fit``, with an interruption that arrives as one.

    Depending on its version, Lightning returns from an interruption or leaves the whole process with exit code 1,
    and goes on to ignore the signal.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, loader, validation, ckpt_path=path)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise StepMemoryError(f"out of memory in training ({str(error).strip().partition(chr(10))[0]})") from error
        raise
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    if trainer.interrupted:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt


def _quiet() -> None:
    """Lightning's advice is for its own users; ours get progress lines."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in (
        ".*does not have many workers.*", ".*Checkpoint directory.*", ".*log_every_n_steps.*", ".*max_epochs.*",
        ".*`isinstance.treespec.*", ".*Precision .* is not supported.*", ".*but have no `val_dataloader`.*",
        ".*in eval mode at the start of training.*", ".*broadcast_buffers.*", ".*Grad strides do not match.*",
        ".*sync_dist=True.*", ".*your dataloader is not resumable.*", ".*`srun` command is available.*",
        ".*Experiment logs directory.*",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", message=pattern)


def why_not(device: torch.device) -> str | None:
    """The reason why nothing can be compiled here; None where a compiler is found and works."""

    def probe(values: Tensor) -> Tensor:
        return (values * 2 + 1).relu()

    try:
        result = torch.compile(probe, fullgraph=True)(torch.arange(8.0, device=device))
    except Exception as error:  # whatever a missing or broken compiler leads to, of which there are many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
    if result.tolist() != [1.0 + 2 * number for number in range(8)]:
        return "the compiled code gives wrong results"
    return None


def compiled(module: nn.Module, device: torch.device, say: Say, title: str) -> tuple[nn.Module | None, str]:
    """A module in compiled form, on the same weights.

    Args:
        module: The module; it is not changed.
        title: What is running, for the line.

    Returns:
        The compiled module, or None, and a word for the record: ``yes``, or why not.
    """
    reason = why_not(device)
    if reason is not None:
        say(f"{title} | --compile: nothing can be compiled here, training goes on without it ({reason})")
        return None, reason
    say(f"{title} | --compile: the first steps compile the model and take longer")
    return torch.compile(module), "yes"  # type: ignore[return-value]


@contextlib.contextmanager
def forgiving() -> Iterator[None]:
    """Inside, what cannot be compiled runs as it is, with a warning from PyTorch."""
    with torch._dynamo.config.patch(suppress_errors=True):
        yield
