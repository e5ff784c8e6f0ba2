"""MTS12: Slovenia on four dates of Sentinel-2, 24 bands, 8 classes, labels in MATLAB files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spectral_tl_bench.sample.phenology import Season, View
from spectral_tl_bench.sample.rasters import write_mat, write_tif
from spectral_tl_bench.sample.scene import draw_shares, make_scene, render, rng_for, unlabelled
from spectral_tl_bench.sample.sensors import SENTINEL2_SIX, Sky
from spectral_tl_bench.sample.spectra import Tint

CRS = "EPSG:32633"
WEST, SOUTH, TILE = 370_000.0, 5_025_000.0, 5_000.0
FIRST_NORTHERN_ROW = 12

LABEL_OF_COVER = {
    "dry_farm": 1, "orchard": 1, "broad_wood": 2, "mixed_wood": 2, "conifer_wood": 2, "dense_grass": 3,
    "medium_grass": 3, "shrubs": 4, "sparse_wood": 4, "river": 5, "lake": 5, "reservoir": 5, "marsh": 6,
    "urban": 7, "village": 7, "works": 7, "bare_rock": 8, "bare_soil": 8, "sparse_grass": 8,
}  # fmt: skip

_NORTH = {
    "dry_farm": 2.4, "orchard": 0.4, "broad_wood": 1.6, "mixed_wood": 1.5, "conifer_wood": 1.4, "dense_grass": 1.6,
    "medium_grass": 0.8, "shrubs": 1.0, "sparse_wood": 0.5, "river": 0.9, "reservoir": 0.7, "marsh": 0.9, "urban": 1.0,
    "village": 1.1, "works": 0.5, "bare_rock": 0.9, "bare_soil": 0.5,
}  # fmt: skip
_SOUTH = {
    "dry_farm": 1.8, "orchard": 1.0, "broad_wood": 2.4, "mixed_wood": 1.2, "conifer_wood": 0.6, "dense_grass": 1.2,
    "medium_grass": 1.3, "shrubs": 1.6, "sparse_wood": 1.0, "river": 0.9, "lake": 0.8, "marsh": 0.9, "urban": 0.8,
    "village": 1.2, "works": 0.5, "bare_rock": 1.0, "bare_soil": 0.5,
}  # fmt: skip

# (row, first column) of small groups of tiles inside the country
_NORTH_GROUPS = (
    (14, 8), (16, 14), (18, 22), (13, 24), (20, 32), (22, 40), (24, 46), (27, 47), (16, 5), (23, 35), (19, 16),
    (14, 33),
)  # fmt: skip
_SOUTH_GROUPS = ((3, 8), (6, 11), (8, 17), (5, 20), (10, 25), (11, 30), (9, 7), (7, 29))


def tiles(north: int, south: int) -> list[tuple[int, int]]:
    """Columns and rows of the sample's tiles.

    Args:
        north: How many tiles in rows 12 and up, at most 36.
        south: How many tiles in rows 0 to 11, at most 24.

    Returns:
        (column, row) in the order of the dataset: column by column, from the south.
    """
    cells: list[tuple[int, int]] = []
    for groups, count in ((_NORTH_GROUPS, north), (_SOUTH_GROUPS, south)):
        members = [(column + k % 2, row - k // 2) for k in range(3) for row, column in groups]
        cells += [(column, row) for column, row in members][:count]
    return sorted(cells)


def dates(column: int, row: int) -> list[View]:
    """The four images of a tile: March, June, September, December.

    The south is earlier and drier, with redder soil; the two halves are seen from different orbits, some days apart
    and through other air. Within a half, dates and air vary from tile to tile, as cloudless images do.
    """
    north, rng = row >= FIRST_NORTHERN_ROW, rng_for("mts12", "dates", column, row)
    days = np.asarray((84.0, 170.0, 258.0, 345.0) if north else (74.0, 152.0, 273.0, 337.0))
    suns = np.asarray((0.92, 1.0, 0.95, 0.82) if north else (1.08, 1.12, 0.84, 0.89))
    hazes = np.asarray((0.30, 0.25, 0.30, 0.40) if north else (0.95, 0.75, 0.12, 0.18))
    days = days + 6.0 * rng.standard_normal(4)
    suns, hazes = suns * np.exp(0.05 * rng.standard_normal(4)), hazes * np.exp(0.45 * rng.standard_normal(4))
    tint = Tint(brightness=0.97, iron=0.35, moisture=0.38, turbidity=0.35)
    if not north:
        tint = Tint(brightness=1.10, iron=0.75, moisture=0.20, turbidity=0.25)
    later = 0.4 * (row - FIRST_NORTHERN_ROW) + 5.0 * float(rng.standard_normal())
    return [
        View(
            Season(
                float(day),
                onset=(112.0 if north else 98.0) + later,
                offset=(288.0 if north else 303.0) - later,
                drought=0.1 if north else 0.55,
                spring_crops=0.65 if north else 0.45,
            ),
            Sky(float(sun), float(haze), azimuth=2.7),
            tint,
            (1.0, 1.0, 1.0, 1.0) if north else (0.9, 1.1, 0.9, 1.2),
            lushness=(1.0 if north else 0.86) * float(np.exp(0.1 * rng.standard_normal())),
        )
        for day, sun, haze in zip(days, suns, hazes, strict=True)
    ]


def write_mts12(root: Path, *, chip: int = 96, north: int = 36, south: int = 20) -> None:
    """Write an MTS12 tree.

    ``image/{train,val,test}/eopatch_id_{id}_col_{c}_row_{r}.tif`` and ``label/{fold}/{stem}_label.mat`` (variable
    ``label``). Tiles stand at their real places; the running number counts the sample's own tiles. A chip smaller
    than 500 pixels covers the upper left corner of its tile.

    Args:
        chip: Edge of a chip in pixels.
        north: Tiles of rows 12 and up (folds train and val), at most 36.
        south: Tiles of rows 0 to 11 (fold test), at most 24.
    """
    northern = 0
    for number, (column, row) in enumerate(tiles(north, south)):
        is_north = row >= FIRST_NORTHERN_ROW
        priors: Mapping[str, float] = _NORTH if is_north else _SOUTH
        rng = rng_for("mts12", column, row, chip)
        scene = make_scene(rng, (chip, chip), draw_shares(rng, priors, most=6))
        image = render(scene, dates(column, row), SENTINEL2_SIX, rng)
        label = np.asarray([LABEL_OF_COVER[cover] for cover in scene.covers], dtype=np.uint8)[scene.chosen]
        label[unlabelled(rng, label.shape, 0.03)] = 0
        fold = "test"
        if is_north:
            fold = "val" if northern % 5 == 4 else "train"
            northern += 1
        stem = f"eopatch_id_{number}_col_{column}_row_{row}"
        corner = (WEST + TILE * column, SOUTH + TILE * (row + 1))
        write_tif(root / "image" / fold / f"{stem}.tif", image, crs=CRS, corner=corner)
        write_mat(root / "label" / fold / f"{stem}_label.mat", label)
