"""Green cover through the year: trees, grass, summer crops, winter crops and rice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spectral_tl_bench.sample.sensors import Sky
from spectral_tl_bench.sample.spectra import Array, Tint


@dataclass(frozen=True)
class Season:
    """Where in the growing year an image lies.

    Args:
        day: Day of the year; on the southern hemisphere shifted by half a year.
        onset: Day on which leaves unfold.
        offset: Day on which leaves fall.
        drought: How far grass is dried out in late summer, 0..1.
        spring_crops: Share of fields that are sown in spring and peak late; the others are winter cereals.
    """

    day: float
    onset: float = 110.0
    offset: float = 295.0
    drought: float = 0.1
    spring_crops: float = 0.6


@dataclass(frozen=True)
class View:
    """All that sets one image of one landscape apart from another image or landscape.

    Args:
        tint: Colours of soil, water and leaves; its vigour is replaced by the season's.
        town: Factors on the amounts of asphalt, concrete, metal and tile in built-up land.
        lushness: Factor on the leaf area of all vegetation.
    """

    season: Season
    sky: Sky = field(default_factory=Sky)
    tint: Tint = field(default_factory=Tint)
    town: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    lushness: float = 1.0


def _step(value: float) -> float:
    return float(1.0 / (1.0 + np.exp(-value)))


def trees(season: Season) -> float:
    """Share of deciduous leaves that are out, 0..1."""
    return _step((season.day - season.onset) / 7.0) * _step((season.offset - season.day) / 11.0)


def grass(season: Season) -> float:
    """Share of grass that is green, 0..1: longer than trees, and less in a dry summer."""
    growing = _step((season.day - season.onset + 25.0) / 12.0) * _step((season.offset + 15.0 - season.day) / 15.0)
    dry = season.drought * float(np.exp(-(((season.day - 225.0) / 50.0) ** 2)))
    return (0.3 + 0.7 * growing) * (1.0 - 0.8 * dry)


def crops(season: Season, choice: Array, shift: Array) -> Array:
    """Leaf area of fields relative to their peak.

    Args:
        choice: Uniform draw per field that picks the crop, 0..1.
        shift: Standard normal draw per field for its sowing date.

    Returns:
        Values of 0..1, one per field.
    """
    peak = season.onset + np.where(choice < season.spring_crops, 105.0, 45.0) + 9.0 * shift
    return np.exp(-(((season.day - peak) / 45.0) ** 2))


def rice(season: Season, shift: Array) -> Array:
    """Leaf area of paddy fields relative to their peak, one value of 0..1 per field."""
    return np.exp(-(((season.day - season.onset - 115.0 - 7.0 * shift) / 42.0) ** 2))


def vigour(season: Season) -> float:
    """Chlorophyll content relative to early summer: full after unfolding, less towards autumn."""
    return 0.35 + 0.65 * _step((season.offset - 25.0 - season.day) / 16.0)
