"""``stbench data``: what the suite reads in the files of a benchmark, before anything trains on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from spectral_tl_bench.console import print_rows, say
from spectral_tl_bench.errors import DataError

data_app = typer.Typer(help="Look at the data of benchmarks.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.add_typer(data_app, name="data")


@data_app.callback()
def _group() -> None:
    pass


@data_app.command("check")
def check(
    benchmark: Annotated[list[str], typer.Argument(help="Benchmark id, group (all, cross-region, ...) or YAML file.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets; default: STBENCH_DATA, else the bundled sample.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed of the cut into training and validation.")] = 0,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Also look at an incomplete copy of a dataset.")
    ] = False,
    trust_data: Annotated[
        bool, typer.Option("--trust-data", help="Follow links and VRTs of the data out of their folder.")
    ] = False,
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
