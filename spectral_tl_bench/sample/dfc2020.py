"""DFC2020: seven cities, each in one season, 13 bands of Sentinel-2 at the top of the atmosphere, 8 classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from spectral_tl_bench.sample.phenology import Season, View
from spectral_tl_bench.sample.rasters import PIXEL, utm, write_tif
from spectral_tl_bench.sample.scene import draw_shares, make_scene, render, rng_for, unlabelled
from spectral_tl_bench.sample.sensors import SENTINEL2_L1C, Sky
from spectral_tl_bench.sample.spectra import Tint

Layout = Literal["seasons", "sets"]

LABEL_OF_COVER = {
    "broad_wood": 1, "conifer_wood": 1, "mixed_wood": 1, "shrubs": 2, "sparse_wood": 2, "savanna": 3,
    "dense_grass": 4, "medium_grass": 4, "sparse_grass": 4, "marsh": 5, "dry_farm": 6, "paddy": 6, "orchard": 6,
    "urban": 7, "village": 7, "works": 7, "snow": 8, "bare_soil": 9, "bare_rock": 9, "dune": 9,
    "river": 10, "lake": 10, "reservoir": 10, "ocean": 10,
}  # fmt: skip
"""Raw label of each cover; 3 (savanna), 8 (snow) and 0 are void in the benchmark."""

PLACES_PER_CITY = 6
"""Chips of a city lie in so many places, kilometres apart."""

PLACE_DISTANCE = 12_800.0

HALF_STEPS = ((0, 0), (0, 1), (2, 0), (2, 2), (0, 2), (1, 0), (1, 2), (2, 1), (1, 1))
"""Where the chips of one place lie, in half chips: some touch, some overlap by half, as in the original."""


@dataclass(frozen=True)
class City:
    """One city.

    Args:
        season: Folder that the city belongs to.
        longitude: Degrees east.
        latitude: Degrees north.
        covers: Relative frequency of covers.
        view: Season, light, air and colours of its image.
    """

    season: str
    longitude: float
    latitude: float
    covers: Mapping[str, float]
    view: View


_COMMON = {
    "shrubs": 1.0, "dense_grass": 1.4, "medium_grass": 0.6, "marsh": 1.0, "dry_farm": 4.0, "urban": 3.4, "village": 0.6,
    "works": 0.4, "bare_soil": 0.8, "bare_rock": 0.5, "river": 0.6, "lake": 2.6, "broad_wood": 3.4,
}  # fmt: skip

CITIES: dict[str, City] = {
    "BlackForest": City(
        "spring", 8.20, 48.20,
        {**_COMMON, "broad_wood": 1.2, "mixed_wood": 1.6, "conifer_wood": 1.6, "reservoir": 0.8, "snow": 0.8},
        View(
            Season(day=136, onset=118, offset=290, drought=0.0, spring_crops=0.5),
            Sky(sun=0.97, haze=0.35, vapour=0.9, azimuth=2.6),
            Tint(brightness=0.90, iron=0.35, moisture=0.45, turbidity=0.35),
        ),
    ),
    "Chabarovsk": City(
        "summer", 135.10, 48.50,
        {**_COMMON, "broad_wood": 1.8, "mixed_wood": 1.5, "marsh": 2.2, "savanna": 0.4},
        View(
            Season(day=200, onset=132, offset=268, drought=0.05, spring_crops=0.75),
            Sky(sun=1.0, haze=0.55, vapour=1.4, azimuth=2.5),
            Tint(brightness=0.85, iron=0.25, moisture=0.5, turbidity=0.6),
            (1.1, 1.0, 0.9, 0.7),
        ),
    ),
    "BandarAnzali": City(
        "autumn", 49.45, 37.45,
        {**_COMMON, "broad_wood": 2.0, "mixed_wood": 0.8, "paddy": 1.6, "ocean": 1.2, "marsh": 2.0, "dune": 0.5},
        View(
            Season(day=282, onset=95, offset=312, drought=0.1, spring_crops=0.7),
            Sky(sun=0.88, haze=0.7, vapour=1.2, azimuth=2.75),
            Tint(brightness=0.95, iron=0.3, moisture=0.45, turbidity=0.6),
            (0.9, 1.0, 1.3, 0.9),
        ),
    ),
    "CapeTown": City(
        "autumn", 18.50, -33.90,
        {**_COMMON, "conifer_wood": 1.2, "broad_wood": 0.8, "shrubs": 2.2, "ocean": 1.2, "dune": 0.9,
         "sparse_grass": 0.8, "savanna": 0.3},
        View(
            Season(day=262, onset=80, offset=305, drought=0.55, spring_crops=0.4),
            Sky(sun=0.92, haze=0.3, vapour=0.8, azimuth=0.6),
            Tint(brightness=1.1, iron=0.5, moisture=0.15, turbidity=0.3),
            (0.9, 1.1, 1.0, 1.3),
        ),
    ),
    "Mumbai": City(
        "autumn", 72.90, 19.10,
        {**_COMMON, "broad_wood": 2.0, "paddy": 1.4, "ocean": 1.2, "marsh": 2.2, "savanna": 0.5},
        View(
            Season(day=290, onset=150, offset=345, drought=0.15, spring_crops=0.8),
            Sky(sun=0.93, haze=1.0, vapour=1.6, azimuth=2.5),
            Tint(brightness=0.95, iron=0.8, moisture=0.3, turbidity=0.8),
            (1.0, 0.9, 1.3, 1.2),
        ),
    ),
    "KippaRing": City(
        "winter", 153.05, -27.20,
        {**_COMMON, "broad_wood": 1.6, "mixed_wood": 1.2, "ocean": 1.4, "dune": 0.5, "savanna": 0.5},
        View(
            Season(day=188, onset=70, offset=330, drought=0.3, spring_crops=0.5),
            Sky(sun=1.05, haze=0.45, vapour=1.5, azimuth=1.2),
            Tint(brightness=1.0, iron=0.7, moisture=0.25, turbidity=0.3),
            (0.9, 1.0, 1.2, 1.3),
        ),
    ),
    "MexicoCity": City(
        "winter", -99.10, 19.40,
        {**_COMMON, "conifer_wood": 1.8, "mixed_wood": 0.8, "shrubs": 1.8, "urban": 2.4, "sparse_grass": 0.8,
         "savanna": 0.4},
        View(
            Season(day=300, onset=120, offset=320, drought=0.3, spring_crops=0.7),
            Sky(sun=0.90, haze=0.8, vapour=0.6, azimuth=2.5),
            Tint(brightness=0.95, iron=0.35, moisture=0.15, turbidity=0.5),
            (1.2, 1.2, 0.8, 0.9),
        ),
    ),
}  # fmt: skip


def write_dfc2020(
    root: Path,
    *,
    layout: Layout = "seasons",
    chip: int = 96,
    chips_per_city: int = 12,
    cities: Sequence[str] = tuple(CITIES),
) -> None:
    """Write a DFC2020 tree.

    Args:
        layout: ``seasons`` for the folders ``spring summer autumn winter``, ``sets`` for ``trainset testset`` (whole
            places in either). Below them ``image/s2_{City}/ROIs0000_{season}_s2_{City}_p{n}.tif`` and
            ``label/dfc_{City}/ROIs0000_{season}_dfc_{City}_p{n}.tif``.
        chip: Edge of a chip in pixels, an even number.
        chips_per_city: Chips of each city, at most 36.
        cities: Which cities, of `CITIES`.
    """
    places = min(PLACES_PER_CITY, chips_per_city)
    for name in cities:
        city = CITIES[name]
        crs, east, north = utm(city.longitude, city.latitude)
        number = 0
        for place in range(places):
            count = chips_per_city // places + (place < chips_per_city % places)
            rng = rng_for("dfc2020", name, place, chip)
            steps = HALF_STEPS[:count]
            height, width = ((2 + max(step[axis] for step in steps)) * chip // 2 for axis in (0, 1))
            scene = make_scene(rng, (height, width), draw_shares(rng, city.covers, most=8, spread=0.5))
            image = render(scene, [city.view], SENTINEL2_L1C, rng)
            raw = np.asarray([LABEL_OF_COVER[cover] for cover in scene.covers], dtype=np.uint8)[scene.chosen]
            raw[unlabelled(rng, raw.shape, 0.03)] = 0
            west = east + PLACE_DISTANCE * (place % 2)
            top = north + PLACE_DISTANCE * (place // 2)
            folder = city.season if layout == "seasons" else "testset" if place == places - 1 else "trainset"
            for down, right in steps:
                row, column = down * chip // 2, right * chip // 2
                cut = np.s_[:, row : row + chip, column : column + chip]
                corner = (west + PIXEL * column, top - PIXEL * row)
                for kind, sort, values in (("image", "s2", image[cut]), ("label", "dfc", raw[None][cut])):
                    file = f"ROIs0000_{city.season}_{sort}_{name}_p{number}.tif"
                    write_tif(root / folder / kind / f"{sort}_{name}" / file, values, crs=crs, corner=corner)
                number += 1
