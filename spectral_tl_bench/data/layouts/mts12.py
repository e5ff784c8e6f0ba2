"""MTS12 as its authors publish it: a grid of tiles whose names say where they lie."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts.base import ChipFiles, refuse
from spectral_tl_bench.data.layouts.folders import FolderLayout, check_pairs, rasters_in, relative
from spectral_tl_bench.errors import DataError

ORIGIN = (370_000.0, 5_025_000.0)
TILE = 5_000.0
CRS = "EPSG:32633"
FIRST_NORTHERN_ROW = 12
FOLDS = ("train", "val", "test")
_NAME = re.compile(r"^eopatch_id_(?P<id>\d+)_col_(?P<col>\d+)_row_(?P<row>\d+)$")


class Mts12(FolderLayout):
    """``image/{train,val,test}/eopatch_*.tif`` and ``label/{fold}/{stem}_label.mat``."""

    domains_by = "name"
    marks = tuple(f"image/{fold}" for fold in FOLDS)

    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """The chips of all folds; the domain is the half of the grid, the footprint comes from the name."""
        label_paths, labels, tiles = {}, set(), {}
        for fold in FOLDS:
            if (base / "image" / fold).is_dir():
                for image in rasters_in(base / "image" / fold):
                    match = _NAME.match(image.stem)
                    if not match:
                        refuse(DataError(
                            f"the file name {image.name!r} is not one of {benchmark.dataset}",
                            where=image,
                            expected="eopatch_id_{id}_col_{c}_row_{r}.tif",
                        ))  # fmt: skip
                        continue
                    path = relative(image, base)
                    label_paths[path] = relative(base / "label" / fold / f"{image.stem}_label.mat", base)
                    tiles[path] = (int(match["col"]), int(match["row"]))
            if (base / "label" / fold).is_dir():
                labels |= {relative(label, base) for label in sorted((base / "label" / fold).glob("[!.]*.mat"))}
        check_pairs(label_paths, labels, base)
        return [
            ChipFiles(PurePosixPath(i).stem, mts12_domain(tiles[i][1]), "", i, label, mts12_footprint(*tiles[i]))
            for i, label in label_paths.items()
        ]


def mts12_footprint(col: int, row: int) -> tuple[str, float, float, float, float]:
    """The exact ground footprint of an MTS12 chip, known from its name alone.

    The chips are a 5 km grid in EPSG:32633 (UTM 33N): chip (col, row) starts at x = 370000 + 5000 col and
    y = 5025000 + 5000 row.

    Returns:
        (crs, xmin, ymin, xmax, ymax), metres.
    """
    xmin, ymin = ORIGIN[0] + TILE * col, ORIGIN[1] + TILE * row
    return CRS, xmin, ymin, xmin + TILE, ymin + TILE


def mts12_domain(row: int) -> str:
    """``south`` for rows 0 to 11 of the grid, ``north`` above."""
    return "north" if row >= FIRST_NORTHERN_ROW else "south"
