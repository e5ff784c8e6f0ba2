"""Where the pixels of a file lie on the ground, and how a label comes to lie on its image without resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window

from spectral_tl_bench.errors import DataError

TOLERANCE = 0.1
"""Pixels by which a file may lie off before it counts: far above rounding, and below what a boundary would notice."""


LOCAL_CRS = 'LOCAL_CS["chips without a CRS, side by side",UNIT["pixel",1],AXIS["x",EAST],AXIS["y",NORTH]]'
"""An engineering CRS: coordinates are pixels, positions mean nothing but 'another chip'."""


class PlacementError(DataError):
    """An image that lies nowhere that can be said, or a label that does not lie on its image."""


class Turn(NamedTuple):
    """One of the eight symmetries of a pixel grid: lines and columns exchanged first, then both perhaps reversed."""

    transpose: bool = False
    lines: bool = False
    columns: bool = False

    def __call__(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The array (..., H, W), turned; contiguous."""
        if self == Turn():
            return array
        if self.transpose:
            array = array.swapaxes(-1, -2)
        return np.ascontiguousarray(array[..., :: -1 if self.lines else 1, :: -1 if self.columns else 1])

    def before(self, window: tuple[slice, slice], height: int, width: int) -> tuple[slice, slice]:
        """Lines and columns that a window of the turned array, of ``height`` x ``width``, had before."""
        lines, columns = window
        if self.lines:
            lines = slice(height - lines.stop, height - lines.start)
        if self.columns:
            columns = slice(width - columns.stop, width - columns.start)
        return (columns, lines) if self.transpose else (lines, columns)


@dataclass(frozen=True)
class Grid:
    """The pixel grid of a file.

    Attributes:
        crs: None where the file names none.
        transform: (column, line) to coordinates; None where the file has no geotransform.
        height: Lines.
        width: Columns.
    """

    crs: CRS | None
    transform: Affine | None
    height: int
    width: int

    @classmethod
    def of(cls, source: Any) -> Grid:
        """That of an open raster."""
        transform = None if source.transform == Affine.identity() else source.transform
        return cls(source.crs or None, transform, source.height, source.width)

    def corners(self) -> list[tuple[float, float]]:
        """(column, line) of the four corners."""
        return [(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)]

    def north_up(self) -> tuple[Turn, Affine]:
        """What makes the first line the northernmost and the first column the westernmost, and the geotransform then.

        Raises:
            PlacementError: If that takes a rotation by anything but quarters.
        """
        if self.transform is None:
            raise PlacementError("the image has no geotransform")
        turn = _quarter(self.transform, self.height, self.width, -1)
        if turn is None:
            angle = np.degrees(np.arctan2(self.transform.d, self.transform.a))
            raise PlacementError(
                f"the image is rotated or sheared: its lines run {angle:.3g} degrees off east",
                expected="lines along an axis of the CRS; `gdalwarp` makes such an image",
            )
        t = self.transform
        xs, ys = at(t, self.corners())
        wide, high = (abs(t.b), abs(t.d)) if turn.transpose else (abs(t.a), abs(t.e))
        return turn, Affine(wide, 0, float(xs.min()), 0, -high, float(ys.max()))


def _quarter(matrix: Affine, height: int, width: int, downward: int) -> Turn | None:
    """The turn that makes both axes of a matrix run as they should; None if there is none.

    Args:
        matrix: (column, line) to a plane.
        height: Lines.
        width: Columns.
        downward: Sign that a step to the next line has in that plane.
    """
    along, across = np.hypot(matrix.a, matrix.d), np.hypot(matrix.b, matrix.e)
    if not along or not across:
        return None
    skew = max(abs(matrix.b) * height / along, abs(matrix.d) * width / across)
    skew_transposed = max(abs(matrix.a) * width / across, abs(matrix.e) * height / along)
    if min(skew, skew_transposed) > TOLERANCE:
        return None
    if skew <= skew_transposed:
        return Turn(False, matrix.e * downward < 0, matrix.a < 0)
    return Turn(True, matrix.d * downward < 0, matrix.b < 0)


def on_image(label: Grid, image: Grid) -> tuple[Turn, Window]:
    """The part of a label that lies on its image, and the turn that brings it into the image's order.

    A label that says nothing of where it lies, or whose image says nothing, lies pixel for pixel.

    Args:
        label: Grid of the label, as stored.
        image: Grid of the image, as stored.

    Returns:
        Turn and window: the label's pixels in the window, turned, are those of the image.

    Raises:
        PlacementError: If only resampling could do that, or the label does not cover the image.
    """
    if label.transform is None or image.transform is None:
        return _pixel_for_pixel(label, image)
    if label == image:
        return Turn(), Window(0, 0, image.width, image.height)
    systems = "" if _same_crs(label, image) else f" ({_systems(label, image)})"
    matrix = _relative(label, image, label.transform, image.transform)
    turn = _quarter(matrix, label.height, label.width, 1)
    sizes = np.hypot(matrix.a, matrix.d), np.hypot(matrix.b, matrix.e)
    if max(abs(size - 1) * length for size, length in zip(sizes, (label.width, label.height), strict=True)) > TOLERANCE:
        raise PlacementError(
            f"the label has pixels of {_size(label.transform)}, its image of {_size(image.transform)}{systems}",
            expected="one pixel size",
        )
    if turn is None:
        angle = np.degrees(np.arctan2(matrix.d, matrix.a))
        raise PlacementError(f"the label is rotated by {angle:.3g} degrees against its image", expected="one direction")
    left, top, right, bottom = _extent(~matrix, image)
    column, line = round(left), round(top)
    off = max(abs(left - column), abs(top - line))
    if off > TOLERANCE:
        raise PlacementError(
            f"the label lies {off:.2f} pixels beside its image's pixels{systems}",
            expected="whole pixels between the two",
        )
    width, height = round(right - left), round(bottom - top)
    if column < 0 or line < 0 or column + width > label.width or line + height > label.height:
        raise PlacementError(_apart(label, image, matrix) + systems, expected="a label that covers its image")
    return turn, Window(column, line, width, height)


def _pixel_for_pixel(label: Grid, image: Grid) -> tuple[Turn, Window]:
    if label.transform is not None and _quarter(label.transform, label.height, label.width, -1) != Turn():
        raise PlacementError(
            "the label does not stand north up, and its image does not say where it lies",
            expected="a geotransform in both files, or in none",
        )
    if (label.height, label.width) != (image.height, image.width):
        raise PlacementError(f"image is {image.height}x{image.width} px, its label {label.height}x{label.width}")
    return Turn(), Window(0, 0, label.width, label.height)


def at(matrix: Affine, points: Sequence[tuple[float, float]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where a matrix puts points: all first and all second coordinates."""
    x, y = np.array(points, dtype=np.float64).T
    return matrix.a * x + matrix.b * y + matrix.c, matrix.d * x + matrix.e * y + matrix.f


def _relative(label: Grid, image: Grid, here: Affine, there: Affine) -> Affine:
    """(column, line) of the label to (column, line) of the image."""
    xs, ys = at(here, label.corners())
    same = _same_crs(label, image)
    if not same:
        xs, ys = _between(label.crs, image.crs)(xs, ys)
        if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
            raise PlacementError(_systems(label, image), expected="one CRS")
    columns, lines = at(~there, list(zip(xs, ys, strict=True)))
    matrix = Affine(
        (columns[1] - columns[0]) / label.width, (columns[2] - columns[0]) / label.height, columns[0],
        (lines[1] - lines[0]) / label.width, (lines[2] - lines[0]) / label.height, lines[0],
    )  # fmt: skip
    (right,), (bottom,) = at(matrix, [(label.width, label.height)])
    straight = max(abs(right - columns[3]), abs(bottom - lines[3])) <= TOLERANCE
    if not same and not (straight and _quarter(matrix, label.height, label.width, 1) is not None):
        raise PlacementError(_systems(label, image), expected="one CRS")
    return matrix


def _same_crs(label: Grid, image: Grid) -> bool:
    return label.crs is None or image.crs is None or label.crs == image.crs


def _between(here: CRS, there: CRS) -> Any:
    import pyproj

    try:
        return pyproj.Transformer.from_crs(here.to_wkt(), there.to_wkt(), always_xy=True).transform
    except pyproj.exceptions.ProjError:
        raise PlacementError(
            f"the label's CRS is {name_of(here)}, its image's {name_of(there)}", expected="one CRS"
        ) from None


def name_of(crs: CRS) -> str:
    """``EPSG:n``, or as much of the WKT as a line holds."""
    number = crs.to_epsg()
    return f"EPSG:{number}" if number else f"{crs.to_wkt()[:80]}"


def _systems(label: Grid, image: Grid) -> str:
    names = [name_of(grid.crs) if grid.crs is not None else "none" for grid in (label, image)]
    return f"the label's CRS is {names[0]}, its image's {names[1]}"


def _size(t: Affine) -> str:
    return f"{np.hypot(t.a, t.d):.6g} x {np.hypot(t.b, t.e):.6g}"


def _extent(matrix: Affine, grid: Grid) -> tuple[float, float, float, float]:
    """Least and greatest coordinates of a grid's corners."""
    xs, ys = at(matrix, grid.corners())
    return float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())


def _apart(label: Grid, image: Grid, matrix: Affine) -> str:
    """How a label lies that covers only a part of its image, or nothing."""
    left, top, right, bottom = _extent(matrix, label)
    wide = max(0.0, min(right, image.width) - max(left, 0.0))
    high = max(0.0, min(bottom, image.height) - max(top, 0.0))
    share = wide * high / (image.width * image.height)
    if (label.height, label.width) != (image.height, image.width):
        return f"image is {image.height}x{image.width} px, its label {label.height}x{label.width}, {share:.0%} of it"
    return (
        f"the label starts {left:+.6g} columns and {top:+.6g} lines from its image's transform and covers "
        f"{share:.0%} of the image"
    )


def pixel_size(sizes: pd.Series, where: Path) -> float:
    """The one pixel size of all chips along one axis, in units of the CRS."""
    size = float(sizes.iloc[0])
    if ((sizes - size).abs() > min(1e-6, 0.01 * size)).any():
        raise DataError("chips of one CRS have different pixel sizes", where=where)
    return float(on_lattice(np.array(size), (size, size)))


def on_lattice(values: np.ndarray[Any, Any], res: tuple[float, float]) -> np.ndarray[Any, Any]:
    """Coordinates, moved by less than a ten-millionth of a pixel to where sums of them are exact.

    TorchGeo's samplers count how many windows fit into a chip by dividing its extent, which must not come out as a
    hair more or less than so many pixels. Metres with few binary places, as those of most grids, stay as they are.
    """
    step = 2.0 ** (np.floor(np.log2(min(res))) - 24)
    return np.round(values / step) * step
