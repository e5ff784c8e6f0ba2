"""Pixels under the protocols of the release: whole chips, scaled by themselves and resized; flips and rotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from tiny import make_tree, open_tree

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, SourceData, TargetImages
from spectral_tl_bench.data.normalisation import scale_chip
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.data.transforms import FlipsAndRotations
from spectral_tl_bench.data.whole_chips import ShuffledChips, WholeChips
from spectral_tl_bench.protocol.published import AS_PUBLISHED, PUBLISHED
from spectral_tl_bench.training.reconstructions import fixed_windows

HOLE = 0
CHIPS = [f"e{site}_{number}" for site in range(3) for number in range(2)]


@pytest.fixture(params=[(40, 40), (30, 50), (57, 33), (18, 12)], ids=lambda size: f"{size[0]}x{size[1]}")
def one(request, own) -> tuple[Benchmark, ChipIndex]:
    """Chips of some size with a constant band and a hole; a benchmark has one size, which need not be square."""
    rng, (height, width) = np.random.default_rng(3), request.param
    for row in own.rows:
        image = rng.integers(1, 4_000, (3, height, width)).astype("uint16")
        image[1] = 1234
        image[:, 5:9, 2:7] = HOLE
        own.write_raster(own.image(row["name"]), image, row["name"], nodata=HOLE)
        blocks = rng.integers(0, 4, (1, -(-height // 5), -(-width // 5))).repeat(5, 1).repeat(5, 2)
        own.write_raster(own.label(row["name"]), blocks[:, :height, :width].astype("uint8"), row["name"])
    benchmark = own.benchmark(nodata="fill", chip_size=min(height, width))
    return benchmark, build_index(benchmark, own.root)


def loading(window: int = 32) -> LoaderSettings:
    return LoaderSettings(window, window, 3, rules=PUBLISHED.pixels)


@pytest.fixture
def source(one) -> SourceData:
    return SourceData(*one, make_split(*one, 0), loading(), 0)


def by_hand(path: Path, side: int, fill: np.ndarray) -> np.ndarray:
    """Scaling in float64 with NumPy, and PIL's antialiased bilinear resizing, band by band."""
    with rasterio.open(path) as file:
        bands = file.read().astype(np.float64)
    holes, found = (bands == HOLE).any(axis=0), []
    for band, mean in zip(bands, fill, strict=True):
        low, high = band[~holes].min(), band[~holes].max()
        filled = np.where(holes, np.clip(mean, low, high), band)
        scaled = filled if low == high else (filled - low) / (high - low + 1e-8)
        picture = Image.fromarray(scaled.astype(np.float32))
        found.append(np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(found)


def nearest(label: np.ndarray, side: int) -> np.ndarray:
    lines, columns = (np.floor(np.arange(side) * size / side).astype(int) for size in label.shape)
    return label[np.ix_(lines, columns)]


def test_scaling_by_the_chip_itself():
    image = torch.tensor([[[2.0, 4.0], [6.0, 10.0]], [[7.0, 7.0], [7.0, 7.0]], [[-1.0, 0.0], [0.5, 1.0]]])
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    scaled = scale_chip(image, nothing)
    assert torch.equal(scaled[1], image[1]), "a constant band stays at its digital numbers"
    np.testing.assert_allclose(scaled[0], [[0, 0.25], [0.5, 1]], rtol=1e-6)
    np.testing.assert_allclose(scaled[2], (image[2] + 1) / (2 + 1e-8), rtol=1e-6)
    assert not torch.equal(scale_chip(image * 1e-9, nothing)[0].max(), torch.tensor(1.0)), "1e-8 acts on tiny radiances"


def test_what_was_filled_in_does_not_stretch_a_chip():
    image = torch.tensor([[[2.0, 4.0], [6.0, 900.0]], [[5.0, 5.0], [5.0, 900.0]]])
    hole = torch.tensor([[False, False], [False, True]])
    scaled = scale_chip(image, hole)
    np.testing.assert_allclose(scaled[0], [[0, 0.5], [1, 1]], rtol=1e-6)
    assert (scaled[1] == 5).all(), "constant where it is measured"
    assert torch.equal(scale_chip(image, ~hole | hole), scale_chip(image, hole & ~hole)), (
        "nothing is measured: all count"
    )


@pytest.mark.parametrize("side", [16, 96])
def test_every_chip_is_scaled_whole_and_then_resized(one, source, side):
    data = EvaluationData(*one, CHIPS, loading(side), source.statistics)
    batches = list(data.loader())
    names = [chip for batch in batches for chip in batch["chip"]]
    assert sorted(names) == sorted(CHIPS), "a chip is one window"
    images = dict(zip(names, torch.cat([batch["image"] for batch in batches]), strict=True))
    for chip, row in data.rows.items():
        assert images[chip].shape[-2:] == (side, side)
        expected = by_hand(one[1].root / row["image"], side, source.statistics.mean)
        np.testing.assert_allclose(images[chip], expected, atol=2e-3, rtol=1e-5)
        np.testing.assert_allclose(images[chip][1], 1234, rtol=1e-6)
        assert np.array_equal(data.seen(chip), images[chip].numpy())
        assert data.image(chip).shape[1:] == (row["height"], row["width"])
        dataset, number = data._place[chip]
        assert np.array_equal(data.truth(chip), nearest(data.collection.datasets[dataset].classes(number), side))
        assert {*np.unique(data.truth(chip))} <= {0, 1, VOID}
    normalise = PUBLISHED.pixels.normalise(source.statistics)
    assert torch.equal(normalise(batches[0]["image"]), batches[0]["image"]), "nothing is left to do"


def test_scaling_comes_before_resizing():
    """Once a lone bright pixel is averaged away, the range would be another."""
    image = torch.zeros(1, 40, 40)
    image[0, 7, 7], image[0, 20:, :] = 1000.0, 10.0
    sample = {"image": image, "mask": torch.zeros(40, 40).long(), "invalid": torch.zeros(40, 40, dtype=torch.bool)}
    prepared = WholeChips(10).prepare(sample)["image"]
    assert prepared.max() < 0.2 and prepared[0, -1, 0] == pytest.approx(0.01)


def test_a_chip_of_the_window_s_size_is_not_interpolated():
    image = torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(24 * 24).reshape(24, 24) % 5
    sample = {"image": image, "mask": mask, "invalid": torch.zeros(24, 24, dtype=torch.bool), "chip": "a"}
    prepared = WholeChips(24).prepare(sample)
    assert torch.equal(prepared["image"], scale_chip(image, sample["invalid"])) and torch.equal(prepared["mask"], mask)
    assert prepared["chip"] == "a"


def test_training_goes_through_all_chips_before_one_comes_again(one):
    collection = ChipCollection(open_datasets(*one, CHIPS))
    order = list(ShuffledChips(collection, 20, 7))
    samples = [collection[query] for query in order]
    rounds = [[sample["chip"] for sample in samples[start : start + 6]] for start in (0, 6, 12)]
    assert all(sorted(names) == CHIPS for names in rounds) and rounds[0] != rounds[1]
    assert order == list(ShuffledChips(collection, 20, 7)) != list(ShuffledChips(collection, 20, 8))
    row = one[1].frame.iloc[0]
    assert {tuple(sample["image"].shape[1:]) for sample in samples} == {(row["height"], row["width"])}, "whole"


def test_domains_that_come_equally_often(one):
    chips = [*CHIPS[:5], "w0_0", "w0_1"]
    collection = ChipCollection(open_datasets(*one, chips))
    found = [collection[query] for query in ShuffledChips(collection, 20, 1, balanced=True)]
    for number in range(0, 20, 2):
        assert {sample["domain"] for sample in found[number : number + 2]} == {"east", "west"}
    west = [sample["chip"] for sample in found if sample["domain"] == "west"]
    assert all(len(set(west[number : number + 2])) == 2 for number in range(0, 10, 2))


def test_what_is_swept_and_drawn_and_seen_of_the_target(one, source):
    batches = list(source.sweep_loader(True))
    assert sum(len(batch["mask"]) for batch in batches) == len(list(source.collection.chips()))
    assert all((mask != VOID).any() for batch in batches for mask in batch["mask"]), "no window voids another"
    assert fixed_windows(source).shape[1:] == (3, 32, 32)
    target = TargetImages(*one, ["w0_0", "w0_1"], loading(), source.statistics)
    (batch,) = list(target.loader(1, 3))
    assert set(batch) == {"image"} and batch["image"].shape == (3, 3, 32, 32)


def test_dates_of_a_time_series_are_scaled_each_by_itself(tmp_path):
    """Every band of every date is a channel."""
    one = open_tree(make_tree(tmp_path, chip=24))
    split = make_split(one.benchmark, one.index, 0)
    source = SourceData(one.benchmark, one.index, split, loading(16), 0)
    batch = next(iter(source.train_loader(1, True, "segment")))
    assert batch["image"].shape[1] == len(one.benchmark.sensor.wavelengths) > 20
    assert (batch["image"].amax((0, 2, 3)) > 0.6).all() and batch["image"].min() >= 0 and batch["image"].max() <= 1


def test_predictions_have_the_size_of_the_window():
    windows = loading(32).windows
    stitcher = windows.stitcher(3, 57, 33, 32, "cpu")
    logits = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    stitcher.add(logits, 0, 0)
    assert torch.equal(stitcher.finish(), logits.argmax(0))
    assert windows.count(57, 33, 32, 32) == 1 and windows.largest(57) == 1024


# ---------------------------------------------------------------------------------------------- flips and rotations


def tell_tale(count: int = 12, side: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of large blocks of classes 0 to 5, whose pixels say their class in two bands."""
    mask = (torch.arange(side)[:, None] // 10 * 2 + torch.arange(side)[None] // 20) % 6
    mask = mask.repeat(count, 1, 1)
    return torch.stack([mask + 1, 10 * (mask + 1)], dim=1).float(), mask


def test_image_and_label_move_together_and_what_turns_in_is_void():
    image, mask = tell_tale()
    turned, labels = FlipsAndRotations(3)(image, mask, 0)
    assert turned.shape == image.shape and labels.shape == mask.shape and labels.dtype == mask.dtype
    assert set(labels.unique().tolist()) <= {*range(6), VOID}
    rotated = (labels == VOID).flatten(1).any(dim=1)
    assert 0 < rotated.sum() < len(mask), "some are turned, some are not"
    whole = 0
    for number in range(len(mask)):
        pixels, label = turned[number, 0], labels[number]
        inside = label != VOID
        assert (pixels[~inside] < image.max()).all()
        wrong = ((pixels - (label + 1)).abs() > 0.51) & inside
        assert wrong.float().mean() < 0.25, "but for the rims of the blocks, which are interpolated"
        exact = (pixels == label + 1) & inside
        whole += bool(exact.all())
        assert exact.float().mean() > 0.3
    assert 0 < whole < len(mask), "what is not turned is exact"
    outside = (turned == 0).all(dim=1)
    assert outside.any() and (labels[outside] == VOID).all()


def test_void_stays_void_and_classes_stay_classes():
    image, mask = tell_tale(30)
    mask[:, :20] = VOID
    _, labels = FlipsAndRotations(5)(image, mask, 2)
    unturned = [
        n for n in range(30) if any(torch.equal(labels[n], mask[n].flip(axes)) for axes in ([], [0], [1], [0, 1]))
    ]
    assert unturned and len(unturned) < 30
    for number in range(30):
        assert set(labels[number].unique().tolist()) <= {*mask[0].unique().tolist()}


def test_angles_go_up_to_a_quarter_turn_either_way():
    image, mask = torch.zeros(400, 1, 21, 21), torch.zeros(400, 21, 21).long()
    image[:, 0, 10, 20] = 1.0  # a point to the right of the middle
    turned, _ = FlipsAndRotations(0)(image, mask, 0)
    lines, columns = (turned[:, 0].flatten(1).argmax(1) // 21 - 10, turned[:, 0].flatten(1).argmax(1) % 21 - 10)
    angles = torch.rad2deg(torch.atan2(-lines.double(), columns.double().abs())).round().unique()
    assert angles.min() < -75 and angles.max() > 75 and len(angles) > 20, "any angle, and not quarter turns alone"


def test_moves_follow_from_seed_and_step_alone():
    image, mask = tell_tale()
    one, other = FlipsAndRotations(3), FlipsAndRotations(4)
    torch.manual_seed(1)
    first = one(image, mask, 5)
    before = torch.random.get_rng_state()
    again = one(image, mask, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(before, torch.random.get_rng_state()), "nobody else's chance is touched"
    assert not torch.equal(one(image, mask, 6)[0], first[0]) and not torch.equal(other(image, mask, 5)[0], first[0])
    alone, nothing = one(image, None, 5)
    assert nothing is None and torch.equal(alone, first[0]), "with labels or without"


def test_both_protocols_see_the_same_pixels():
    unnamed = {"name": "", "about": "", "selection": None}
    assert replace(AS_PUBLISHED, **unnamed) == replace(PUBLISHED, **unnamed)
