"""A fault planted in a single chip, found by name among the others of its domain; real chips, none of which has one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks, read_benchmark
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.odd_chips import UNITS, odd_chips
from spectral_tl_bench.data.source import DataSource
from spectral_tl_bench.data.verify import verify
from spectral_tl_bench.sample import write_dfc2020
from tests.shared import REPOSITORY, SHARED, needs_shared

DFC = builtin_benchmarks()["dfc2020-spring"].model_copy(update={"target": ("Mumbai",)})
BANDS = DFC.sensor.band_names
REAL = SHARED / "data" / "hls-worldcover"


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    """36 chips of one city."""
    root = tmp_path_factory.mktemp("city")
    write_dfc2020(root / "DFC2020", chip=48, chips_per_city=36, cities=["BlackForest", "Mumbai"])
    return root


@pytest.fixture(scope="module")
def chips(city) -> pd.DataFrame:
    frame = build_index(DFC, city).frame
    return frame[frame["domain"] == "BlackForest"]


def planted(
    frame: pd.DataFrame, chip: str, order: Sequence[int], factor: float = 1.0, offset: float = 0.0
) -> pd.DataFrame:
    """The index as it would be if the bands of a chip stood in another order, or its values were others."""
    row = frame.loc[chip]
    count, total, squares, low = (
        np.array(row[f"band_{name}"], dtype=float)[list(order)] for name in ("count", "sum", "square_sum", "low")
    )
    changed = frame.copy()
    changed.at[chip, "band_square_sum"] = (
        factor**2 * squares + 2 * factor * offset * total + offset**2 * count
    ).tolist()
    changed.at[chip, "band_sum"] = (factor * total + offset * count).tolist()
    changed.at[chip, "band_low"] = (factor * low + offset).tolist()
    return changed


def swapped(bands: int, one: int, other: int) -> list[int]:
    order = list(range(bands))
    order[one], order[other] = other, one
    return order


@pytest.mark.parametrize(
    ("one", "other"), [("B4", "B8"), ("B2", "B3"), ("B5", "B7"), ("B10", "B11"), ("B11", "B12"), ("B1", "B9")]
)
def test_two_bands_of_one_chip(chips, one, other):
    chip, order = chips.index[7], swapped(13, BANDS.index(one), BANDS.index(other))
    assert odd_chips(DFC, planted(chips, chip, order)) == {chip: f"its bands {one} and {other} have changed places"}


def test_all_bands_of_three_chips(chips):
    faulty, frame = [*chips.index[[3, 11, 30]]], chips
    for chip in faulty:
        frame = planted(frame, chip, range(12, -1, -1))
    assert odd_chips(DFC, frame) == dict.fromkeys(faulty, "its bands stand in the reverse order")


@pytest.mark.parametrize("unit", UNITS)
def test_another_unit_in_one_chip(chips, unit):
    chip, (factor, offset) = chips.index[20], UNITS[unit]
    frame = planted(chips, chip, range(13), factor, offset / DFC.sensor.scale)
    assert odd_chips(DFC, frame) == {chip: f"its values are those of reflectance {unit}"}


def test_what_is_sound_few_or_of_no_known_unit_says_nothing(chips):
    assert odd_chips(DFC, chips) == {}
    chip = chips.index[0]
    frame = planted(chips, chip, range(12, -1, -1))
    assert chip in odd_chips(DFC, frame) and odd_chips(DFC, frame.iloc[:30]) == {}
    sensor = DFC.sensor.model_copy()
    sensor.model_fields_set.discard("scale")
    assert odd_chips(DFC.model_copy(update={"sensor": sensor}), frame) == {}


def test_verify_notes_it_and_names_the_chip(city, tmp_path):
    path = next((city / "DFC2020").glob("*/image/s2_BlackForest/*_p5.tif"))
    before = path.read_bytes()

    def said() -> list[str]:
        return [note for note in verify(DFC, DataSource("sample", city, "")).notes if "among them if" in note]

    assert said() == []
    with rasterio.open(path) as source:
        pixels, profile = source.read(), source.profile
    try:
        with rasterio.open(path, "w", **profile) as target:
            target.write(pixels[swapped(13, BANDS.index("B4"), BANDS.index("B8"))])
        (note,) = said()
    finally:
        path.write_bytes(before)
    assert note.startswith("1 of 72 images") and f"{path.stem}: its bands B4 and B8 have changed places" in note


@needs_shared(REAL)
@pytest.mark.parametrize(("domain", "every"), [("M", 12), ("W", 4)])
def test_real_chips(domain, every):
    """docs/data.md has the numbers of all chips and pairs."""
    benchmark: Benchmark = read_benchmark(REPOSITORY / "docs/examples/hls-worldcover-m2w.yaml")
    frame = build_index(benchmark, REAL).frame
    frame = frame[frame["domain"] == domain]
    assert odd_chips(benchmark, frame) == {}
    found = tried = 0
    for one, other in itertools.combinations(range(7), 2):
        for chip in frame.index[::every]:
            odd = odd_chips(benchmark, planted(frame, chip, swapped(7, one, other)))
            assert {*odd} <= {chip}
            found, tried = found + len(odd), tried + 1
    assert tried > 200 and found >= 0.95 * tried
    turned = [
        {*odd_chips(benchmark, planted(frame, chip, range(6, -1, -1)))} == {chip} for chip in frame.index[::every]
    ]
    assert sum(turned) >= len(turned) - 1
