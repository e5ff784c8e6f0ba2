"""Cut a run in two: features of its frozen backbone, once for all runs that share them, and a decoder on top."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.loaders import EvaluationData, Normalise, SourceData
from spectral_tl_bench.data.rasters import ChipCollection
from spectral_tl_bench.features.data import FeatureEvaluation, KeptSource, TrainingWindows
from spectral_tl_bench.features.modules import (
    FeatureMaps,
    HeadOnFeatures,
    HeadOnImages,
    check_parts,
    compute_features,
)
from spectral_tl_bench.features.store import (
    STORED,
    FeatureIdentity,
    StoredMaps,
    bytes_of,
    check_room,
    feature_folder,
    find_or_write,
)
from spectral_tl_bench.features.windows import WindowImages, grid_windows
from spectral_tl_bench.methods.base import KeptFeatures
from spectral_tl_bench.storage import touch

NUMERICS_VERSION = 1
"""Raised by hand whenever features, or the windows that a head trains on, may change."""

Shapes = list[tuple[int, int, int, int]]


@dataclass
class Cost:
    """What features took.

    Attributes:
        seconds: In this run.
        original: Seconds when they were computed, by this run or another.
        facts: For the record, by role.
    """

    seconds: float = 0.0
    original: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def elsewhere(self) -> float:
        """To be added to this run's time, so that features cost the same whoever computed them."""
        return max(0.0, self.original - self.seconds)


class FeatureRun:
    """A method's run on kept features.

    Args:
        wanted: What the method declares.
        identify: Gives what features depend on, from chips, stride, symmetries and what is kept of the levels.
        limit: For all kept features, in GiB; 0 keeps none and computes them at every step.
        title: Name of the method, for messages.
    """

    def __init__(
        self,
        module: nn.Module,
        source: SourceData,
        wanted: KeptFeatures,
        identify: Callable[[ChipCollection, int, int, tuple[int, ...]], FeatureIdentity],
        limit: float,
        device: torch.device,
        say: Callable[[str], None],
        title: str,
    ) -> None:
        self.module, self.wanted, self.identify, self.stored = module, wanted, identify, limit > 0
        self.limit, self.device, self.say = limit, device, say
        self.training, self.testing = Cost(), Cost()
        self.normalise = Normalise(source.statistics).to(device)
        self._original, self.window, self.workers = source, source.settings.window, source.settings.workers
        self._sample, self.kept = self._check(title)

    def _check(self, title: str) -> tuple[Shapes, tuple[int, ...]]:
        """The shapes of one window's features, and the levels in use, after a check that the module has two parts."""
        windows = grid_windows(self._original.collection, self.window, self.window)[:1]
        image = WindowImages(self._original.collection, windows, self.window).rows([0]).to(self.device)
        maps, used = check_parts(self.module.to(self.device), self.normalise(image), title)
        return [(len(feature_map), *feature_map.shape[1:]) for feature_map in maps], used

    def shapes(self, rows: int) -> Shapes:
        """(rows, channels, height, width) of each level that is kept."""
        return [(rows, *self._sample[place][1:]) for place in self.kept]

    def _identity(self, collection: ChipCollection, stride: int, copies: int) -> FeatureIdentity:
        """What features depend on; those of all levels where they are there already, for a decoder that needs more."""
        everything = self.identify(collection, stride, copies, tuple(range(len(self._sample))))
        if not self.stored or feature_folder(everything).exists():
            return everything
        return self.identify(collection, stride, copies, self.kept)

    def check_room(self, target: list[tuple[int, int]]) -> None:
        """Refuse what would not fit, before anything is computed.

        Args:
            target: Height and width of the target's chips: how many windows there will be is all that is used.

        Raises:
            StorageError: If the limit or the disk is too small.
        """
        if not self.stored:
            return
        source, stride = self._original, self._original.settings.stride
        training = len(grid_windows(source.collection, self.window, self.window)) * self.wanted.copies
        validation = sum(source.validation.windows_per_chip().values())
        testing = sum(len(grid(h, self.window, stride)) * len(grid(w, self.window, stride)) for h, w in target)
        rows = {"training": training, "validation": validation, "target": testing}
        known = (self._training_identity(), self._identity(source.validation.collection, stride, 1))
        folders = [feature_folder(identity) for identity in known]
        if all(folder.exists() for folder in folders):
            return  # the target's key is not made before training is over; it is checked when it is
        for folder in folders:
            touch(folder)  # what this run will use does not give way to it
        missing = {name: bytes_of(self.shapes(count), self.wanted.dtype) for name, count in rows.items()}
        check_room(missing, self.limit, self.say)

    def _training_identity(self) -> FeatureIdentity:
        return self._identity(self._original.collection, self.window, self.wanted.copies)

    def source(self) -> tuple[nn.Module, SourceData]:
        """What is trained, and the data it trains on; features of the source are computed here."""
        source, copies = self._original, self.wanted.copies
        windows = grid_windows(source.collection, self.window, self.window)
        images = WindowImages(source.collection, windows, self.window, copies)
        if not self.stored:
            training = TrainingWindows(images, source.collection, windows, self.window, copies, source.domains)
            head = HeadOnImages(self.module, STORED[self.wanted.dtype][0])
            return head, KeptSource(source, training, source.validation, self.normalise)
        maps = self._stored(self._training_identity(), images, self.training, "training")
        validation = self._evaluation(source.validation, self.training, "validation")
        training = TrainingWindows(maps, source.collection, windows, self.window, copies, source.domains)
        head_only = HeadOnFeatures(self.module.decoder)  # type: ignore[arg-type]
        return head_only, KeptSource(source, training, validation, nn.Identity())

    def target(self, data: EvaluationData) -> EvaluationData:
        """Target chips as the trained head wants them; to be called when training is over and not before."""
        return self._evaluation(data, self.testing, "target") if self.stored else data

    def _evaluation(self, data: EvaluationData, cost: Cost, role: str) -> EvaluationData:
        stride = data.settings.stride
        windows = grid_windows(data.collection, self.window, stride)
        images = WindowImages(data.collection, windows, self.window)
        return FeatureEvaluation(data, self._stored(self._identity(data.collection, stride, 1), images, cost, role))

    def _stored(self, identity: FeatureIdentity, images: WindowImages, cost: Cost, role: str) -> StoredMaps:
        started = time.monotonic()
        shapes = [(len(images), *self._sample[place][1:]) for place in identity.kept]
        maps, reused = find_or_write(
            identity, shapes, lambda: self._computed(images), self.limit, lambda line: self.say(f"{role}: {line}")
        )
        maps.wanted = self.kept
        cost.seconds += time.monotonic() - started
        cost.original += maps.card.seconds
        cost.facts[role] = {"features": identity.key[:16], "reused": reused, "windows": len(images)}
        return maps

    def _computed(self, images: WindowImages) -> Iterator[FeatureMaps]:
        loader: DataLoader[Tensor] = DataLoader(
            images, batch_size=self._original.settings.eval_batch_size, num_workers=self.workers,
            generator=torch.Generator(),  # the global random state stays as it is, whether features are there or not
        )  # fmt: skip
        self.module.to(self.device)
        for batch in loader:
            yield FeatureMaps(compute_features(self.module, self.normalise(batch.to(self.device))), self.window)

    def facts(self) -> dict[str, Any]:
        """What the record says about the features."""
        facts: dict[str, Any] = {"fixed_windows": True, "copies": self.wanted.copies, "stored": self.stored}
        return facts | {
            "features": {**self.training.facts, **self.testing.facts},
            "feature_seconds_here": round(self.training.seconds + self.testing.seconds, 3),
            "feature_seconds": round(self.training.original + self.testing.original, 3),
        }


@dataclass(frozen=True)
class ImageRun:
    """A method's run on images; stands where ``FeatureRun`` stands for kept features.

    Args:
        images: Training windows and validation chips.
    """

    module: nn.Module
    images: SourceData
    training: Cost = field(default_factory=Cost)
    testing: Cost = field(default_factory=Cost)

    def source(self) -> tuple[nn.Module, SourceData]:
        """What is trained, and the data it trains on."""
        return self.module, self.images

    def target(self, data: EvaluationData) -> EvaluationData:
        """Target chips as the trained module wants them."""
        return data

    def facts(self) -> dict[str, Any]:
        """What the record says about it: nothing."""
        return {}
