"""``plan`` and ``run``, by the very functions of the commands of these names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, get_type_hints

import pandas as pd

from spectral_tl_bench import console
from spectral_tl_bench.cli import run_options
from spectral_tl_bench.console import ACCELERATORS, ON_OOM, one_of, read_duration, user_path
from spectral_tl_bench.defaults import HANG_AFTER, results_folder
from spectral_tl_bench.errors import nearest
from spectral_tl_bench.runner.definitions import Cell, Outcome
from spectral_tl_bench.runner.planning import Broken
from spectral_tl_bench.runner.planning import plan as plan_cells
from spectral_tl_bench.runner.survey import survey
from spectral_tl_bench.runner.together import divisible
from spectral_tl_bench.runner.work import hardware_for, work_through
from spectral_tl_bench.storage.output import check_run_folders
from spectral_tl_bench.training.loggers import check_loggers
from spectral_tl_bench.training.progress import Say

Names = str | Sequence[str]
Values = Mapping[str, Any] | Sequence[str]
F = TypeVar("F", bound=Callable[..., Any])
_REFUSED = "refused"


class Choices(TypedDict, total=False):
    """What is to be run: the options of ``stbench run`` by name, which ``stbench run --help`` explains.

    Options that may be repeated take one value or a list. ``option``, ``grid`` and ``backbone_size`` take a dictionary,
    ``objective_option`` a dictionary by objective; texts such as ``"rank=4"`` are taken, too.
    """

    method: Names
    benchmark: Names | Path | Sequence[Path]
    plan: str | Path
    data_root: str | Path
    seed: int | str | Sequence[int | str]
    seeds: int
    option: Values
    objective_option: Mapping[str, Mapping[str, Any]] | Sequence[str]
    grid: Mapping[str, Sequence[Any]] | Sequence[str]
    backbone: Names
    backbone_size: Values
    weights: str | Path
    patch_embedding: str
    input_scale: str | float
    level_norm: str
    input_norm: str
    protocol: str
    as_published: bool
    budget: str
    steps: int
    pretrain_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    pretrained_rate: float
    warmup_share: float
    schedule: str
    until_plateau: bool
    validate_every: int
    patience: int
    window: int
    stride: int
    validations: int
    precision: str
    compile_steps: bool
    oracle: bool
    from_stage: str | Path
    allow_partial: bool
    trust_data: bool
    packed: str | Path


def _listed(function: F) -> F:
    """The same function, whose signature lists the choices by name, for help and completion in a notebook."""
    kind, hints = inspect.Parameter.KEYWORD_ONLY, get_type_hints(Choices)
    own = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
    choices = [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in hints.items()]
    function.__signature__ = inspect.Signature([*choices, *own])  # type: ignore[attr-defined]
    return function


@_listed
def plan(*, out: str | Path | None = None, say: Say = console.say, **choices: Unpack[Choices]) -> pd.DataFrame:
    """What would be run, and what is left of it; nothing is trained or written.

    Args:
        out: Where records are looked for; by default the folder of ``run``.
        say: Prints a line.
        **choices: What would be run, see ``Choices``.

    Returns:
        One row per cell: ``cell`` (how its fingerprint begins), ``benchmark``, ``method``, ``backbone``, ``seed``,
        ``state`` (done, new, failed, changed or refused), ``reason`` and ``record`` (where it is, or will be).

    Raises:
        UserError: If a name is unknown, a value impossible, or nothing of it can run.
    """
    cells, broken = plan_cells(run_options.requests_of(_choices(choices, plan)), say)
    _raise_if_nothing(cells, broken)
    folder = results_folder() if out is None else user_path(out)
    looks = survey(cells, folder).looks
    rows = [_about(look.cell, look.fingerprint, look.state, look.reason, look.path) for look in looks]
    return _frame(rows, broken).drop(columns="miou")


@_listed
def run(
    *, out: str | Path | None = None, accelerator: str = "auto", devices: int = 1, gpus: str = "",
    micro_batches: int = 1, on_oom: str = "fail", logger: Names = (), log_dir: str | Path | None = None,
    feature_cache_limit: float = 50.0, workers: int = 0, jobs: int = 0, threads: int = 0,
    hang_after: float = HANG_AFTER, checkpoint_every: str = "10m", fresh: bool = False, wait_for_room: float = 0.0,
    say: Say = console.say, **choices: Unpack[Choices],
) -> pd.DataFrame:  # fmt: skip
    """Train methods on the source of benchmarks and test them on the target; leaves one record per cell.

    Cells with a finished record are found and not run again. For a cluster, or several nodes, take the command.

    Args:
        out: Where records are stored; by default ``STBENCH_RESULTS``, else ``runs``.
        accelerator: auto, cpu or gpu.
        devices: GPUs (with ``cpu``: processes) that train a cell together.
        gpus: GPUs to use, as ``0,1``: as many cells at a time.
        micro_batches: Go through each batch in so many parts, to save memory.
        on_oom: When memory runs out: fail, or split.
        logger: Also log training: csv, tensorboard, wandb, mlflow.
        log_dir: Where loggers write; by default in the folder of each cell's record.
        feature_cache_limit: GiB for the features that methods with ``cache=true`` keep.
        workers: Readers: processes, or threads where all chips are packed.
        jobs: Cells at a time, a process each; 0: one per core for the sample on a CPU.
        threads: Computing threads of a cell on the CPU; 0: one for small chips, else its share of the cores.
        hang_after: Minutes without a sign of life after which a cell in a process of its own is stopped; 0: never.
        checkpoint_every: How often training is kept, such as 30s or 10m, so that it can go on; 0: never.
        fresh: Run cells again that have a finished record.
        wait_for_room: Minutes to wait where the disk is full.
        say: Prints a line.
        **choices: What is run, see ``Choices``.

    Returns:
        One row per cell, as of ``plan``, with ``miou`` on the target as a fraction of 1; ``state`` is done, found,
        failed, refused or paused, and ``reason`` says why. ``load_results(rows.record)`` tells all about them.

    Raises:
        UserError: If a name is unknown, a value impossible, or nothing of it can run.
    """
    one_of("--accelerator", accelerator, ACCELERATORS)
    one_of("--on-oom", on_oom, ON_OOM)
    every = read_duration(checkpoint_every, "--checkpoint-every")
    requests = run_options.requests_of(_choices(choices, run))
    folder = results_folder() if out is None else user_path(out)
    check_run_folders(folder)
    loggers = _texts(logger) or []
    check_loggers(loggers)
    hardware, names = hardware_for(
        requests, accelerator=accelerator, devices=devices, nodes=1, gpus=gpus, micro_batches=micro_batches,
        on_oom=on_oom, logger=loggers, log_dir=None if log_dir is None else user_path(log_dir),
        feature_limit=feature_cache_limit, threads=threads, wait_for_room=wait_for_room, checkpoint_every=every,
    )  # fmt: skip
    cells, broken = plan_cells(requests, say)
    cells, whole = divisible(cells, hardware)
    broken = [*broken, *whole]
    _raise_if_nothing(cells, broken)
    outcomes = work_through(cells, folder, hardware, workers, jobs, hang_after, fresh, names, say)
    return _frame([_ended(outcome) for outcome in outcomes], broken)


def _choices(choices: Mapping[str, Any], call: Callable[..., Any]) -> run_options.Choices:
    """The choices as the command has them: texts, and lists of texts."""
    known = {one.name for one in fields(run_options.Choices)}
    lists = {"method", "benchmark", "seed", "option", "objective_option", "grid", "backbone", "backbone_size"}
    texts, paths = {"seeds", "weights", "input_scale", "packed"}, {"plan", "data_root", "from_stage"}
    found: dict[str, Any] = {}
    for name, value in choices.items():
        if name not in known:
            raise TypeError(f"there is no argument {name!r}: {nearest(name, inspect.signature(call).parameters)}")
        if value is None or (name in lists and isinstance(value, Mapping)):
            found[name] = value
        elif name in paths:
            found[name] = user_path(value)
        else:
            found[name] = _texts(value) if name in lists else str(value) if name in texts else value
    return run_options.Choices(**found)


def _texts(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str | int | Path) else [str(one) for one in value]


def _raise_if_nothing(cells: Sequence[Cell], broken: Broken) -> None:
    if broken and not cells:
        name, error = broken[0]
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise type(error)(f"{name} cannot run{more}: {error.what}", where=error.where, expected=error.expected,
                          fix=error.fix) from error  # fmt: skip


def _ended(outcome: Outcome) -> dict[str, Any]:
    cell = outcome.cell
    return {**_about(cell, cell.fingerprint(), outcome.state, outcome.message, outcome.record), "miou": outcome.miou}


def _about(cell: Cell, fingerprint: str, state: str, reason: str, record: Path | None) -> dict[str, Any]:
    return {
        "cell": fingerprint[:16], "benchmark": cell.opened.benchmark.id, "method": cell.method_title,
        "backbone": cell.backbone.name if cell.method.uses_backbone else "", "seed": cell.seed, "state": state,
        "reason": reason, "record": record,
    }  # fmt: skip


def _frame(rows: list[dict[str, Any]], broken: Broken) -> pd.DataFrame:
    """Cells as a frame; what cannot run comes last."""
    refused = [{"benchmark": name, "state": _REFUSED, "reason": str(error), "record": None} for name, error in broken]
    columns = ["cell", "benchmark", "method", "backbone", "seed", "state", "miou", "reason", "record"]
    frame = pd.DataFrame([*rows, *refused], columns=columns)
    texts = ["cell", "method", "backbone", "reason"]
    return frame.astype({"seed": "Int64", "miou": "float64"}).fillna(dict.fromkeys(texts, ""))
