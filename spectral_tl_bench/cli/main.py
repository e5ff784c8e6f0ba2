"""The command ``stbench``. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectral_tl_bench import __version__
from spectral_tl_bench.cli.authoring import register as register_authoring
from spectral_tl_bench.cli.backbones import backbones_app
from spectral_tl_bench.cli.compare import register as register_compare
from spectral_tl_bench.cli.leaderboard import register as register_leaderboard
from spectral_tl_bench.cli.methods import methods_app
from spectral_tl_bench.cli.submit import register as register_submit
from spectral_tl_bench.console import backbone_sizes, complain, pairs, print_rows, say
from spectral_tl_bench.defaults import DEFAULT_BACKBONE
from spectral_tl_bench.errors import UserError

app = typer.Typer(
    name="stbench",
    help="Spectral TL Bench: train a land-cover method on one region or season, test it on others.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
benchmarks_app = typer.Typer(help="List the benchmarks or the layouts of data, or show one.", rich_markup_mode=None)
app.add_typer(benchmarks_app, name="benchmarks")
app.add_typer(methods_app, name="methods")
app.add_typer(backbones_app, name="backbones")
register_authoring(app)
register_leaderboard(app)
register_compare(app)
register_submit(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"stbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@benchmarks_app.callback(invoke_without_command=True)
def list_benchmarks(context: typer.Context) -> None:
    """List the benchmarks and the groups that --benchmark takes."""
    if context.invoked_subcommand is not None:
        return
    from spectral_tl_bench.benchmarks import builtin_benchmarks, groups

    rows = [("id", "dataset", "gap", "bands", "classes", "px", "chips source/target", "title")]
    for one in builtin_benchmarks().values():
        source, target = one.expected.get("source", "?"), one.expected.get("target", "cut by place")
        rows.append(
            (one.id, one.dataset, one.gap, str(len(one.sensor.bands)), str(len(one.labels.classes)),
             str(one.chip_size), f"{source} / {target}", one.title)
        )  # fmt: skip
    print_rows(rows)
    say("")
    for group, members in sorted(groups().items()):
        say(f"group {group}: {', '.join(members)}")
    say("Your own benchmark: --benchmark path/to/my.yaml, in one of the layouts of `stbench benchmarks layouts`")


@benchmarks_app.command("layouts")
def list_layouts() -> None:
    """List the layouts that chips may lie in, as a benchmark's YAML names them."""
    from inspect import getdoc

    from spectral_tl_bench.data.layouts import layout_entries, load_layout

    rows, notes = [("layout", "package", "options", "files")], []
    for name, entry in layout_entries().items():
        package = entry.dist.name if entry.dist else "-"
        try:
            layout = load_layout(name)
        except UserError as error:
            notes.append(f"{name} cannot be used here: {error.what}")
            rows.append((name, package, "-", "-"))
            continue
        files = (getdoc(layout) or "-").splitlines()[0]
        rows.append((name, package, ", ".join(layout.model_fields) or "none", files))
    print_rows(rows)
    for note in notes:
        say(note)


@benchmarks_app.command("show")
def show_benchmark(
    name: Annotated[str, typer.Argument(help="Id of a benchmark, or path of a YAML file.")],
    yaml: Annotated[bool, typer.Option("--yaml", help="Print the complete definition as YAML.")] = False,
) -> None:
    """Show one benchmark: layout, sensor, domains, classes, label map."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.layouts import layout_of

    benchmark, _ = resolve([name])[0]
    if yaml:
        import yaml as yaml_library

        definition = benchmark.model_dump(mode="json", exclude_defaults=True)
        say(yaml_library.safe_dump(definition, sort_keys=False, allow_unicode=True, width=110).rstrip())
        return
    sensor, split = benchmark.sensor, benchmark.split
    say(f"{benchmark.id}  {benchmark.title}  (version {benchmark.version})")
    say(f"dataset   {benchmark.dataset}, gap: {benchmark.gap}, chips of {benchmark.chip_size} px")
    say(f"layout    {benchmark.layout.kind}, which looks for {layout_of(benchmark).wanted()}")
    say(f"sensor    {sensor.name}, {len(sensor.bands)} bands, {sensor.gsd:g} m, {sensor.unit}")
    say("bands     " + ", ".join(f"{band.name} {band.wavelength:g} um" for band in sensor.bands))
    for side in ("source", "target"):
        domains = [benchmark.domain(domain) for domain in getattr(benchmark, side)]
        say(f"{side:9s} " + "; ".join(f"{d.id}" + (f" ({d.name})" if d.name else "") for d in domains))
    place = f"blocks of {split.block:g} m" if split.place == "grid" else "sites"
    say(f"split     validation: {split.validation:.0%} of the source, cut by {place}"
        + (f"; test: {split.test:.0%}" if split.test else ""))  # fmt: skip
    say("classes")
    for number, cover in enumerate(benchmark.labels.classes):
        say(f"  {number:2d}  {cover.colour}  {cover.name}  (raw {', '.join(map(str, cover.raw))})")
    other = "an error" if benchmark.labels.other == "error" else "void"
    say(f"  void: raw {', '.join(map(str, benchmark.labels.void)) or 'none'}; any other value is {other}")
    for note in benchmark.notes:
        say(f"note      {note}")
    say(f"cite      {benchmark.citation}")


@app.command("run")
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
        typer.Option(help="Start from this trained first stage: a folder below OUT/stages of an earlier run."),
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Run on an incomplete copy of a dataset; results go to a track apart."),
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Run cells again that have a finished record.")] = False,
) -> None:
    """Train methods on the source of benchmarks and test them on the target; leaves one record per cell."""
    from pydantic import ValidationError

    from spectral_tl_bench.protocol.settings import Overrides

    try:
        overrides = Overrides(
            budget=budget, steps=steps, pretrain_steps=pretrain_steps, batch_size=batch_size,
            learning_rate=learning_rate, schedule=schedule, window=window, stride=stride, validations=validations,
            precision=precision, compile=compile_steps,
        )  # fmt: skip
    except ValidationError as error:
        item = error.errors()[0]
        name = str(item["loc"][0]).replace("_", "-")
        raise UserError(f"--{name}: {item['msg'].lower()}", expected=f"not {item['input']!r}") from None
    if accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"--accelerator is {accelerator!r}", expected="one of auto, cpu, gpu")
    options = pairs(option or [], "--option")
    sizes = backbone_sizes(backbone_size or [])
    names = [part.strip() for entry in method for part in entry.split(",") if part.strip()]
    if not names:
        raise UserError("--method names no method", fix="`stbench methods` lists them")
    # Names are looked up before the heavy imports, so that a typing mistake is answered at once.
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.methods.registry import check_known
    from spectral_tl_bench.models.backbones import check_backbone_known
    from spectral_tl_bench.models.patch_embedding import check_strategy

    resolve(benchmark)
    check_known(names)
    objective_options = _objective_options(names, objective_option or [])
    check_backbone_known(backbone)
    if patch_embedding is not None:
        check_strategy(patch_embedding)
    from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes
    from spectral_tl_bench.runner.run import Request, execute, plan
    from spectral_tl_bench.training.fit import checked_hardware

    request = Request(
        benchmarks=benchmark, methods=names, options=options, backbone=backbone, backbone_sizes=sizes,
        weights=weights, patch_embedding=patch_embedding,
        seeds=list(dict.fromkeys(seed)) if seed else [0], data_root=data_root, allow_partial=allow_partial,
        overrides=overrides, oracle=oracle, from_stage=from_stage, objective_options=objective_options,
    )  # fmt: skip
    try:
        cells, broken = plan(request, say)
        for name, reason in broken:
            complain(f"error: {name} cannot run: {reason}")
        hardware = checked_hardware(accelerator, feature_cache_limit)
        jobs = min(jobs, len(cells)) or automatic_jobs(cells)
        if jobs > 1:
            outcomes = execute_in_processes(cells, out, hardware, workers, say, fresh, jobs)
        else:
            outcomes = execute(cells, out, hardware, workers, say, fresh)
    except KeyboardInterrupt:  # caught here, because Typer would end without a word
        complain("interrupted; finished cells keep their records, run the same command again to go on")
        raise typer.Exit(130) from None
    if cells:
        say("")
        _print_outcomes(outcomes)
        say(f"records: {out}   board: stbench report --records {out}")
    if broken or any(outcome.state == "refused" for outcome in outcomes):
        raise typer.Exit(2)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _objective_options(names: list[str], entries: list[str]) -> dict[str, dict[str, str]]:
    from spectral_tl_bench.objectives.registry import check_options, read_options

    options = read_options(entries)
    check_options(names, options)
    return options


def _print_outcomes(outcomes: list[Any]) -> None:
    rows = [("benchmark", "method", "seed", "target mIoU", "track", "state")]
    for outcome in outcomes:
        cell = outcome.cell
        miou = "-" if outcome.miou is None else f"{outcome.miou:.3f}"
        rows.append(
            (cell.opened.benchmark.id, cell.method_name, str(cell.seed), miou, cell.opened.track, outcome.state)
        )
    print_rows(rows)


@app.command("sample")
def sample() -> None:
    """Make the bundled synthetic sample if it is not there yet, and say where it is."""
    from spectral_tl_bench.data.sample_source import ensure_sample

    say(str(ensure_sample()))


def main() -> None:
    """Entry point: a user's mistake ends with a message and exit code 2, without a traceback."""
    try:
        app()
    except UserError as error:
        complain(f"error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
