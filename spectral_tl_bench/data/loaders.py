"""From splits to batches: source data for training, and chips for evaluation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.batches import Collate, CollateImages, CollateOnce, WithTargetImages, training_batches
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.ground import blocks
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets
from spectral_tl_bench.data.readers import LoaderSettings, Readers
from spectral_tl_bench.data.shares import WHOLE, Share
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.files import seed_from

__all__ = ["BandStatistics", "EvaluationData", "LoaderSettings", "Normalise", "SourceData", "TargetImages"]


class EvaluationData:
    """Whole chips to be predicted, window by window.

    Args:
        statistics: Of the source training chips; fills pixels without a measurement.
        cache: Chips kept in memory.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        index: ChipIndex,
        chips: Sequence[str],
        settings: LoaderSettings,
        statistics: BandStatistics,
        cache: ChipCache | None = None,
    ) -> None:
        self.benchmark, self.settings = benchmark, settings
        # Not the index, which knows chips of all roles.
        self._reading = index.root, index.packed.of(chips), statistics, cache
        self.collection = ChipCollection(open_datasets(benchmark, index, chips, cache=cache, fill=statistics.mean))
        self.rows = {row["chip"]: row for _, _, row in self.collection.chips()}
        self._place = {row["chip"]: (dataset, number) for dataset, number, row in self.collection.chips()}

    def loader(self) -> DataLoader[dict[str, Any]]:
        """Batches of windows, chip by chip."""
        settings = self.settings
        sampler = settings.windows.evaluation(self.collection, settings.window, settings.stride)
        return Readers(
            self.collection, settings, batch_size=settings.eval_batch_size, sampler=sampler,
            collate_fn=CollateImages(settings, ("chip", "line", "column")),
        )  # fmt: skip

    def share(self, share: Share) -> EvaluationData:
        """The chips of one process; where there are fewer chips than processes, a share may have none.

        A chip is in one share only. Sites may be other ones than those of all chips together: ask the whole for them.
        """
        return self.only(share.chips(list(self.rows)))

    def only(self, chips: Sequence[str]) -> EvaluationData:
        """Some of the chips, which may be none."""
        root, packed, statistics, cache = self._reading
        index = ChipIndex(root, pd.DataFrame(list(self.rows.values())).set_index("chip"), {}, (), packed=packed)
        return EvaluationData(self.benchmark, index, chips, self.settings, statistics, cache)

    def windows_per_chip(self) -> dict[str, int]:
        """How many windows cover each chip."""
        window, stride, windows = self.settings.window, self.settings.stride, self.settings.windows
        return {chip: windows.count(row["height"], row["width"], window, stride) for chip, row in self.rows.items()}

    def truth(self, chip: str) -> np.ndarray[Any, Any]:
        """The classes of one chip (H, W), with void."""
        return self.settings.windows.prepare(self._whole(chip))["mask"].numpy()

    def image(self, chip: str) -> np.ndarray[Any, Any]:
        """The pixels of one chip (C, H, W), in the files' unit."""
        return self._whole(chip)["image"].numpy()

    def seen(self, chip: str) -> np.ndarray[Any, Any]:
        """The pixels of one chip (C, H, W) as they are predicted from: of the size of ``truth``."""
        return self.settings.windows.prepare(self._whole(chip))["image"].numpy()

    def _whole(self, chip: str) -> dict[str, Any]:
        dataset, number = self._place[chip]
        row = self.rows[chip]
        return self.collection.datasets[dataset].read_window(number, 0, 0, row["height"], row["width"])

    def site(self, chip: str) -> str:
        """The place a chip belongs to: its site, or its block on the ground; itself, where that is not known."""
        return str(self.rows[chip]["site"]) or self._blocks.get(chip, chip)

    @functools.cached_property
    def _blocks(self) -> dict[str, str]:
        """The block of each chip that has no site and lies somewhere on the Earth."""
        frame = pd.DataFrame([row for row in self.rows.values() if not row["site"]])
        return {} if frame.empty else blocks(frame.set_index("chip"), self.benchmark.split.block)


class TargetImages:
    """Windows of target chips without their labels, for methods that say that they need them.

    Args:
        statistics: Of the source training chips; fills pixels without a measurement.
    """

    def __init__(
        self, benchmark: Benchmark, index: ChipIndex, chips: Sequence[str], settings: LoaderSettings,
        statistics: BandStatistics,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.collection = ChipCollection(open_datasets(benchmark, index, chips, fill=statistics.mean, labels=False))

    def loader(self, steps: int, seed: int, share: Share = WHOLE, done: int = 0) -> DataLoader[dict[str, Tensor]]:
        """``steps`` batches of random windows with nothing but ``image``; see ``SourceData.train_loader``."""
        settings, length = self.settings, steps * self.settings.batch_size
        sampler = settings.windows.training(self.collection, settings.window, length, seed, balanced=False)
        return Readers(
            self.collection, settings, **training_batches(sampler, settings.batch_size, share, done),
            collate_fn=CollateImages(settings),
        )  # fmt: skip


class SourceData:
    """What training may see: training windows and validation chips, both of the source.

    The target is not reachable from here: the datasets inside hold source chips only. (Methods that declare
    ``target_images`` get ``TargetImages`` beside, whose results stand apart.)

    Args:
        order_seed: Seed of the data order, from benchmark and seed, so that methods see the same windows.
    """

    def __init__(
        self, benchmark: Benchmark, index: ChipIndex, split: SplitTable, settings: LoaderSettings, order_seed: int
    ) -> None:
        self.settings, self.order_seed, self.balanced = settings, order_seed, False
        self.target_images: TargetImages | None = None
        train, validation = split.chips("train"), split.chips("validation")
        self.domains, self.wavelengths = tuple(benchmark.source), benchmark.sensor.wavelengths
        self.statistics = BandStatistics.of(index, train)
        self.class_pixels = np.sum(index.frame.loc[train, "class_counts"].tolist(), axis=0)
        cache = ChipCache()
        self.collection = ChipCollection(open_datasets(benchmark, index, train, cache=cache, fill=self.statistics.mean))
        self.validation = EvaluationData(benchmark, index, validation, settings, self.statistics, cache)

    def train_loader(
        self, steps: int, labelled: bool, stage: str, share: Share = WHOLE, done: int = 0
    ) -> DataLoader[dict[str, Tensor]] | WithTargetImages:
        """``steps`` batches of random windows; without ``labelled`` they carry no mask.

        Args:
            labelled: Whether batches carry ``mask``.
            stage: Name of the data order.
            share: Which part of each batch.
            done: Batches that training has had before it was cut off: they are not read again. The length counts them.
        """
        settings = self.settings
        length = steps * settings.batch_size
        sampler = settings.windows.training(
            self.collection, settings.window, length, seed_from("windows", self.order_seed, stage), self.balanced
        )
        loader = Readers(
            self.collection, settings, **training_batches(sampler, settings.batch_size, share, done),
            collate_fn=Collate(self.domains, labelled, settings),
        )  # fmt: skip
        target = self.target_loader(steps, stage, share, done)
        return loader if target is None else WithTargetImages(loader, target)

    def target_loader(
        self, steps: int, stage: str, share: Share = WHOLE, done: int = 0
    ) -> DataLoader[dict[str, Tensor]] | None:
        """``steps`` batches of random target windows, with ``image`` alone; None for methods that do not see any."""
        if self.target_images is None:
            return None
        return self.target_images.loader(steps, seed_from("target windows", self.order_seed, stage), share, done)

    def sweep_loader(self, labelled: bool) -> DataLoader[dict[str, Tensor]]:
        """Windows side by side over all training chips, each labelled pixel once; without ``labelled`` no mask."""
        settings = self.settings
        sampler = settings.windows.sweep(self.collection, settings.window)
        return Readers(
            self.collection, settings, batch_size=settings.batch_size, sampler=sampler,
            collate_fn=CollateOnce(self.domains, labelled, settings),
        )  # fmt: skip

    def normaliser(self) -> nn.Module:
        """What comes before the module, for images in the files' unit."""
        return self.settings.rules.normalise(self.statistics)

    def augmentation(self, stage: str) -> nn.Module | None:
        """What happens to the training windows of a stage; called as (images, masks or None, step)."""
        return self.settings.rules.augment(seed_from("augment", self.order_seed, stage))

    def balanced_domains(self) -> SourceData:
        """The same data, with each domain drawn equally often, and not in proportion to its chips."""
        other = copy.copy(self)
        other.balanced = True
        return other

    def reordered(self, order_seed: int) -> SourceData:
        """The same data, with windows in another order."""
        other = copy.copy(self)
        other.order_seed = order_seed
        return other

    @property
    def majority_class(self) -> int:
        """The class with most labelled pixels among the training chips."""
        return int(np.argmax(self.class_pixels))
