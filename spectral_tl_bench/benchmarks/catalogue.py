"""Which benchmarks there are: the suite's, and the user's own by path."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection
from importlib import resources
from pathlib import Path

from spectral_tl_bench.benchmarks.definition import Benchmark
from spectral_tl_bench.benchmarks.reading import read_benchmark, read_definition, validated
from spectral_tl_bench.console import is_file, split_names, user_path
from spectral_tl_bench.errors import BenchmarkError, nearest

YAML = (".yaml", ".yml")
TRACK = "track:"
"""Before the name of a set of further benchmarks."""


def splits_folder() -> Path:
    """The folder of the benchmark definitions: inside the installed package, or at the top of a checkout."""
    installed = Path(str(resources.files("spectral_tl_bench"))) / "splits"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "splits"


@functools.cache
def builtin_benchmarks() -> dict[str, Benchmark]:
    """The suite's eight and their in-domain references, by id, in the order of their files."""
    folder = splits_folder()
    benchmarks = _definitions_in(folder)
    if not benchmarks:
        raise BenchmarkError("no benchmark definitions were found", where=folder, fix="reinstall spectral-tl-bench")
    return benchmarks


@functools.cache
def further_benchmarks() -> dict[str, Benchmark]:
    """The benchmarks of the further tracks, by id: run by name or by track, and in none of the groups."""
    return _definitions_in(splits_folder() / "further")


def _definitions_in(folder: Path) -> dict[str, Benchmark]:
    # Their layouts are the suite's own, and tested; asking every installed package for each would take a while.
    benchmarks = [validated(read_definition(path), path) for path in sorted(folder.glob("[!_]*.yaml"))]
    return {benchmark.id: benchmark for benchmark in benchmarks}


def tracks() -> dict[str, list[str]]:
    """Names of the further tracks and the ids that each stands for."""
    table: dict[str, list[str]] = {}
    for benchmark in further_benchmarks().values():
        table.setdefault(str(benchmark.track), []).append(benchmark.id)
    return table


def groups() -> dict[str, list[str]]:
    """Group names and the ids that each stands for."""
    table: dict[str, list[str]] = {}
    for benchmark in builtin_benchmarks().values():
        for group in benchmark.groups:
            table.setdefault(group, []).append(benchmark.id)
    return table


def resolve(names: list[str]) -> list[tuple[Benchmark, Path | None]]:
    """Turn what the user named into benchmarks.

    Args:
        names: Ids, group names, ``track:NAME``, or paths of YAML files; each may hold several, divided by commas.
            Commas in the path of a file that exists divide nothing.

    Returns:
        Benchmarks without repetition, each with the folder of its file when it is the user's own, else None.

    Raises:
        BenchmarkError: If a name is unknown or a file is not usable.
    """
    table = {**builtin_benchmarks(), **further_benchmarks()}
    group_table = groups() | {f"{TRACK}{track}": members for track, members in tracks().items()}
    chosen: dict[str, tuple[Benchmark, Path | None]] = {}
    files: dict[str, Path] = {}
    for name in [part for entry in names for part in _parts(entry, {*table, *group_table})]:
        if name in table:
            chosen.setdefault(name, (table[name], None))
        elif name in group_table:
            for member in group_table[name]:
                chosen.setdefault(member, (table[member], None))
        else:
            path = _definition_file(name, {*table, *group_table})
            own = read_benchmark(path)
            if own.id in table or own.id in group_table:
                raise BenchmarkError(
                    f"the id {own.id!r} belongs to the suite", where=name, fix="give your benchmark another id"
                )
            if files.setdefault(own.id, path.resolve()) != path.resolve():
                raise BenchmarkError(f"two benchmarks have the id {own.id!r}", where=name)
            chosen[own.id] = (own, path.resolve().parent)
    if not chosen:
        raise BenchmarkError("no benchmark is named", fix="`stbench benchmarks` lists all")
    return list(chosen.values())


def _parts(entry: str, known: Collection[str]) -> list[str]:
    """Names in an entry; a path with commas that is not there stays whole, so that all of it is shown."""
    parts = split_names(entry)
    strange = [part for part in parts if part not in known and not part.lower().endswith(YAML)]
    whole = strange and entry.strip().lower().endswith(YAML) and not any(map(is_file, parts))
    return [entry.strip()] if whole else parts


def _definition_file(name: str, known: Collection[str]) -> Path:
    """The file of a user's own benchmark."""
    path = user_path(name)
    if name.lower().endswith(YAML):
        return path
    there = os.path.exists(path)  # noqa: PTH110 - answers where Path.exists raises: for a name that is too long
    if there:
        what = "a folder" if path.is_dir() else "a file whose name does not end in .yaml"
        fix = "give the YAML file in it" if path.is_dir() else "give it a name that ends in .yaml"
        raise BenchmarkError(f"{name!r} is {what}, not the definition of a benchmark", where=path, fix=fix)
    raise BenchmarkError(
        f"there is no benchmark {name!r}",
        expected=nearest(name, known),
        fix="`stbench benchmarks` lists all; your own is given as a path that ends in .yaml",
    )
