"""TorchGeo datasets: the file's own pixels come out, through TorchGeo's own samplers as well."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import torchgeo.samplers
from rasterio.windows import from_bounds
from scipy.io import loadmat
from torch.utils.data import DataLoader, default_collate
from torchgeo.datasets import RasterDataset, stack_samples

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.index import LOCAL_CRS, build_index
from spectral_tl_bench.data.loaders import BandStatistics, LoaderSettings, Normalise, SourceData
from spectral_tl_bench.data.rasters import (
    DFC2020,
    MTS12,
    SLOT,
    WHUOHS,
    ChipCache,
    ChipCollection,
    SpectralChips,
    open_benchmark,
    open_datasets,
)  # fmt: skip
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import DataError

ONE_OF_EACH = ("whuohs-s2t", "dfc2020-winter", "mts12-n2s")
SIDE = 32


def whole(dataset: SpectralChips, number: int) -> tuple[slice, slice, slice]:
    row = dataset.chip_rows()[number]
    return slice(row["xmin"], row["xmax"]), slice(row["ymin"], row["ymax"]), dataset.slot(number)


def truth(dataset: SpectralChips, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and classes of a chip, read and mapped without the suite."""
    row, labels = dataset.chip_rows()[number], dataset.benchmark.labels
    with rasterio.open(dataset.root / row["image"]) as file:
        image = file.read()
    path = dataset.root / row["label"]
    if path.suffix == ".mat":
        raw = loadmat(path)["label"]
    else:
        with rasterio.open(path) as file:
            raw = file.read(1)
    mask = np.full(raw.shape, VOID, dtype=np.int64)
    for number_of_class, cover in enumerate(labels.classes):
        mask[np.isin(raw, cover.raw)] = number_of_class
    return image, mask


@pytest.fixture(scope="module")
def opened(indexed):
    return {name: open_datasets(*indexed(name)) for name in ONE_OF_EACH}


# ------------------------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_chip_comes_out_as_its_file_holds_it(opened, name):
    seen = []
    for dataset in opened[name]:
        assert isinstance(dataset, RasterDataset)
        for number, row in enumerate(dataset.chip_rows()):
            sample = dataset[whole(dataset, number)]
            image, mask = truth(dataset, number)
            assert sample["image"].dtype == torch.float32 and sample["mask"].dtype == torch.int64
            np.testing.assert_array_equal(sample["image"].numpy(), image.astype(np.float32))
            np.testing.assert_array_equal(sample["mask"].numpy(), mask)
            assert (sample["chip"], sample["domain"]) == (row["chip"], row["domain"])
            assert not sample["invalid"].any() and sample["crs"] == dataset.crs
            seen.append(sample["chip"])
    assert len(seen) == len(set(seen)) == {"whuohs-s2t": 64, "dfc2020-winter": 56, "mts12-n2s": 28}[name]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_windows_are_cut_where_their_bounds_say(opened, name):
    rng = np.random.default_rng(0)
    for dataset in opened[name]:
        for number in rng.integers(len(dataset), size=4):
            row = dataset.chip_rows()[number]
            line, column, height, width = rng.integers(0, 16), rng.integers(0, 16), *rng.integers(1, 17, size=2)
            x, y = row["xmin"] + 10.0 * column, row["ymax"] - 10.0 * line
            query = (slice(x, x + 10.0 * width), slice(y - 10.0 * height, y), dataset.slot(int(number)))
            sample = dataset[query]
            with rasterio.open(dataset.root / row["image"]) as file:
                image = file.read(window=from_bounds(x, y - 10.0 * height, x + 10.0 * width, y, file.transform))
            np.testing.assert_array_equal(sample["image"].numpy(), image)
            assert (sample["line"], sample["column"], sample["mask"].shape) == (line, column, (height, width))


def test_there_is_one_dataset_for_each_crs(opened, indexed):
    for name, kind in zip(ONE_OF_EACH, (WHUOHS, DFC2020, MTS12), strict=True):
        datasets, frame = opened[name], indexed(name)[1].frame
        assert all(type(dataset) is kind for dataset in datasets)
        assert [f"EPSG:{dataset.crs.to_epsg()}" for dataset in datasets] == sorted(set(frame["crs"]))
        for dataset in datasets:
            here = frame[frame["crs"] == f"EPSG:{dataset.crs.to_epsg()}"]
            assert [row["chip"] for row in dataset.chip_rows()] == list(here.index)
            assert len(dataset) == len(dataset.files) == len(here)
            x, y, _ = dataset.bounds
            assert (x.start, x.stop) == (here["xmin"].min(), here["xmax"].max())
            assert (y.start, y.stop) == (here["ymin"].min(), here["ymax"].max())
            assert tuple(dataset.res) == (10.0, 10.0)
    assert [len(opened[name]) for name in ONE_OF_EACH] == [8, 7, 1]


def test_chips_of_two_crs_or_pixel_sizes_do_not_go_into_one_dataset(indexed, own):
    benchmark, index = indexed("whuohs-s2t")
    with pytest.raises(DataError, match="one dataset holds one CRS"):
        SpectralChips(benchmark, index)
    profile = {"driver": "GTiff", "height": 16, "width": 16, "dtype": "uint16", "crs": "EPSG:32633"}
    transform = rasterio.Affine(20, 0, 500_000, 0, -20, 5_000_000)
    for path, count in ((own.image("e0_0"), 3), (own.label("e0_0"), 1)):
        with rasterio.open(path, "w", count=count, transform=transform, **profile) as file:
            file.write(np.ones((count, 16, 16), dtype="uint16"))
    benchmark = own.benchmark()
    with pytest.raises(DataError, match="different pixel sizes"):
        open_datasets(benchmark, build_index(benchmark, own.root))


def test_bands_of_the_true_colour_picture_exist_and_are_red_green_blue(opened):
    for datasets in opened.values():
        sensor = datasets[0].benchmark.sensor
        red, green, blue = (sensor.wavelengths[sensor.band_names.index(band)] for band in datasets[0].rgb_bands)
        assert 0.62 < red < 0.70 and 0.53 < green < 0.58 and 0.45 < blue < 0.50


# ------------------------------------------------------------------------------------------------------------ queries


def test_overlapping_chips_are_told_apart_by_time(own):
    benchmark = own.benchmark()
    (dataset, _) = open_datasets(benchmark, build_index(benchmark, own.root))
    x, y = slice(500_080.0, 500_160.0), slice(5_000_000.0 - 80.0, 5_000_000.0)
    for number, columns in ((0, slice(8, 16)), (1, slice(0, 8))):
        sample = dataset[x, y, dataset.slot(number)]
        assert sample["chip"] == f"e0_{number}"
        np.testing.assert_array_equal(sample["image"].numpy(), own.pixels(f"e0_{number}")[:, :8, columns])
    with pytest.raises(IndexError, match="lies in 2 chips; give t"):
        dataset[x, y]
    alone = dataset[slice(500_000.0, 500_050.0), y]
    np.testing.assert_array_equal(alone["image"].numpy(), own.pixels("e0_0")[:, :8, :5])


def test_slots_do_not_overlap(opened):
    (dataset,) = opened["mts12-n2s"]
    slots = dataset.index.index
    assert not slots.is_overlapping and slots.is_monotonic_increasing and len(slots) == 28
    assert dataset.slot(3).stop - dataset.slot(3).start < SLOT


@pytest.mark.parametrize(("dx", "dy"), [(1e6, 0), (0, -1e6), (330, 0), (0, 330)])
def test_a_window_beside_its_chip_holds_nothing_of_it(opened, dx, dy):
    dataset = opened["whuohs-s2t"][0]
    x, y, t = whole(dataset, 1)
    moved = slice(x.start + dx, x.stop + dx), slice(y.start + dy, y.stop + dy)
    sample = dataset[(*moved, t)]
    assert sample["invalid"].all() and (sample["mask"] == VOID).all() and not sample["image"].any()
    assert sample["image"].shape == dataset[x, y, t]["image"].shape


def test_a_place_beside_all_chips_is_an_index_error(opened):
    dataset = opened["whuohs-s2t"][0]
    x, y, _ = dataset.bounds
    with pytest.raises(IndexError, match="lies in 0 chips"):
        dataset[slice(x.stop + 10, x.stop + 170), slice(y.start, y.start + 160)]


def test_the_whole_extent_is_not_one_window(opened):
    with pytest.raises(IndexError):
        opened["whuohs-s2t"][0][:]


def test_chips_without_crs_come_out_on_the_local_grid(own_without_crs):
    own = own_without_crs
    benchmark = own.benchmark()
    (dataset,) = open_datasets(benchmark, build_index(benchmark, own.root))
    assert len(dataset) == 10 and tuple(dataset.res) == (1.0, 1.0)
    assert dataset.crs == rasterio.crs.CRS.from_wkt(LOCAL_CRS)
    for number, row in enumerate(dataset.chip_rows()):
        np.testing.assert_array_equal(dataset[whole(dataset, number)]["image"].numpy(), own.pixels(row["chip"]))
        assert dataset[whole(dataset, number)[:2]]["chip"] == row["chip"], "on this grid the place alone names a chip"


def test_transforms_are_called_with_the_sample(indexed):
    benchmark, index = indexed("mts12-n2s")
    dataset = MTS12(benchmark, index, transforms=lambda sample: {**sample, "image": -sample["image"]})
    np.testing.assert_array_equal(dataset[whole(dataset, 2)]["image"].numpy(), -truth(dataset, 2)[0].astype(np.float32))


def test_a_file_that_changed_after_indexing_is_refused(own):
    benchmark = own.benchmark()
    (dataset, _) = open_datasets(benchmark, build_index(benchmark, own.root))
    own.write_raster(own.image("e0_0"), np.ones((3, 8, 8), dtype="uint16"), "e0_0")
    with pytest.raises(DataError, match="changed since it was indexed"):
        dataset[whole(dataset, 0)]


# ------------------------------------------------------------------------------------------------------------ TorchGeo

OLD = [("RandomGeoSampler", {"length": 24}), ("GridGeoSampler", {"stride": 16}), ("GridGeoSampler", {"stride": 8})]
NEW = [("RandomPatchSampler", {"length": 24}), ("GriddedPatchSampler", {"stride": 16})]
# The samplers of TorchGeo 0.10 draw places, not chips: a place of two chips is no query, and windows beside them are
# none either, so they are given a region inside one chip; those of 0.8 go chip by chip.


def check_windows(dataset: SpectralChips, batches: list[dict]) -> int:
    """Every window is what its file holds at its place; returns their number."""
    rows, count = {row["chip"]: row for row in dataset.chip_rows()}, 0
    for batch in batches:
        for image, bounds, chip in zip(batch["image"], batch["bounds"], batch["chip"], strict=True):
            x, y = bounds[0], bounds[1]
            with rasterio.open(dataset.root / rows[chip]["image"]) as file:
                expected = file.read(window=from_bounds(x.start, y.start, x.stop, y.stop, file.transform))
            np.testing.assert_array_equal(image.numpy(), expected)
            count += 1
    return count


@pytest.mark.parametrize(("sampler", "options"), OLD)
@pytest.mark.parametrize("name", ["whuohs-s2t", "dfc2020-winter"])
def test_torchgeo_samplers_go_chip_by_chip(opened, name, sampler, options):
    if not hasattr(torchgeo.samplers, sampler):
        pytest.skip("this TorchGeo has patch samplers only")
    dataset = opened[name][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        windows = getattr(torchgeo.samplers, sampler)(dataset, size=16, **options)
    loader = DataLoader(dataset, batch_size=5, sampler=windows, collate_fn=lambda samples: samples)
    batches = [{key: [sample[key] for sample in batch] for key in batch[0]} for batch in loader]
    per_chip = {16: 4, 8: 9}.get(options.get("stride", 0))
    expected = len(dataset) * per_chip if per_chip else 24
    assert check_windows(dataset, batches) == len(windows) == expected


@pytest.mark.parametrize(("sampler", "options"), NEW)
def test_torchgeo_patch_samplers(opened, sampler, options):
    if not hasattr(torchgeo.samplers, sampler):
        pytest.skip("patch samplers came with TorchGeo 0.10")
    dataset = opened["whuohs-s2t"][0]
    roi = dataset.index.geometry.iloc[2]
    windows = getattr(torchgeo.samplers, sampler)(dataset, size=16, roi=roi, **options)
    samples = [dataset[query] for query in windows]
    assert {sample["chip"] for sample in samples} == {dataset.chip_rows()[2]["chip"]}
    batch = {key: [sample[key] for sample in samples] for key in ("image", "bounds", "chip")}
    assert check_windows(dataset, [batch]) == (24 if "length" in options else 4)


def test_samples_stack_with_torchgeo_and_with_torch(opened):
    dataset = opened["dfc2020-winter"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        windows = torchgeo.samplers.GridGeoSampler(dataset, size=16, stride=16)

    def tensors(samples: list[dict]) -> dict:
        return default_collate([{key: sample[key] for key in ("image", "mask")} for sample in samples])

    def stacked(samples: list[dict]) -> dict:
        return stack_samples([{key: sample[key] for key in ("image", "mask")} for sample in samples])

    for collate in (tensors, stacked):
        batches = list(DataLoader(dataset, batch_size=8, sampler=windows, collate_fn=collate))
        assert sum(len(batch["image"]) for batch in batches) == 4 * len(dataset)
        assert batches[0]["image"].shape == (8, 13, 16, 16) and batches[0]["mask"].shape == (8, 16, 16)
        assert torch.equal(batches[0]["image"][0], dataset[next(iter(windows))]["image"])


def test_reader_processes_give_the_same_windows(opened):
    collection = ChipCollection(opened["whuohs-s2t"])
    keys = [(number, whole(dataset, 0)) for number, dataset in enumerate(collection.datasets)]

    def read(workers: int) -> torch.Tensor:
        loader = DataLoader(
            collection,
            batch_size=3,
            sampler=keys,
            num_workers=workers,
            collate_fn=_images,  # type: ignore[arg-type]
        )
        return torch.cat(list(loader))

    assert torch.equal(read(0), read(1))


def _images(samples: list[dict]) -> torch.Tensor:
    return torch.stack([sample["image"] for sample in samples])


def test_open_benchmark_by_name(trees):
    datasets = open_benchmark("mts12-s2n", trees)
    assert len(datasets) == 1 and len(datasets[0]) == 28


@pytest.mark.parametrize("prediction", [False, True])
def test_plot_gives_a_figure_with_a_panel_for_each_picture(opened, prediction):
    dataset = opened["dfc2020-winter"][0]
    sample = dataset[whole(dataset, 0)]
    if prediction:
        sample["prediction"] = sample["mask"].clamp(max=7)
    figure = dataset.plot(sample, suptitle="a chip")
    assert [axes.get_title() for axes in figure.axes] == ["image", "mask", "prediction"][: 2 + prediction]
    assert figure.get_suptitle() == "a chip"
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (SIDE, SIDE, 3) and float(picture.max()) == 1.0 and float(picture.min()) == 0.0
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), sample["mask"].numpy() == VOID)
    assert not dataset.plot(sample, show_titles=False).axes[0].get_title()


# ------------------------------------------------------------------------------------------------------------ cache


def test_the_cache_keeps_what_fits_and_drops_the_oldest():
    cache, loads = ChipCache(limit=250), []

    def get(key: str, size: int = 100) -> None:
        cache.get(key, lambda: (loads.append(key) or np.zeros(size, dtype=np.uint8),))

    for key in ("a", "b", "a", "c", "a", "b"):  # c drives out b, which was used before a
        get(key)
    assert loads == ["a", "b", "c", "b"] and cache.used == 200
    get("large", 300)
    get("large", 300)
    assert loads[4:] == ["large", "large"] and cache.used == 200
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301
    assert (copy.limit, copy.used) == (250, 0)


def test_what_a_caller_writes_into_a_sample_does_not_reach_the_cache(opened):
    dataset = opened["mts12-n2s"][0]
    sample = dataset[whole(dataset, 5)]
    for key in ("image", "mask", "invalid"):
        sample[key].fill_(1)
    again = dataset[whole(dataset, 5)]
    image, mask = truth(dataset, 5)
    np.testing.assert_array_equal(again["image"].numpy(), image)
    np.testing.assert_array_equal(again["mask"].numpy(), mask)
    assert not again["invalid"].any()


# ---------------------------------------------------------------------------------------- holes, statistics


def test_holes_get_the_fill_value_and_are_marked(own):
    pixels = own.pixels("e0_0").astype("float32")
    pixels[1, 2, 3] = np.nan
    pixels[:, 9, 9] = -1
    own.write_raster(own.image("e0_0"), pixels, "e0_0", nodata=-1)
    benchmark = own.benchmark(nodata="fill")
    index = build_index(benchmark, own.root)
    fill = np.array([10.0, 20.0, 30.0])
    dataset = open_datasets(benchmark, index, fill=fill)[0]
    sample = dataset[whole(dataset, 0)]
    holes = np.zeros((16, 16), dtype=bool)
    holes[2, 3] = holes[9, 9] = True
    np.testing.assert_array_equal(sample["invalid"].numpy(), holes)
    missing = np.isnan(pixels) | (pixels == -1)
    np.testing.assert_array_equal(sample["image"].numpy(), np.where(missing, fill[:, None, None], pixels))
    np.testing.assert_array_equal(sample["mask"].numpy(), truth(dataset, 0)[1], "labels of holes stay")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_band_statistics_are_those_of_the_training_chips_only(indexed, name):
    benchmark, index = indexed(name)
    split = make_split(benchmark, index, 0)
    source = SourceData(benchmark, index, split, LoaderSettings(window=16, stride=8, batch_size=4), 0)
    stack = []
    for chip in split.chips("train"):
        with rasterio.open(index.root / index.frame.loc[chip, "image"]) as file:
            stack.append(file.read().reshape(file.count, -1).astype(np.float64))
    pixels = np.concatenate(stack, axis=1)
    np.testing.assert_allclose(source.statistics.mean, pixels.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(source.statistics.std, pixels.std(axis=1), rtol=1e-9)
    everything = BandStatistics.of(index, list(index.frame.index))
    assert not np.allclose(everything.mean, source.statistics.mean)
    held = {row["chip"] for _, _, row in source.collection.chips()}
    assert held == set(split.chips("train"))
    assert set(source.validation.rows) == set(split.chips("validation"))


def test_band_statistics_leave_out_holes(own):
    pixels = own.pixels("e0_0").astype("float32")
    pixels[0, :4] = np.nan
    own.write_raster(own.image("e0_0"), pixels, "e0_0")
    statistics = BandStatistics.of(build_index(own.benchmark(nodata="fill"), own.root), ["e0_0", "e0_1"])
    both = np.concatenate([pixels.reshape(3, -1), own.pixels("e0_1").reshape(3, -1)], axis=1).astype(float)
    np.testing.assert_allclose(statistics.mean, np.nanmean(both, axis=1))
    np.testing.assert_allclose(statistics.std, np.nanstd(both, axis=1))


@pytest.mark.parametrize("value", [0, 7, 4_001, 60_000])
def test_a_constant_band_becomes_zero_and_the_others_standard(own, value):
    for row in own.rows:
        pixels = own.pixels(row["name"])
        pixels[1] = value
        own.write_raster(own.image(row["name"]), pixels, row["name"])
    chips = [row["name"] for row in own.rows[:6]]
    normalise = Normalise(BandStatistics.of(build_index(own.benchmark(), own.root), chips))
    batch = normalise(torch.from_numpy(np.stack([own.pixels(chip).astype("float32") for chip in chips])))
    assert (batch[:, 1] == 0).all()
    elsewhere = torch.from_numpy(np.full((1, 3, 2, 2), value + 500, dtype="float32"))
    assert (normalise(elsewhere)[:, 1] == 0).all(), "a band that was constant in training says nothing on the target"
    for band in (0, 2):
        assert abs(float(batch[:, band].mean())) < 1e-5 and abs(float(batch[:, band].std(correction=0)) - 1) < 1e-5
    assert pd.notna(batch.numpy()).all()
