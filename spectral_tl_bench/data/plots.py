"""A sample of a dataset as a picture, for TorchGeo's ``plot``."""

from __future__ import annotations

from typing import Any

import numpy as np

from spectral_tl_bench.benchmarks import Benchmark


def sample_figure(benchmark: Benchmark, sample: dict[str, Any], show_titles: bool, suptitle: str | None) -> Any:
    """True colour, label, and prediction where there is one, side by side; see ``SpectralChips.plot``."""
    from matplotlib import colors
    from matplotlib.figure import Figure

    wavelengths = np.array(benchmark.sensor.wavelengths)
    picture = sample["image"][[int(np.abs(wavelengths - target).argmin()) for target in (0.66, 0.56, 0.48)]].numpy()
    low, high = np.percentile(picture, (2, 98))
    picture = np.clip((picture - low) / max(high - low, 1e-6), 0, 1).transpose(1, 2, 0)
    palette = colors.ListedColormap([cover.colour for cover in benchmark.labels.classes])
    panels = [("image", picture), *[(key, sample[key]) for key in ("mask", "prediction") if key in sample]]
    figure = Figure(figsize=(4 * len(panels), 4))
    for axes, (title, panel) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        if title == "image":
            axes.imshow(panel)
        else:
            values = np.ma.masked_equal(np.asarray(panel), 255)
            axes.imshow(values, cmap=palette, vmin=-0.5, vmax=palette.N - 0.5, interpolation="nearest")
        axes.axis("off")
        if show_titles:
            axes.set_title(title)
    if suptitle:
        figure.suptitle(suptitle)
    return figure
