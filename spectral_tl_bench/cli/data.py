"""``stbench data``: what the suite reads in the files of a benchmark, before anything trains on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli import data_audit
from spectral_tl_bench.cli.data_cut import data_app
from spectral_tl_bench.cli.data_pack import pack_data
from spectral_tl_bench.cli.run_options import DataRoot, TrustData
from spectral_tl_bench.console import complain, print_rows, say
from spectral_tl_bench.errors import DataError, UserError

if TYPE_CHECKING:
    from pandas import DataFrame

    from spectral_tl_bench.benchmarks import Benchmark
    from spectral_tl_bench.data.index import ChipIndex
    from spectral_tl_bench.data.verify import Verdict


_ONE = Annotated[str, typer.Argument(help="Benchmark id or YAML file.")]
_SOME = Annotated[list[str], typer.Argument(help="Benchmark id, group (all, cross-region, ...) or YAML file.")]
_DOMAINS = Annotated[
    Path | None,
    typer.Option(
        help="CSV with the columns chip and domain, for files whose names and places tell no domain; checked, and "
        "copied into the dataset's folder, where every run looks for it."
    ),
]


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
    data_root: DataRoot = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed of the cut into training and validation.")] = 0,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Also look at an incomplete copy of a dataset.")
    ] = False,
    trust_data: TrustData = False,
    domains: _DOMAINS = None,
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
    data_root: DataRoot = None,
    trust_data: TrustData = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Where to write what a sound copy holds: a file, or a folder that is there; default: into the "
            "dataset's folder."
        ),
    ] = None,
    domains: _DOMAINS = None,
) -> None:
    """Open every file of a copy: list all that are broken, count, and hold the bands against what they are called."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.domains import TABLE
    from spectral_tl_bench.data.source import locate
    from spectral_tl_bench.data.verify import MANIFEST, verify, write_manifest
    from spectral_tl_bench.storage.output import check_file, check_folder

    chosen = resolve(benchmark)
    into = manifest is not None and manifest.is_dir()
    if manifest is not None and into:
        check_folder(manifest, "--manifest")
    elif manifest is not None:
        if len(chosen) > 1:
            raise UserError(
                "--manifest is a file for one benchmark", fix="name a folder that is there, or one benchmark"
            )
        check_file(manifest, "--manifest")
    sound = True
    for number, (definition, own_folder) in enumerate(chosen):
        source = replace(locate(definition, own_folder, data_root), trusted=trust_data, domains=domains)
        say(("\n" if number else "") + f"{definition.id}  {definition.title}\n{source.line}")
        try:
            found = verify(definition, source, say)
        except KeyboardInterrupt:
            complain("stopped; what has been read is kept, and the same command goes on from there")
            raise
        if domains is not None and found.counts:
            _keep_table(domains, found.base / TABLE)
        _print_verdict(found)
        sound &= found.sound
        name = MANIFEST.format(benchmark=definition.id)
        path = found.base / name if manifest is None else manifest / name if into else manifest
        if not found.sound:
            before = f"; {path} is of an earlier look" if path.exists() else ""
            say(f"{definition.id}: not sound, and no manifest was written{before}")
            continue
        line = f"{definition.id}: sound; {len(found.frame)} chips; records name them {found.digest[:16]}"
        if manifest is None and source.kind != "files":
            say(line)
            continue
        try:
            write_manifest(found, path)
        except DataError as error:
            if manifest is not None:
                raise
            say(
                f"{line}\nnote: {error.what} ({path}); {error.fix}"
            )  # shared data are read-only, and sound all the same
        else:
            say(f"{line}; written to {path}")
    if not sound:
        raise typer.Exit(2)


def _print_verdict(found: Verdict) -> None:
    from spectral_tl_bench.data.checks import UNUSABLE

    for fault, (what, fix) in UNUSABLE.items():
        broken = found.broken[found.broken["fault"] == fault]
        for _, row in broken.iterrows():
            say(f"broken: {row['image']}: {row['problem']}")
        if len(broken):
            say(f"  {len(broken)} of {len(found.frame) + len(found.broken)} chips {what}; to do: {fix}")
    for fault in found.faults:
        say(f"fault: {fault}")
    for note in found.notes:
        say(f"note: {note}")
    rows = [("domain", "chips", "published", "px", "type", "bands")]
    bands = {finding.domain: finding.fault or f"{len(finding.held)} rules hold" for finding in found.findings}
    for domain, count, published in found.counts:
        chips = found.frame[found.frame["domain"] == domain]
        sizes = dict.fromkeys(f"{row['width']}x{row['height']}" for _, row in chips.iterrows())
        rows.append((
            domain, str(count), "not known" if published is None else str(published),
            ", ".join([*sizes][:3]) or "-", ", ".join(sorted(set(chips["type"]))) or "-", bands.get(domain, "-"),
        ))  # fmt: skip
    print_rows(rows, right=(1, 2))


@data_app.command("show")
def show_chip(
    benchmark: _ONE,
    chip: Annotated[str, typer.Argument(help="Name of a chip.")],
    data_root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(help="The picture: .png, .pdf or .svg; default: CHIP.png in this folder.")
    ] = None,
) -> None:
    """Draw a chip: true and false colour, its label, and the mean spectrum of each class."""
    from spectral_tl_bench.data.pictures import chip_figure
    from spectral_tl_bench.files import atomic_path
    from spectral_tl_bench.storage.output import check_file

    definition, index = _opened(benchmark, data_root, chip)
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
def stats(benchmark: _ONE, data_root: DataRoot = None) -> None:
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


def _opened(name: str, data_root: Path | None, chip: str | None = None) -> tuple[Benchmark, ChipIndex]:
    """A benchmark and the index of its chips, an incomplete copy's, too, in which some may be broken.

    Raises:
        DataError: If nothing can be shown, or not this chip.
    """
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.index import index_usable
    from spectral_tl_bench.data.layouts import gathering
    from spectral_tl_bench.data.source import locate

    chosen = resolve([name])
    if len(chosen) != 1:
        raise UserError(f"{name} is {len(chosen)} benchmarks", expected="one")
    definition, own_folder = chosen[0]
    source = locate(definition, own_folder, data_root)
    say(source.line)
    with gathering() as refused:
        index, broken = index_usable(definition, source.root)
    if chip in broken:
        raise DataError(f"the chip {chip} cannot be used: {broken[chip]}", where=index.root)
    if broken or refused:
        what = [f"{len(broken)} chips that cannot be used are left out"] if broken else []
        say(f"note: {'; '.join([*what, *(error.what for error in refused)])}; `stbench data verify` says more")
    return definition, index


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
