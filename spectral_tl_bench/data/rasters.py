"""TorchGeo datasets over chips: a window in, the file's own pixels and labels out.

``RasterDataset`` warps every file to the CRS of its first one and merges what overlaps. A benchmark must do
neither: here one dataset holds the chips of one CRS, and every chip has a slot of its own on the time axis, so
that a query (x, y, t) names one chip even where chips overlap on the ground.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import geopandas
import numpy as np
import pandas as pd
import rasterio
import shapely
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datasets import RasterDataset

from spectral_tl_bench.benchmarks import VOID, Benchmark, builtin_benchmarks
from spectral_tl_bench.data.chip import SHORT, ReadingRules
from spectral_tl_bench.data.chip_cache import ChipCache, chip_bytes
from spectral_tl_bench.data.chip_files import Arrays, ChipFiles
from spectral_tl_bench.data.chip_windows import ChipWindows
from spectral_tl_bench.data.index import ChipIndex, build_index, side_by_side
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.data.placement import LOCAL_CRS, on_lattice, pixel_size
from spectral_tl_bench.data.units import Unit
from spectral_tl_bench.errors import DataError

GeoQuery = tuple[slice, slice, slice]
"""x, y in units of the CRS, and t: TorchGeo's spatiotemporal slice."""

NUMERICS_VERSION = 1
"""Raised by hand whenever pixels, labels or statistics that are read from the same files may change."""

EPOCH = pd.Timestamp("2000-01-01")
SLOT = pd.Timedelta(seconds=2)


class SpectralChips(RasterDataset):
    """Labelled chips of one CRS as a TorchGeo ``RasterDataset``.

    Samples are dictionaries: ``image`` (C, H, W) float32 in the benchmark's unit, north up, ``mask`` (H, W) int64
    with classes 0..K-1 and void 255, ``invalid`` (H, W) bool for pixels of which a band is unmeasured (its value is
    ``fill``), ``crs``, ``bounds`` (the query), ``chip`` and ``domain`` (names), ``line`` and ``column`` (the
    window's upper left pixel in its chip).

    Args:
        benchmark: The benchmark; gives bands, label map and colours.
        chips: Names of the chips to hold, all of one CRS; by default all of the index.
        cache: Chips kept in memory, shared between datasets.
        fill: Value per band (C,) for what is unmeasured; by default 0.
        transforms: Called with every sample.
        labels: Whether labels are read; without, they are not even known by name, and every mask is void.

    Raises:
        DataError: If the chips are of several CRSs or resolutions.
    """

    filename_glob = "*.tif"
    is_image = True
    rgb_bands: ClassVar[tuple[str, ...]] = ()

    def __init__(  # the base class would open and warp every file
        self,
        benchmark: Benchmark,
        index: ChipIndex,
        chips: Sequence[str] | None = None,
        *,
        cache: ChipCache | None = None,
        fill: np.ndarray[Any, Any] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        labels: bool = True,
    ) -> None:
        self.benchmark, self.root, self.transforms = benchmark, index.root, transforms
        self.paths = str(index.root)
        self.all_bands = self.bands = benchmark.sensor.band_names
        self.band_indexes = None
        self.chip_cache = cache or ChipCache()
        self.fill = np.zeros(len(self.all_bands), np.float32) if fill is None else fill.astype(np.float32)
        frame = index.frame if chips is None else index.frame.loc[list(chips)]
        self.packed = index.packed.of(frame.index, labels)
        if not labels:
            frame = frame.drop(columns=[name for name in frame if str(name).startswith(("label", "class_counts"))])
        systems = frame["crs"].unique()
        if len(systems) != 1:
            raise DataError(
                f"one dataset holds one CRS, these chips have {len(systems)}", where=index.root,
                fix="use open_datasets(), which makes a dataset for each",
            )  # fmt: skip
        self._res = (
            pixel_size((frame["xmax"] - frame["xmin"]) / frame["width"], index.root),
            pixel_size((frame["ymax"] - frame["ymin"]) / frame["height"], index.root),
        )
        starts = [EPOCH + number * SLOT for number in range(len(frame))]
        slots = pd.IntervalIndex.from_arrays(
            pd.DatetimeIndex(starts), pd.DatetimeIndex(starts) + SLOT / 2, closed="both", name="datetime"
        )
        # Arrays: a series would be aligned by chip name with the slots, and every geometry lost.
        xmin, ymax = (on_lattice(frame[edge].to_numpy(dtype=float), self._res) for edge in ("xmin", "ymax"))
        xmax, ymin = xmin + frame["width"].to_numpy() * self._res[0], ymax - frame["height"].to_numpy() * self._res[1]
        boxes = shapely.box(xmin, ymin, xmax, ymax)
        columns = {"filepath": [str(index.root / image) for image in frame["image"]], "chip": frame.index.to_numpy()}
        crs = rasterio.crs.CRS.from_wkt(systems[0]) if systems[0] == LOCAL_CRS else systems[0]
        self.index = geopandas.GeoDataFrame(columns, geometry=boxes, index=slots, crs=crs)
        self._rows = frame.reset_index(names="chip").to_dict("records")
        self._known: tuple[geopandas.GeoDataFrame, GeoQuery, Any] | None = None
        self._slot_of = {start.value: number for number, start in enumerate(starts)}
        reading = self.root, ReadingRules.of(benchmark), LabelMap(benchmark.labels)
        self._files, self._windows = ChipFiles(*reading), ChipWindows(*reading)
        self._casts = True
        self.chip_cache.expect({row["chip"]: chip_bytes(row, len(self.all_bands)) for row in self._rows})

    @property
    def files(self) -> list[str]:
        """The image files, sorted."""
        return sorted(self.index["filepath"])

    @property
    def bounds(self) -> GeoQuery:
        """Of all chips."""
        return self._of_index()[1]

    def _of_index(self) -> tuple[geopandas.GeoDataFrame, GeoQuery, Any]:
        """The index, its bounds and its CRS, kept as long as it is the same: each query takes them."""
        if self._known is None or self._known[0] is not self.index:
            self._known = self.index, super().bounds, self.crs
        return self._known

    def __getitem__(self, index: GeoQuery | slice) -> dict[str, Any]:
        """The pixels of one window of one chip, never resampled.

        Args:
            index: ``[xmin:xmax, ymin:ymax, tmin:tmax]`` as the samplers yield it. Where t is left out, the chip
                that contains the window is taken, or else the one that has most of it.

        A window that reaches over its chip's rim, or that a sampler with a large stride puts beside it, has the size
        that was asked for: what lies outside is ``fill``, void and invalid. Positions between pixels are moved to the
        nearest one.

        Raises:
            IndexError: If t is left out, and the window lies beside all chips or inside more than one.
        """
        x, y, t = self._disambiguate_slice(index)
        number = self._slot_of.get(t.start.value) if isinstance(t.start, pd.Timestamp) else None
        if number is None or t.stop - t.start > SLOT:
            number = self._only_chip_with(x, y, index)
        row = self._rows[number]
        column, line = (x.start - row["xmin"]) / self.res[0], (row["ymax"] - y.stop) / self.res[1]
        width, height = (x.stop - x.start) / self.res[0], (y.stop - y.start) / self.res[1]
        column, line, width, height = (round(value) for value in (column, line, width, height))
        if column < 0 or line < 0 or column + width > row["width"] or line + height > row["height"]:
            sample = self._padded_window(number, line, column, height, width)
        else:
            sample = self.read_window(number, line, column, height, width)
        sample |= {"crs": self._of_index()[2], "bounds": (x, y, t)}
        return sample if self.transforms is None else self.transforms(sample)

    def _only_chip_with(self, x: slice, y: slice, query: GeoQuery | slice) -> int:
        window, chips = shapely.box(x.start, y.start, x.stop, y.stop), self.index.geometry.to_numpy()
        hits = np.flatnonzero(shapely.contains(chips, window.buffer(-1e-6 * max(self.res))))
        if not len(hits) and _is_bounded(query):  # it reaches over a rim: the chip that has most of it
            shared = shapely.area(shapely.intersection(chips, window))
            hits = np.flatnonzero(shared > (1 - 1e-6) * shared.max())[:1]
        if len(hits) != 1:
            raise IndexError(f"query {query} lies in {len(hits)} chips; give t to name one")
        return int(hits[0])

    def _padded_window(self, number: int, line: int, column: int, height: int, width: int) -> dict[str, Any]:
        """``read_window`` for windows that reach outside, with what is not there as pixels without a measurement."""
        row = self._rows[number]
        # One pixel is read even where none is shared: a window between two pixels of the rim gets names, too.
        top, left = min(max(line, 0), row["height"] - 1), min(max(column, 0), row["width"] - 1)
        bottom, right = (max(end, 1) for end in (min(line + height, row["height"]), min(column + width, row["width"])))
        sample = self.read_window(number, top, left, max(bottom - top, 1), max(right - left, 1))
        image = torch.from_numpy(self.fill).reshape(-1, 1, 1).repeat(1, height, width)
        padded = {
            "image": image,
            "mask": torch.full((height, width), VOID),
            "invalid": torch.ones((height, width), dtype=torch.bool),
        }
        if line + height > 0 and column + width > 0 and line < row["height"] and column < row["width"]:
            there = (slice(top - line, bottom - line), slice(left - column, right - column))
            for key, values in padded.items():
                values[..., *there] = torch.from_numpy(np.array(sample[key]))
        return sample | padded | {"line": line, "column": column}

    def read_window(self, number: int, line: int, column: int, height: int, width: int) -> dict[str, Any]:
        """Pixels of chip ``number`` from (line, column), as a sample without geometry."""
        row = self._rows[number]
        stored, mask, holes = self._stored(row, (slice(line, line + height), slice(column, column + width)))
        invalid: np.ndarray[Any, Any] = np.zeros((height, width), dtype=bool)
        image: Tensor | np.ndarray[Any, Any] = stored
        if self._casts or len(row["gain"]) or holes.any() or stored.dtype.name not in SHORT:
            pixels = (Unit(row["gain"], row["bias"])(stored) if len(row["gain"]) else stored).astype(np.float32)
            if holes.any():
                missing = np.broadcast_to(holes, pixels.shape)
                pixels = np.where(missing, self.fill[:, None, None], pixels)
                invalid = np.asarray(missing.any(axis=0))
            image = torch.from_numpy(pixels)
        return {
            "image": image,
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "invalid": torch.from_numpy(invalid),
            "chip": row["chip"],
            "domain": row["domain"],
            "line": line,
            "column": column,
        }

    def as_stored(self) -> Self:
        """The same chips, whose windows have their ``image`` as the files do where a cast is all that is left to do.

        It is then an array of integers of 8 or 16 bits, not to be written to; see ``batches.stacked``.
        """
        other = copy.copy(self)
        other._casts = False
        return other

    def _stored(self, row: dict[Any, Any], window: tuple[slice, slice]) -> Arrays:
        """What a chip's files say of a window."""
        if (packed := self.packed.window(row, window)) is not None:
            return packed
        if not self.chip_cache.wants(row["chip"]) and (found := self._windows.read(row, window)) is not None:
            return found
        image, mask, holes = self.chip_cache.get(row["chip"], lambda: self._files.read(row))
        return image[:, *window], mask[window], holes[:, *window] if holes.size else holes

    def stored(self, number: int) -> Arrays:
        """What the files of chip ``number`` say of all of it."""
        row = self._rows[number]
        return self._stored(row, (slice(0, row["height"]), slice(0, row["width"])))

    def classes(self, number: int) -> np.ndarray[Any, Any]:
        """The classes of chip ``number`` (H, W), uint8 with void; its image is read only where that changes them."""
        row = self._rows[number]
        if row["chip"] in self.packed.places:
            return np.array(self.stored(number)[1])
        return self._files.classes(row)

    def chip_rows(self) -> list[dict[Any, Any]]:
        """The index rows of the chips, in the order of their slots."""
        return self._rows

    def slot(self, number: int) -> slice:
        """The time slice that names chip ``number``."""
        start = EPOCH + number * SLOT
        return slice(start, start + SLOT / 2)

    def plot(self, sample: dict[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Any:
        """A sample as a true-colour picture beside its label map.

        Args:
            sample: What ``__getitem__`` returned; a ``prediction`` (H, W) is shown as a third picture.
            show_titles: Whether to write titles above the pictures.
            suptitle: Title of the whole figure.

        Returns:
            A matplotlib ``Figure``.
        """
        from spectral_tl_bench.data.plots import sample_figure

        return sample_figure(self.benchmark, sample, show_titles, suptitle)


def _is_bounded(query: GeoQuery | slice) -> bool:
    """Whether a query says where its window begins and ends."""
    sides = query[:2] if isinstance(query, tuple) else ()
    return len(sides) == 2 and all(None not in (side.start, side.stop) for side in sides)


class WHUOHS(SpectralChips):
    """WHU-OHS chips: Orbita hyperspectral, 32 bands, 10 m (Li et al., JAG 113, 2022)."""

    rgb_bands = ("B15", "B07", "B02")


class DFC2020(SpectralChips):
    """DFC2020 chips: Sentinel-2 Level-1C, 13 bands, 10 m (IEEE GRSS Data Fusion Contest 2020)."""

    rgb_bands = ("B4", "B3", "B2")


class MTS12(SpectralChips):
    """MTS12 chips: four Sentinel-2 dates of six bands over Slovenia, 10 m."""

    rgb_bands = ("Jun-B04", "Jun-B03", "Jun-B02")


_CLASS_OF = {"WHU-OHS": WHUOHS, "DFC2020": DFC2020, "MTS12": MTS12}


def open_datasets(
    benchmark: Benchmark,
    index: ChipIndex,
    chips: Sequence[str] | None = None,
    *,
    cache: ChipCache | None = None,
    fill: np.ndarray[Any, Any] | None = None,
    labels: bool = True,
) -> list[SpectralChips]:
    """One TorchGeo dataset for each CRS among the chips, ordered by CRS; see ``SpectralChips``."""
    frame = index.frame if chips is None else index.frame.loc[list(chips)]
    kind = _CLASS_OF.get(benchmark.dataset, SpectralChips)
    cache = cache or ChipCache()
    return [
        kind(benchmark, index, list(part.index), cache=cache, fill=fill, labels=labels)
        for _, part in frame.groupby("crs", sort=True)
    ]


def open_together(benchmark: Benchmark, index: ChipIndex, chips: Sequence[str], **more: Any) -> SpectralChips:
    """One TorchGeo dataset of chips, whatever their CRSs; ``more`` as ``open_datasets`` takes it.

    Chips of several CRSs lie side by side on a local grid of one pixel per unit; those of one lie on the ground.
    """
    frame = index.frame.loc[list(chips)]
    if frame["crs"].nunique() > 1:
        index = replace(index, frame=side_by_side(frame))
    (dataset,) = open_datasets(benchmark, index, chips, **more)
    return dataset


def open_benchmark(name: str, root: str | Path) -> list[SpectralChips]:
    """The datasets of a built-in benchmark, for use with TorchGeo's own samplers and loaders.

    Args:
        name: Benchmark id.

    Returns:
        One dataset per CRS, with all chips of source and target.
    """
    benchmark = builtin_benchmarks()[name]
    return open_datasets(benchmark, build_index(benchmark, Path(root)))


class ChipCollection(Dataset[dict[str, Any]]):
    """Datasets of several CRSs under one roof: a key is (number of the dataset, TorchGeo query)."""

    def __init__(self, datasets: Sequence[SpectralChips]) -> None:
        self.datasets = list(datasets)

    def __getitem__(self, key: tuple[int, GeoQuery]) -> dict[str, Any]:
        """The sample of one window."""
        number, query = key
        return self.datasets[number][query]

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def as_stored(self) -> ChipCollection:
        """The same chips, see ``SpectralChips.as_stored``."""
        return ChipCollection([dataset.as_stored() for dataset in self.datasets])

    def share_caches(self) -> None:
        """Have reader processes that are started from now on share the chips that are kept in memory."""
        for dataset in self.datasets:
            dataset.chip_cache.share()

    def chips(self) -> Iterator[tuple[int, int, dict[Any, Any]]]:
        """(dataset number, chip number, index row) of every chip."""
        for number, dataset in enumerate(self.datasets):
            for chip, row in enumerate(dataset.chip_rows()):
                yield number, chip, row
