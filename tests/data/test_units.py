"""In what unit pixels are: tags of files, rules of benchmarks, and what gives a forgotten factor or offset away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch

from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.data.rasters import open_datasets
from spectral_tl_bench.data.units import Unit, unit_line, unit_of
from spectral_tl_bench.errors import BenchmarkError, DataError

SCALE = 0.0001


def tag(own, names: str, scales: tuple[float, ...], offsets: tuple[float, ...]) -> None:
    """Scale and offset tags for the chips whose names start with one of some letters."""
    for row in own.rows:
        if row["name"][0] in names:
            with rasterio.open(own.image(row["name"]), "r+") as file:
                file.scales, file.offsets = scales, offsets


def shift(own, letter: str, change) -> None:
    """Other stored values for the chips of a domain."""
    for row in own.rows:
        if row["name"][0] == letter:
            own.write_raster(own.image(row["name"]), change(own.pixels(row["name"]).astype("int32")), row["name"])


def reflectances(own) -> dict[str, Any]:
    """The definition of a benchmark in reflectance x 10000."""
    return {"sensor": {**own.definition["sensor"], "unit": "reflectance x 10000", "scale": SCALE}}


def images(own, index: ChipIndex) -> dict[str, np.ndarray]:
    benchmark = own.benchmark()
    return {
        row["chip"]: dataset.read_window(number, 0, 0, 16, 16)["image"].numpy()
        for dataset in open_datasets(benchmark, index)
        for number, row in enumerate(dataset.chip_rows())
    }


def test_a_unit_by_hand():
    assert unit_of((SCALE, SCALE), (0.0, 0.0), SCALE) is None
    assert unit_of((SCALE, 2 * SCALE), (-0.1, 0.0), SCALE) == Unit((1.0, 2.0), (-1000.0, 0.0))
    stored = np.array([[[1000, 3000]], [[0, 65535]]], dtype=np.uint16)
    np.testing.assert_array_equal(Unit((1.0, 2.0), (-1000.0, 0.0))(stored), [[[0, 2000]], [[0, 131070]]])


def test_tags_are_applied_per_band_and_file(own):
    expected = {row["name"]: own.pixels(row["name"]).astype("float32") for row in own.rows}
    shift(own, "w", lambda pixels: pixels + np.array([1000, 500, 0])[:, None, None])
    shift(own, "e", lambda pixels: pixels * np.array([1, 1, 2])[:, None, None])
    tag(own, "w", (SCALE,) * 3, (-0.1, -0.05, 0.0))
    tag(own, "e", (SCALE, SCALE, SCALE / 2), (0.0,) * 3)
    index = build_index(own.benchmark(**reflectances(own)), own.root)
    for name, image in images(own, index).items():
        np.testing.assert_allclose(image, expected[name], rtol=1e-6)
        np.testing.assert_allclose(index.frame.loc[name, "band_sum"], expected[name].sum(axis=(1, 2)), rtol=1e-6)
    assert "reflectance x 10000; east: stored value * (0.5 to 1) +0 (tags of the files)" in index.unit
    assert "west: stored value * 1 (-1000 to +0) (tags of the files)" in index.unit


def test_tags_that_say_what_the_benchmark_says_change_nothing(own):
    before = build_index(own.benchmark(**reflectances(own)), own.root)
    tag(own, "ew", (SCALE,) * 3, (0.0,) * 3)
    after = build_index(own.benchmark(), own.root)
    assert after.manifest == before.manifest and after.unit == "reflectance x 10000; values as stored"


def test_the_line_of_units_stays_short_however_many_domains_there_are(own):
    ids = [f"region-{number:050d}" for number in range(40)]
    benchmark = own.benchmark(**reflectances(own), domains=[{"id": name} for name in ("east", "west", *ids)])
    rows = [{"domain": name, "gain": [1.0, 2.0], "bias": [0.5, 0.1 * number]} for number, name in enumerate(ids)]
    line = unit_line(benchmark, pd.DataFrame(rows))
    assert len(line) < 2_000 and line.endswith("... and 34 more domains") and line.count("tags of the files") == 6


@pytest.mark.parametrize("letters", ["w", "e"])
def test_tags_in_some_files_only_are_refused_without_a_rule(own, letters):
    tag(own, letters, (SCALE,) * 3, (-0.1,) * 3)
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(**reflectances(own)), own.root)
    message = str(caught.value)
    tagged = 4 if letters == "w" else 6
    assert f"{tagged} of 10 images carry scale and offset tags, the others none" in message
    assert f"{'west' if letters == 'w' else 'east'}: {tagged} of its images" in message and "`scale`" in message
    domains = [{"id": "east"}, {"id": "west"}]
    domains[letters == "w"] |= {"offset": -0.1}
    index = build_index(own.benchmark(domains=domains), own.root)
    assert "stored value * 1 -1000 (the benchmark)" in index.unit


def test_a_rule_of_the_benchmark_wins_over_tags(own):
    stored = own.pixels("w0_0").astype("float32")
    tag(own, "ew", (7.0,) * 3, (3.0,) * 3)
    rule = {"scale": [SCALE, 2 * SCALE, SCALE], "offset": -0.1}
    domains = [{"id": "east", "scale": SCALE}, {"id": "west", **rule}]
    index = build_index(own.benchmark(**reflectances(own), domains=domains), own.root)
    found = images(own, index)
    np.testing.assert_allclose(found["w0_0"], stored * np.array([1, 2, 1])[:, None, None] - 1000, rtol=1e-6)
    np.testing.assert_array_equal(found["e0_0"], own.pixels("e0_0").astype("float32"))


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ({"scale": [1.0, 2.0]}, "scale of domain 'west' has 2 numbers, not one per band"),
        ({"scale": 0}, "scale of domain 'west' is 0"),
        ({"scale": [1.0, 0, 1.0]}, "scale of domain 'west' is 0"),
        ({"offset": ".inf"}, "offset"),
        ({"scal": 1.0}, "scal"),
    ],
)
def test_rules_that_cannot_be(own, rule, found):
    with pytest.raises(BenchmarkError) as caught:
        own.benchmark(domains=[{"id": "east"}, {"id": "west", **rule}])
    assert found in str(caught.value)


def test_the_manifest_knows_the_unit(own):
    before = build_index(own.benchmark(**reflectances(own)), own.root).manifest
    tag(own, "ew", (SCALE,) * 3, (-0.1,) * 3)
    assert build_index(own.benchmark(), own.root).manifest != before


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda pixels: pixels * 10, "look like those of the source times about 10"),
        (lambda pixels: pixels // 20, "times about 0.05"),
        (lambda pixels: pixels + 3000, "look like those of the source plus about 3e+03"),
        (lambda pixels: pixels + np.array([200, 900, 300])[:, None, None], None),
        (lambda pixels: pixels * 2, None),
    ],
)
def test_a_forgotten_factor_or_offset_is_suspected(own, change, found):
    shift(own, "w", change)
    notes = build_index(own.benchmark(), own.root).notes
    warnings = [note for note in notes if note.startswith("warning: values of west")]
    assert len(warnings) == (found is not None) and all(found in line for line in warnings)


def test_a_band_is_constant_on_its_own_scale(own):
    for factor in (1.0, 1e-10):
        for row in own.rows:
            values = own.pixels(row["name"]).astype("float64")
            values[0] = 3.0
            own.write_raster(own.image(row["name"]), (values * factor).astype("float32"), row["name"])
        index = build_index(own.benchmark(), own.root)
        statistics = BandStatistics.of(index, list(index.frame.index))
        assert statistics.constant.tolist() == [True, False, False] and statistics.tiny == (factor < 1)
        batch = Normalise(statistics)(torch.from_numpy(own.pixels("e0_0"))[None])
        assert (batch[:, 0] == 0).all() and float(batch[:, 1].std()) > 0.5


def test_only_the_results_that_the_rule_for_constant_bands_moved_are_new_ones():
    assert not BandStatistics(np.array([900.0, 0.3, 0.0]), np.array([210.0, 2e-6, 0.0])).tiny
    assert BandStatistics(np.array([900.0, 1e-7]), np.array([210.0, 1e-8])).tiny
