"""A benchmark with its chips, as TorchGeo datasets and a Lightning data module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rasterio.transform import from_origin

from spectral_tl_bench.benchmarks import Benchmark, resolve
from spectral_tl_bench.console import user_path
from spectral_tl_bench.data.datamodule import ChipsDataModule
from spectral_tl_bench.data.normalisation import BandStatistics
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets, open_together
from spectral_tl_bench.errors import BenchmarkError, DataError, nearest
from spectral_tl_bench.runner.definitions import OpenBenchmark
from spectral_tl_bench.runner.planning import open_benchmark
from spectral_tl_bench.runner.request import Request

ROLES = ("train", "validation", "source", "target")
"""Parts of a benchmark; ``source`` is training and validation together."""


Transforms = Callable[[dict[str, Any]], dict[str, Any]]


class AsTorchGeo:
    """Leaves of a sample what the installed TorchGeo has in its own: it stacks nothing else.

    Up to 0.8 these are ``image``, ``mask``, ``crs`` and ``bounds``; later ``image``, ``mask``, and the tensors
    ``bounds`` and ``transform``.

    Args:
        dataset: Whose samples they are.
        then: Called with what is left.
    """

    def __init__(self, dataset: SpectralChips, then: Transforms | None = None) -> None:
        self.dataset, self.then = dataset, then

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The same sample with fewer keys."""
        plain = {name: sample[name] for name in ("image", "mask")}
        if hasattr(self.dataset, "_slice_to_tensor"):
            x, y, _ = sample["bounds"]
            plain["bounds"] = self.dataset._slice_to_tensor(sample["bounds"])
            plain["transform"] = torch.tensor(from_origin(x.start, y.stop, *self.dataset.res))
        else:
            plain |= {name: sample[name] for name in ("crs", "bounds")}
        return plain if self.then is None else self.then(plain)


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark with its chips found, checked and cut: what ``load_benchmark`` gives.

    Chips between two parts, which the cut leaves out, are in no role.

    Attributes:
        opened: The benchmark and its chips, as a run has them.
        seed: Seed of the cut between training and validation, and of the order of training windows.
    """

    opened: OpenBenchmark
    seed: int = 0

    @property
    def definition(self) -> Benchmark:
        """What the benchmark is: sensor, domains, classes, split."""
        return self.opened.benchmark

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits; void is 255."""
        return self.definition.labels.names

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the pixels."""
        return self.definition.sensor.band_names

    @property
    def track(self) -> str:
        """The board that results on these data stand on; ``sample`` for the bundled synthetic scenes."""
        return self.opened.track

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the data, and how the source was cut."""
        return (self.opened.source.line, *self.opened.notes, *self.opened.split(self.seed).notes)

    @property
    def statistics(self) -> BandStatistics:
        """Mean and deviation of each band over the training chips."""
        return self.opened.statistics(self.seed)

    def chips(self, role: str) -> pd.DataFrame:
        """The chips of a role, by name: domain, site, image and label (below the data root), place and size."""
        columns = ["domain", "site", "image", "label", "crs", "xmin", "ymin", "xmax", "ymax", "height", "width"]
        return self.opened.index.frame.loc[self._names(role), columns]

    def dataset(
        self, role: str, *, crs: str | None = None, labels: bool = True, names: bool = False,
        transforms: Transforms | None = None,
    ) -> SpectralChips:  # fmt: skip
        """The chips of a role as a TorchGeo ``RasterDataset``, for TorchGeo's samplers and loaders.

        Nothing is resampled. Chips of several CRSs, as those of Sentinel-2 on more than one UTM zone, lie side by side
        on a local grid of one pixel per unit; ``datasets`` leaves them on the ground.

        Args:
            role: One of ``ROLES``.
            crs: Only the chips of this CRS, such as ``EPSG:32633``, which lie on the ground.
            labels: Whether labels are read; without, every mask is void.
            names: Whether samples also tell chip, domain, place and ``invalid``, as ``SpectralChips`` describes them.
                TorchGeo's ``stack_samples`` and data modules take samples without.
            transforms: Called with every sample.

        Returns:
            A dataset; unmeasured values are the mean of the training chips.

        Raises:
            DataError: If there is no such role, or no chip of it is in the CRS.
        """
        chips = self._names(role)
        if crs is not None:
            systems = self.opened.index.frame.loc[chips, "crs"]
            chips = list(systems.index[systems == crs])
            if not chips:
                raise DataError(f"no chip of the role {role!r} is in {crs!r}", expected=nearest(crs, set(systems)))
        found = open_together(self.definition, self.opened.index, chips, fill=self.statistics.mean, labels=labels)
        return _shaped(found, names, transforms)

    def datasets(
        self, role: str, *, labels: bool = True, names: bool = False, transforms: Transforms | None = None
    ) -> list[SpectralChips]:
        """The same as one dataset for each CRS, in which chips lie on the ground."""
        chips, fill = self._names(role), self.statistics.mean
        found = open_datasets(self.definition, self.opened.index, chips, fill=fill, labels=labels)
        return [_shaped(one, names, transforms) for one in found]

    def datamodule(
        self, *, window: int = 64, stride: int | None = None, batch_size: int = 8, length: int | None = None,
        workers: int = 0, normalise: bool = True,
    ) -> ChipsDataModule:  # fmt: skip
        """A Lightning data module: fitted on training windows, validated on validation, tested on the target.

        Args:
            window: Side of windows in pixels.
            stride: Step between the windows of validation, test and prediction; by default half a window.
            batch_size: Windows per batch.
            length: Random training windows per epoch; by default as many as would tile the training chips.
            workers: Reader processes.
            normalise: Whether images are standardised by the statistics of the training chips.
        """
        return ChipsDataModule(
            functools.partial(self.datasets, names=True), self.statistics if normalise else None, window=window,
            stride=stride, batch_size=batch_size, length=length, workers=workers, seed=self.seed,
        )  # fmt: skip

    def _names(self, role: str) -> list[str]:
        if role not in ROLES:
            raise DataError(f"there is no role {role!r}", expected=f"one of {', '.join(ROLES)}")
        split = self.opened.split(self.seed)
        return sorted(split.chips("train") + split.chips("validation")) if role == "source" else split.chips(role)

    def __repr__(self) -> str:
        count = ", ".join(f"{len(self._names(role))} {role}" for role in ROLES if role != "source")
        return f"<{self.definition.id}: {count} chips, {len(self.bands)} bands, {len(self.classes)} classes>"


def _shaped(dataset: SpectralChips, names: bool, transforms: Transforms | None) -> SpectralChips:
    dataset.transforms = transforms if names else AsTorchGeo(dataset, transforms)
    return dataset


def load_benchmark(
    benchmark: str | Path, data_root: str | Path | None = None, *, seed: int = 0, allow_partial: bool = False,
    trust_data: bool = False, packed: str | Path | None = None,
) -> LoadedBenchmark:  # fmt: skip
    """Find, check and cut the chips of a benchmark.

    The target is there to be looked at and to be tested on. Whoever trains on it has left the protocol; what
    ``run`` gives to a method cannot lead there.

    Args:
        benchmark: Id, or path of a YAML file of your own.
        data_root: Folder of the datasets; by default ``STBENCH_DATA``, else the bundled sample.
        seed: Seed of the cut between training and validation.
        allow_partial: Whether published data may be incomplete.
        trust_data: Whether links and VRTs may lead out of the data root.
        packed: Folder of packed chips, or ``off``; by default ``STBENCH_PACKED``, else the cache.

    Raises:
        BenchmarkError: If the name is unknown, stands for several benchmarks, or its file cannot be used.
        DataError: If the data are not there, cannot be read, or are not what the benchmark says.
    """
    found = resolve([str(benchmark)])
    if len(found) > 1:
        raise BenchmarkError(f"{str(benchmark)!r} stands for {len(found)} benchmarks", expected="one of "
                             + ", ".join(one.id for one, _ in found))  # fmt: skip
    [(definition, own_folder)] = found
    where = Request(
        [definition.id], [], seeds=[seed], data_root=None if data_root is None else user_path(data_root),
        allow_partial=allow_partial, trust_data=trust_data, packed=None if packed is None else str(packed),
    )  # fmt: skip
    loaded = LoadedBenchmark(open_benchmark(definition, own_folder, where), seed)
    loaded.opened.split(seed)
    return loaded
