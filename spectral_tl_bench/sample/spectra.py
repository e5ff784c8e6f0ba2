"""Reflectance of pure materials between 0.4 and 2.5 micrometres, from simple physics.

Nothing here is measured: absorption features stand where they stand in nature (chlorophyll at .45 and .67, the red
edge near .71, water at .97, 1.2, 1.45 and 1.94, iron below .6 and at .87, clay at 2.2, cellulose at 2.1), with depths
that give plausible spectra. A leaf is a plateau attenuated by its absorbers, as in the PROSPECT model; mixtures of
materials are linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WAVELENGTHS: Array = np.arange(400, 2501, 5) / 1000.0
"""The grid that all materials are defined on, in micrometres."""

MATERIALS = (
    "broadleaf", "conifer", "crop", "grass", "shrub", "reed", "litter", "soil", "wetsoil", "sand", "rock", "salt",
    "gobi", "asphalt", "concrete", "metal", "tile", "clear", "turbid", "algae", "ocean", "snow", "shadow",
)  # fmt: skip
"""Names of the materials, in the order of the rows of `material_table`."""


@dataclass(frozen=True)
class Tint:
    """What changes the colour of materials from one landscape or date to another.

    Args:
        brightness: Factor on the reflectance of soil, sand, rock and gobi.
        iron: Strength of iron absorption in soil, 0 (grey) to 1 (red).
        moisture: Wetness of the open soil, 0 (dry) to 1 (soaked).
        turbidity: Sediment in rivers, lakes and the sea, 0..1.
        vigour: Chlorophyll content relative to full summer, 0..1.
    """

    brightness: float = 1.0
    iron: float = 0.3
    moisture: float = 0.3
    turbidity: float = 0.4
    vigour: float = 1.0


def _bump(centre: float, width: float) -> Array:
    return np.exp(-0.5 * ((WAVELENGTHS - centre) / width) ** 2)


def _chlorophyll() -> Array:
    peaks = 1.2 * _bump(0.44, 0.035) + 0.8 * _bump(0.49, 0.03) + 1.0 * _bump(0.672, 0.022) + 0.45 * _bump(0.62, 0.03)
    edge = 1.0 / (1.0 + np.exp((WAVELENGTHS - 0.712) / 0.010))
    return (peaks + 0.38) * edge


def _leaf_water() -> Array:
    lines = 0.05 * _bump(0.97, 0.02) + 0.12 * _bump(1.2, 0.03) + 1.0 * _bump(1.45, 0.06) + 1.5 * _bump(1.94, 0.07)
    rise = 0.35 / (1.0 + np.exp((1.42 - WAVELENGTHS) / 0.06)) + 0.45 / (1.0 + np.exp((1.9 - WAVELENGTHS) / 0.06))
    return lines + rise


def leaf(chlorophyll: float, water: float, *, plateau: float = 0.5, brown: float = 0.1) -> Array:
    """Reflectance of a closed canopy.

    Args:
        chlorophyll: Optical depth of chlorophyll, about 2 for green leaves.
        water: Optical depth of leaf water, about 1 for turgid leaves.
        plateau: Reflectance where nothing absorbs.
        brown: Optical depth of brown pigments at .4 micrometres.

    Returns:
        Reflectance on `WAVELENGTHS`, 0..1.
    """
    pigments = brown * np.exp(-(WAVELENGTHS - 0.4) / 0.18)
    cellulose = 0.15 * _bump(2.1, 0.05) + 0.2 * _bump(2.32, 0.06)
    return plateau * np.exp(-chlorophyll * _chlorophyll() - water * _leaf_water() - pigments - cellulose)


def soil(level: float, *, iron: float, moisture: float, clay: float = 0.12) -> Array:
    """Reflectance of bare ground: a rising line, bent by iron, darkened by water, with a clay line at 2.2."""
    line = level * (0.35 + 1.0 * (1.0 - np.exp(-(WAVELENGTHS - 0.38) / 0.55)))
    rust = iron * (0.9 * _bump(0.40, 0.10) + 0.35 * _bump(0.51, 0.03) + 0.12 * _bump(0.87, 0.05))
    wet = moisture * (0.45 + 0.5 * _leaf_water())
    return line * np.exp(-rust - wet - clay * _bump(2.2, 0.025))


def water(blue: float, sediment: float, algae: float) -> Array:
    """Reflectance of a water body: an exponential fall from the blue, plus sediment and algae; dark beyond .9."""
    fall = blue * np.exp(-(WAVELENGTHS - 0.44) / 0.10)
    mud = sediment * 0.11 * np.exp(-0.5 * ((WAVELENGTHS - 0.58) / 0.10) ** 2)
    glow = algae * (0.06 * _bump(0.56, 0.025) + 0.025 * _bump(0.705, 0.015)) - algae * 0.012 * _bump(0.67, 0.015)
    return np.clip(fall + mud + glow + 0.002, 0.001, None)


def _line(*points: tuple[float, float]) -> Array:
    where, what = zip(*points, strict=True)
    return np.interp(WAVELENGTHS, where, what)


def material_table(tint: Tint) -> Array:
    """Spectra of all `MATERIALS` in one landscape.

    Returns:
        Reflectance, shape (materials, wavelengths), 0..1.
    """
    t, v = tint, tint.vigour
    sandy = soil(0.30 * t.brightness, iron=0.35 + 0.5 * t.iron, moisture=0.15 * t.moisture, clay=0.03)
    spectra = {
        "broadleaf": leaf(0.5 + 1.7 * v, 0.95, plateau=0.50, brown=0.1 + 0.7 * (1 - v)),
        "conifer": leaf(2.3, 1.25, plateau=0.33, brown=0.25),
        "crop": leaf(0.4 + 1.5 * v, 0.80, plateau=0.53, brown=0.1 + 0.5 * (1 - v)),
        "grass": leaf(0.5 + 1.2 * v, 0.65, plateau=0.46, brown=0.15 + 0.4 * (1 - v)),
        "shrub": leaf(1.0 + 0.8 * v, 0.75, plateau=0.37, brown=0.35 + 0.3 * (1 - v)),
        "reed": leaf(0.8 + 1.2 * v, 1.10, plateau=0.42, brown=0.3 + 0.3 * (1 - v)),
        "litter": soil(0.24, iron=0.45, moisture=0.05) * np.exp(-0.25 * _bump(2.1, 0.06)),
        "soil": soil(0.19 * t.brightness, iron=t.iron, moisture=t.moisture),
        "wetsoil": soil(0.15 * t.brightness, iron=t.iron, moisture=min(1.0, 0.6 + 0.5 * t.moisture)),
        "sand": sandy,
        "rock": soil(0.20 * t.brightness, iron=0.1, moisture=0.02, clay=0.0) * np.exp(-0.3 * _bump(2.33, 0.04)),
        "salt": _line((0.4, 0.36), (0.55, 0.47), (0.9, 0.54), (1.3, 0.52), (1.6, 0.44), (2.5, 0.25))
        * np.exp(-t.moisture * 0.5 * _leaf_water()),
        "gobi": soil(0.16 * t.brightness, iron=0.65, moisture=0.0, clay=0.05),
        "asphalt": _line((0.4, 0.075), (0.8, 0.11), (1.6, 0.15), (2.5, 0.15)),
        "concrete": _line((0.4, 0.18), (0.6, 0.27), (1.0, 0.31), (1.7, 0.34), (2.5, 0.28)),
        "metal": _line((0.4, 0.42), (0.6, 0.45), (1.0, 0.42), (1.7, 0.45), (2.5, 0.38)),
        "tile": soil(0.27, iron=1.4, moisture=0.0, clay=0.05),
        "clear": water(0.035, 0.10 * t.turbidity, 0.15),
        "turbid": water(0.045, 0.35 + 0.65 * t.turbidity, 0.2),
        "algae": water(0.025, 0.20 + 0.25 * t.turbidity, 0.9),
        "ocean": water(0.070, 0.18 * t.turbidity, 0.05),
        "snow": _line((0.4, 0.88), (0.8, 0.85), (1.0, 0.70), (1.25, 0.45), (1.5, 0.06), (1.7, 0.12), (2.5, 0.05)),
        "shadow": np.full_like(WAVELENGTHS, 0.004),
    }
    return np.stack([spectra[name] for name in MATERIALS])
