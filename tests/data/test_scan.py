"""What a chip is summed up to, whichever way its type and size let it be done."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from spectral_tl_bench.data import scan
from spectral_tl_bench.data.chip import Image, Label
from spectral_tl_bench.data.placement import Grid, Turn
from spectral_tl_bench.data.units import Unit
from spectral_tl_bench.data.unmeasured import Unmeasured


def image_of(pixels, holes=None, unit=None):
    reasons = {} if holes is None else {"nodata": int(holes.any(axis=0).sum())}
    return Image(pixels, Unmeasured(holes, reasons, 0), unit, False, Grid(None, None, *pixels.shape[1:]), Turn(), None)


def random_pixels(dtype, shape=(5, 40, 70)):
    rng = np.random.default_rng(3)
    if np.dtype(dtype).kind == "f":
        return rng.normal(1000, 300, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", ">i2", "uint16", "int32", "float32"])
@pytest.mark.parametrize("unit", [None, Unit((0.3, 1.1, 2.0, 0.7, 1.0), (0.1, 0.0, -3.0, 7.0, 0.2))], ids=["", "unit"])
@pytest.mark.parametrize("holed", [False, True], ids=["", "holes"])
def test_sums_of_bands_are_those_of_all_at_once_to_the_last_bit(monkeypatch, dtype, unit, holed):
    monkeypatch.setattr(scan, "PIECE", 2 * 40 * 70)  # two bands, two, and one
    pixels = random_pixels(dtype)
    holes = np.random.default_rng(4).random(pixels.shape) < 0.3 if holed else None
    facts = scan._band_facts(image_of(pixels, holes, unit))
    flat = (pixels if unit is None else unit(pixels)).reshape(5, -1).astype(np.float64)
    low = np.where(False if holes is None else holes.reshape(5, -1), np.nan, flat)
    if holes is not None:
        flat[holes.reshape(5, -1)] = 0.0
    assert facts["band_sum"] == flat.sum(axis=1).tolist()
    assert facts["band_square_sum"] == np.einsum("bp,bp->b", flat, flat).tolist()
    assert facts["band_low"] == [float(np.percentile(band[~np.isnan(band)], 1)) for band in low]
    assert facts["band_count"] == (~np.isnan(low)).sum(axis=1).tolist()
    assert facts["valid_pixels"] + facts["nodata_pixels"] == 40 * 70


def test_squares_of_the_largest_pieces_are_exact():
    assert scan.EXACT * np.iinfo("uint16").max ** 2 < 2**53


def test_a_large_chip_of_short_integers_is_never_there_as_float64():
    pixels = random_pixels("uint16", (32, 256, 256))
    tracemalloc.start()
    scan._band_facts(image_of(pixels))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.size * 8 / 3


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "bool"])
def test_a_histogram_of_labels_is_that_of_sorted_values(dtype):
    values = np.random.default_rng(5).integers(0, 2 if dtype == "bool" else 120, (30, 40)).astype(dtype)
    if dtype in ("int8", "int64"):
        values -= 60
    for part in (values, values[values > 0], values[:0]):
        there, counts = scan._histogram(part)
        assert np.array_equal(np.stack((there, counts)), np.stack(np.unique(part, return_counts=True)))


def test_spectra_of_classes_are_means_of_their_pixels():
    pixels, raw = random_pixels("uint16", (3, 30, 40)), np.random.default_rng(6).integers(0, 4, (30, 40))
    facts = scan._spectra(Label(raw, None, None, True), image_of(pixels, unit=Unit((0.5, 1.0, 2.0), (0.0, 1.0, 0.0))))
    values = Unit((0.5, 1.0, 2.0), (0.0, 1.0, 0.0))(pixels)
    wanted = [values[:, raw == label].sum(axis=1) for label in facts["seen_labels"]]
    np.testing.assert_allclose(np.reshape(facts["seen_sums"], (-1, 3)), wanted, rtol=1e-12)
    assert facts["seen_counts"] == [int((raw == label).sum()) for label in facts["seen_labels"]]
