"""Windows of a chip, read from its files without the rest of it: the same pixels as the whole chip has there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio.windows import Window

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.chip import ReadingRules, image_pixels, label_pixels, label_place, read_label, upright
from spectral_tl_bench.data.chip_files import Arrays, changed, shortest
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.data.opening import driver_of, open_again, open_raster
from spectral_tl_bench.data.placement import Grid, Turn
from spectral_tl_bench.data.stamps import check_unchanged
from spectral_tl_bench.data.unmeasured import data_bands, unmeasured

BY_WINDOW = frozenset({"GTiff", "ENVI"})
"""Formats of which a part costs less than the whole. What a VRT makes of a part need not be that of the whole."""

Slices = tuple[slice, slice]


class _Known(NamedTuple):
    """What was found when a chip's files were checked, and holds while their ``stamps`` are the same."""

    stamps: tuple[tuple[int, ...], ...]
    image: str
    label: str
    bands: list[int]
    turn: Turn
    size: tuple[int, int]
    onto: Turn
    place: Window


class ChipWindows:
    """Reads windows of chips. Each chip is checked as a whole when it is first opened, and again after a change.

    Args:
        root: Folder that the chips' paths start from.
        rules: How files are read.
        label_map: Makes classes of raw values.
    """

    def __init__(self, root: Path, rules: ReadingRules, label_map: LabelMap) -> None:
        self.root, self.rules, self.label_map = root, rules, label_map
        self._known: dict[str, _Known] = {}
        self._whole: set[str] = set()

    def read(self, row: Mapping[Any, Any], window: Slices) -> Arrays | None:
        """A window as ``SpectralChips`` wants it; None where the chip's formats have to be read whole.

        Args:
            row: The chip's row of the index.
            window: Lines and columns of the chip, north up.

        Raises:
            DataError: If a file has changed since it was indexed, or cannot be read.
        """
        chip, stamps = row["chip"], check_unchanged(row)
        if chip in self._whole:
            return None
        known = self._known.get(chip)
        if known is None or not stamps or known.stamps != stamps:
            known = None
            if any(
                driver_of(self.root / row[kind]) not in BY_WINDOW for kind in ("image", "label") if _raster(row, kind)
            ):
                self._whole.add(chip)
                return None
        with self._open(row, "image", known) as image, self._open(row, "label", known) as label:
            if known is None:
                known = self._known[chip] = self._look(row, stamps, image, label)
            return self._window(row, window, known, image, label)

    def _open(self, row: Mapping[Any, Any], kind: str, known: _Known | None) -> AbstractContextManager[Any]:
        if not _raster(row, kind):
            return nullcontext()
        path = self.root / row[kind]
        if known is None:
            return open_raster(path, lossless=kind == "label")
        return open_again(path, known.image if kind == "image" else known.label, len(row[f"{kind}_files"]) == 1)

    def _look(self, row: Mapping[Any, Any], stamps: tuple[tuple[int, ...], ...], image: Any, label: Any) -> _Known:
        path, grid = self.root / row["image"], Grid.of(image)
        turn, bands = upright(image, grid, path)[0], data_bands(image, self.rules.bands)
        size = (grid.width, grid.height) if turn.transpose else (grid.height, grid.width)
        if (len(bands), *size) != (self.rules.bands, row["height"], row["width"]):
            raise changed(path)
        onto, place = (
            (Turn(), None) if label is None else label_place(label, self.root / row["label"], grid, self.rules)
        )
        return _Known(
            stamps, image.driver, "" if label is None else label.driver, bands, turn, (grid.height, grid.width), onto,
            place,
        )  # fmt: skip

    def _window(self, row: Mapping[Any, Any], window: Slices, known: _Known, image: Any, label: Any) -> Arrays:
        stored = known.turn.before(window, row["height"], row["width"])
        part = Window.from_slices(*stored)
        pixels = image_pixels(image, self.root / row["image"], known.bands, part)
        holes = None
        if row["nodata_pixels"]:  # of the whole chip
            holes = unmeasured(image, known.bands, pixels, self.rules.nodata_in, part).values
        if holes is not None:
            holes = known.turn(holes)
        if "label" not in row:
            mask = np.full([part.stop - part.start for part in window], VOID, dtype=np.uint8)
        elif label is not None:
            mask = known.turn(self._classes(row, stored, known, label))
        else:  # a MATLAB file has no parts
            size = Grid(None, None, *known.size)
            mask = self.label_map(read_label(self.root / row["label"], size, known.turn, self.rules).raw[window])
        if "label" in row:
            mask = self.rules.hidden_by(holes, mask)
        return known.turn(pixels), mask, shortest(holes)

    def _classes(self, row: Mapping[Any, Any], stored: Slices, known: _Known, label: Any) -> np.ndarray[Any, Any]:
        """Classes in a window of the image as stored."""
        lines, columns = known.onto.before(stored, *known.size)
        place = known.place
        part = Window(
            place.col_off + columns.start, place.row_off + lines.start, columns.stop - columns.start,
            lines.stop - lines.start,
        )  # fmt: skip
        # A chip of which no class is hidden may be hidden elsewhere, which is void anyway; but NaN must be looked for.
        hides = self.rules.label_nodata == "void" and (bool(row.get("label_hidden", 1)) or "float" in label.dtypes[0])
        raw, hidden = label_pixels(label, self.root / row["label"], part, hides)
        return known.onto(self.label_map(raw, hidden))


def _raster(row: Mapping[Any, Any], kind: str) -> bool:
    return kind in row and not row[kind].endswith(".mat")
