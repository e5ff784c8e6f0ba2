"""``stbench tune``: search a method's options and learning rate on source validation, then run the choice."""

from __future__ import annotations

import functools
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_tl_bench import console
from spectral_tl_bench.cli import run_options
from spectral_tl_bench.cli.closing import close
from spectral_tl_bench.cli.run import _check_folders
from spectral_tl_bench.cli.run_options import Choices, overrides_of, seeds_of, takes_choices
from spectral_tl_bench.console import backbone_sizes, complain, in_percent, print_rows, read_values, say
from spectral_tl_bench.defaults import DEFAULT_BACKBONE, HANG_AFTER, RESULTS_HELP, results_folder
from spectral_tl_bench.endings import stopped_by
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.results.tuning import Draw, Tuning
    from spectral_tl_bench.runner.definitions import Cell
    from spectral_tl_bench.runner.run import Request

_DRAWS = 20
_OWN = ("method", "benchmark", "plan", "seed", "option", "grid", "backbone", "protocol", "as_published", "budget",
        "learning_rate", "weight_decay", "until_plateau", "precision", "oracle", "from_stage")  # fmt: skip
"""Choices of ``stbench run`` that are others here, or none."""
_FOR_REQUEST = ("weights", "patch_embedding", "input_scale", "level_norm", "input_norm", "data_root", "allow_partial",
                "trust_data", "packed")  # fmt: skip
_Texts = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("tune")(tune)


@functools.partial(takes_choices, without=_OWN)
def tune(
    choices: Choices,
    method: Annotated[str, typer.Argument(help="Method, method@preset, with any +objective.")],
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="Benchmark id, or YAML file.")],
    budget: Annotated[int, typer.Option(min=1, max=1000, help="Draws; the same for all that is compared.")] = _DRAWS,
    search: Annotated[str, typer.Option(help="random or grid.")] = "random",
    space: Annotated[
        _Texts,
        typer.Option(
            help="What is searched, as rank=4,8,16 or learning_rate=1e-5..1e-2; may be repeated. "
            "Default: the first option that the method declares, and the learning rate around its usual one."
        ),
    ] = None,
    seed: Annotated[
        _Texts,
        typer.Option(
            "--seed", "-s", help="Seed of the runs, or several as 0-4; the search uses the first. Default: 0."
        ),
    ] = None,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Run the choice, for all seeds.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Try all draws again.")] = False,
    out: Annotated[Path | None, typer.Option(help=f"Folder for results and draws. {RESULTS_HELP}")] = None,
    option: Annotated[_Texts, typer.Option("--option", "-o", help="Method option that stays, as name=value.")] = None,
    backbone: Annotated[str, typer.Option(help="Backbone.")] = DEFAULT_BACKBONE,
    protocol: Annotated[str, typer.Option(help="How the number comes about.")] = "strict",
    training_budget: Annotated[str | None, typer.Option(help="small or paper: `stbench run --budget`.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate that stays.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay that stays.")] = None,
    until_plateau: Annotated[
        bool, typer.Option("--until-plateau", help="Train draws and choice until source validation no longer gains.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    feature_cache_limit: Annotated[float, typer.Option(min=0, help="GiB for kept features; 0 keeps none.")] = 50.0,
    workers: Annotated[int, typer.Option(min=0, help="Readers: processes, or threads where all chips are packed.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Draws, then cells, at a time; as for `stbench run`.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Computing threads; as for `stbench run`.")] = 0,
    hang_after: Annotated[float, typer.Option(min=0, help="Minutes; as for `stbench run`.")] = HANG_AFTER,
) -> None:
    """Search options and learning rate of a method on source validation; the target is not opened before the choice.

    Draws are kept in .tune below --out: the same command goes on where it was interrupted. The choice is then run as
    ordinary cells, whose records hold all draws.
    """
    console.one_of("--accelerator", accelerator, console.ACCELERATORS)
    if search not in ("random", "grid"):
        raise UserError(f"--search is {search!r}", expected="random or grid")
    out = out or results_folder()
    settings = {name: getattr(choices, name) for name in run_options.SETTINGS} | {
        "budget": training_budget, "learning_rate": learning_rate, "weight_decay": weight_decay,
        "precision": precision, "until_plateau": until_plateau, "compile": choices.compile_steps,
    }  # fmt: skip
    overrides = overrides_of({"budget": "--training-budget"}, **settings)
    from spectral_tl_bench.runner.search_space import SETTINGS

    options, given = read_values(option or [], "--option"), read_values(space or [], "--space")
    fixed = {name: f"-o {name}={value}" for name, value in options.items()}
    for name in SETTINGS:
        if getattr(overrides, name) is not None:
            fixed[name] = f"--{name.replace('_', '-')}"
    sizes = backbone_sizes(choices.backbone_size or [])
    _check_names(method, benchmark, backbone)
    _check_folders(out)
    from spectral_tl_bench.objectives.registry import read_options
    from spectral_tl_bench.runner.run import Request
    from spectral_tl_bench.training.hardware import checked_hardware

    request = Request(
        benchmarks=[benchmark], methods=[method], options=options, backbone=backbone, backbone_sizes=sizes,
        seeds=list(seeds_of(seed, choices.seeds)), protocol=protocol, overrides=overrides,
        objective_options=read_options(choices.objective_option or []),
        **{name: getattr(choices, name) for name in _FOR_REQUEST},
    )  # fmt: skip
    device = checked_hardware(accelerator, feature_cache_limit, threads, precision)
    try:
        _tune(request, out, device, workers, jobs, hang_after, fresh, run, search, budget, given, fixed)
    except KeyboardInterrupt:
        complain("interrupted; the draws that have ended are kept, run the same command again to go on")
        raise typer.Exit(128 + (stopped_by() or signal.SIGINT)) from None


def _tune(
    request: Request, out: Path, device: Any, workers: int, jobs: int, hang_after: float, fresh: bool, run: bool,
    search: Any, budget: int, given: dict[str, str], fixed: dict[str, str],
) -> None:  # fmt: skip
    from spectral_tl_bench.runner.build import Workplace
    from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes
    from spectral_tl_bench.runner.room import check_places
    from spectral_tl_bench.runner.run import plan
    from spectral_tl_bench.runner.search_space import space_of
    from spectral_tl_bench.runner.tune import Tuner, keep_choice, run_draws

    cells, broken = plan(request, say)
    for name, reason in broken:
        raise UserError(f"{name} cannot run: {reason}")
    check_places(cells, out)
    base = cells[0]
    tuner = Tuner(base, request.options, search, budget, space_of(base.method, base.task(), given, fixed))
    tuner.check()
    number = len(tuner.points)
    fewer = "" if number == budget else f": there are no more (--budget {budget})"
    listed = "; ".join(f"{name}={dimension.text}" for name, dimension in tuner.space.items())
    say(f"{number} {search} draws{fewer} from {listed}; seed {base.seed}, source validation only")
    place = Workplace(out, device, workers, say)
    draws = run_draws(tuner, place, min(jobs, number) or automatic_jobs([base] * number), fresh, hang_after)
    tuning = tuner.choose(draws)
    keep_choice(tuner, out, tuning)
    say("")
    _print_draws(draws, tuning)
    if not run:
        say(f"the choice: {_flags(tuning, base)}")
        say(f"to run it, with the search in its records: {_with_run()}")
        return
    chosen: list[Cell] = [tuner.tuned(cell, tuning) for cell in cells]
    jobs = min(jobs, len(chosen)) or automatic_jobs(chosen)
    outcomes = execute_in_processes(chosen, out, device, workers, say, False, jobs, hang_after)
    close(outcomes, out, lambda name: f"the same command with --benchmark={name}")
    if any(outcome.state == "refused" for outcome in outcomes):
        raise typer.Exit(2)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _print_draws(draws: list[Draw], tuning: Tuning) -> None:
    """All draws, the best on source validation first. No number of the target exists yet."""
    order = sorted(range(len(draws)), key=lambda number: (-_value(draws[number]), number))
    rows = [("rank", "draw", "source validation", *tuning.space)]
    for rank, number in enumerate(order, 1):
        draw = draws[number]
        shown = f"failed: {draw.error}" if draw.value is None else in_percent(draw.value)
        values = (str(draw.configuration[name]) for name in tuning.space)
        rows.append((str(rank) if draw.value is not None else "-", str(number), shown, *values))
    print_rows(rows)


def _value(draw: Draw) -> float:
    return -1.0 if draw.value is None else draw.value


def _flags(tuning: Tuning, base: Cell) -> str:
    """The choice as options of ``stbench run``."""
    share = base.settings.budget.pretrained_rate
    options = [f"-o {shlex.quote(f'{name}={value}')}" for name, value in tuning.choice.options.items()]
    settings = [f"--{name.replace('_', '-')} {value}" for name, value in tuning.choice.settings.items()]
    # A rate that is given is one for all weights there.
    slower = [f"--pretrained-rate {share}"] if share != 1 and "learning_rate" in tuning.choice.settings else []
    return " ".join([*options, *settings, *slower])


def _with_run() -> str:
    """This very command, with the runs."""
    return shlex.join(["stbench", *(argument for argument in sys.argv[1:] if argument not in ("--no-run", "--fresh"))])


def _check_names(method: str, benchmark: str, backbone: str) -> None:
    """All names are known; said before the heavy imports."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.methods.registry import check_known
    from spectral_tl_bench.models.backbones import check_backbone_known

    chosen = resolve([benchmark])
    if len(chosen) != 1:
        raise UserError(
            f"--benchmark {benchmark} names {len(chosen)} benchmarks",
            expected="one: the source of one benchmark is the target of another, so a search over both would see it",
            fix="tune on each by itself",
        )
    check_known([method])
    check_backbone_known(backbone)
