"""One chip as its files have it: pixels north up, the label on them, what is unmeasured, in what unit.

The index and the datasets read chips here, so that what was checked is what is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.data.labels import read_matlab, whole_numbers
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.data.placement import Grid, PlacementError, Turn, on_image
from spectral_tl_bench.data.units import Unit, tagged, unit_of
from spectral_tl_bench.data.unmeasured import Unmeasured, data_bands, unmeasured
from spectral_tl_bench.errors import DataError

SHORT = frozenset({"int8", "uint8", "int16", "uint16"})
"""Types of pixels that take less room than float32, which holds all of their values."""

PIECE = 4 * 1024**2
"""Bytes that are read at a time of a file in which the bands of a pixel lie side by side: GDAL goes through them once
for each band, which is quick as long as they stay in the processor's cache."""


@dataclass(frozen=True)
class ReadingRules:
    """What a benchmark decides about the reading of its files.

    Attributes:
        scale: Reflectance = value * scale, in the benchmark's unit.
        units: (scales, offsets) of the files of a domain, one per band each, where the benchmark gives them.
        nodata: What becomes of unmeasured values.
        nodata_in: See ``unmeasured``.
        align: Whether a label lies where its georeference says, or pixel for pixel.
        label_nodata: Whether a label's nodata value and mask are void.
        classes: Raw label values that mean a class.
    """

    bands: int
    scale: float
    units: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]
    nodata: Literal["refuse", "fill", "void"]
    nodata_in: Literal["any", "all"] | None
    align: Literal["georeference", "pixels"]
    label_nodata: Literal["void", "ignore"]
    classes: tuple[int, ...]

    @classmethod
    def of(cls, benchmark: Benchmark) -> ReadingRules:
        """Those of a benchmark."""
        sensor, labels = benchmark.sensor, benchmark.labels
        units = {
            domain.id: domain.unit(len(sensor.bands), sensor.scale) for domain in benchmark.domains if domain.has_unit
        }
        return cls(
            len(sensor.bands), sensor.scale, units, benchmark.nodata, benchmark.nodata_in, labels.align, labels.nodata,
            tuple(sorted(value for cover in labels.classes for value in cover.raw)),
        )  # fmt: skip

    def hidden_by(self, holes: np.ndarray[Any, Any] | None, mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Classes (H, W), void where ``holes`` (C, H, W) are in some band, if that is what becomes of them."""
        if self.nodata == "void" and holes is not None:
            mask[holes.any(axis=0)] = VOID
        return mask


class Image(NamedTuple):
    """The pixels of a chip.

    Attributes:
        pixels: (C, H, W) as stored, north up where the file says where north is.
        holes: What is unmeasured.
        unit: How stored values become those of the benchmark; None where they are already.
        tagged: Whether the file says anything about its unit.
        grid: Of the file, as stored.
        turn: What made it north up.
        transform: Geotransform of ``pixels``; None where the file has none that counts.
    """

    pixels: np.ndarray[Any, Any]
    holes: Unmeasured
    unit: Unit | None
    tagged: bool
    grid: Grid
    turn: Turn
    transform: Affine | None


class Label(NamedTuple):
    """The label of a chip.

    Attributes:
        raw: Raw values (H, W), integers, pixel for pixel on the image.
        hidden: bool (H, W) where the file says that there is no label; None where it says nothing.
        nodata: The file's nodata value.
        georeferenced: Whether the file says where it lies.
    """

    raw: np.ndarray[Any, Any]
    hidden: np.ndarray[Any, Any] | None
    nodata: float | None
    georeferenced: bool


def read_image(path: Path, domain: str, rules: ReadingRules, alone: bool = False) -> Image:
    """Read the image of a chip.

    Args:
        domain: Domain of the chip, which may have a unit of its own.
        rules: How.
        alone: Whether no other file is read with it; see ``open_raster``.

    Raises:
        PlacementError: If it does not lie along the axes of its CRS.
        DataError: If it cannot be read, or holds anything but integers or floats.
    """
    with open_raster(path, alone=alone) as source:
        grid = Grid.of(source)
        turn, transform = upright(source, grid, path)
        bands = data_bands(source, rules.bands)
        pixels = image_pixels(source, path, bands)
        if pixels.dtype.kind not in "iuf":
            raise DataError(f"the image holds {pixels.dtype} pixels", where=path, expected="integers or floats")
        holes = unmeasured(source, bands, pixels, rules.nodata_in)
        scales, offsets = (tuple(values[band - 1] for band in bands) for values in (source.scales, source.offsets))
    said = tagged(scales, offsets)
    unit = None
    if (domain in rules.units or said) and len(bands) == rules.bands:
        scales, offsets = rules.units.get(domain, (scales, offsets))
        unit = unit_of(scales, offsets, rules.scale)
    if holes.values is not None:
        holes = holes._replace(values=turn(holes.values))
    return Image(turn(pixels), holes, unit, said, grid, turn, transform)


def read_grid(path: Path) -> tuple[Grid, Turn]:
    """The pixel grid of an image, and what makes it north up, without its pixels; raises as ``read_image``."""
    with open_raster(path) as source:
        grid = Grid.of(source)
        return grid, upright(source, grid, path)[0]


def image_pixels(source: Any, path: Path, bands: list[int], window: Window | None = None) -> np.ndarray[Any, Any]:
    """Bands of an open image as stored, in a window or everywhere."""
    window = window or Window(0, 0, source.width, source.height)
    try:
        return _read(source, None if len(bands) == source.count else bands, window)
    except rasterio.errors.RasterioError as error:
        raise DataError(f"the pixels cannot be read: {error.__cause__ or error}", where=path) from None


def _read(source: Any, bands: list[int] | None, window: Window) -> np.ndarray[Any, Any]:
    about, kind, *others = source.tags(ns="IMAGE_STRUCTURE"), *dict.fromkeys(source.dtypes)
    if about.get("INTERLEAVE") != "PIXEL" or "COMPRESSION" in about or kind.startswith("complex") or others:
        return source.read(bands, window=window)
    line = source.count * window.width * np.dtype(kind).itemsize
    lines = max(1, PIECE // line)
    if lines >= window.height:
        return source.read(bands, window=window)
    pixels = np.empty((source.count if bands is None else len(bands), window.height, window.width), kind)
    for start in range(0, window.height, lines):
        piece = pixels[:, start : start + lines]
        place = Window(window.col_off, window.row_off + start, window.width, piece.shape[1])
        source.read(bands, window=place, out=piece)
    return pixels


def upright(source: Any, grid: Grid, path: Path) -> tuple[Turn, Affine | None]:
    """What makes an open image north up, and its geotransform then; raises as ``read_image``."""
    if grid.crs is None:  # nothing says where north is
        return Turn(), None
    if grid.transform is None:
        points = len(source.gcps[0])
        found = f"{points} ground control points" if points else "no geotransform"
        raise PlacementError(
            f"the image has a CRS and {found}", where=path, expected="a geotransform; `gdalwarp` makes such an image"
        )
    try:
        return grid.north_up()
    except PlacementError as error:
        raise PlacementError(error.what, where=path, expected=error.expected) from None


def read_label(path: Path, image: Grid, turn: Turn, rules: ReadingRules, alone: bool = False) -> Label:
    """Read the label of a chip, pixel for pixel on its image.

    Args:
        path: A raster of one band, or a MATLAB file with a 2-D variable ``label``.
        image: Grid of the image, as stored.
        turn: What made the image north up.
        rules: How.
        alone: Whether no other file is read with it; see ``open_raster``.

    Raises:
        PlacementError: If it does not lie on the image.
        DataError: If it is missing, unreadable, or not one layer of whole numbers.
    """
    if path.suffix == ".mat":
        raw = whole_numbers(read_matlab(path), path)
        if raw.shape != (image.height, image.width):
            raise PlacementError(
                f"image is {image.height}x{image.width} px, its label {raw.shape[0]}x{raw.shape[1]}", where=path
            )
        return Label(turn(raw), None, None, False)
    with open_raster(path, lossless=True, alone=alone) as source:
        onto, window = label_place(source, path, image, rules)
        nodata, georeferenced = source.nodata, Grid.of(source).transform is not None
        raw, hidden = label_pixels(source, path, window, rules.label_nodata == "void")
    georeferenced = georeferenced and rules.align != "pixels"
    return Label(turn(onto(raw)), None if hidden is None else turn(onto(hidden)), nodata, georeferenced)


def label_place(source: Any, path: Path, image: Grid, rules: ReadingRules) -> tuple[Turn, Window]:
    """The part of an open label that lies on its image, and the turn into the image's order; see ``read_label``."""
    if source.count != 1 and len(data_bands(source, 1)) != 1:
        raise DataError(f"the label has {source.count} bands", where=path, expected="one band")
    grid = Grid.of(source)
    if rules.align == "pixels":
        grid, image = (Grid(None, None, one.height, one.width) for one in (grid, image))
    try:
        return on_image(grid, image)
    except PlacementError as error:
        raise PlacementError(error.what, where=path, expected=error.expected) from None


def label_pixels(
    source: Any, path: Path, window: Window, hides: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Raw whole numbers in a window of an open label, and where the file hides them if it ``hides`` any."""
    try:
        stored = source.read(1, window=window)
        hidden = _hidden(source, stored, window) if hides else None
    except rasterio.errors.RasterioError as error:
        raise DataError(f"the pixels cannot be read: {error.__cause__ or error}", where=path) from None
    if stored.dtype.kind == "f" and hidden is not None:  # NaN is no class number, and need not be one there
        stored = np.where(hidden, 0, stored)
    return whole_numbers(stored, path), hidden


def _hidden(source: Any, stored: np.ndarray[Any, Any], window: Window) -> np.ndarray[Any, Any] | None:
    """Where a label file says that there is no label; None where it never does."""
    hidden = source.read_masks(1, window=window) == 0
    if source.nodata is not None:  # a mask beside the file would win over it
        hidden |= (stored == source.nodata) | (np.isnan(stored) & np.isnan(source.nodata))
    return hidden if hidden.any() else None
