"""RGB images of invented landscapes, from the physics of the bundled sample but from none of its places.

The covers, the lie of the land and the materials are those of the sample's generator; climate, date, air and colours
are drawn at random instead of being those of a city. A sensor here has three bands and no others, so a model that is
pretrained on these images has seen red, green and blue light only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.models.patch_embedding import RGB
from spectral_tl_bench.sample.covers import COVERS
from spectral_tl_bench.sample.phenology import Season, View
from spectral_tl_bench.sample.scene import draw_shares, make_scene, render, rng_for
from spectral_tl_bench.sample.sensors import REFLECTANCE_SCALE, SENTINEL2_L1C, SENTINEL2_SIX, WHU_OHS, Sensor, Sky
from spectral_tl_bench.sample.spectra import Tint

NAMESPACE = "rgb-mini"
"""First part of every seed; the sample's seeds begin with the name of a dataset."""


def rgb_of(sensor: Sensor) -> Sensor:
    """The three bands of a sensor whose centres are nearest to red, green and blue."""
    nearest = [int(np.abs(np.asarray(sensor.centres) - colour).argmin()) for colour in RGB]
    return Sensor(
        centres=tuple(sensor.centres[band] for band in nearest),
        widths=tuple(sensor.widths[band] for band in nearest),
        dtype=sensor.dtype,
        noise=sensor.noise,
        top_of_atmosphere=sensor.top_of_atmosphere,
    )


KINDS = tuple(COVERS)
"""The covers in the order of their numbers."""

RARE = {"snow": 0.05, "salt_flat": 0.2}
"""Covers so bright that, were they common, the contrast of all others would vanish in the standardisation."""

CAMERA = Sensor((0.64, 0.55, 0.47), (0.08, 0.08, 0.07), "uint16", 0.002)
"""An aerial camera with broad, overlapping bands."""

SENSORS: dict[str, Sensor] = {
    "Sentinel-2 (top of atmosphere)": rgb_of(SENTINEL2_L1C),
    "Sentinel-2 (surface)": rgb_of(SENTINEL2_SIX),
    "Orbita": rgb_of(WHU_OHS),
    "aerial camera": CAMERA,
}


def draw_landscape(rng: np.random.Generator) -> dict[str, float]:
    """Shares of the covers in an invented landscape: any of the generator's covers may meet."""
    climate = {name: RARE.get(name, 1.0) * float(np.exp(0.8 * rng.standard_normal())) for name in COVERS}
    return draw_shares(rng, climate, most=int(rng.integers(5, 13)))


def draw_view(rng: np.random.Generator) -> View:
    """Date, air and colours of an image, each uniform over a range that is plausible somewhere on Earth."""

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    town = np.exp(0.2 * rng.standard_normal(4)).tolist()
    return View(
        Season(
            day=between(60, 345),
            onset=between(70, 145),
            offset=between(265, 335),
            drought=between(0.0, 0.6),
            spring_crops=between(0.3, 0.9),
        ),
        Sky(sun=between(0.85, 1.1), haze=between(0.1, 1.0), azimuth=between(0.0, 2 * np.pi)),
        Tint(
            brightness=between(0.75, 1.3),
            iron=between(0.1, 0.9),
            moisture=between(0.05, 0.6),
            turbidity=between(0.2, 0.8),
        ),
        (town[0], town[1], town[2], town[3]),
        lushness=between(0.8, 1.15),
    )


class Images(NamedTuple):
    """Images with what lies on the ground.

    Attributes:
        colours: Reflectance of red, green and blue, (N, 3, H, W).
        covers: Number of the cover per pixel, in the order of ``KINDS``, (N, H, W).
    """

    colours: NDArray[np.float32]
    covers: NDArray[np.int64]


def landscape(seed: int, number: int, size: int, views: int) -> Images:
    """RGB images of one invented landscape, each on another date and by another sensor.

    Args:
        seed: Seed of the whole collection.
        number: Which landscape of the collection.
        size: Side in pixels of 10 m.
        views: How many images, at most as many as `SENSORS`.
    """
    rng = rng_for(NAMESPACE, seed, number, size)
    scene = make_scene(rng, (size, size), draw_landscape(rng))
    names = list(SENSORS)
    chosen = [names[k] for k in rng.permutation(len(names))[:views]]
    numbers = [render(scene, [draw_view(rng)], SENSORS[name], rng) for name in chosen]
    covers = np.asarray([KINDS.index(name) for name in scene.covers])[scene.chosen]
    return Images((np.stack(numbers) / REFLECTANCE_SCALE).astype(np.float32), np.stack([covers] * views))


def collection(seed: int, landscapes: int, size: int, views: int) -> Images:
    """The images of so many landscapes."""
    each = [landscape(seed, number, size, views) for number in range(landscapes)]
    return Images(*(np.concatenate(parts) for parts in zip(*each, strict=True)))


def describe(seed: int, landscapes: int, size: int, views: int) -> dict[str, Any]:
    """What the images are, for the card of a model."""
    return {
        "kind": "synthetic RGB images of invented landscapes, and their covers, by the generator of the bundled sample",
        "seeds": f"names beginning with {NAMESPACE!r}; no chip, place or date of the bundled sample",
        "seed": seed,
        "landscapes": landscapes,
        "images_per_landscape": views,
        "size": size,
        "sensors": {name: list(sensor.centres) for name, sensor in SENSORS.items()},
    }
