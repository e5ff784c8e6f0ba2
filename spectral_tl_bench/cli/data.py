"""``stbench data``: what the suite reads in the files of a benchmark, before anything trains on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli import data_audit
from spectral_tl_bench.cli.data_cut import data_app
from spectral_tl_bench.cli.data_pack import pack_data
from spectral_tl_bench.console import print_rows, say
from spectral_tl_bench.errors import DataError, UserError

if TYPE_CHECKING:
    from pandas import DataFrame

    from spectral_tl_bench.benchmarks import Benchmark
    from spectral_tl_bench.data.index import ChipIndex


_ONE = Annotated[str, typer.Argument(help="Benchmark id or YAML file.")]
_SOME = Annotated[list[str], typer.Argument(help="Benchmark id, group (all, cross-region, ...) or YAML file.")]
_ROOT = Annotated[
    Path | None, typer.Option(help="Folder of the datasets; default: STBENCH_DATA, else the bundled sample.")
]
_TRUST = Annotated[bool, typer.Option("--trust-data", help="Follow links and VRTs of the data out of their folder.")]


data_app.command("pack")(pack_data)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    data_audit.register(data_app)
    app.add_typer(data_app, name="data")


@data_app.callback()
def _group() -> None:
    pass


@data_app.command("check")
def check(
    benchmark: _SOME,
    data_root: _ROOT = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed of the cut into training and validation.")] = 0,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Also look at an incomplete copy of a dataset.")
    ] = False,
    trust_data: _TRUST = False,
    domains: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns chip and domain, for files whose names and places tell no domain; checked, "
            "and copied into the dataset's folder, where every run looks for it."
        ),
    ] = None,
) -> None:
    """Open every chip as a run would: where it lies, what is measured, in what unit; warn, or say what is refused."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.domains import TABLE
    from spectral_tl_bench.data.source import locate, open_index
    from spectral_tl_bench.data.splits import make_split

    for number, (chosen, own_folder) in enumerate(resolve(benchmark)):
        source = replace(locate(chosen, own_folder, data_root), trusted=trust_data, domains=domains)
        index, track, notes = open_index(chosen, source, own_folder is not None, allow_partial)
        if domains is not None:
            _keep_table(domains, index.root / TABLE)
        split = make_split(chosen, index, seed)
        say(("\n" if number else "") + f"{chosen.id}  {chosen.title}")
        say(source.line)
        say(f"track: {track}")
        say(f"unit: {index.unit}")
        if index.packed.line:
            say(index.packed.line)
        rows = [("domain", "side", "chips", "px", "unmeasured px", "CRS")]
        for domain, chips in index.frame.groupby("domain", sort=True):
            side = "source" if domain in chosen.source else "target"
            systems = sorted({crs if len(crs) < 40 else crs[:36] + " ..." for crs in chips["crs"]})
            rows.append((
                str(domain), side, str(len(chips)), str(int((chips["height"] * chips["width"]).sum())),
                str(int(chips["nodata_pixels"].sum())), ", ".join(systems),
            ))  # fmt: skip
        print_rows(rows, right=(2, 3, 4))
        for note in (*notes, *split.notes):
            say(note)


@data_app.command("verify")
def verify_data(
    benchmark: _SOME,
    data_root: _ROOT = None,
    trust_data: _TRUST = False,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Where to write what a sound copy holds; default: into the dataset's folder."),
    ] = None,
) -> None:
    """Open every file of a copy: list all that are broken, count, and hold the bands against what they are called."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.source import locate
    from spectral_tl_bench.data.verify import MANIFEST, verify, write_manifest

    chosen = resolve(benchmark)
    if manifest is not None and len(chosen) > 1:
        raise UserError("--manifest is for one benchmark", fix="leave it out, or name one benchmark")
    sound = True
    for number, (definition, own_folder) in enumerate(chosen):
        source = replace(locate(definition, own_folder, data_root), trusted=trust_data)
        say(("\n" if number else "") + f"{definition.id}  {definition.title}\n{source.line}")
        found = verify(definition, source)
        for _, row in found.broken.iterrows():
            say(f"broken: {row['image']}: {row['problem']}")
        for fault in found.faults:
            say(f"fault: {fault}")
        rows = [("domain", "chips", "published", "bands")]
        bands = {finding.domain: finding.fault or f"{len(finding.held)} rules hold" for finding in found.findings}
        for domain, count, published in found.counts:
            rows.append(
                (domain, str(count), "not known" if published is None else str(published), bands.get(domain, "-"))
            )
        print_rows(rows, right=(1, 2))
        sound &= found.sound
        if not found.sound:
            say(f"{definition.id}: not sound, and no manifest was written")
            continue
        line = f"{definition.id}: sound; {len(found.frame)} chips; records name them {found.digest[:16]}"
        path = manifest or found.base / MANIFEST.format(benchmark=definition.id)
        if manifest is not None or source.kind == "files":
            write_manifest(found, path)
            line += f"; written to {path}"
        say(line)
    if not sound:
        raise typer.Exit(2)


@data_app.command("show")
def show_chip(
    benchmark: _ONE,
    chip: Annotated[str, typer.Argument(help="Name of a chip.")],
    data_root: _ROOT = None,
    out: Annotated[
        Path | None, typer.Option(help="The picture: .png, .pdf or .svg; default: CHIP.png in this folder.")
    ] = None,
) -> None:
    """Draw a chip: true and false colour, its label, and the mean spectrum of each class."""
    from spectral_tl_bench.data.pictures import chip_figure
    from spectral_tl_bench.files import atomic_path
    from spectral_tl_bench.storage.output import check_file

    definition, index = _opened(benchmark, data_root)
    path = out or Path(f"{chip}.png")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(
            f"no picture is written as {path.suffix or 'a file without ending'}", expected=".png, .pdf or .svg"
        )
    check_file(path, "--out")
    figure = chip_figure(definition, index, chip)
    with atomic_path(path) as beside:
        figure.savefig(beside, format=path.suffix[1:], dpi=150)
    say(f"wrote {path}")


@data_app.command("stats")
def stats(benchmark: _ONE, data_root: _ROOT = None) -> None:
    """Print class shares and band statistics by domain."""
    from spectral_tl_bench.data.pictures import band_statistics, class_shares

    definition, index = _opened(benchmark, data_root)
    means, deviations = band_statistics(definition, index)
    _print_frame("share of labelled pixels, %", class_shares(definition, index) * 100, "class")
    _print_frame(f"\nmean of bands, value x {definition.sensor.scale:g}", means, "band")
    _print_frame("\nstandard deviation of bands", deviations, "band")


def _print_frame(title: str, frame: DataFrame, what: str) -> None:
    say(title)
    rows = [(what, *map(str, frame.columns))]
    for name, values in zip(frame.index, frame.to_numpy(), strict=True):
        rows.append((str(name), *(f"{value:.4g}" for value in values)))
    print_rows(rows, right=range(1, len(frame.columns) + 1))


def _opened(name: str, data_root: Path | None) -> tuple[Benchmark, ChipIndex]:
    """A benchmark and the index of its chips, an incomplete copy's, too."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.source import locate, open_index

    chosen = resolve([name])
    if len(chosen) != 1:
        raise UserError(f"{name} is {len(chosen)} benchmarks", expected="one")
    definition, own_folder = chosen[0]
    source = locate(definition, own_folder, data_root)
    say(source.line)
    return definition, open_index(definition, source, own_folder is not None, allow_partial=True)[0]


def _keep_table(table: Path, target: Path) -> None:
    """Put a table that was found right where every run looks for it."""
    from spectral_tl_bench.files import write_bytes

    try:
        write_bytes(target, table.read_bytes())
    except OSError as error:
        raise DataError(
            f"the table of domains is right, and cannot be copied: {error.strerror}", where=target,
            fix="have somebody who may write there copy it; runs look for it there",
        ) from None  # fmt: skip
