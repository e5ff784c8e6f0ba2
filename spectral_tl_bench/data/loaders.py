"""From splits to batches: source data for training, and chips for evaluation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.ground import blocks
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets
from spectral_tl_bench.data.reading_threads import in_threads
from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.samplers import Remaining
from spectral_tl_bench.data.shares import WHOLE, BatchParts, Share
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.data.windows import SlidingWindows
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import seed_from

IMAGES = ("image", "target_image")
"""What of a batch is pixels."""


@dataclass(frozen=True)
class LoaderSettings:
    """How chips are read; of these only window, stride and batch size can change a result.

    Attributes:
        window: Side of training and evaluation windows in pixels.
        stride: Step of evaluation windows in pixels.
        batch_size: Windows per training step.
        workers: Readers: threads or processes, see ``Readers``.
        eval_batch_size: Windows per forward pass in evaluation.
        pinned: Whether batches lie in memory from which a GPU fetches them while it computes, with integers as the
            files have them: see ``on_device``.
        rules: How pixels reach a module, as the protocol says.
    """

    window: int
    stride: int
    batch_size: int
    workers: int = 0
    eval_batch_size: int = 32
    pinned: bool = False
    rules: PixelRules = field(default_factory=PixelRules)

    @property
    def windows(self) -> SlidingWindows:
        """Which windows there are, and what becomes of them."""
        return self.rules.windows.at(self.window)


class Readers(DataLoader[Any]):
    """A loader of windows, whose readers are threads where all chips are packed and windows are taken as they are.

    Else they are processes, which live as long as the loader does, and share the chips that they keep. Either way, what
    the user can mend is raised as it is.

    Args:
        collection: The chips.
        settings: How many readers, and where their batches lie.
        **more: Of ``DataLoader``.
    """

    def __init__(self, collection: ChipCollection, settings: LoaderSettings, **more: Any) -> None:
        as_they_are = type(settings.windows).prepare is SlidingWindows.prepare  # nobody else looks at single windows
        packed = all(len(dataset.packed.places) == len(dataset) for dataset in collection.datasets)
        by_threads = packed and as_they_are
        self.threads = min(settings.workers, available_cores()) if by_threads else 0  # more are in each other's way
        processes = 0 if by_threads else settings.workers
        if processes:
            collection.share_caches()
        dataset: Dataset[Any] = collection.as_stored() if as_they_are else collection
        if processes:
            dataset, more["collate_fn"] = _Batches(dataset, more["collate_fn"]), _as_it_is
        super().__init__(
            dataset, num_workers=processes, persistent_workers=processes > 0, pin_memory=settings.pinned, **more
        )

    def __iter__(self) -> Any:
        """Batches, from the first one on."""
        if self.threads or (self.persistent_workers and self._iterator is not None):
            # As loaders do whose processes begin anew: random numbers must not depend on how chips are read.
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        if self.threads:
            return in_threads(self, self.threads)
        batches = super().__iter__()
        return _raised(batches) if self.num_workers else batches


class _Batches(Dataset[Any]):
    """Batches for reader processes to fetch: what the user can mend is handed over, and raised by ``_raised``.

    PyTorch would raise it as text, with the traceback of the reader process.
    """

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        try:
            return self.collate([self.dataset[key] for key in keys])
        except UserError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _raised(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def stacked(images: Sequence[Tensor | np.ndarray[Any, Any]], integers: bool = False) -> Tensor:
    """Images (C, H, W) of windows as (B, C, H, W), float32, or with ``integers`` of the type that all have."""
    arrays = [image if isinstance(image, np.ndarray) else image.numpy() for image in images]
    kinds = {array.dtype for array in arrays}
    dtype = arrays[0].dtype if integers and len(kinds) == 1 else np.dtype(np.float32)
    return torch.from_numpy(np.stack(arrays, dtype=dtype))  # NumPy's memory comes in large pages: twice as fast


def stacked_masks(masks: Sequence[Tensor]) -> Tensor:
    """Classes (H, W) of windows as (B, H, W)."""
    if get_worker_info() is not None:
        return default_collate(list(masks))  # into memory that is handed over as it is
    return torch.from_numpy(np.stack([mask.numpy() for mask in masks]))  # torch.stack has threads of its own


def on_device(images: Any, device: torch.device | str) -> Any:
    """Images of a batch, or features of them, where they are computed with: integers become float32 there."""
    images = images.to(device, non_blocking=True)
    return images.float() if isinstance(images, Tensor) and not images.is_floating_point() else images


class _Collate:
    """Stacks windows into a batch; without ``labelled`` no label is in it. It can be pickled, for reader processes."""

    def __init__(self, domains: Sequence[str], labelled: bool, settings: LoaderSettings) -> None:
        self.domains, self.labelled, self.settings = list(domains), labelled, settings

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        samples = [self.settings.windows.prepare(sample) for sample in samples]
        batch = {
            "image": stacked([sample["image"] for sample in samples], self.settings.pinned),
            "domain": torch.tensor([self.domains.index(sample["domain"]) for sample in samples]),
        }
        if self.labelled:
            batch["mask"] = stacked_masks([sample["mask"] for sample in samples])
        return batch


class _CollateImages:
    """Stacks the pixels of windows, and where it is asked for, notes in which chip they belong. No label is in it."""

    def __init__(self, settings: LoaderSettings, places: tuple[str, ...] = ()) -> None:
        self.settings, self.places = settings, places

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        images = [self.settings.windows.prepare(sample)["image"] for sample in samples]
        return {
            "image": stacked(images, self.settings.pinned),
            **{name: [sample[name] for sample in samples] for name in self.places},
        }


class _CollateOnce(_Collate):
    """Collates windows that lie side by side; what an earlier window of the chip has held is void.

    The last window of a line or column is moved inwards, so that it ends with the chip.
    """

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(samples)
        for mask, sample in zip(batch.get("mask", ()), samples, strict=False):
            for start, lines in ((sample["line"], mask), (sample["column"], mask.T)):
                beyond = start % len(lines)
                lines[: len(lines) - beyond if beyond else 0] = VOID
        return batch


__all__ = ["BandStatistics", "EvaluationData", "LoaderSettings", "Normalise", "SourceData", "TargetImages"]


class EvaluationData:
    """Whole chips to be predicted, window by window.

    Args:
        benchmark: The benchmark.
        index: Its chips.
        chips: The chips to evaluate.
        settings: Windows and batches.
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
            collate_fn=_CollateImages(settings, ("chip", "line", "column")),
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
        benchmark: The benchmark.
        index: Its chips.
        chips: The target chips.
        settings: Windows and batches.
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
            collate_fn=_CollateImages(settings),
        )  # fmt: skip


def training_batches(sampler: Sampler[Any], batch_size: int, share: Share, done: int = 0) -> dict[str, Any]:
    """How a loader makes training batches: whole ones, or a process's share of each, without those that are done."""
    sampler = Remaining(sampler, done * batch_size)
    if share.size == 1:
        return {"sampler": sampler, "batch_size": batch_size, "drop_last": True}
    return {"batch_sampler": BatchParts(sampler, batch_size, share)}


class WithTargetImages:
    """Batches of source windows, each with a batch of target windows as ``target_image``."""

    def __init__(self, source: DataLoader[dict[str, Tensor]], target: DataLoader[dict[str, Tensor]]) -> None:
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch, other in zip(self.source, self.target, strict=True):
            yield {**batch, "target_image": other["image"]}


class SourceData:
    """What training may see: training windows and validation chips, both of the source.

    The target is not reachable from here: the datasets inside hold source chips only. (Methods that declare
    ``target_images`` get ``TargetImages`` beside, whose results stand apart.)

    Args:
        benchmark: The benchmark.
        index: Its chips.
        split: Who does what.
        settings: Windows and batches.
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
            steps: Steps of the stage.
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
            collate_fn=_Collate(self.domains, labelled, settings),
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
            collate_fn=_CollateOnce(self.domains, labelled, settings),
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
