"""Whole chips, read from their files as they were indexed: stored pixels, classes, and what is unmeasured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.chip import Image, ReadingRules, read_grid, read_image, read_label
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.data.placement import Grid, Turn
from spectral_tl_bench.data.stamps import check_unchanged
from spectral_tl_bench.errors import DataError

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, Array, Array]
"""Pixels (C, H, W) in the files' type and unit, classes (H, W) uint8 with void, and which pixels are unmeasured: bool
(C, H, W), (1, H, W) where that is the same in all bands, or of no size where none is."""


class ChipFiles:
    """Reads whole chips.

    Args:
        root: Folder that the chips' paths start from.
        rules: How files are read.
        label_map: Makes classes of raw values.
    """

    def __init__(self, root: Path, rules: ReadingRules, label_map: LabelMap) -> None:
        self.root, self.rules, self.label_map = root, rules, label_map

    def read(self, row: Mapping[Any, Any]) -> Arrays:
        """What the files of a chip say.

        Args:
            row: The chip's row of the index; without its label, all is void.

        Raises:
            DataError: If a file has changed since it was indexed, or cannot be read.
        """
        check_unchanged(row)
        image = self._image(row)
        if "label" in row:
            mask = self._classes(row, image.grid, image.turn, image.holes.values)
        else:
            mask = np.full(image.pixels.shape[1:], VOID, dtype=np.uint8)
        return image.pixels, mask, shortest(image.holes.values)

    def classes(self, row: Mapping[Any, Any]) -> Array:
        """The classes of a chip; its image is read only where that changes them."""
        check_unchanged(row)
        if self.rules.nodata == "void" and row["nodata_pixels"]:
            image = self._image(row)
            return self._classes(row, image.grid, image.turn, image.holes.values)
        return self._classes(row, *read_grid(self.root / row["image"]), None)

    def _image(self, row: Mapping[Any, Any]) -> Image:
        path = self.root / row["image"]
        image = read_image(path, row["domain"], self.rules)
        if image.pixels.shape != (self.rules.bands, row["height"], row["width"]):
            raise changed(path)
        return image

    def _classes(self, row: Mapping[Any, Any], grid: Grid, turn: Turn, holes: Array | None) -> Array:
        label = read_label(self.root / row["label"], grid, turn, self.rules)
        return self.rules.hidden_by(holes, self.label_map(label.raw, label.hidden))


def shortest(holes: Array | None) -> Array:
    """What is unmeasured (C, H, W), as ``Arrays`` has it."""
    if holes is None:
        return np.zeros(0, dtype=bool)
    return holes[:1] if (holes == holes[:1]).all() else holes


def changed(image: Path) -> DataError:
    """An image of another shape than that in the index."""
    return DataError("the image has changed since it was indexed", where=image, fix="run again")
