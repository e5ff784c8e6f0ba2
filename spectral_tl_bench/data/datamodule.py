"""Chips as a Lightning data module, for trainers that are not the suite's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.data.rasters import ChipCollection, SpectralChips
from spectral_tl_bench.data.samplers import GridCollectionWindows, RandomCollectionWindows
from spectral_tl_bench.files import seed_from

Stage = Literal["fit", "validate", "test", "predict"]
_NEEDED = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("target",), "predict": ("predict",)}


class ChipsDataModule(LightningDataModule):
    """Windows of the chips of a benchmark, of however many CRSs; each part is opened when its stage begins.

    Batches are dictionaries: ``image`` (B, C, H, W) float32, ``mask`` (B, H, W) int64 with classes and void 255,
    ``invalid`` (B, H, W) bool, and lists ``chip``, ``domain``, ``line`` and ``column``. Batches to be predicted are of
    the target, without a mask.

    Args:
        datasets: Opens the chips of ``train``, ``validation`` or ``target``, with labels or without.
        statistics: Standardise images, on their device; None leaves them in the benchmark's unit.
        window: Side of windows in pixels.
        stride: Step between windows where chips are covered; by default half a window.
        length: Random windows per epoch of training; by default as many as would tile the chips.
        seed: Seed of the training windows, which are others in each epoch.
    """

    def __init__(
        self, datasets: Callable[..., list[SpectralChips]], statistics: BandStatistics | None, *, window: int = 64,
        stride: int | None = None, batch_size: int = 8, length: int | None = None, workers: int = 0, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.datasets, self.window, self.stride = datasets, window, stride or max(1, window // 2)
        self.batch_size, self.length, self.workers, self.seed = batch_size, length, workers, seed
        self.normalise = None if statistics is None else Normalise(statistics)
        self.opened: dict[str, ChipCollection] = {}

    def setup(self, stage: Stage) -> None:
        """Open what a stage needs, and nothing else."""
        for part in _NEEDED[stage]:
            if part not in self.opened:
                role, labels = ("target", False) if part == "predict" else (part, True)
                self.opened[part] = ChipCollection(self.datasets(role, labels=labels))

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Random windows of the training chips."""
        chips = self.opened["train"]
        pixels = sum(row["height"] * row["width"] for _, _, row in chips.chips())
        length = self.length or max(self.batch_size, pixels // self.window**2)
        return self._loader("train", _Windows(chips, self.window, length, self.seed))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Windows that cover the validation chips."""
        return self._covering("validation")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Windows that cover the target chips."""
        return self._covering("target")

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The same without labels."""
        return self._covering("predict")

    def _covering(self, part: str) -> DataLoader[dict[str, Any]]:
        return self._loader(part, GridCollectionWindows(self.opened[part], self.window, self.stride))

    def _loader(self, part: str, sampler: Sampler[Any]) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            self.opened[part], batch_size=self.batch_size, sampler=sampler, num_workers=self.workers,
            collate_fn=_unlabelled if part == "predict" else _stacked,
        )  # fmt: skip

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """Standardise the images."""
        if self.normalise is None:
            return batch
        images = batch["image"]
        return {**batch, "image": self.normalise.to(images.device)(images)}


class _Windows(RandomCollectionWindows):
    """Random windows, others in each epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.seed = seed_from("data module", self.first_seed, epoch)

    def __init__(self, collection: ChipCollection, size: int, length: int, seed: int) -> None:
        super().__init__(collection, size, length, seed)
        self.first_seed = seed
        self.set_epoch(0)


def _stacked(samples: list[dict[str, Any]]) -> dict[str, Any]:
    names, tensors = ("chip", "domain", "line", "column"), ("image", "mask", "invalid")
    lists = {name: [sample[name] for sample in samples] for name in names}
    return {**{name: torch.stack([sample[name] for sample in samples]) for name in tensors}, **lists}


def _unlabelled(samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = _stacked(samples)
    del batch["mask"]
    return batch
