"""``stbench benchmarks`` and ``stbench sample``: what there is to run on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli import new_benchmark
from spectral_tl_bench.console import print_rows, say, say_broken

if TYPE_CHECKING:
    from spectral_tl_bench.benchmarks import Benchmark

_RULES = {
    "name": "the name of the file",
    "folder": "its folder",
    "table": "a table",
    "geometry": "where the chip lies",
}
benchmarks_app = typer.Typer(help="List the benchmarks or the layouts of data, or show one.", rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    benchmarks_app.command("check")(new_benchmark.check)
    app.add_typer(benchmarks_app, name="benchmarks")
    app.command("sample")(sample)


@benchmarks_app.callback(invoke_without_command=True)
def list_benchmarks(context: typer.Context) -> None:
    """List the benchmarks and the groups that --benchmark takes."""
    if context.invoked_subcommand is not None:
        return
    from spectral_tl_bench.benchmarks import builtin_benchmarks, further_benchmarks, groups, tracks

    _print_benchmarks(builtin_benchmarks().values())
    say("")
    for group, members in sorted(groups().items()):
        say(f"group {group}: {', '.join(members)}")
    for track, members in tracks().items():
        say(f"\ntrack {track}: run by name, or all by --benchmark track:{track}; in no group and no mean of the above")
        _print_benchmarks(further_benchmarks()[member] for member in members)
    say("")
    say("Your own benchmark: --benchmark path/to/my.yaml, in one of the layouts of `stbench benchmarks layouts`")
    say("of a folder of images and labels: stbench init-benchmark FOLDER")


def _print_benchmarks(benchmarks: Iterable[Benchmark]) -> None:
    rows = [("id", "dataset", "gap", "bands", "classes", "px", "chips source/target", "title")]
    for benchmark in benchmarks:
        source, target = benchmark.expected.get("source", "?"), benchmark.expected.get("target", "cut by place")
        if benchmark.track is not None:
            source, target = (benchmark.expected.get(side, "not known") for side in ("source", "target"))
        rows.append(
            (benchmark.id, benchmark.dataset, benchmark.gap, str(len(benchmark.sensor.bands)),
             str(len(benchmark.labels.classes)), str(benchmark.chip_size), f"{source} / {target}", benchmark.title)
        )  # fmt: skip
    print_rows(rows)


@benchmarks_app.command("layouts")
def list_layouts() -> None:
    """List the layouts that chips may lie in, as a benchmark's YAML names them."""
    from inspect import getdoc

    from spectral_tl_bench.benchmarks import LAYOUTS
    from spectral_tl_bench.data.layouts import load_layout
    from spectral_tl_bench.plugins import listed

    rows = [("layout", "package", "options", "files")]
    usable, broken = listed(LAYOUTS, load_layout)
    for name, entry in usable.items():
        package, layout = entry.dist.name if entry.dist else "-", load_layout(name)
        files = (getdoc(layout) or "-").splitlines()[0]
        rows.append((name, package, ", ".join(layout.model_fields) or "none", files))
    print_rows(rows)
    say_broken("layout", broken)


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
    if benchmark.track is not None:
        say(f"track     {benchmark.track}: no part of the suite's eight, their board and their means")
    say(f"layout    {benchmark.layout.kind}, which looks for {layout_of(benchmark).wanted()}")
    say(f"sensor    {sensor.name}, {len(sensor.bands)} bands, {sensor.gsd:g} m, {sensor.unit}")
    say(
        ("bands, wavelengths approximate  " if sensor.approximate else "bands     ")
        + ", ".join(f"{band.name} {band.wavelength:g} um" for band in sensor.bands)
    )
    for side in ("source", "target"):
        domains = [benchmark.domain(domain) for domain in getattr(benchmark, side)]
        say(f"{side:9s} " + "; ".join(f"{d.id}" + (f" ({d.name})" if d.name else "") for d in domains))
    rules = " or ".join(_RULES[rule] for rule in benchmark.domains_by) or "whatever its layout does"
    say(f"domains   named by {rules}")
    if benchmark.cut is not None:
        say("cut       `stbench data cut` makes the chips from "
            + "; ".join(f"{scenes.image} ({scenes.domain})" for scenes in benchmark.cut.scenes))  # fmt: skip
    place = f"blocks of {split.block:g} m" if split.place == "grid" else "sites"
    say(f"split     validation: {split.validation:.0%} of the source, cut by {place}"
        + (f"; test: {split.test:.0%}" if split.test else ""))  # fmt: skip
    align = "where their georeferences say" if benchmark.labels.align == "georeference" else "pixel for pixel"
    say(f"reading   unmeasured values: {benchmark.nodata}; labels lie {align}")
    say("classes")
    for number, cover in enumerate(benchmark.labels.classes):
        say(f"  {number:2d}  {cover.colour}  {cover.name}  (raw {', '.join(map(str, cover.raw))})")
    other = "an error" if benchmark.labels.other == "error" else "void"
    say(f"  void: raw {', '.join(map(str, benchmark.labels.void)) or 'none'}; any other value is {other}")
    for note in benchmark.notes:
        say(f"note      {note}")
    say(f"cite      {benchmark.citation}")


def sample() -> None:
    """Make the bundled synthetic sample if it is not there yet, and say where it is."""
    from spectral_tl_bench.data.sample_source import ensure_sample

    say(str(ensure_sample()))
