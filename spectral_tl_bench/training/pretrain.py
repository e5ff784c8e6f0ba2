"""Train a first stage once, apart from the run that asked for it."""

from __future__ import annotations

import functools
import gc
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from spectral_tl_bench import __version__
from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.data.shares import mine
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import Method, Shared, Stage, Task
from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.provenance import versions_of
from spectral_tl_bench.storage import scratch
from spectral_tl_bench.training.checkpoints import CheckpointStore
from spectral_tl_bench.training.gradient import GradientStage, train_stage
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import LossTrace, Say
from spectral_tl_bench.training.reconstructions import Album, PictureBook, fixed_windows, picture_steps
from spectral_tl_bench.training.resume import Keeper, StageKeeper
from spectral_tl_bench.training.stage_store import (
    PICTURES_FOLDER,
    StageCard,
    StageIdentity,
    save_stage,
)


def shared_stage(method: Method, task: Task) -> tuple[Task, Stage, Shared] | None:
    """The stage that a method shares, as every run that needs the same one sees it.

    Args:
        method: The method of a run.
        task: What the run tells it.

    Returns:
        A task that knows nothing of classes, benchmark and later stages, the stage, and how it is shared; None where
        the method has no such stage.

    Raises:
        MethodError: If a stage is declared as shared that cannot be.
    """
    stages = method.stages(task)
    late = [stage for number, stage in enumerate(stages) if stage.shared and (number or stage.labelled)]
    if late or (len(stages) == 1 and stages[0].shared):
        raise MethodError(
            f"stage {stages[0].name if not late else late[0].name!r} of {type(method).__name__} cannot be shared",
            expected="only a first stage without labels, before another one",
        )
    if not stages or stages[0].shared is None or stages[0].steps < 1:
        return None
    # Classes and later steps could change what `build` draws; a shared stage must not depend on them.
    plain = replace(
        task, benchmark="shared-stage", classes=("any",), budget=task.budget.model_copy(update={"steps": 0})
    )
    stage = stages[0].shared.method.stages(plain)[0]
    if stage.shared is None or stage.name != stages[0].name:
        raise MethodError(f"the method that {type(method).__name__} shares {stages[0].name!r} with has no such stage")
    return plain, stage, stage.shared


def train_shared(
    task: Task,
    stage: Stage,
    shared: Shared,
    identity: StageIdentity,
    source: SourceData,
    folder: Path,
    *,
    hardware: Hardware,
    say: Say,
    title: str,
    store: CheckpointStore | None = None,
) -> Callable[[Path], StageCard]:
    """Train a shared stage.

    Args:
        task: From ``shared_stage``, like ``stage`` and ``shared``.
        shared: How it is shared.
        folder: Pictures appear there while it trains.
        title: What is running, for progress.
        store: Where checkpoints are kept from which it goes on after it was cut off; None keeps none.

    Returns:
        What stores it in a folder, as often as that is needed, and gives its card: see ``save_stage``.
    """
    seed = identity.weight_seed
    source = source.reordered(identity.order_seed)
    torch.manual_seed(seed)
    module = shared.method.build(task)
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    relies_on = weights_digest(module, shared.relies_on)
    trace = LossTrace(stage.steps)
    callbacks: list[Callback] = [trace]
    if stage.pictures is not None and mine().rank == 0:
        album = Album(folder / PICTURES_FOLDER, stage.pictures, task.wavelengths)
        callbacks.append(PictureBook(album, fixed_windows(source), picture_steps(stage.steps)))
    with scratch() as work:
        keeper = Keeper(store, module, {"work": work, "pictures": folder / PICTURES_FOLDER})
        job = GradientStage(
            module, stage, source, task.budget, declared, work, stage.name, seed_from("train", seed, 0),
            hardware, say, title, callbacks, keeper=StageKeeper(keeper, 0, stage, None, dict),
        )  # fmt: skip
        _, summary = train_stage(job)
    state = {name: value for name, value in module.state_dict().items() if shared.carries(name)}
    if weights_digest(module, shared.relies_on) != relies_on:
        raise MethodError(
            f"stage {stage.name!r} of {type(shared.method).__name__} changed weights that its checkpoint lacks",
            expected="`relies_on` names weights that the stage leaves alone",
        )
    save = functools.partial(
        save_stage, identity=identity, state={name: value.detach().cpu() for name, value in state.items()},
        relies_on=relies_on, seconds=summary.seconds, trainable=summary.trainable,
        loss=[(step, value) for step, value in trace.values if math.isfinite(value)], environment=_versions(),
    )  # fmt: skip
    del module, state
    gc.collect()  # Lightning's trainers hold their modules in cycles
    return save


def _versions() -> Mapping[str, str]:
    libraries = versions_of(("torch", "torchgeo", "lightning", "timm", "safetensors"))
    return {"python": platform.python_version(), "spectral-tl-bench": __version__, **libraries}
