"""Coordinates of pixels, such that sums of them are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spectral_tl_bench.errors import DataError


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
