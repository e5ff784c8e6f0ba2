"""Sensors as data: bands with their centre wavelengths, the unit of the pixels, the ground sampling distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

SHORTEST, LONGEST = 0.3, 15.0
"""Plausible centre wavelengths in micrometres: anything outside is almost always a unit mistake (nanometres)."""


class Band(BaseModel):
    """One band of an image.

    Attributes:
        name: Band name, unique within its sensor.
        wavelength: Centre wavelength in micrometres.
        date: Acquisition label in a time series (for example ``Jun``), otherwise empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    wavelength: Annotated[float, Field(description="centre wavelength in micrometres")]
    date: str = ""

    @model_validator(mode="after")
    def _plausible(self) -> Band:
        if not SHORTEST <= self.wavelength <= LONGEST:
            raise ValueError(
                f"band {self.name}: wavelength {self.wavelength:g} is not between {SHORTEST} and {LONGEST} micrometres"
                " (is it in nanometres?)"
            )
        return self


class EvenBands(BaseModel):
    """Bands of which only the range is known, taken as evenly spaced: their wavelengths are approximate.

    Attributes:
        first: Centre of the first one in micrometres.
        last: Centre of the last one in micrometres.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: Annotated[int, Field(ge=2, le=10_000)]
    first: float
    last: float

    @property
    def bands(self) -> list[dict[str, object]]:
        """The bands ``b1``, ``b2``, ...; wavelengths to a tenth of a nanometre."""
        step = (self.last - self.first) / (self.number - 1)
        return [{"name": f"b{n + 1}", "wavelength": round(self.first + step * n, 4)} for n in range(self.number)]


class Sensor(BaseModel):
    """What made the pixels.

    Attributes:
        name: Sensor name, for people.
        gsd: Ground sampling distance in metres.
        unit: What a pixel value means, for people.
        scale: Reflectance = value * scale.
        bands: The bands in the order in which the files hold them; or ``{number, first, last}`` where no more is known
            than that, for evenly spaced ones.
        approximate: Whether wavelengths are nominal ones, by which bands are not held against physics.
        composites: Which bands the patch embedding ``composites`` reads as red, green and blue, by their names, in one
            pass after the other; by default by a rule from the wavelengths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    gsd: Annotated[float, Field(gt=0)]
    unit: str
    scale: Annotated[float, Field(gt=0)] = 1.0
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]
    approximate: bool = False
    composites: Annotated[tuple[tuple[str, str, str], ...], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _even(cls, value: object) -> object:
        if isinstance(value, Mapping) and isinstance(value.get("bands"), Mapping):
            return {**value, "bands": EvenBands.model_validate(value["bands"]).bands, "approximate": True}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Sensor:
        names = [band.name for band in self.bands]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"band names must be unique, these occur twice: {', '.join(twice)}")
        unknown = [name for group in self.composites or () for name in group if name not in names]
        if unknown:
            raise ValueError(f"composites name band {unknown[0]!r}, which is none of {', '.join(names)}")
        return self

    @property
    def composite_bands(self) -> tuple[tuple[int, ...], ...]:
        """The bands of the named composites, by their numbers; empty where none are named."""
        return tuple(tuple(self.band_names.index(name) for name in group) for group in self.composites or ())

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Centre wavelengths in micrometres, one per band."""
        return tuple(band.wavelength for band in self.bands)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Band names in file order."""
        return tuple(band.name for band in self.bands)
