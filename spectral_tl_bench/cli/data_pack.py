"""``stbench data pack``: chips packed into a few files that are read many times faster."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from spectral_tl_bench.cli.run_options import DataRoot, TrustData
from spectral_tl_bench.console import say, user_path
from spectral_tl_bench.errors import UserError


def pack_data(
    benchmark: Annotated[
        list[str] | None, typer.Argument(help="Benchmark id, group (all, cross-region, ...) or YAML file.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--benchmark", "-b", help="The same as an option; may be repeated.")
    ] = None,
    data_root: DataRoot = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the packs, such as one on a fast disk; default: STBENCH_PACKED, else the cache."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Files read at a time; 0: one per core.")] = 0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hold all that is packed against the files, bit for bit.")
    ] = False,
    trust_data: TrustData = False,
) -> None:
    """Pack chips for fast reading: runs find them by themselves, and give the same numbers; goes on if cut off."""
    from spectral_tl_bench.benchmarks import resolve
    from spectral_tl_bench.cores import available_cores
    from spectral_tl_bench.data.index import build_index
    from spectral_tl_bench.data.packed import OFF, VARIABLE
    from spectral_tl_bench.data.packing import compare, pack
    from spectral_tl_bench.data.source import locate
    from spectral_tl_bench.storage import in_words

    wanted = [*(benchmark or []), *(more or [])]
    if not wanted:
        raise UserError("no benchmark is named", expected="stbench data pack BENCHMARK", fix="`stbench benchmarks`")
    set_elsewhere = os.environ.get(VARIABLE, "")
    named = out or (Path(set_elsewhere) if set_elsewhere not in ("", OFF) else None)
    where, threads = None if named is None else user_path(named), workers or available_cores()
    sound = True
    for definition, own_folder in resolve(wanted):
        source = replace(locate(definition, own_folder, data_root), trusted=trust_data)
        say(f"{definition.id}  {definition.title}\n{source.line}")
        index = build_index(definition, source.root, trusted=source.trusted, packed=OFF)
        done = pack(definition, index, where, threads, say)
        say(
            f"{definition.id}: {done.packed} chips packed ({in_words(done.size)}), {done.before} were before, "
            f"in {done.folder}"
        )
        if verify:
            differing = compare(definition, index, where, threads, say)
            for line in differing:
                say(f"damaged: {line}")
            say(f"{definition.id}: " + _judged(differing))
            sound = sound and not differing
        if sound and out is not None and str(user_path(set_elsewhere or ".")) != str(where):
            say(f"runs read them with --packed {out}, or {VARIABLE}={out}")
    if not sound:
        raise typer.Exit(2)


def _judged(differing: list[str]) -> str:
    if not differing:
        return "packed chips are those of the files, bit for bit"
    if any(line.endswith("not removed") for line in differing):
        return "packed chips differ; whoever may write there has to remove them; until then, run with --packed off"
    return "packed chips differ; give the same command again"
