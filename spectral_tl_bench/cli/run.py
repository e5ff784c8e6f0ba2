"""``stbench run``: train methods on the source of benchmarks, test them on the target."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_tl_bench.console import backbone_sizes, complain, print_rows, read_values, say
from spectral_tl_bench.defaults import DEFAULT_BACKBONE, HANG_AFTER
from spectral_tl_bench.endings import stopped_by
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.protocol.settings import Overrides
    from spectral_tl_bench.runner.definitions import Outcome
    from spectral_tl_bench.runner.run import Request
    from spectral_tl_bench.training.hardware import Hardware


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("run")(run)


def run(
    method: Annotated[
        list[str], typer.Option("--method", "-m", help="Method, method@preset, with any +objective; may be repeated.")
    ],
    benchmark: Annotated[
        list[str], typer.Option("--benchmark", "-b", help="Benchmark id, group (all, cross-region, ...) or YAML file.")
    ],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets; default: STBENCH_DATA, else the bundled sample.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where records are stored.")] = Path("runs"),
    seed: Annotated[
        list[int] | None, typer.Option("--seed", "-s", min=0, help="Seed; may be given more than once.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Method option, as name=value.")] = None,
    objective_option: Annotated[
        list[str] | None,
        typer.Option("--objective-option", "-O", help="Option of an objective, as objective.name=value."),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = DEFAULT_BACKBONE,
    backbone_size: Annotated[
        list[str] | None, typer.Option(help="Size of the backbone, as name=number: width, depth, heads, patch.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Pretrained weights: hub, hub:NAME, a file, or none. See `stbench backbones`.")
    ] = None,
    patch_embedding: Annotated[
        str | None,
        typer.Option(help="How pretrained filters become those of the sensor's bands. See `stbench backbones show`."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="How the number comes about.")] = "strict",
    budget: Annotated[
        str | None, typer.Option(help="Training budget: small or paper. Default: paper for published data, else small.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps with labels.")] = None,
    pretrain_steps: Annotated[int | None, typer.Option(help="Steps without labels.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW learning rate.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Learning-rate schedule: constant or cosine.")] = None,
    window: Annotated[int | None, typer.Option(help="Side of windows in pixels.")] = None,
    stride: Annotated[int | None, typer.Option(help="Step of evaluation windows; default: half a window.")] = None,
    validations: Annotated[int | None, typer.Option(help="How often source validation is done.")] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Also report the checkpoint that is best on the target.")
    ] = False,
    from_stage: Annotated[
        Path | None,
        typer.Option(help="Start from this trained first stage: the folder that an earlier run has kept it in."),
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Run on an incomplete copy of a dataset; results go to a track apart."),
    ] = False,
    trust_data: Annotated[
        bool, typer.Option("--trust-data", help="Follow links and VRTs of the data out of their folder.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs (with --accelerator cpu: processes) that train a cell together.")
    ] = 1,
    num_nodes: Annotated[
        int,
        typer.Option(min=1, help="Nodes that train a cell together; start the command there by srun or torchrun."),
    ] = 1,
    gpus: Annotated[
        str, typer.Option(help="GPUs to use, as 0,1 or UUIDs: as many cells at a time, each process with its own.")
    ] = "",
    micro_batches: Annotated[
        int, typer.Option(min=1, help="Go through each batch in so many parts, one after the other, to save memory.")
    ] = 1,
    on_oom: Annotated[
        str,
        typer.Option("--on-oom", help="When memory runs out: fail, or split (again, with batches in parts)."),
    ] = "fail",
    logger: Annotated[
        list[str] | None,
        typer.Option(help="Also log training: csv, tensorboard, wandb, mlflow; may be given more than once."),
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option(help="Where loggers write; default: in the folder of each cell's record.")
    ] = None,
    compile_steps: Annotated[
        bool, typer.Option("--compile", help="Compile training steps; pays on large backbones and long runs.")
    ] = False,
    feature_cache_limit: Annotated[
        float, typer.Option(min=0, help="GiB for the features that methods with cache=true keep; 0 keeps none.")
    ] = 50.0,
    workers: Annotated[int, typer.Option(min=0, help="Reader processes.")] = 0,
    jobs: Annotated[
        int, typer.Option(min=0, help="Cells at a time, a process each; 0: one per core for the sample on a CPU.")
    ] = 0,
    threads: Annotated[
        int,
        typer.Option(
            min=0, help="Computing threads of a cell on the CPU; 0: one for small chips, else its share of the cores."
        ),
    ] = 0,
    hang_after: Annotated[
        float,
        typer.Option(
            min=0,
            help="Minutes without a line or a step after which a cell in a process of its own is stopped; 0: never.",
        ),
    ] = HANG_AFTER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run cells again that have a finished record.")] = False,
    wait_for_room: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MINUTES",
            help="How long to wait where the disk is full, before a result is kept elsewhere. "
            "Default: 10 on a terminal, else 0.",
        ),
    ] = None,
) -> None:
    """Train methods on the source of benchmarks and test them on the target; leaves one record per cell."""
    from spectral_tl_bench.protocol.registry import check_protocol_known

    if accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"--accelerator is {accelerator!r}", expected="one of auto, cpu, gpu")
    if on_oom not in ("fail", "split"):
        raise UserError(f"--on-oom is {on_oom!r}", expected="fail or split")
    overrides = _overrides(
        budget=budget, steps=steps, pretrain_steps=pretrain_steps, batch_size=batch_size, learning_rate=learning_rate,
        schedule=schedule, window=window, stride=stride, validations=validations, precision=precision,
        compile=compile_steps,
    )  # fmt: skip
    check_protocol_known(protocol)
    names = _known_names(method, benchmark, backbone, patch_embedding)
    objective_options = _objective_options(names, objective_option or [])
    options, sizes = read_values(option or [], "--option"), backbone_sizes(backbone_size or [])
    _check_folders(out)
    from spectral_tl_bench.runner.run import Request
    from spectral_tl_bench.training.hardware import checked_hardware, chosen_gpus
    from spectral_tl_bench.training.loggers import check_loggers

    wait = wait_for_room if wait_for_room is not None else 10.0 * sys.stdout.isatty()
    request = Request(
        benchmarks=benchmark, methods=names, options=options, backbone=backbone, backbone_sizes=sizes,
        weights=weights, patch_embedding=patch_embedding,
        seeds=list(dict.fromkeys(seed)) if seed else [0], data_root=data_root, allow_partial=allow_partial,
        trust_data=trust_data, protocol=protocol, overrides=overrides, oracle=oracle, from_stage=from_stage,
        objective_options=objective_options,
    )  # fmt: skip
    check_loggers(logger or [])
    names_of_gpus = chosen_gpus(gpus)
    device = checked_hardware(accelerator, feature_cache_limit, threads, precision, wait, devices, num_nodes)
    device = replace(
        device,
        passes=micro_batches,
        on_oom="split" if on_oom == "split" else "fail",
        loggers=tuple(dict.fromkeys(logger or [])),
        log_dir=log_dir,
    )
    if names_of_gpus and len(names_of_gpus) < devices:
        raise UserError(f"--gpus names {len(names_of_gpus)} GPUs, --devices asks for {devices} for each cell")
    _run(request, out, lambda: device, workers, jobs, hang_after, fresh, names_of_gpus)


def _run(
    request: Request, out: Path, hardware: Callable[[], Hardware], workers: int, jobs: int, hang_after: float,
    fresh: bool, gpus: list[str],
) -> None:  # fmt: skip
    """Plan and run, and say how it went; the exit code tells it too."""
    from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes
    from spectral_tl_bench.runner.room import check_places
    from spectral_tl_bench.runner.run import plan
    from spectral_tl_bench.runner.together import divisible

    try:
        cells, broken = plan(request, say)
        cells, whole = divisible(cells, hardware())
        broken += whole
        for name, reason in broken:
            complain(f"error: {name} cannot run: {reason}")
        device = hardware()
        check_places(cells, out)
        usual = automatic_jobs(cells, device, gpus)
        jobs = min(jobs, len(cells), *([usual] if gpus else [])) or usual
        outcomes = execute_in_processes(cells, out, device, workers, say, fresh, jobs, hang_after, gpus)
    except KeyboardInterrupt:  # caught here, because Typer would end without a word
        complain("interrupted; finished cells keep their records, run the same command again to go on")
        raise typer.Exit(128 + (stopped_by() or signal.SIGINT)) from None
    if cells:
        say("")
        _print_outcomes(outcomes)
        say(f"records: {out}   board: stbench report --records {out}")
    if broken or any(outcome.state == "refused" for outcome in outcomes):
        raise typer.Exit(2)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _check_folders(out: Path) -> None:
    """Whatever will be written can be written: said before any data are read."""
    from spectral_tl_bench.storage.output import LEAST_ROOM, check_cache, check_folder, check_temporary

    check_folder(out, "--out", LEAST_ROOM)
    check_temporary()
    check_cache()


def _overrides(**settings: Any) -> Overrides:
    """What the user set; a value that is none is named by its flag."""
    from pydantic import ValidationError

    from spectral_tl_bench.protocol.settings import Overrides

    try:
        return Overrides(**settings)
    except ValidationError as error:
        item = error.errors()[0]
        name = str(item["loc"][0]).replace("_", "-")
        raise UserError(f"--{name}: {item['msg'].lower()}", expected=f"not {item['input']!r}") from None


def _known_names(methods: list[str], benchmarks: list[str], backbone: str, patch_embedding: str | None) -> list[str]:
    """The methods' names. All names are looked up before the heavy imports: a mistake is answered at once."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.methods.registry import check_known
    from spectral_tl_bench.models.backbones import check_backbone_known
    from spectral_tl_bench.models.patch_embedding import check_strategy

    names = [part.strip() for entry in methods for part in entry.split(",") if part.strip()]
    if not names:
        raise UserError("--method names no method", fix="`stbench methods` lists them")
    resolve(benchmarks)
    check_known(names)
    check_backbone_known(backbone)
    if patch_embedding is not None:
        check_strategy(patch_embedding)
    return names


def _objective_options(names: list[str], entries: list[str]) -> dict[str, dict[str, str]]:
    from spectral_tl_bench.objectives.registry import check_options, read_options

    options = read_options(entries)
    check_options(names, options)
    return options


def _print_outcomes(outcomes: list[Outcome]) -> None:
    rows = [("benchmark", "method", "seed", "target mIoU", "track", "state")]
    for outcome in outcomes:
        cell = outcome.cell
        miou = "-" if outcome.miou is None else f"{outcome.miou:.3f}"
        rows.append(
            (cell.opened.benchmark.id, cell.method_name, str(cell.seed), miou, cell.opened.track, outcome.state)
        )
    print_rows(rows)
