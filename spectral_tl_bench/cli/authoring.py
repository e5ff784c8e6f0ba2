"""The verbs ``stbench init-method`` and ``stbench check-method``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.methods import MethodName, Options, Sizes
from spectral_tl_bench.console import backbone_sizes, read_values, say

if TYPE_CHECKING:
    from spectral_tl_bench.authoring.verdict import Verdict

COLOURS = {"pass": "green", "fail": "bold red", "not applicable": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("init-method")(init_method)
    app.command("check-method")(check)


def init_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the method shall be called, such as my-method.")],
    folder: Annotated[Path, typer.Option(help="Where to make the package's folder.")] = Path(),
) -> None:
    """Write a small package with a method that works, to be made your own."""
    from spectral_tl_bench.authoring.scaffold import write_package

    target = write_package(name, folder)
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        say(str(path))
    say("")
    say(f"next: pip install -e {target}")
    say(f"      stbench check-method {name}")
    say(f"      stbench run --method {name} --benchmark all")


def check(
    method: MethodName,
    option: Options = None,
    backbone: Annotated[str, typer.Option(help="Backbone; compact is made tiny.")] = "compact",
    backbone_size: Sizes = None,
    weights: Annotated[
        str | None, typer.Option(help="Pretrained weights of the backbone: hub, hub:NAME, a file, or none.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make this check and those that it needs; may be given more than once.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the checks that run on chips.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the verdicts to this file.")] = None,
) -> None:
    """Check a method: sizes, seeds, files, what trains, what it reads. Exit code 1 if it fails a check."""
    options, sizes = read_values(option or [], "--option"), backbone_sizes(backbone_size or [])
    from spectral_tl_bench.methods.registry import check_known
    from spectral_tl_bench.models.backbones import check_backbone_known
    from spectral_tl_bench.storage.output import check_file

    check_known([method])
    if json_file is not None:
        check_file(json_file, "--json")
    check_backbone_known(backbone)
    from spectral_tl_bench.authoring.check import check_method, failures
    from spectral_tl_bench.files import write_json

    verdicts = check_method(
        method, options, backbone=backbone, backbone_sizes=sizes or None, weights=weights, only=only, runs=not quick
    )
    _print(verdicts)
    failed = failures(verdicts)
    if json_file is not None:
        summary = {"method": method, "options": options, "backbone": backbone, "passed": not failed}
        write_json(json_file, {**summary, "verdicts": [verdict.as_json() for verdict in verdicts]})
    say("")
    if failed:
        say(f"{method} fails {len(failed)} of {len(verdicts)} checks: {', '.join(verdict.check for verdict in failed)}")
        raise typer.Exit(1)
    say(f"{method} passes, {len(verdicts)} checks")


def _print(verdicts: list[Verdict]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("check", "what", "verdict"):
        table.add_column(heading, no_wrap=heading == "check")
    for verdict in verdicts:
        text = Text(verdict.state, style=COLOURS[verdict.state])
        if verdict.state != "pass":
            text.append(f": {verdict.reason}", style="default")
        if verdict.fix:
            text.append(f"\nto do: {verdict.fix}", style="default")
        table.add_row(verdict.check, Text(verdict.title), text)
    Console().print(table)
