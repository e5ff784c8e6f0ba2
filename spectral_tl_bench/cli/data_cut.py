"""``stbench data cut``: chips out of the scenes that a data set is published as."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectral_tl_bench.cli.data_sources import data_app, root_folder
from spectral_tl_bench.console import say
from spectral_tl_bench.errors import UserError


@data_app.command("cut")
def cut(
    benchmark: Annotated[str, typer.Argument(help="Benchmark id or YAML file.")],
    folder: Annotated[Path, typer.Option("--from", help="Folder of the published files, unpacked.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder to put the data set's own folder in; default: STBENCH_DATA.")
    ] = None,
    image_variable: Annotated[
        str | None, typer.Option(help="Variable of the cubes in MATLAB files; default: the benchmark's.")
    ] = None,
    label_variable: Annotated[str | None, typer.Option(help="Likewise of the labels.")] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Also cut when scenes or labels are missing.")
    ] = False,
) -> None:
    """Cut large rasters or MATLAB cubes, as they are published, into chips that the benchmark reads."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.data.cutting import cut_scenes
    from spectral_tl_bench.storage.room import NO_ROOM

    (definition, _), *others = resolve([benchmark])
    root = root_folder(data_root)
    if others:
        raise UserError(f"{benchmark} is {len(others) + 1} benchmarks", expected="one")
    if root is None:
        raise UserError("there is no folder to put the chips in", fix="give --data-root FOLDER or set STBENCH_DATA")
    variables = {"image_variable": image_variable, "label_variable": label_variable}
    changed = {key: value for key, value in variables.items() if value is not None}
    if definition.cut is not None and changed:
        scenes = tuple(scenes.model_copy(update=changed) for scenes in definition.cut.scenes)
        definition = definition.model_copy(update={"cut": definition.cut.model_copy(update={"scenes": scenes})})
    try:
        made = cut_scenes(definition, folder, root, say, allow_partial)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise UserError(
            f"the chips cannot be written: {error.strerror or error}", where=error.filename or root
        ) from None
    say(f"made {made}")
    say(f"next: stbench data check {benchmark} --data-root {root}")
