"""Spectral augmentation: what another day, atmosphere or sensor would do to the same ground."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Generator, Tensor

from spectral_tl_bench.objectives.base import Objective, Setting

HAZE_EXPONENTS = (1.0, 4.0)
"""Of the decrease of path radiance with wavelength: about 1 for aerosol (Angstrom exponents), 4 for Rayleigh."""


class SpectralAugmentation(Objective):
    """Random gain, haze, band noise and missing bands on source training windows, in the files' unit.

    Ours; no paper. The four are drawn for each window by itself, each with probability ``p``, in this order:

    - gain: all bands times one factor from 1 +- ``gain`` (sun height, topography, Earth-Sun distance; the last alone is
      +- 3 %), and each band times its own from a normal distribution with ``band_gain`` (radiometric calibration:
      Sentinel-2 asks for 3 to 5 %).
    - haze: an additive term that decreases with wavelength as lambda^-k, k from 1 (aerosol) to 4 (Rayleigh), at the
      shortest wavelength up to ``haze`` of that band's source mean. Each date of a time series has its own.
    - noise: per pixel and band, normal, with up to ``noise`` of the band's source mean (0.02 is a signal-to-noise ratio
      of 50; hyperspectral satellites have 20 to 200).
    - missing bands: each band with probability ``drop`` gets its source mean, which is what pixels without a
      measurement get. One band at least stays.

    The windows of a step get the same draws for every method of a benchmark and seed. Void pixels and pixels without a
    measurement are changed like all others.
    """

    numerics_version = 1
    window_by_window = True

    reference: ClassVar[str] = "none; ranges in the docstring"
    differs: ClassVar[tuple[str, ...]] = ("It has no source: the ranges are physical guesses, not tuned.",)

    p: float = Field(0.5, ge=0, le=1, description="probability of each of the four, per window")
    gain: float = Field(0.2, ge=0, lt=1, description="half range of the factor common to all bands")
    band_gain: float = Field(0.03, ge=0, description="standard deviation of each band's own factor")
    haze: float = Field(0.2, ge=0, description="largest haze, in means of the band of shortest wavelength")
    noise: float = Field(0.02, ge=0, description="largest noise, in means of each band")
    drop: float = Field(0.05, ge=0, lt=1, description="probability that a band is missing")

    _level: Tensor | None = PrivateAttr(None)
    _mean: Tensor | None = PrivateAttr(None)
    _wavelengths: Tensor | None = PrivateAttr(None)
    _dates: Tensor | None = PrivateAttr(None)

    def begin(self, setting: Setting) -> None:
        """Note the bands' source means and wavelengths."""
        self._mean = torch.tensor(setting.mean, dtype=torch.float32)
        self._level = self._mean.abs()
        self._wavelengths = torch.tensor(setting.wavelengths, dtype=torch.float64)
        self._dates = torch.tensor(dates(setting.wavelengths))

    def augment(self, images: Tensor, generator: Generator) -> Tensor:
        """All four, window by window."""
        if self._mean is None or self._level is None:
            raise RuntimeError("begin was not called")
        size, bands = images.shape[:2]
        draw = _Draw(generator, self.p, size)
        factor = 1 + self.gain * (2 * draw.uniform(1) - 1)
        factor = factor * (1 + self.band_gain * draw.normal(bands)).clamp(min=0)
        factor = draw.gate(factor, 1.0)
        haze = draw.gate(self._haze(draw), 0.0)
        noise = draw.gate(self.noise * draw.uniform(1) * self._level, 0.0)
        # Drawn on the CPU, so that a window gets the same noise on every device.
        grain = torch.randn(images.shape, generator=generator)
        missing = draw.gate((draw.uniform(bands) < self.drop).float(), 0.0) > 0
        missing &= ~missing.all(dim=1, keepdim=True)

        def place(values: Tensor) -> Tensor:
            return values.to(images.device)[:, :, None, None]

        changed = images * place(factor) + place(haze) + place(noise) * grain.to(images.device)
        mean = self._mean.to(images)[None, :, None, None]
        return torch.where(place(missing), mean, changed).to(images.dtype)

    def _haze(self, draw: _Draw) -> Tensor:
        """The additive term (B, C)."""
        if self._wavelengths is None or self._dates is None or self._level is None:
            raise RuntimeError("begin was not called")
        number = int(self._dates.max()) + 1
        low, high = HAZE_EXPONENTS
        amount, exponent = draw.uniform(number), low + (high - low) * draw.uniform(number)
        columns = []
        for band, date in enumerate(self._dates.tolist()):
            same = (self._dates == date).nonzero().flatten()
            shortest = same[self._wavelengths[same].argmin()]
            ratio = float(self._wavelengths[band] / self._wavelengths[shortest])
            columns.append(self.haze * self._level[shortest] * amount[:, date] * ratio ** -exponent[:, date])
        return torch.stack(columns, dim=1)


def dates(wavelengths: tuple[float, ...]) -> list[int]:
    """The date of each band: a wavelength that occurs again belongs to the next one."""
    seen: dict[float, int] = {}
    numbers = []
    for wavelength in wavelengths:
        numbers.append(seen.get(wavelength, 0))
        seen[wavelength] = numbers[-1] + 1
    return numbers


class _Draw:
    """Chance for the windows of one step."""

    def __init__(self, generator: Generator, p: float, size: int) -> None:
        self.generator, self.p, self.size = generator, p, size

    def uniform(self, columns: int) -> Tensor:
        """From 0 to 1, (B, columns)."""
        return torch.rand(self.size, columns, generator=self.generator)

    def normal(self, columns: int) -> Tensor:
        """Standard normal, (B, columns)."""
        return torch.randn(self.size, columns, generator=self.generator)

    def gate(self, values: Tensor, neutral: float) -> Tensor:
        """The values (B, C) for windows that are drawn with probability p, a neutral one for the others."""
        return torch.where(self.uniform(1) < self.p, values, torch.full_like(values, neutral))
