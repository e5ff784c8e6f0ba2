"""Which pixels a benchmark runs on: the bundled sample, published data, or a user's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import user_path
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.layouts import layout_of
from spectral_tl_bench.errors import DataError

ROOT_VARIABLE = "STBENCH_DATA"
SYNTHETIC = "synthetic sample scenes made by the suite; not a result on real data"

Track = Literal["reproduced", "partial", "sample", "demonstration", "aerial", "hyperspectral"]


@dataclass(frozen=True)
class DataSource:
    """Where a benchmark's chips come from.

    Attributes:
        kind: ``sample`` for the bundled synthetic scenes, ``files`` for data on disk.
        root: Folder to search.
        line: One line that tells the user.
        trusted: Whether links and VRTs may lead out of the root (``--trust-data``).
        domains: Table of the chips' domains, in place of the one in the dataset's folder.
        packed: Where packed chips are, see ``packed.find_packed``.
    """

    kind: Literal["sample", "files"]
    root: Path
    line: str
    trusted: bool = False
    domains: Path | None = None
    packed: str | None = None


def locate(
    benchmark: Benchmark,
    own_folder: Path | None,
    data_root: Path | None,
    environment: Mapping[str, str] | None = None,
) -> DataSource:
    """Decide where the data of a benchmark are.

    Args:
        own_folder: Folder of its YAML file when it is the user's own.
        data_root: ``--data-root``, if given.
        environment: Environment variables; by default the process's.

    Returns:
        The source. The sample is generated when nothing is configured and it is not there yet.
    """
    environment = os.environ if environment is None else environment
    if data_root is not None:
        return DataSource("files", data_root, f"data: {data_root} (--data-root)")
    beside = None if own_folder is None else layout_of(benchmark).own_root()
    if own_folder is not None and beside is not None:
        root = (own_folder / beside).resolve()
        return DataSource("files", root, f"data: {root} (layout.root of the benchmark)")
    if environment.get(ROOT_VARIABLE):
        root = user_path(environment[ROOT_VARIABLE])
        return DataSource("files", root, f"data: {root} ({ROOT_VARIABLE})")
    if own_folder is not None or benchmark.track is not None:  # the sample has the eight alone
        raise DataError(
            f"no data root is set for the benchmark {benchmark.id}", fix=f"give --data-root or set {ROOT_VARIABLE}"
        )
    from spectral_tl_bench.data.sample_source import ensure_sample

    root = ensure_sample()
    return DataSource(
        "sample", root, "data: the bundled synthetic sample (no --data-root and no STBENCH_DATA): not a real result"
    )


def open_index(
    benchmark: Benchmark, source: DataSource, own: bool, allow_partial: bool = False
) -> tuple[ChipIndex, Track, tuple[str, ...]]:
    """Index a benchmark's chips and decide on which board their results may stand.

    A tree with chips of another size than the published ones cannot be an interrupted download: it is taken for
    what it is, on the track ``partial``.

    Args:
        own: Whether the benchmark is the user's own.
        allow_partial: Whether published data may have fewer chips than were published.

    Returns:
        The index, the track, and notes on what deviates from the published data.

    Raises:
        DataError: If chips of the published size are too few or too many and ``allow_partial`` is not set.
    """
    index = build_index(benchmark, source.root, trusted=source.trusted, domains=source.domains, packed=source.packed)
    track, deviations = track_of(benchmark, source, own, index)
    if track == "partial" and not allow_partial and not other_size(benchmark, index.root, index.frame):
        raise DataError(
            f"the data of {benchmark.id} are not the published ones:\n    " + "\n    ".join(deviations),
            where=index.root,
            expected=", ".join(f"{count} {side} chips" for side, count in benchmark.expected.items())
            + f" of {benchmark.chip_size} px",
            fix="complete the data, or add --allow-partial: results then go to the track 'partial'",
        )
    return index, track, (*index.notes, *deviations)


def track_of(benchmark: Benchmark, source: DataSource, own: bool, index: ChipIndex) -> tuple[Track, list[str]]:
    """The board that results on these chips may stand on, and what deviates from the published data.

    Raises:
        DataError: If the chips are those of a copy which must not be used.
    """
    if source.kind == "sample":
        return "sample", []
    size = other_size(benchmark, index.root, index.frame)
    if own or benchmark.track is not None or not layout_of(benchmark).published:
        return "demonstration" if own or benchmark.track is None else benchmark.track, size
    deviations = [*_other_counts(benchmark, index), *size]
    return "partial" if deviations else "reproduced", deviations


def _other_counts(benchmark: Benchmark, index: ChipIndex) -> list[str]:
    counts = Counter([*index.frame["domain"], *(domain for domain, _ in index.skipped.values())])
    lines = []
    for side, expected in benchmark.expected.items():
        domains = [benchmark.domain(name) for name in getattr(benchmark, side)]
        count = sum(counts[domain.id] for domain in domains)
        other = [f"{domain.id} {counts[domain.id]} of {domain.chips}" for domain in domains
                 if len(domains) > 1 and domain.chips is not None and counts[domain.id] != domain.chips]  # fmt: skip
        if count != expected or other:
            lines.append(
                f"{count} {side} chips, published are {expected}" + (f" ({', '.join(other)})" if other else "")
            )
    return lines


def other_size(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> list[str]:
    """What is said of chips of another size than the benchmark's.

    Raises:
        DataError: If it is that of a copy which must not be used.
    """
    height, width = frame[["height", "width"]].value_counts().index[0]
    if height == width and (why := layout_of(benchmark).other_sizes.get(int(height))):
        raise DataError(
            f"chips of {height} x {width} px: {why}", where=base,
            expected=f"chips of {benchmark.chip_size} px", fix=f"get {benchmark.dataset} from its own source",
        )  # fmt: skip
    if height == width == benchmark.chip_size:
        return []
    return [f"chips of {height}x{width} px, the benchmark says {benchmark.chip_size} px"]
