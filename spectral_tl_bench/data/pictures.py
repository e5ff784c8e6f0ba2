"""A chip as a picture, and domains as tables: what a benchmark's pixels look like."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.rasters import open_datasets
from spectral_tl_bench.data.units import summary
from spectral_tl_bench.errors import DataError

COLOURS = {"true colour": (0.665, 0.56, 0.49), "false colour": (0.842, 0.665, 0.56)}
"""Wavelengths in micrometres that are shown as red, green and blue."""
TOLERANCE = 0.05
"""How far, in micrometres, a band may be from the wavelength that it stands for."""


def chip_figure(benchmark: Benchmark, index: ChipIndex, chip: str) -> Any:
    """A chip in true and false colour, its label with a legend, and the mean spectrum of each class.

    Returns:
        A matplotlib ``Figure``; of a time series the first date is shown in colour, and all bands in the spectra.

    Raises:
        DataError: If there is no such chip.
    """
    from matplotlib import colors
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if chip not in index.frame.index:
        near = difflib.get_close_matches(chip, index.frame.index, n=3) or list(index.frame.index[:3])
        raise DataError(
            f"{benchmark.id} has no chip {chip!r}", where=index.root,
            expected=f"one of {len(index.frame)}, such as {', '.join(near)}",
        )  # fmt: skip
    row = index.frame.loc[chip].to_dict()
    sample = open_datasets(benchmark, index, [chip])[0].read_window(0, 0, 0, int(row["height"]), int(row["width"]))
    image, label = sample["image"].numpy(), sample["mask"].numpy()
    classes = benchmark.labels.classes
    panels = compositions(benchmark.sensor.wavelengths)
    figure = Figure(figsize=(3.2 * (len(panels) + 1), 6.4), layout="constrained")
    figure.suptitle(f"{benchmark.id}: {chip} ({benchmark.domain(row['domain']).name or row['domain']})", fontsize=10)
    grid = figure.add_gridspec(2, len(panels) + 1)
    for column, (title, bands) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(_stretched(image[list(bands)]), cmap="gray", interpolation="nearest")
        axes.set_title(f"{title}: {', '.join(benchmark.sensor.band_names[band] for band in bands)}", fontsize=8)
        axes.axis("off")
    axes = figure.add_subplot(grid[0, len(panels)])
    palette = colors.ListedColormap([cover.colour for cover in classes])
    hidden = np.ma.masked_equal(label, VOID)
    axes.imshow(hidden, cmap=palette, vmin=-0.5, vmax=len(classes) - 0.5, interpolation="nearest")
    present = [number for number in range(len(classes)) if (label == number).any()]
    axes.legend(
        handles=[Patch(color=classes[number].colour, label=classes[number].name) for number in present],
        fontsize=6, loc="upper left", bbox_to_anchor=(0, 0), ncols=2, frameon=False,
    )  # fmt: skip
    axes.set_title("label (white: void)", fontsize=8)
    axes.axis("off")
    axes = figure.add_subplot(grid[1, :])
    names, place = benchmark.sensor.band_names, np.arange(len(image))
    for number in present:
        pixels = image[:, label == number] * benchmark.sensor.scale
        mean, std = pixels.mean(axis=1), pixels.std(axis=1)
        axes.plot(place, mean, color=classes[number].colour, label=classes[number].name)
        axes.fill_between(place, mean - std, mean + std, color=classes[number].colour, alpha=0.15, linewidth=0)
    axes.set_xticks(place, names, rotation=90, fontsize=6)
    axes.set_ylabel(f"value x {benchmark.sensor.scale:g}, mean and deviation", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    return figure


def compositions(wavelengths: Sequence[float]) -> dict[str, tuple[int, ...]]:
    """Which bands to show, by title: in true and false colour where there are such bands.

    Args:
        wavelengths: Centre wavelengths in micrometres, one per band; of a time series the first date is shown.

    Returns:
        Three band numbers by title, or a single one, shown in grey.
    """
    distance = np.abs(np.asarray(wavelengths)[:, None] - np.asarray([*COLOURS.values()]).reshape(-1))
    best = distance.argmin(axis=0).reshape(-1, 3)
    near = (distance.min(axis=0) <= TOLERANCE).reshape(-1, 3).all(axis=1)
    triples = {
        title: tuple(int(band) for band in bands)
        for title, bands, there in zip(COLOURS, best, near, strict=True)
        if there and len(set(bands.tolist())) == 3
    }
    if triples:
        return triples
    return {"first bands": (0, 1, 2)} if len(wavelengths) >= 3 else {"first band": (0,)}


def class_shares(benchmark: Benchmark, index: ChipIndex) -> pd.DataFrame:
    """Share of each class among the labelled pixels, a row per class and a column per domain."""
    counts = index.frame.groupby("domain", sort=True)["class_counts"].agg(lambda rows: np.sum(rows.tolist(), axis=0))
    shares = {domain: np.asarray(total) / max(1, np.sum(total)) for domain, total in counts.items()}
    return pd.DataFrame(shares, index=[cover.name for cover in benchmark.labels.classes])


def band_statistics(benchmark: Benchmark, index: ChipIndex) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and deviation of each band's measured values, in reflectance where the benchmark has a scale.

    Returns:
        Two tables, each with a row per band and a column per domain.
    """
    means, deviations = {}, {}
    for domain, rows in index.frame.groupby("domain", sort=True):
        found = summary(rows)
        means[domain] = found.mean * benchmark.sensor.scale
        deviations[domain] = found.std * benchmark.sensor.scale
    bands = list(benchmark.sensor.band_names)
    return pd.DataFrame(means, index=bands), pd.DataFrame(deviations, index=bands)


def _stretched(bands: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(H, W, 3) in 0..1, or (H, W) of a single band, from the 2nd to the 98th percentile of what is shown."""
    low, high = np.nanpercentile(bands, (2, 98))
    shown = np.clip((bands - low) / max(high - low, 1e-6), 0, 1).transpose(1, 2, 0)
    return shown if shown.shape[-1] == 3 else shown[..., 0]
