"""Label files and the map from raw label values to classes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from spectral_tl_bench.benchmarks import VOID, Labels
from spectral_tl_bench.errors import DataError

MATLAB_VARIABLE = "label"

# Chip sets without a CRS are common and are placed on a local grid. A filter inside a call would not do: files are
# opened in several threads, which share the filters.
warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)


def whole_numbers(raw: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """Raw label values (H, W) as integers.

    Args:
        raw: As stored.
        path: The file, for messages.

    Raises:
        DataError: If they are not one layer of whole numbers.
    """
    if raw.ndim != 2:
        raise DataError(f"the label has shape {raw.shape}", where=path, expected="one layer (height, width)")
    if raw.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN becomes some number, and then differs
            whole = raw.astype(np.int64)
        if not np.array_equal(whole, raw):
            raise DataError("the label holds fractions or NaN", where=path, expected="whole class numbers")
        return whole
    if raw.dtype.kind not in "iub":
        raise DataError(f"the label holds {raw.dtype}", where=path, expected="whole class numbers")
    return raw


def read_matlab(path: Path) -> np.ndarray[Any, Any]:
    """The variable ``label`` of a MATLAB file.

    Raises:
        DataError: If the file is missing, unreadable or has no such variable.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=[MATLAB_VARIABLE])
    except FileNotFoundError:
        raise DataError("a label is missing", where=path) from None
    except NotImplementedError:
        raise DataError(
            "this MATLAB file is of version 7.3", where=path, expected="version 5 to 7.2", fix="save it with -v7"
        ) from None
    except Exception as error:  # damaged bytes raise nearly anything, zlib.error among them
        raise DataError(f"the MATLAB label cannot be read: {error}", where=path) from None
    if MATLAB_VARIABLE not in content:
        raise DataError(f"the MATLAB file has no variable {MATLAB_VARIABLE!r}", where=path)
    return np.asarray(content[MATLAB_VARIABLE])


def open_raster(path: Path) -> Any:
    """``rasterio.open`` with errors for people.

    Raises:
        DataError: If the file is missing or no readable raster.
    """
    if not path.is_file():
        raise DataError("a chip's file is missing", where=path)
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise DataError(f"the file cannot be read as a raster: {error}", where=path) from None


class LabelMap:
    """Turns raw label values into classes 0..K-1 and ``VOID``.

    Args:
        labels: The benchmark's label section.
    """

    def __init__(self, labels: Labels) -> None:
        self.num_classes = len(labels.classes)
        self._class_of = {value: number for number, cover in enumerate(labels.classes) for value in cover.raw}
        self._class_of |= dict.fromkeys(labels.void, VOID)
        self._other_is_void = labels.other == "void"
        self._low, self._high = min(self._class_of), max(self._class_of)
        # One slot more on each side stands for everything beyond the map.
        self._table = np.full(self._high - self._low + 3, VOID, dtype=np.uint8)
        for value, number in self._class_of.items():
            self._table[value - self._low + 1] = number

    @property
    def known(self) -> list[int]:
        """The raw values that the map names, void ones too, sorted."""
        return sorted(self._class_of)

    def unknown(self, values: np.ndarray[Any, Any]) -> list[int]:
        """The raw values that the map does not name, unless the benchmark says that those are void."""
        return [] if self._other_is_void else sorted(int(v) for v in values if int(v) not in self._class_of)

    def __call__(self, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Map raw values (H, W) to classes (H, W), uint8 with ``VOID``; unknown values become void."""
        index = np.clip(raw.astype(np.int64), self._low - 1, self._high + 1) - (self._low - 1)
        return self._table[index]

    def counts(self, values: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Pixels per class (K,), int64, from a histogram of raw values."""
        result = np.zeros(self.num_classes, dtype=np.int64)
        for value, count in zip(values, counts, strict=True):
            number = self._class_of.get(int(value), VOID)
            if number != VOID:
                result[number] += int(count)
        return result
