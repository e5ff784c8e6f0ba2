"""How a sensor sees a spectrum: Gaussian bands, sunlight, the air in between, noise, digital numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectral_tl_bench.sample.spectra import WAVELENGTHS, Array

REFLECTANCE_SCALE = 10_000
"""Digital numbers per unit of reflectance, in all three datasets."""


@dataclass(frozen=True)
class Sensor:
    """A set of bands.

    Args:
        centres: Centre wavelengths in micrometres, in band order.
        widths: Full width at half maximum of each band in micrometres.
        dtype: Type of the digital numbers.
        noise: Standard deviation of the noise in reflectance over a dark target.
        top_of_atmosphere: True where gas absorption is left in the image (level 1C).
    """

    centres: tuple[float, ...]
    widths: tuple[float, ...]
    dtype: str
    noise: float
    top_of_atmosphere: bool = False

    def response(self) -> Array:
        """Weights of the fine grid in each band, shape (wavelengths, bands); columns sum to 1."""
        sigma = np.asarray(self.widths) / 2.3548
        weights = np.exp(-0.5 * ((WAVELENGTHS[:, None] - np.asarray(self.centres)) / sigma) ** 2)
        return weights / weights.sum(axis=0)


@dataclass(frozen=True)
class Sky:
    """Light and air at the moment of one image.

    Args:
        sun: Factor on the light that comes back, which atmospheric correction did not undo.
        haze: Amount of scattering air, 0 (clear) to about 1.5 (thick).
        vapour: Water vapour in the column, 1 for an ordinary day; seen at level 1C only.
        azimuth: Direction of the sun in radians, for shaded slopes.
    """

    sun: float = 1.0
    haze: float = 0.3
    vapour: float = 1.0
    azimuth: float = 2.4


def atmosphere(sensor: Sensor, sky: Sky) -> tuple[Array, Array]:
    """Path reflectance and two-way transmittance per band.

    Rayleigh scattering falls as the fourth power of the wavelength, aerosol scattering more slowly. A surface
    reflectance product keeps a rest of both; a level 1C image has all of it, and the vapour lines at .94, 1.38
    (nearly opaque: the cirrus band) and 1.9.

    Returns:
        Two arrays of shape (bands,): what the air adds, and the share that it lets through.
    """
    x = WAVELENGTHS / 0.45
    rayleigh = (0.085 if sensor.top_of_atmosphere else 0.0) * x**-4.0
    aerosol = 0.050 * sky.haze * x**-4.0 + 0.018 * sky.haze * x**-1.3
    passing = np.exp(-1.1 * (rayleigh + aerosol))
    if sensor.top_of_atmosphere:
        depth = (
            0.45 * np.exp(-0.5 * ((WAVELENGTHS - 0.945) / 0.02) ** 2)
            + 6.0 * np.exp(-0.5 * ((WAVELENGTHS - 1.38) / 0.035) ** 2)
            + 3.0 * np.exp(-0.5 * ((WAVELENGTHS - 1.9) / 0.05) ** 2)
        )
        gas = np.exp(-sky.vapour * depth)
    else:
        gas = np.ones_like(WAVELENGTHS)
    response = sensor.response()
    return (rayleigh + aerosol) * gas @ response, passing * gas @ response


def observe(reflectance: Array, sensor: Sensor, sky: Sky, rng: np.random.Generator) -> np.ndarray:
    """Turn surface reflectance into digital numbers.

    Args:
        reflectance: Surface reflectance in the sensor's bands, shape (H, W, bands).

    Returns:
        Digital numbers, shape (bands, H, W), of the sensor's type, never below 1: 0 means no data.
    """
    path, passing = atmosphere(sensor, sky)
    seen = path + passing * sky.sun * reflectance
    seen = seen + rng.standard_normal(seen.shape) * (sensor.noise + 0.004 * seen)
    numbers = np.rint(seen * REFLECTANCE_SCALE)
    return np.clip(numbers, 1, 16_000).astype(sensor.dtype).transpose(2, 0, 1)


WHU_OHS = Sensor(
    centres=(
        0.466, 0.480, 0.500, 0.520, 0.536, 0.550, 0.566, 0.580, 0.596, 0.610, 0.626, 0.640, 0.656, 0.670, 0.686, 0.700,
        0.716, 0.730, 0.746, 0.760, 0.776, 0.790, 0.806, 0.820, 0.836, 0.850, 0.866, 0.880, 0.896, 0.910, 0.926, 0.940,
    ),
    widths=(0.008,) * 32,
    dtype="int16",
    noise=0.0012,
)  # fmt: skip
"""The 32 bands of the Orbita hyperspectral sensor as WHU-OHS lists them."""

SENTINEL2_L1C = Sensor(
    centres=(0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783, 0.833, 0.865, 0.943, 1.380, 1.610, 2.190),
    widths=(0.021, 0.066, 0.036, 0.031, 0.015, 0.015, 0.020, 0.106, 0.021, 0.020, 0.031, 0.091, 0.175),
    dtype="uint16",
    noise=0.0012,
    top_of_atmosphere=True,
)
"""The 13 bands of Sentinel-2 at the top of the atmosphere, in the order of DFC2020."""

SENTINEL2_SIX = Sensor(
    centres=(0.490, 0.560, 0.665, 0.842, 1.610, 2.190),
    widths=(0.066, 0.036, 0.031, 0.106, 0.091, 0.175),
    dtype="uint16",
    noise=0.0012,
)
"""The six bands that MTS12 holds of each date."""
