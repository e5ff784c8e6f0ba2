"""Counting the ground truth from the data themselves."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks, resolve
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.loaders import BandStatistics, EvaluationData, LoaderSettings
from spectral_tl_bench.data.source import DataSource, locate, open_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.leaderboard.submit.truth import KEPT_SEEDS, SplitFacts, Truth, rows_hash


def measure(
    benchmark: Benchmark, index: ChipIndex, kind: Literal["sample", "files"], seeds: Iterable[int] = KEPT_SEEDS
) -> Truth:
    """Count the ground truth of a benchmark's target.

    The target is the same for all seeds, that of an in-domain reference too; training and validation are not.

    Args:
        kind: Whether these are synthetic scenes.
        seeds: Seeds whose divisions are kept.

    Raises:
        DataError: If the source cannot be cut by place.
    """
    frame = index.frame
    splits, target = [], []
    for seed in seeds:
        split = make_split(benchmark, index, seed)
        target, train = split.chips("target"), split.chips("train")
        pixels = np.sum(frame.loc[train, "class_counts"].tolist(), axis=0)
        splits.append(
            SplitFacts(
                seed=seed, hash=split.hash, train=len(train), validation=len(split.chips("validation")),
                target=len(target), majority_class=int(np.argmax(pixels)),
            )
        )  # fmt: skip
    side = int(frame[["height", "width"]].to_numpy().min())
    places = EvaluationData(benchmark, index, target, LoaderSettings(side, side, 1), BandStatistics.of(index, target))
    chosen = frame.loc[target]
    rows = {
        str(chip): (str(domain), places.site(str(chip)), tuple(int(count) for count in counts))
        for chip, domain, counts in zip(chosen.index, chosen["domain"], chosen["class_counts"], strict=True)
    }
    return Truth(
        benchmark=benchmark.id, version=benchmark.version, manifest=index.manifest, kind=kind,
        classes=benchmark.labels.names, chip_side=side, splits=tuple(splits), chips_hash=rows_hash(rows), rows=rows,
    )  # fmt: skip


def measure_named(name: str, data_root: Path | None, trusted: bool = False) -> Truth:
    """The truth of a benchmark that the user names.

    Args:
        name: Id, or path of a YAML file.
        data_root: Where the data are; by default as for ``stbench run``, that is, the sample where nothing is set.
        trusted: Whether links and VRTs may lead out of the data root.

    Raises:
        UserError: If there is no such benchmark, or its data are not all there.
    """
    benchmark, own_folder = resolve([name])[0]
    source = replace(locate(benchmark, own_folder, data_root), trusted=trusted)
    index, _, _ = open_index(benchmark, source, own_folder is not None)
    return measure(benchmark, index, source.kind)


class SampleTruths:
    """The ground truth of the sample as it is made here, by benchmark; counted when it is asked for.

    Args:
        make: Whether it is made at all. Without, records of the sample need a kept truth, as all others do.
    """

    def __init__(self, make: bool = True) -> None:
        self.made = make

    def get(self, name: str) -> Truth | None:
        """The truth of one of the suite's benchmarks; None where it is not to be made.

        Raises:
            DataError: If the sample cannot be made.
        """
        return sample_truth(name) if self.made and name in builtin_benchmarks() else None


def sample_truth(name: str) -> Truth:
    """The truth of one of the suite's benchmarks on the bundled sample, which is made if it is not there yet.

    Raises:
        DataError: If it cannot be made.
    """
    from spectral_tl_bench.data.sample_source import ensure_sample

    return _measured_once(name, ensure_sample())


@functools.cache
def _measured_once(name: str, root: Path) -> Truth:
    benchmark = builtin_benchmarks()[name]
    index, _, _ = open_index(benchmark, DataSource("sample", root, ""), own=False)
    return measure(benchmark, index, "sample")
