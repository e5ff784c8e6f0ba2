"""The verb ``stbench convert``: checkpoints of a method's own program into files of the suite, and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from spectral_tl_bench.console import print_rows, say, user_path
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.methods.converters import Conversion

SHOWN = 3
"""Keys that are named for one reason."""


class To(StrEnum):
    """Which way."""

    OURS = "ours"
    RELEASE = "release"


class Stage(StrEnum):
    """Of which stage a file is."""

    AUTO = "auto"
    ONE = "1"
    TWO = "2"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("convert")(convert)


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The checkpoint; nothing in it is run.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; without, it is only looked at.")] = None,
    to: Annotated[To, typer.Option(help="ours: from the authors' release; release: a file of ours back.")] = To.OURS,
    stage: Annotated[Stage, typer.Option(help="1: masked reconstruction, 2: segmentation.")] = Stage.AUTO,
    family: Annotated[
        str | None, typer.Option(help="Transformer, where the file does not say: scalemae, satmaepp or dinov3.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads of the transformer; default: one for 64 channels.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Trained without hyper-tokenizer, aomoa or are-adapter; may be repeated."),
    ] = None,
    method: Annotated[str, typer.Option(help="Whose checkpoints they are.")] = "spectralx",
) -> None:
    """Convert a checkpoint of the SpectralX release into a file of ours, or back; complete, or not at all."""
    from spectral_tl_bench.methods.converters import ConversionRequest, load_converter

    source, target = user_path(source), None if out is None else user_path(out)
    if not source.is_file():
        raise UserError("there is no such file", where=source, expected="a checkpoint")
    if target is not None:
        _check_target(target, to)
    number = None if stage is Stage.AUTO else cast(Literal[1, 2], int(stage.value))
    request = ConversionRequest(source, target, to.value, number, family, heads, tuple(without or ()))
    _print(load_converter(method)(request))
    say(f"written to {target}" if target else "nothing was written: say where with --out")


def _check_target(target: Path, to: To) -> None:
    ours = target.suffix == ".safetensors"
    if ours != (to is To.OURS):
        expected = "a name that ends in .safetensors" if to is To.OURS else "a name such as model.ckpt"
        raise UserError(f"--out {target.name!r} is no name for a file of {to.value}", expected=expected)
    if target.exists():
        raise UserError("there is something of this name already", where=target, fix="name a new file")
    if not target.parent.is_dir():
        raise UserError("there is no such folder", where=target.parent, fix="make it first")


def _print(done: Conversion) -> None:
    for line in done.summary:
        say(line)
    rows = [("placed", "tensors", "parameters")]
    rows += [(part, f"{tensors:,}", f"{parameters:,}") for part, tensors, parameters in done.placed]
    total = [sum(row[column] for row in done.placed) for column in (1, 2)]  # type: ignore[misc]
    say("")
    print_rows([*rows, ("in all", *(f"{number:,}" for number in total))], right=(1, 2))
    if done.ignored:
        say("")
        say("ignored")
        for reason, keys in done.ignored:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            say(f"  {', '.join(keys[:SHOWN])}{more}: {reason}")
    say("")
    for note in done.notes:
        say(note)
