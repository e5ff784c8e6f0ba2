"""``stbench data audit``: what separates source and target, before anything trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.run_options import DataRoot, TrustData
from spectral_tl_bench.console import print_rows, say
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.benchmarks import Benchmark
    from spectral_tl_bench.data.audit.facts import Audit
    from spectral_tl_bench.results.schema import Record

_OUT = Path("audits")


def register(app: typer.Typer) -> None:
    """Add the verb to ``stbench data``."""
    app.command("audit")(audit)


def audit(
    benchmark: Annotated[
        list[str] | None, typer.Argument(help="Benchmark id, group (all, cross-region, ...) or YAML file.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of the suite, in-domain references too.")] = False,
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(help="Gets BENCHMARK.html and BENCHMARK.json.")] = _OUT,
    geometry: Annotated[
        bool,
        typer.Option(
            "--geometry", help="Only who shares ground with whom; without --data-root from the definitions alone."
        ),
    ] = False,
    records: Annotated[
        list[Path] | None,
        typer.Option("--records", "-r", help="Folder of records: how much of their drop the class shares explain."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed of the cut into training and validation.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Readers; default: one per core.")] = None,
    trust_data: TrustData = False,
) -> None:
    """Measure what separates source and target, and training and validation: ground, copies, classes, bands."""
    from spectral_tl_bench.benchmarks import builtin_benchmarks, resolve
    from spectral_tl_bench.data.audit.facts import write_audit
    from spectral_tl_bench.files import write_text
    from spectral_tl_bench.leaderboard.audit.page import render_audit
    from spectral_tl_bench.results.store import read_records
    from spectral_tl_bench.storage.output import check_folder

    if every == bool(benchmark):
        raise UserError("audit needs benchmarks, or --all, and not both", fix="`stbench benchmarks` lists all")
    chosen = resolve(list(builtin_benchmarks()) if every else benchmark or [])
    if records and geometry and data_root is None and any(own is None for _, own in chosen):
        raise UserError(
            "--records with --geometry needs the data that the records are of: class shares are read there",
            fix="add --data-root FOLDER, or leave --geometry out",
        )
    check_folder(out, "--out")
    known = read_records(records) if records else None
    bad = 0
    for number, (definition, own_folder) in enumerate(chosen):
        say(("\n" if number else "") + f"{definition.id}  {definition.title}")
        found = _one(definition, own_folder, data_root, geometry, known, seed, workers, trust_data)
        write_audit(found, out / f"{definition.id}.json")
        write_text(out / f"{definition.id}.html", render_audit(found))
        _print(found)
        say(f"wrote {out / definition.id}.html and .json")
        bad += bool(found.faults)
    if bad:
        say(f"\n{bad} of {len(chosen)} benchmarks have ground or chips on both sides")
        raise typer.Exit(2)


def _one(
    definition: Benchmark, own_folder: Path | None, data_root: Path | None, geometry: bool,
    records: list[Record] | None, seed: int, workers: int | None, trusted: bool,
) -> Audit:  # fmt: skip
    from spectral_tl_bench.data.audit.run import audit_data, audit_definition
    from spectral_tl_bench.data.source import locate
    from spectral_tl_bench.leaderboard.audit.explained import explain

    if geometry and own_folder is None and data_root is None:
        return audit_definition(definition, seed)
    source = replace(locate(definition, own_folder, data_root), trusted=trusted)
    say(source.line)
    found, index = audit_data(
        definition, source, own_folder is not None, seed=seed, geometry=geometry, workers=workers, say=say
    )
    if records is None:
        return found
    methods, notes = explain(definition, index, records)
    return found.model_copy(update={"methods": tuple(methods), "method_notes": tuple(notes)})


def _print(found: Audit) -> None:
    from spectral_tl_bench.leaderboard.audit.lines import lines

    print_rows([("", "source and target", "training and validation"), *map(tuple, lines(found))])
    for chip, problem in found.broken.items():
        say(f"broken: {chip}: {problem}")
    for fault in found.faults:
        say(f"fault: {fault}")
