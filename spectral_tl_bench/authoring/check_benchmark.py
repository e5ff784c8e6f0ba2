"""Whether a benchmark of one's own is right: its definition, then all that it points to, as a run would open it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectral_tl_bench.benchmarks import Benchmark, Split, resolve
from spectral_tl_bench.data.ground import blocks
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.physics import band_physics
from spectral_tl_bench.data.source import DataSource, locate, open_index
from spectral_tl_bench.data.splits import SplitTable, make_split
from spectral_tl_bench.errors import DataError

FEWEST_PLACES = 5
"""In the target, for an interval."""


@dataclass(frozen=True)
class CheckedBenchmark:
    """A benchmark that a run can open.

    Attributes:
        source: Where its data are; None where they were not looked at.
        split: Who does what with seed 0.
        notes: What a reader of its results must know.
        warnings: What is no mistake, and will disappoint.
    """

    benchmark: Benchmark
    source: DataSource | None = None
    index: ChipIndex | None = None
    split: SplitTable | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_benchmark(
    name: str, data_root: Path | None = None, *, data: bool = True, trust_data: bool = False
) -> CheckedBenchmark:
    """Read a definition, open all its chips, cut them, and look for what will disappoint.

    Args:
        name: Path of a YAML file, or an id.
        data_root: Where the data are; by default as a run would look for them.
        data: Whether to look at them.
        trust_data: Whether links and VRTs may lead out of the data root.

    Raises:
        UserError: On the first kind of mistake; file, key or chips are named.
    """
    benchmark, own_folder = resolve([name])[0]
    if not data:
        return CheckedBenchmark(benchmark)
    source = replace(locate(benchmark, own_folder, data_root), trusted=trust_data)
    index, _, notes = open_index(benchmark, source, own_folder is not None, allow_partial=True)
    split = make_split(benchmark, index, 0)
    warnings = [*_class_warnings(benchmark, index, split), *_place_warnings(benchmark, index, split)]
    warnings += [f"{one.domain}: {one.fault}" for one in band_physics(benchmark, index.frame) if one.fault]
    return CheckedBenchmark(benchmark, source, index, split, (*notes, *split.notes), tuple(warnings))


def fitting_split(benchmark: Benchmark, index: ChipIndex) -> Split:
    """The split with blocks as large as they can be for a cut that leaves enough of the source for training.

    Raises:
        DataError: If no block is small enough.
    """
    split, smallest = benchmark.split, benchmark.chip_size * benchmark.sensor.gsd
    if split.place != "grid":
        return split
    for block in (split.block, split.block / 2, split.block / 4):
        tried = split.model_copy(update={"block": block})
        try:
            roles = make_split(benchmark.model_copy(update={"split": tried}), index, 0).role
        except DataError:
            continue
        source = index.frame["domain"].isin(benchmark.source)
        if (roles[source] == "train").mean() >= 0.4 and (roles[source] == "validation").mean() >= 0.08:
            return tried
    return split.model_copy(update={"block": min(split.block, smallest)})


def _class_warnings(benchmark: Benchmark, index: ChipIndex, split: SplitTable) -> list[str]:
    """Classes that one side lacks."""
    names = np.array(benchmark.labels.names)
    have = {}
    for role in ("train", "validation", "target"):
        counts = index.frame.loc[split.chips(role), "class_counts"].tolist()
        have[role] = np.array(counts, dtype=np.int64).reshape(-1, len(names)).sum(axis=0) > 0
    said = (
        (~have["train"] & have["target"], "occur in the target and not in training: no method can learn them"),
        (have["train"] & ~have["target"], "occur in training and not in the target: they count only where predicted"),
        (have["train"] & ~have["validation"], "do not occur in validation, by which checkpoints are selected"),
        (~have["train"] & ~have["target"], "occur nowhere"),
    )
    return [f"classes {', '.join(names[which])} {text}" for which, text in said if which.any()]


def _place_warnings(benchmark: Benchmark, index: ChipIndex, split: SplitTable) -> list[str]:
    frame = index.frame.loc[split.chips("target")]
    sites: Sequence[str] = frame["site"].tolist()
    if not all(sites):
        sites = list(blocks(frame, benchmark.split.block).values())
    places = len(set(zip(frame["domain"], sites, strict=True))) if len(sites) == len(frame) else len(set(sites))
    if places >= FEWEST_PLACES:
        return []
    return [f"the target has {places} places: intervals and comparisons need at least {FEWEST_PLACES}"]
