"""A scene as a model wants it: its bands in the benchmark's order, in the benchmark's unit, strip by strip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.windows import Window

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.data.units import Summary, Unit, suspicion, tagged, unit_of
from spectral_tl_bench.data.unmeasured import data_bands, unmeasured
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.sensors import Sensor

NEAR = 0.015
"""How far, in micrometres, a band may lie from the benchmark's, or 1.5 % of the wavelength where that is more."""
CACHE = 256 * 1024**2
"""Bytes of blocks that GDAL keeps."""
SAMPLED = 64
"""Squares of the scene whose values are compared with those of the training chips."""


@dataclass(frozen=True)
class SceneOptions:
    """What the user says about scenes.

    Attributes:
        bands: Numbers of the bands, from 1, in the benchmark's order; by default from names and wavelengths.
        scale: Reflectance = stored value * scale + offset; by default the tags of the file, else the benchmark's unit.
        offset: See ``scale``.
        trust_unit: Do not compare values with those of the training chips.
    """

    bands: tuple[int, ...] = ()
    scale: float | None = None
    offset: float | None = None
    trust_unit: bool = False


class Strip(NamedTuple):
    """Lines of a scene: pixels float32 (C, h, W) in the benchmark's unit, and bool (h, W) where one is unmeasured."""

    pixels: np.ndarray[Any, Any]
    missing: np.ndarray[Any, Any]


class Scene:
    """An open scene.

    Args:
        benchmark: Whose bands and unit are wanted.
        options: What the user says.

    Raises:
        DataError: If its bands are not those of the benchmark.
    """

    def __init__(self, source: Any, path: Path, benchmark: Benchmark, options: SceneOptions) -> None:
        self.source, self.path, self.nodata_in = source, path, benchmark.nodata_in
        self.height, self.width = int(source.height), int(source.width)
        self.bands, self.matched = match_bands(source, path, benchmark.sensor, options.bands)
        if any(np.dtype(source.dtypes[band - 1]).kind not in "iuf" for band in self.bands):
            raise DataError(f"the scene holds {source.dtypes[0]} pixels", where=path, expected="integers or floats")
        self.unit, self.unit_line = _unit(source, self.bands, benchmark.sensor, options)

    def strip(self, line: int, height: int, column: int = 0, width: int | None = None) -> Strip:
        """Lines of the scene; what is unmeasured has any value.

        Raises:
            DataError: If the pixels cannot be read.
        """
        window = Window(column, line, self.width if width is None else width, height)
        try:
            stored = self.source.read(self.bands, window=window)
            holes = unmeasured(self.source, self.bands, stored, self.nodata_in, window).values
        except rasterio.errors.RasterioError as error:
            raise DataError(f"the pixels cannot be read: {error}", where=self.path) from None
        pixels = (stored if self.unit is None else self.unit(stored)).astype(np.float32)
        missing = np.zeros(pixels.shape[1:], dtype=bool) if holes is None else np.asarray(holes.any(axis=0))
        return Strip(pixels, missing)

    def check_unit(self, training: Summary) -> None:
        """See to it that values are like those of the training chips, from squares spread over the scene.

        Args:
            training: Of the training chips, in the benchmark's unit.

        Raises:
            DataError: If all are another's times a factor, or plus an offset.
        """
        values = [square for square in self._squares() if square.size]
        if not values:
            return
        pixels = np.concatenate(values, axis=1).astype(np.float64)
        found = Summary(pixels.mean(axis=1), pixels.std(axis=1), np.percentile(pixels, 1, axis=1))
        like = suspicion(training, found)
        if like:
            raise DataError(
                f"values of the scene look like those of the training chips {like}", where=self.path,
                expected=f"{self.unit_line}, as the model was trained on; here the middle of the bands' means is "
                f"{np.median(found.mean):.4g}, there {np.median(training.mean):.4g}",
                fix="say its unit by --scale and --offset (reflectance = value * scale + offset), "
                "or --trust-unit if it is right as it is",
            )  # fmt: skip

    def _squares(self, side: int = 64) -> Iterator[np.ndarray[Any, Any]]:
        """Measured pixels (C, n) of squares."""
        per_axis = int(SAMPLED**0.5)
        lines = sorted({int(at) for at in np.linspace(0, max(0, self.height - side), per_axis)})
        columns = sorted({int(at) for at in np.linspace(0, max(0, self.width - side), per_axis)})
        for line in lines:
            for column in columns:
                part = self.strip(line, min(side, self.height - line), column, min(side, self.width - column))
                yield part.pixels[:, ~part.missing]


@contextmanager
def open_scene(path: Path, benchmark: Benchmark, options: SceneOptions) -> Iterator[Scene]:
    """Open a scene of any size.

    Raises:
        DataError: If it cannot be read, or its bands are not those of the benchmark.
    """
    # GDAL would keep blocks in 5 % of the machine's memory; what windows share is a few lines of blocks.
    with rasterio.Env(GDAL_CACHEMAX=CACHE), open_raster(path, any_size=True) as source:
        yield Scene(source, path, benchmark, options)


def _unit(source: Any, bands: Sequence[int], sensor: Sensor, options: SceneOptions) -> tuple[Unit | None, str]:
    if options.scale is not None or options.offset is not None:
        scale = sensor.scale if options.scale is None else options.scale
        count = len(bands)
        return unit_of((scale,) * count, (options.offset or 0.0,) * count, sensor.scale), sensor.unit
    scales, offsets = (tuple(values[band - 1] for band in bands) for values in (source.scales, source.offsets))
    return (unit_of(scales, offsets, sensor.scale) if tagged(scales, offsets) else None), sensor.unit


def match_bands(source: Any, path: Path, sensor: Sensor, chosen: Sequence[int] = ()) -> tuple[list[int], str]:
    """Which bands of a file are those of a sensor, in its order.

    Args:
        sensor: What is wanted.
        chosen: The user's choice of band numbers, from 1.

    Returns:
        Band numbers, and how they were found.

    Raises:
        DataError: If they cannot be found, or there would be two ways.
    """
    there = data_bands(source, len(sensor.bands))
    if chosen:
        return _as_chosen(chosen, source, path, sensor), "as --bands says"
    names = [plain_name(source.descriptions[band - 1] or "") for band in there]
    waves = [wavelength_of(source, band) for band in there]
    wanted = [plain_name(name) for name in sensor.band_names]
    if any(name in wanted for name in names):
        missing = [band.name for band, name in zip(sensor.bands, wanted, strict=True) if names.count(name) != 1]
        if missing:
            raise DataError(
                f"bands of the scene have names, and {missing[0]} is not one of them, or twice", where=path,
                expected=f"bands {', '.join(sensor.band_names)}; the file has "
                f"{', '.join(source.descriptions[band - 1] or '(none)' for band in there)}",
                fix="--bands 3,2,1,... names the numbers of the bands, in the order of the benchmark",
            )  # fmt: skip
        return [there[names.index(name)] for name in wanted], "by the names of the bands"
    if all(wave is not None for wave in waves) and len(set(sensor.wavelengths)) == len(sensor.bands):
        return _by_wavelength(there, [wave or 0.0 for wave in waves], path, sensor), "by their wavelengths"
    told = [source.descriptions[band - 1] or "" for band in there]
    foreign = all(told) and not _only_count(told)
    if foreign or len(there) != len(sensor.bands):
        raise DataError(
            f"bands of the scene are called {', '.join(told)}: none is a band of the benchmark" if foreign else
            f"the scene has {len(there)} bands, and does not say which", where=path,
            expected=f"the {len(sensor.bands)} bands of {sensor.name}: {', '.join(sensor.band_names)}",
            fix="--bands 3,2,1,... names the numbers of the bands, in the order of the benchmark",
        )  # fmt: skip
    return there, "in the benchmark's order, as the file does not name them"


def _as_chosen(chosen: Sequence[int], source: Any, path: Path, sensor: Sensor) -> list[int]:
    if len(chosen) != len(sensor.bands):
        raise DataError(f"--bands names {len(chosen)} bands", where=path,
                        expected=f"{len(sensor.bands)}: {', '.join(sensor.band_names)}")  # fmt: skip
    outside = [number for number in chosen if not 1 <= number <= source.count]
    if outside:
        raise DataError(f"--bands names band {outside[0]}", where=path, expected=f"numbers from 1 to {source.count}")
    return list(chosen)


def _by_wavelength(there: Sequence[int], waves: Sequence[float], path: Path, sensor: Sensor) -> list[int]:
    found: list[int] = []
    for band in sensor.bands:
        distances = np.abs(np.array(waves) - band.wavelength)
        nearest = int(distances.argmin())
        if distances[nearest] > max(NEAR, 0.015 * band.wavelength):
            raise DataError(
                f"the scene has no band at {band.wavelength:g} micrometres ({band.name}); the nearest is at "
                f"{waves[nearest]:g}", where=path, expected=f"bands of {sensor.name}",
                fix="if it is meant to be another, --bands names the numbers of the bands",
            )  # fmt: skip
        found.append(there[nearest])
    twice = [number for number in found if found.count(number) > 1]
    if twice:
        raise DataError(f"band {twice[0]} of the scene is the nearest to two bands of {sensor.name}", where=path,
                        fix="--bands names the numbers of the bands")  # fmt: skip
    return found


def _only_count(names: Sequence[str]) -> bool:
    """Whether names are one text and a running number, as software gives them to bands that have none."""
    return any(
        len({re.sub(rf"0*{number}$", "", name) for number, name in enumerate(names, start)}) == 1 for start in (0, 1)
    )


def plain_name(name: str) -> str:
    """A band's name as it is compared: B02, b2 and "Band 2" mean the same."""
    text = re.sub(r"[^a-z0-9.]", "", name.lower()).removeprefix("band")
    return re.sub(r"^b?0*(?=[0-9])", "b", text)


def wavelength_of(source: Any, band: int) -> float | None:
    """Centre wavelength of a band in micrometres, where the file says it."""
    for tags in (source.tags(band), source.tags(band, ns="IMAGERY")):
        values = {key.lower(): value for key, value in tags.items()}
        for key in ("central_wavelength_um", "wavelength", "central_wavelength", "center_wavelength"):
            try:
                value = float(re.sub(r"[^0-9.eE+-]", "", values[key]))
            except (KeyError, ValueError):
                continue
            return value / 1000 if value > 100 else value  # nobody maps land at 100 micrometres
    return None
