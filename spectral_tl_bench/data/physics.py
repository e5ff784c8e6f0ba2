"""Whether bands are what they are called: the spectra of classes against what everybody knows of them.

Bands in another order and pixels in another unit still train, and give numbers that nobody can compare. Sources of the
rules: Tucker, Remote Sens. Environ. 8, 1979 (vegetation: red and near infrared); Horler et al., Int. J. Remote Sens. 4,
1983 (red edge); McFeeters, Int. J. Remote Sens. 17, 1996 (water: green and near infrared); Gao et al., J. Geophys. Res.
98, 1993 (1.38 um: dark at the ground). Their limits are wide: they tell a fault, not a season.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.units import by_chip, summary

BLUE, GREEN, RED, NIR, SWIR = (0.44, 0.52), (0.53, 0.59), (0.63, 0.69), (0.78, 0.90), (1.55, 2.35)
CIRRUS = (1.34, 1.41)
RED_EDGE = (0.66, 0.79)
FEWEST = 200
"""Pixels of a kind of class that say something."""
MIXED = 1.25
"""How much brighter water may be in the infrared, where it is narrow and its pixels hold land."""
BRIGHTEST, DARKEST = 0.9, 0.003
"""Mean reflectances beyond which the unit is another."""
ALIEN = 10.0
"""Times beyond these the mean of a single chip, which may be all water or all snow, is in another unit."""
UNIT = "values are in the unit of the benchmark"


class Finding(NamedTuple):
    """What was found of the bands of a domain.

    Attributes:
        fault: What contradicts the sensor; empty where all rules hold.
        held: The rules that were tried and hold.
    """

    domain: str
    fault: str
    held: tuple[str, ...]


def band_physics(benchmark: Benchmark, frame: pd.DataFrame) -> list[Finding]:
    """Hold the mean spectra of each domain's vegetation and water against what they must look like.

    Args:
        benchmark: The benchmark; the kinds of its classes say what is vegetation and water.
        frame: Of the index: domain, band_count, band_sum, band_square_sum, seen_labels, seen_counts, seen_sums.

    Returns:
        For each domain that has chips; a domain of which nothing can be said has neither fault nor rule.
    """
    findings = []
    for domain, rows in frame.groupby("domain", sort=True):
        said = list(_rules(benchmark, rows))
        faults = [f"not so: {rule} ({fault})" for rule, fault in said if fault]
        held = dict.fromkeys(rule for rule, fault in said if not fault)
        findings.append(Finding(str(domain), "; ".join(faults), tuple(held)))
    return findings


def _rules(benchmark: Benchmark, rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """(rule, what contradicts it) for every rule that can be tried."""
    mean, std, low = summary(rows)
    if _standardised(mean, std, low):
        yield (
            UNIT,
            (
                f"values are standardised already (mean {np.median(mean):.2g}, deviation {np.median(std):.2g}), where "
                f"the benchmark says {benchmark.sensor.unit}"
            ),
        )
        return
    scale = benchmark.sensor.scale
    if "scale" not in benchmark.sensor.model_fields_set:
        return  # it does not say that values are reflectance at all
    level = float(np.median(mean)) * scale
    fault = f"the mean reflectance would be {level:.3g}, with {benchmark.sensor.unit} and scale {scale:g}"
    yield UNIT, "" if DARKEST <= level <= BRIGHTEST else fault
    if benchmark.sensor.approximate:
        return
    spectra = _spectra(benchmark, rows)
    waves = np.array([band.wavelength for band in benchmark.sensor.bands])
    dates = np.array([band.date for band in benchmark.sensor.bands])
    for date in dict.fromkeys(dates):
        bands = dates == date
        where = f" in {date}" if date else ""
        everything = mean[bands] * scale
        yield from _cirrus(waves[bands], everything, where)
        if (green := spectra.get("vegetation")) is not None:
            yield from _vegetation(waves[bands], green[bands] * scale, where)
        if (water := spectra.get("water")) is not None:
            yield from _water(waves[bands], water[bands] * scale, where)


def _standardised(mean: np.ndarray, std: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Of bands on the last axis, whether their values are z-scores."""
    middle = np.median(std, axis=-1)
    return (np.median(np.abs(mean), axis=-1) < 0.5) & (middle > 0.3) & (middle < 3) & (low < 0).all(axis=-1)


def chips_in_another_unit(benchmark: Benchmark, frame: pd.DataFrame) -> tuple[dict[str, str], list[str]]:
    """Single chips that the mean of their domain does not tell of.

    Args:
        benchmark: The benchmark.
        frame: As ``band_physics`` takes it, by chip, all of as many bands.

    Returns:
        What the values of those in another unit look like, by chip; and the chips whose bands are one value throughout.
    """
    if "scale" not in benchmark.sensor.model_fields_set or not len(frame):
        return {}, []
    count, (mean, std, low) = by_chip(frame)
    measured, level = (count > 0).any(axis=1), np.median(mean, axis=1) * benchmark.sensor.scale
    blank = measured & (std <= 1e-6 * np.abs(mean)).all(axis=1)
    zscored = measured & ~blank & _standardised(mean, std, low)
    strange = measured & ~blank & ~zscored & ((level < DARKEST / ALIEN) | (level > BRIGHTEST * ALIEN))
    names = np.array([str(chip) for chip in frame.index], dtype=object)
    found: dict[str, str] = dict.fromkeys(names[zscored], "values are standardised already")
    found |= {name: f"the mean reflectance would be {value:.3g}"
              for name, value in zip(names[strange], level[strange], strict=True)}  # fmt: skip
    return found, names[blank].tolist()


def _vegetation(waves: np.ndarray, spectrum: np.ndarray, where: str) -> Iterator[tuple[str, str]]:
    red, near = _at(waves, spectrum, RED), _at(waves, spectrum, NIR)
    if red is not None and near is not None:
        fault = "" if near > 1.2 * red else f"near infrared {near:.3f}, red {red:.3f}{where}"
        yield "vegetation is brighter in the near infrared than in red", fault
    edge = (waves >= RED_EDGE[0]) & (waves <= RED_EDGE[1])
    order = np.argsort(waves[edge])
    steps = np.diff(spectrum[edge][order])
    if edge.sum() >= 3:
        values = ", ".join(f"{value:.3f}" for value in spectrum[edge][order])
        fault = f"{values} from {waves[edge].min():.3f} to {waves[edge].max():.3f} um{where}"
        yield "the red edge of vegetation rises", "" if (steps > -0.01).all() else fault


def _water(waves: np.ndarray, spectrum: np.ndarray, where: str) -> Iterator[tuple[str, str]]:
    visible = next((value for span in (GREEN, BLUE, RED) if (value := _at(waves, spectrum, span)) is not None), None)
    near, short = _at(waves, spectrum, NIR), _at(waves, spectrum, SWIR)
    for name, value in (("near", near), ("short-wave", short)):
        if visible is not None and value is not None:
            fault = "" if value < MIXED * visible else f"{name} infrared {value:.3f}, visible {visible:.3f}{where}"
            yield f"water is darker in the {name} infrared than in visible light", fault


def _cirrus(waves: np.ndarray, spectrum: np.ndarray, where: str) -> Iterator[tuple[str, str]]:
    cirrus, visible = _at(waves, spectrum, CIRRUS), _at(waves, spectrum, GREEN)
    if cirrus is not None and visible is not None:
        yield (
            "the band at 1.38 um is dark",
            "" if cirrus < 0.3 * visible else f"{cirrus:.3f}, green {visible:.3f}{where}",
        )


def _at(waves: np.ndarray, spectrum: np.ndarray, span: tuple[float, float]) -> float | None:
    inside = (waves >= span[0]) & (waves <= span[1])
    return float(spectrum[inside].mean()) if inside.any() else None


def _spectra(benchmark: Benchmark, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The mean spectrum of each kind of class with enough pixels, in the benchmark's unit."""
    kinds = {value: cover.kind for cover in benchmark.labels.classes for value in cover.raw}
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for labels, seen, total in zip(rows["seen_labels"], rows["seen_counts"], rows["seen_sums"], strict=True):
        if not len(labels):
            continue  # no pixel of it is measured in every band
        spectra = np.asarray(total, dtype=np.float64).reshape(len(labels), -1)
        for label, count, spectrum in zip(labels, seen, spectra, strict=True):
            kind = kinds.get(int(label))
            if kind is not None:
                sums[kind] = sums.get(kind, 0.0) + spectrum
                counts[kind] = counts.get(kind, 0) + int(count)
    return {kind: sums[kind] / counts[kind] for kind in sums if counts[kind] >= FEWEST}
