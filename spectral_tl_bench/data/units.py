"""In what unit pixels are: scale and offset, from a benchmark's rule or a file's tags, and what gives them away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark

FACTOR = 5.0
"""From this ratio on, a domain's deviations are taken for those of another unit: seasons and regions stay below it."""

MOST_DOMAINS = 6
"""Domains whose units are named: a record holds lines of a limited length."""


class Unit(NamedTuple):
    """Value in the benchmark's unit = stored value * gain + bias, each (C,)."""

    gain: tuple[float, ...]
    bias: tuple[float, ...]

    def __call__(self, stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Stored values (C, ...) in the benchmark's unit, float64."""
        shape = (-1,) + (1,) * (stored.ndim - 1)
        return stored.astype(np.float64) * np.reshape(self.gain, shape) + np.reshape(self.bias, shape)


def unit_of(scales: Sequence[float], offsets: Sequence[float], sensor_scale: float) -> Unit | None:
    """The unit of a file whose bands mean reflectance = stored value * scale + offset.

    Args:
        scales: One per band.
        offsets: One per band.
        sensor_scale: The benchmark's: reflectance = value * sensor_scale.

    Returns:
        The unit; None where stored values are in the benchmark's unit as they are.
    """
    gain = tuple(float(f"{scale / sensor_scale:.12g}") for scale in scales)
    bias = tuple(float(f"{offset / sensor_scale:.12g}") for offset in offsets)
    return None if set(gain) == {1.0} and set(bias) == {0.0} else Unit(gain, bias)


def tagged(scales: Sequence[float], offsets: Sequence[float]) -> bool:
    """Whether a file says anything about its unit: GDAL gives 1 and 0 where it does not."""
    return set(scales) != {1.0} or set(offsets) != {0.0}


def unit_line(benchmark: Benchmark, frame: pd.DataFrame) -> str:
    """The unit that was used, and what was done to the files of which domain."""
    parts = []
    ruled = {domain.id for domain in benchmark.domains if domain.has_unit}
    for domain, rows in frame.groupby("domain", sort=True):
        kinds = {(tuple(gain), tuple(bias)) for gain, bias in zip(rows["gain"], rows["bias"], strict=True)} - {((), ())}
        if kinds:
            said = "the benchmark" if domain in ruled else "tags of the files"
            shown = "; ".join(sorted(f"stored value * {_range(gain)} {_range(bias, '+')}" for gain, bias in kinds)[:3])
            parts.append(f"{domain}: {shown}{' ...' if len(kinds) > 3 else ''} ({said})")
    more = [f"... and {len(parts) - MOST_DOMAINS} more domains"] if len(parts) > MOST_DOMAINS else []
    return f"{benchmark.sensor.unit}; " + ("; ".join(parts[:MOST_DOMAINS] + more) or "values as stored")


def _range(values: Sequence[float], sign: str = "") -> str:
    low, high = min(values), max(values)
    return f"{low:{sign}.6g}" if low == high else f"({low:{sign}.6g} to {high:{sign}.6g})"


def suspicions(benchmark: Benchmark, frame: pd.DataFrame) -> list[str]:
    """Target domains whose values look like those of the source times a factor, or plus an offset.

    Args:
        frame: Of the index: domain, band_count, band_sum, band_square_sum, band_low.
    """
    if benchmark.in_domain:
        return []
    source = summary(frame[frame["domain"].isin(benchmark.source)])
    lines = []
    for domain in benchmark.target:
        rows = frame[frame["domain"] == domain]
        if rows.empty:
            continue
        what = suspicion(source, summary(rows))
        if what:
            lines.append(
                f"warning: values of {domain} look like those of the source {what}; if they are in another unit, "
                "give the domain `scale` and `offset` in the benchmark's YAML"
            )
    return lines


class Summary(NamedTuple):
    """Mean, deviation and the (median of the chips') darkest values, per band; in the benchmark's unit."""

    mean: np.ndarray[Any, Any]
    std: np.ndarray[Any, Any]
    low: np.ndarray[Any, Any]


def by_chip(rows: pd.DataFrame) -> tuple[np.ndarray[Any, Any], Summary]:
    """Measured values of each chip and band (N, C), and their summary, also (N, C).

    Args:
        rows: Of the index: band_count, band_sum, band_square_sum, band_low.
    """
    count, total, squares, low = (
        np.array(rows[f"band_{name}"].tolist(), dtype=np.float64) for name in ("count", "sum", "square_sum", "low")
    )
    mean, square = total / np.maximum(count, 1), squares / np.maximum(count, 1)
    return count, Summary(mean, np.sqrt(np.maximum(square - mean**2, 0)), low)


def summary(rows: pd.DataFrame) -> Summary:
    """The values of some chips.

    Args:
        rows: Of the index: band_count, band_sum, band_square_sum, band_low.
    """
    count = np.maximum(np.sum(rows["band_count"].tolist(), axis=0), 1)
    mean = np.sum(rows["band_sum"].tolist(), axis=0) / count
    square = np.sum(rows["band_square_sum"].tolist(), axis=0) / count
    low = np.array(rows["band_low"].tolist(), dtype=np.float64)
    low[:, np.isnan(low).all(axis=0)] = 0.0  # bands without a measurement, which have no deviation either
    return Summary(mean, np.sqrt(np.maximum(square - mean**2, 0)), np.nanmedian(low, axis=0))


def suspicion(source: Summary, target: Summary) -> str | None:
    """What makes of the source's values others that look like those of the target; None where nothing simple does."""
    usable = (source.std > 1e-6 * np.abs(source.mean)) & (target.std > 1e-6 * np.abs(target.mean)) & (source.mean != 0)
    if not usable.any():
        return None
    spread = float(np.median(target.std[usable] / source.std[usable]))
    level = float(np.median(target.mean[usable] / source.mean[usable]))
    if max(spread, 1 / spread) >= FACTOR and level > 0 and max(level / spread, spread / level) < 2.5:
        return f"times about {spread:.2g}"
    # Haze and seasons move bands by different amounts; an offset moves the darkest pixels of all bands alike.
    shift = target.low[usable] - source.low[usable]
    middle = float(np.median(shift))
    alike = np.abs(shift - middle) <= 0.3 * abs(middle)
    if usable.sum() >= 3 and middle and alike.all() and abs(middle) > 0.5 * float(np.median(source.std[usable])):
        return f"plus about {middle:.2g}"
    return None
