"""WHU-OHS: 16 Chinese cities in eight pairs, 32 hyperspectral bands, 24 classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from spectral_tl_bench.sample.phenology import Season, View
from spectral_tl_bench.sample.rasters import utm, write_tif
from spectral_tl_bench.sample.scene import draw_shares, make_scene, render, rng_for, unlabelled
from spectral_tl_bench.sample.sensors import WHU_OHS, Sky
from spectral_tl_bench.sample.spectra import Tint

Layout = Literal["flat", "nested", "official"]

GRID = 5120.0
"""Distance between neighbouring chips in metres: 512 pixels of 10 m."""

FOLDS = ("tr", "val", "ts")

COVER_OF_CLASS = (
    "paddy", "dry_farm", "broad_wood", "shrubs", "sparse_wood", "orchard", "dense_grass", "medium_grass",
    "sparse_grass", "river", "lake", "reservoir", "tidal_flat", "shoal", "urban", "village", "works", "dune", "gravel",
    "salt_flat", "marsh", "bare_soil", "bare_rock", "ocean",
)  # fmt: skip
"""Cover of class 1, 2, .. 24."""

SAND, SALINE = 18, 20

_HUMID = {
    "paddy": 5.0, "dry_farm": 6.0, "broad_wood": 14.0, "shrubs": 0.4, "sparse_wood": 1.0, "orchard": 0.6,
    "dense_grass": 0.8, "medium_grass": 0.4, "river": 2.0, "lake": 3.0, "reservoir": 0.4, "shoal": 0.5, "urban": 12.0,
    "village": 0.6, "works": 0.5, "marsh": 0.6, "bare_soil": 0.3,
}  # fmt: skip
_COAST = {**_HUMID, "ocean": 3.0, "tidal_flat": 3.0, "bare_rock": 1.0, "lake": 3.0}
_NORTH_COAST = {
    **_COAST, "paddy": 1.0, "dry_farm": 14.0, "sparse_grass": 0.8, "dune": 1.4, "salt_flat": 0.6, "broad_wood": 7.0,
}  # fmt: skip
_NORTH_EAST = {
    **_HUMID, "paddy": 1.0, "dry_farm": 18.0, "medium_grass": 0.6, "sparse_grass": 0.8, "marsh": 0.6, "dune": 1.4,
    "salt_flat": 0.6,
}  # fmt: skip
_LOESS = {
    "dry_farm": 5.0, "broad_wood": 3.0, "shrubs": 0.5, "sparse_wood": 1.0, "orchard": 0.6, "dense_grass": 0.6,
    "medium_grass": 1.0, "sparse_grass": 9.0, "river": 1.5, "reservoir": 0.5, "shoal": 0.5, "urban": 4.0,
    "village": 0.5, "works": 0.5, "dune": 1.4, "gravel": 6.0, "salt_flat": 0.4, "bare_soil": 0.6, "bare_rock": 2.0,
}  # fmt: skip
_DESERT = {
    "dry_farm": 3.0, "shrubs": 0.4, "sparse_wood": 1.0, "orchard": 0.6, "medium_grass": 0.5, "sparse_grass": 7.0,
    "river": 0.8, "lake": 1.0, "reservoir": 0.5, "shoal": 0.5, "urban": 2.0, "village": 0.5, "works": 0.5, "dune": 2.5,
    "gravel": 20.0, "salt_flat": 1.0, "marsh": 0.6, "bare_soil": 0.6, "bare_rock": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One city of a pair.

    Args:
        longitude: Degrees east.
        latitude: Degrees north.
        climate: Relative frequency of covers around it.
        day: Day of the year of the image.
        tint: Colours of soil and water.
    """

    name: str
    longitude: float
    latitude: float
    climate: Mapping[str, float]
    day: float
    tint: Tint

    @property
    def season(self) -> Season:
        """The date in the place's growing year: leaves come later and fall earlier towards the north."""
        return Season(self.day, onset=20.0 + 2.2 * self.latitude, offset=345.0 - 1.4 * self.latitude)


PLACES: dict[str, Place] = {
    "S1": Place("Changchun", 125.32, 43.88, _NORTH_EAST, 212, Tint(0.80, 0.25, 0.45, 0.45)),
    "S2": Place("Wuxi", 120.31, 31.49, _HUMID, 205, Tint(0.95, 0.35, 0.55, 0.40)),
    "S3": Place("Guangzhou", 113.26, 23.13, _COAST, 190, Tint(1.00, 0.75, 0.50, 0.45)),
    "S4": Place("Xining", 101.78, 36.62, _LOESS, 208, Tint(1.15, 0.40, 0.20, 0.55)),
    "S5": Place("Hetian", 79.92, 37.11, _DESERT, 200, Tint(1.25, 0.30, 0.08, 0.50)),
    "S6": Place("Anyi", 115.55, 28.85, _HUMID, 198, Tint(1.00, 0.80, 0.45, 0.35)),
    "S7": Place("Changde", 111.70, 29.03, _HUMID, 215, Tint(0.98, 0.70, 0.50, 0.45)),
    "S8": Place("Tianjin", 117.20, 39.13, _NORTH_COAST, 220, Tint(1.00, 0.30, 0.35, 0.55)),
    "T1": Place("Jilin", 126.55, 43.84, _NORTH_EAST, 235, Tint(0.80, 0.25, 0.40, 0.35)),
    "T2": Place("Shanghai", 121.47, 31.23, _COAST, 245, Tint(0.95, 0.30, 0.60, 0.70)),
    "T3": Place("Zhongshan", 113.39, 22.52, _COAST, 254, Tint(1.00, 0.80, 0.40, 0.55)),
    "T4": Place("Lanzhou", 103.83, 36.06, _LOESS, 239, Tint(1.20, 0.45, 0.10, 0.70)),
    "T5": Place("Kelamayi", 84.89, 45.58, _DESERT, 233, Tint(1.10, 0.35, 0.10, 0.35)),
    "T6": Place("Nanchang", 115.86, 28.68, _HUMID, 247, Tint(1.00, 0.85, 0.35, 0.45)),
    "T7": Place("Changsha", 112.94, 28.23, _HUMID, 252, Tint(1.00, 0.75, 0.40, 0.50)),
    "T8": Place("Tangshan", 118.18, 39.63, _NORTH_COAST, 242, Tint(1.05, 0.35, 0.30, 0.45)),
}


def city_view(code: str) -> View:
    """Light, air and season of the image of one city: summer in the S cities, early autumn and hazier in the T."""
    place, rng = PLACES[code], rng_for("whu-ohs", "view", code)
    west = code.startswith("S")
    sky = Sky(
        sun=(1.0 if west else 0.91) + 0.03 * float(rng.standard_normal()),
        haze=(0.28 if west else 0.54) * float(np.exp(0.25 * rng.standard_normal())),
        azimuth=float(rng.uniform(2.2, 2.8)),
    )
    town = (1.0, 1.0, 1.0, 1.0) if west else (0.9, 1.1, 1.2, 0.8)
    jitter = np.exp(0.15 * rng.standard_normal(4))
    factors = (town[0] * jitter[0], town[1] * jitter[1], town[2] * jitter[2], town[3] * jitter[3])
    lush = (1.0 if west else 0.95) * float(np.exp(0.08 * rng.standard_normal()))
    return View(place.season, sky, place.tint, factors, lush)


def city_covers(code: str) -> dict[str, float]:
    """Relative frequency of covers around a city; saline soil is missing from the S cities, sand from the T cities."""
    missing = COVER_OF_CLASS[(SALINE if code.startswith("S") else SAND) - 1]
    return {name: weight for name, weight in PLACES[code].climate.items() if name != missing}


def _cell(number: int) -> tuple[int, int]:
    """Column and row of a chip on the city's grid: pairs of neighbours, on a spiral of places cells apart."""
    place, member = divmod(number, 2)
    radius, angle = 3.0 + 2.4 * math.sqrt(place), 2.4 * place
    return 2 * round(radius * math.cos(angle) / 2.0) + member, round(radius * math.sin(angle))


def _cells(count: int) -> list[tuple[int, int]]:
    cells: list[tuple[int, int]] = []
    number = 0
    while len(cells) < count:
        cell = _cell(number)
        number += 1
        if cell not in cells:
            cells.append(cell)
    return cells


def write_whu_ohs(
    root: Path,
    *,
    layout: Layout = "flat",
    chip: int = 96,
    chips_per_city: int = 5,
    cities: Sequence[str] = tuple(PLACES),
) -> None:
    """Write a WHU-OHS tree.

    Args:
        layout: ``flat`` for ``transfer-STall/{source,target}/{image,label}/NAME.tif``, ``nested`` for the same with
            a level ``{tr,val,ts}`` below image and label, ``official`` for ``{tr,val,ts}/{image,label}/NAME.tif``.
            The official tree holds other chips of the same cities than the two transfer trees.
        chip: Edge of a chip in pixels.
        chips_per_city: Chips of each city.
        cities: Which cities, of ``S1`` .. ``S8`` and ``T1`` .. ``T8``.
    """
    cells = _cells(100 + chips_per_city)
    for code in cities:
        place, view, priors = PLACES[code], city_view(code), city_covers(code)
        crs, east, north = utm(place.longitude, place.latitude)
        for turn in range(chips_per_city):
            number = turn + (100 if layout == "official" else 0)
            rng = rng_for("whu-ohs", code, number, chip)
            scene = make_scene(rng, (chip, chip), draw_shares(rng, priors, most=7))
            image = render(scene, [view], WHU_OHS, rng)
            classes = np.asarray([COVER_OF_CLASS.index(name) + 1 for name in scene.covers], dtype=np.uint8)
            label = classes[scene.chosen]
            label[unlabelled(rng, label.shape, 0.06)] = 0
            column, row = cells[number]
            corner = (east + GRID * column, north + GRID * row)
            image_folder, label_folder = _folders(root, layout, code, turn, chips_per_city)
            name = f"{code}_{number + 1:04d}.tif"
            write_tif(image_folder / name, image, crs=crs, corner=corner)
            write_tif(label_folder / name, label[None], crs=crs, corner=corner)


def _folders(root: Path, layout: Layout, code: str, turn: int, count: int) -> tuple[Path, Path]:
    # The last third is for testing; of the rest, every third city gives its last chip to validation
    first = max(1, 2 * count // 3)
    testing = turn >= first
    validating = turn == first - 1 and count > 2 and int(code[1:]) % 3 == 0
    fold = "ts" if testing else "val" if validating else "tr"
    if layout == "official":
        return root / fold / "image", root / fold / "label"
    side = root / "transfer-STall" / ("source" if code.startswith("S") else "target")
    if layout == "nested":
        return side / "image" / fold, side / "label" / fold
    return side / "image", side / "label"
