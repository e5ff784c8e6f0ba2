"""What loaders make of windows: float32 for the CPU, the files' integers for a GPU, and the same numbers in the end."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packs import both, holes_in_a_band
from tiny import make_source
from torch import nn

from spectral_tl_bench.data.batches import on_device, stacked
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.loaders import LoaderSettings, SourceData, TargetImages
from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.data.whole_chips import WholeChips
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.training.closed_form import Sweep

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
CPU = torch.device("cpu")


def typed(own, dtype: str) -> None:
    for row in own.rows:
        own.write_raster(own.image(row["name"]), (own.pixels(row["name"]) % 120 + 1).astype(dtype), row["name"])


def sources(own, index=None, workers: int = 0, **changes: object) -> list[SourceData]:
    """What training sees for a CPU, and for a GPU."""
    benchmark = own.benchmark(**changes)
    index = index or build_index(benchmark, own.root)
    split = make_split(benchmark, index, 0)
    settings = LoaderSettings(8, 4, 3, workers)
    return [SourceData(benchmark, index, split, one, 3) for one in (settings, replace(settings, pinned=True))]


def batches(source: SourceData) -> list[dict[str, Any]]:
    chips = source.validation
    return [*source.train_loader(5, True, "one"), *source.sweep_loader(False), *chips.loader()]


def same_numbers(one: SourceData, other: SourceData) -> set[torch.dtype]:
    """Compares all batches, and gives the types of those for a GPU."""
    kinds = set()
    for plain, pinned in zip(batches(one), batches(other), strict=True):
        assert list(plain) == list(pinned) and plain["image"].dtype == torch.float32
        kinds.add(pinned["image"].dtype)
        assert torch.equal(plain["image"], on_device(pinned["image"], "cpu"))
        for name in plain.keys() - {"image"}:
            assert plain[name] == pinned[name] if isinstance(plain[name], list) else plain[name].equal(pinned[name])
    return kinds


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_integers_go_to_a_gpu_as_they_are(own, dtype):
    typed(own, dtype)
    assert same_numbers(*sources(own)) == {getattr(torch, dtype)}


@pytest.mark.parametrize("dtype", ["int32", "uint32", "float32", "float64"])
def test_what_is_no_shorter_than_float32_is_cast_before(own, dtype):
    typed(own, dtype)
    assert same_numbers(*sources(own)) == {torch.float32}


def test_the_ends_of_16_bits(own):
    for row in own.rows:
        values = own.pixels(row["name"]).astype("uint16")
        values[0, :, ::3], values[1, ::2] = 65535, 32768
        own.write_raster(own.image(row["name"]), values, row["name"])
    assert same_numbers(*sources(own)) == {torch.uint16}
    assert float(on_device(torch.tensor([65535], dtype=torch.uint16), "cpu")) == 65535.0


def test_windows_without_a_measurement_and_units_are_float32(own):
    holes_in_a_band(own)
    kinds = same_numbers(*sources(own, nodata="fill"))
    assert torch.float32 in kinds and len(kinds) == 2, "some windows are whole, some have holes"
    sensor = {**own.definition["sensor"], "scale": 0.25}
    domains = [{"id": name, "scale": 0.5, "offset": 0.1} for name in ("east", "west")]
    assert same_numbers(*sources(own, nodata="fill", sensor=sensor, domains=domains)) == {torch.float32}


@pytest.mark.parametrize("workers", [0, 1])
def test_packed_chips_too(own, tmp_path, workers):
    typed(own, "int16")
    _, packed = both(own.benchmark(), own.root, tmp_path / "packs")
    assert same_numbers(*sources(own, packed, workers)) == {torch.int16}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is handed over as PyTorch does it")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_processes_hand_over_the_same_numbers_in_memory_that_is_theirs_no_more(own, dtype):
    typed(own, dtype)
    kind = torch.float32 if dtype == "float64" else getattr(torch, dtype)
    assert same_numbers(*sources(own, workers=2)) == {kind}
    batch = next(iter(sources(own, workers=1)[1].train_loader(2, True, "one")))
    assert batch["image"].is_shared() and batch["mask"].is_shared()
    assert handed_over() == 2, "image and mask"
    batch["image"].zero_()
    del batch
    assert handed_over() == 0, "nothing is left of a batch that is done with"


def handed_over() -> int:
    """How many tensors of reader processes this process has."""
    return Path("/proc/self/maps").read_text().count("/memfd:stbench-batch")


def test_images_of_the_target(own):
    typed(own, "int16")
    benchmark = own.benchmark()
    index = build_index(benchmark, own.root)
    chips, statistics = list(index.frame.index[:2]), sources(own)[0].statistics
    found = [
        next(iter(TargetImages(benchmark, index, chips, settings, statistics).loader(1, 5)))
        for settings in (LoaderSettings(8, 4, 3), LoaderSettings(8, 4, 3, pinned=True))
    ]
    assert found[0]["image"].equal(on_device(found[1]["image"], "cpu")) and found[1]["image"].dtype == torch.int16


def test_whole_chips_are_scaled_in_float32(own):
    typed(own, "int16")
    benchmark = own.benchmark()
    index = build_index(benchmark, own.root)
    settings = LoaderSettings(8, 4, 3, rules=PixelRules(windows=WholeChips()), pinned=True)
    source = SourceData(benchmark, index, make_split(benchmark, index, 0), settings, 3)
    for batch in batches(source):
        assert batch["image"].dtype == torch.float32 and 0 <= batch["image"].min() <= batch["image"].max() <= 1


def test_batches_of_arrays_of_several_types():
    images = [np.full((1, 2, 2), 7, dtype) for dtype in ("int16", "uint16")]
    for integers in (False, True):
        assert stacked(images, integers).dtype == torch.float32
        assert stacked([images[0], torch.ones(1, 2, 2)], integers).tolist()[0] == [[[7.0, 7.0], [7.0, 7.0]]]
    assert stacked(images[:1] * 2, True).dtype == torch.int16


def test_a_window_over_the_rim_has_its_numbers(own):
    typed(own, "int16")
    dataset = sources(own)[0].collection.datasets[0]
    row, (x, y) = dataset.chip_rows()[0], dataset.res
    query = (slice(row["xmin"] - 2 * x, row["xmin"] + 6 * x), slice(row["ymax"] - 5 * y, row["ymax"] + 3 * y))
    one, other = (some[(*query, dataset.slot(0))] for some in (dataset, dataset.as_stored()))
    assert all(one[name].equal(other[name]) for name in ("image", "mask", "invalid"))


def test_what_computes_gets_float32(trees):
    """Evaluation, and what is solved in closed form."""
    source = make_source(trees, "mts12-n2s")
    source.settings = source.validation.settings = replace(source.settings, pinned=True)
    seen = []
    classes = len(source.class_pixels)
    module = nn.Conv2d(len(source.wavelengths), classes, 1)
    normalise = source.normaliser()
    normalise.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    evaluate(module, normalise, source.validation, classes, CPU)
    assert set(seen) == {torch.float32} and next(iter(source.validation.loader()))["image"].dtype != torch.float32
    assert {batch["image"].dtype for batch in Sweep(source, True, CPU)} == {torch.float32}
