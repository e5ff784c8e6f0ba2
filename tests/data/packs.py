"""Packs for tests, and whether what is read from one is what is read from the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.packed import pack_folder, shards_in
from spectral_tl_bench.data.packing import pack
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets


def quiet(_line: str) -> None:
    """Says nothing."""


def make_pack(benchmark: Benchmark, root: Path, out: Path, **facts: Any) -> list[Path]:
    """Pack a benchmark and give its shards."""
    pack(benchmark, build_index(benchmark, root, packed="off", **facts), out, 2, quiet)
    return shards_in(pack_folder(benchmark, out))


def both(benchmark: Benchmark, root: Path, out: Path, **facts: Any) -> tuple[ChipIndex, ChipIndex]:
    """Indexes without and with a pack, in which all chips are."""
    make_pack(benchmark, root, out, **facts)
    plain = build_index(benchmark, root, packed="off", **facts)
    packed = build_index(benchmark, root, packed=out, **facts)
    assert not plain.packed.places and set(packed.packed.places) == set(packed.frame.index)
    assert "reads packed chips in" in packed.packed.line
    return plain, packed


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit."""
    if isinstance(one, torch.Tensor):
        one, other = one.numpy(), other.numpy()
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and bool(one == other)


def queries(dataset: SpectralChips, number: int) -> list[tuple[slice, slice, slice]]:
    """Windows of a chip: all of it, a part, and one that reaches over its rim."""
    row, (x, y) = dataset.chip_rows()[number], dataset.res
    left, top, width, height = row["xmin"], row["ymax"], row["width"], row["height"]
    boxes = [(0, 0, width, height), (3, 5, 7, 4), (-2, height - 3, 6, 6)]
    return [
        (slice(left + c * x, left + (c + w) * x), slice(top - (v + h) * y, top - v * y), dataset.slot(number))
        for c, v, w, h in boxes
    ]


def assert_same_samples(benchmark: Benchmark, plain: ChipIndex, packed: ChipIndex, labels: bool = True) -> int:
    """Every sample of every chip, and its classes; how many chips were compared."""
    fill, count = np.linspace(1.5, 9.5, len(benchmark.sensor.bands)), 0
    sides = (open_datasets(benchmark, index, fill=fill, labels=labels) for index in (plain, packed))
    for one, other in zip(*sides, strict=True):
        for number, row in enumerate(other.chip_rows()):
            other.chip_cache.get = None  # type: ignore[assignment]  # nothing of it comes from the files
            for query in queries(one, number):
                first, second = one[query], other[query]
                assert list(first) == list(second)
                for key in first:
                    assert alike(first[key], second[key]), (row["chip"], key)
            if labels:
                assert alike(one.classes(number), other.classes(number)), row["chip"]
            count += 1
    return count


def holes_in_a_band(own: Any) -> None:
    """Some values of an own data set are unmeasured, in one band and in all."""
    for name in ("e0_0", "w0_0"):
        values = own.pixels(name).astype("int16")
        values[1, 2, 3] = values[:, 7, 7] = -9999
        own.write_raster(own.image(name), values, name, nodata=-9999)


def holes_in_all_bands(own: Any) -> None:
    """Some pixels of an own data set are unmeasured."""
    for name in ("e0_0", "e1_1", "w0_0"):
        values = own.pixels(name)
        values[:, 4:6, 5] = 0
        own.write_raster(own.image(name), values, name, nodata=0)
