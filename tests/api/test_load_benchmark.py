"""A benchmark in Python: its parts as TorchGeo datasets, TorchGeo's samplers on them, and a Lightning data module."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import rasterio
import torch
import torchgeo.samplers
from tiny import CHIP, make_tree
from torch import nn
from torch.utils.data import DataLoader
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import RasterDataset, stack_samples
from walking import Target

from spectral_tl_bench import load_benchmark
from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings
from spectral_tl_bench.errors import BenchmarkError, DataError
from spectral_tl_bench.sample import write_dfc2020


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tree(tmp_path_factory.mktemp("two"), north=12, south=6)
    write_dfc2020(root / "DFC2020", chip=CHIP, chips_per_city=6)
    return root


@pytest.fixture(scope="module")
def loaded(two: Path) -> Any:
    return load_benchmark("mts12-n2s", two, allow_partial=True)


@pytest.fixture(scope="module")
def zones(two: Path) -> Any:
    """A benchmark whose target lies in several UTM zones."""
    return load_benchmark("dfc2020-summer", two, allow_partial=True)


def windows(name: str, dataset: Any, **options: Any) -> Iterator[Any]:
    """Queries of one of TorchGeo's samplers; those of before 0.10 are deprecated there."""
    if not hasattr(torchgeo.samplers, name):
        pytest.skip("patch samplers came with TorchGeo 0.10")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for query in getattr(torchgeo.samplers, name)(dataset, **options):
            yield from query if isinstance(query, list) else [query]


# ------------------------------------------------------------------------------------------------- parts


def test_every_role_is_a_raster_dataset_of_its_chips(loaded):
    parts = {role: loaded.dataset(role, names=True) for role in ("train", "validation", "source", "target")}
    names = {role: set(dataset.index["chip"]) for role, dataset in parts.items()}
    assert all(isinstance(dataset, RasterDataset) for dataset in parts.values())
    assert names["source"] == names["train"] | names["validation"] and not names["train"] & names["validation"]
    assert names["target"] and not names["target"] & names["source"]
    for role, dataset in parts.items():
        chips = loaded.chips(role)
        assert set(chips.index) == names[role]
        assert set(dataset.files) == {str(dataset.root / image) for image in chips["image"]}
    assert set(loaded.chips("train")["domain"]) == {"north"} and set(loaded.chips("target")["domain"]) == {"south"}
    assert len(loaded.classes) == 8 and len(loaded.bands) == 24 and loaded.track == "partial"
    assert "18 chips" not in repr(loaded) and "6 target" in repr(loaded)


def test_pixels_are_those_of_the_file(loaded):
    dataset = loaded.dataset("target", names=True)
    [first, *_] = windows("GridGeoSampler", dataset, size=CHIP, stride=CHIP)
    sample = dataset[first]
    with rasterio.open(dataset.root / loaded.chips("target").loc[sample["chip"], "image"]) as file:
        np.testing.assert_array_equal(sample["image"].numpy(), file.read().astype(np.float32))
    assert set(sample["mask"].unique().tolist()) <= {*range(8), VOID} and sample["crs"] == dataset.crs


def test_the_cut_is_that_of_a_run_with_the_seed(two, loaded):
    other = load_benchmark("mts12-n2s", two, seed=1, allow_partial=True)
    assert set(other.chips("train").index) == set(other.opened.split(1).chips("train"))
    assert set(other.chips("target").index) == set(loaded.chips("target").index)
    assert other.statistics.mean.tolist() == other.opened.statistics(1).mean.tolist()


def test_without_labels_every_mask_is_void_and_transforms_are_called(loaded):
    dataset = loaded.dataset("target", labels=False, transforms=lambda sample: {**sample, "seen": True})
    samples = [dataset[query] for query in windows("GridGeoSampler", dataset, size=CHIP, stride=CHIP)]
    assert len(samples) == 6 and all(sample["seen"] and (sample["mask"] == VOID).all() for sample in samples)


def test_the_training_part_does_not_lead_to_the_target(loaded):
    chips = loaded.opened.split(0).chips("target")
    settings = LoaderSettings(16, 8, 2)
    data = EvaluationData(loaded.definition, loaded.opened.index, chips, settings, loaded.statistics)
    target = Target(loaded.opened, loaded.opened.split(0), data)
    module = loaded.datamodule(window=16, batch_size=2, length=4)
    module.setup("fit")
    assert set(module.opened) == {"train", "validation"}, "nothing of the target is open while a model is fitted"
    assert not target.found_in(loaded.dataset("train"), module.opened, list(module.train_dataloader()))
    assert target.found_in(loaded.dataset("target")), "the search finds what is there"


# ------------------------------------------------------------------------------------------------- several zones


def test_chips_of_several_zones_are_one_dataset_and_each_window_is_of_one_chip(zones):
    chips, dataset = zones.chips("target"), zones.dataset("target", names=True)
    assert chips["crs"].nunique() > 1 and len(dataset) == len(chips) == len(set(dataset.index["chip"]))
    apart = {sample["chip"]: sample for part in zones.datasets("target", names=True) for sample in whole(part)}
    for sample in whole(dataset):
        other = apart.pop(sample["chip"])
        torch.testing.assert_close(sample["image"], other["image"], rtol=0, atol=0)
        assert torch.equal(sample["mask"], other["mask"]) and not sample["invalid"].any()
    assert not apart


def whole(dataset: Any) -> list[dict[str, Any]]:
    return [dataset[query] for query in windows("GridGeoSampler", dataset, size=CHIP, stride=CHIP)]


def test_the_chips_of_one_zone_lie_on_the_ground(zones):
    crs = zones.chips("target")["crs"].iloc[0]
    dataset, chips = zones.dataset("target", crs=crs), zones.chips("target")
    assert str(dataset.crs) == crs and set(dataset.index["chip"]) == set(chips.index[chips["crs"] == crs])
    left = chips.loc[dataset.index["chip"], "xmin"].to_numpy()
    np.testing.assert_allclose(dataset.index.bounds["minx"].to_numpy(), left)
    with pytest.raises(DataError, match="no chip of the role 'target' is in 'EPSG:1234'"):
        zones.dataset("target", crs="EPSG:1234")


# ------------------------------------------------------------------------------------------------- TorchGeo, Lightning


@pytest.mark.parametrize(("size", "stride"), [(20, 17), (32, 32), (9, 5), (7, 32), (16, 33), (10, 500), (31, 1)])
@pytest.mark.parametrize("name", ["GridGeoSampler", "GriddedPatchSampler"])
def test_any_stride_through_a_loader(zones, name, size, stride):
    dataset = zones.dataset("train")
    queries = list(windows(name, dataset, size=size, stride=stride))[:150]
    count = 0
    for batch in DataLoader(dataset, batch_size=8, sampler=queries, collate_fn=stack_samples):
        assert batch["image"].shape[1:] == (13, size, size) and batch["mask"].shape[1:] == (size, size)
        assert set(batch) == {"image", "mask", "bounds", "transform" if "transform" in batch else "crs"}
        count += len(batch["image"])
    assert count == len(queries) and (count or name == "GriddedPatchSampler")


@pytest.mark.parametrize("name", ["RandomGeoSampler", "RandomPatchSampler"])
def test_random_windows_of_all_chips(zones, name):
    dataset, options = zones.dataset("target", names=True), {"size": 12, "length": 150}
    generator = {"generator": torch.Generator().manual_seed(3)} if name == "RandomGeoSampler" else {"generator": 3}
    samples = [dataset[query] for query in windows(name, dataset, **options, **generator)]
    assert len(samples) == 150 and len({sample["chip"] for sample in samples}) > 20
    assert all(sample["image"].shape == (13, 12, 12) for sample in samples)


class Linear(lightning.LightningModule):
    """A pixel-wise classifier as a user writes it; keeps what it is given."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.layer, self.seen = nn.Conv2d(bands, classes, 1), {"train": [], "validation": [], "test": [], "predict": []}

    def _loss(self, batch: dict[str, Any], part: str) -> torch.Tensor:
        self.seen[part].append(batch)
        return nn.functional.cross_entropy(self.layer(batch["image"]), batch["mask"], ignore_index=VOID)

    def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: dict[str, Any]) -> None:
        self._loss(batch, "validation")

    def test_step(self, batch: dict[str, Any]) -> None:
        self._loss(batch, "test")

    def predict_step(self, batch: dict[str, Any]) -> torch.Tensor:
        self.seen["predict"].append(batch)
        return self.layer(batch["image"]).argmax(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture(scope="module")
def fitted(zones: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Linear, Any, Any]:
    """A model that Lightning has fitted, tested and applied; the data module; what was predicted."""
    model, data = Linear(13, len(zones.classes)), zones.datamodule(window=16, stride=16, batch_size=4, length=12)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path_factory.mktemp("lightning"), num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    return model, data, trainer.predict(model, datamodule=data)


def test_a_trainer_of_lightning_gets_each_part_in_its_stage(fitted, zones):
    model, _, predicted = fitted
    roles = {"train": "train", "validation": "validation", "test": "target", "predict": "target"}
    for part, role in roles.items():
        chips = {chip for batch in model.seen[part] for chip in batch["chip"]}
        assert chips <= set(zones.chips(role).index) and (part == "train" or chips == set(zones.chips(role).index))
    assert len(model.seen["train"]) == 6 and all("mask" not in batch for batch in model.seen["predict"])
    assert sum(len(labels) for labels in predicted) == 4 * len(zones.chips("target"))


def test_training_windows_are_others_in_each_epoch_and_the_same_with_a_seed(fitted, zones):
    model, _, _ = fitted
    epochs = [torch.cat([batch["image"] for batch in model.seen["train"][part]]) for part in (slice(3), slice(3, 6))]
    assert not torch.equal(*epochs)
    again = zones.datamodule(window=16, batch_size=4, length=12, normalise=False)
    again.setup("fit")
    first, second = (torch.cat([batch["image"] for batch in again.train_dataloader()]) for _ in range(2))
    assert torch.equal(first, second)


def test_images_are_standardised_by_the_training_chips(fitted, zones):
    model, data, _ = fitted
    batch = model.seen["test"][0]
    raw = next(iter(data.test_dataloader()))
    mean, std = (torch.tensor(values)[:, None, None] for values in (zones.statistics.mean, zones.statistics.std))
    torch.testing.assert_close(batch["image"].double(), (raw["image"] - mean) / std, rtol=1e-4, atol=1e-4)


def test_a_data_module_of_torchgeo_trains_on_it(zones, tmp_path):
    roles = {"train": "train", "val": "validation", "test": "target"}

    class Images(GeoDataModule):
        mean, std = (torch.tensor(values).float() for values in (zones.statistics.mean, zones.statistics.std))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = {split: zones.dataset(role) for split, role in roles.items()}
        data = Images(lambda split: opened[split], batch_size=4, patch_size=12, length=8)
        model = Linear(13, len(zones.classes))
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0, limit_val_batches=2,
        )  # fmt: skip
        trainer.fit(model, datamodule=data)
    assert [len(batch["image"]) for batch in model.seen["train"]] == [4, 4] and len(model.seen["validation"]) == 2


# ------------------------------------------------------------------------------------------------- mistakes


def test_a_benchmark_of_ones_own_by_its_file(own):
    loaded = load_benchmark(own.yaml)
    assert loaded.track == "demonstration" and loaded.classes == ("Land", "Water")
    assert set(loaded.dataset("target").index["chip"]) == {"w0_0", "w0_1", "w1_0", "w1_1"}
    assert "sites" in " ".join(loaded.notes) or loaded.notes


@pytest.mark.parametrize("name", ["test", "val", "Train", "", "buffer"])
def test_a_role_that_is_none(loaded, name):
    with pytest.raises(DataError, match="there is no role"):
        loaded.dataset(name)


def test_mistakes_are_the_errors_of_the_commands(tmp_path):
    with pytest.raises(BenchmarkError, match="did you mean mts12-n2s"):
        load_benchmark("mts12-n2")
    with pytest.raises(BenchmarkError, match="stands for 8 benchmarks"):
        load_benchmark("all")
    with pytest.raises(DataError):
        load_benchmark("mts12-n2s", tmp_path / "nowhere")


def test_a_window_that_is_larger_than_a_chip(loaded):
    module = loaded.datamodule(window=CHIP + 1)
    module.setup("test")
    with pytest.raises(DataError, match="does not fit into chips"):
        module.test_dataloader()
