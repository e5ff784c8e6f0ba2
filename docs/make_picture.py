"""Draw the README's picture: chips of the bundled sample with their labels.

python docs/make_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.rasters import open_datasets
from spectral_tl_bench.data.sample_source import ensure_sample

SHOWN = {
    "whuohs-s2t": ("S6", "T6"),
    "dfc2020-summer": ("Chabarovsk", "CapeTown"),
    "mts12-n2s": ("north", "south"),
}


def picture(image: np.ndarray, wavelengths: tuple[float, ...]) -> np.ndarray:
    """True colour (H, W, 3) in 0..1, stretched between the 2nd and 98th percentile; the second date of a series."""
    first = 6 if len(wavelengths) == 24 else 0
    bands = np.array(wavelengths[first:] if first else wavelengths)
    chosen = [first + int(np.abs(bands - target).argmin()) for target in (0.66, 0.56, 0.49)]
    rgb = image[chosen]
    low, high = np.percentile(rgb, (2, 98), axis=(1, 2), keepdims=True)
    return np.clip((rgb - low) / np.maximum(high - low, 1e-6), 0, 1).transpose(1, 2, 0)


def main() -> None:
    """Write ``sample.png`` beside this file."""
    root = ensure_sample()
    figure = Figure(figsize=(9.2, 7.2), layout="constrained")
    axes = figure.subplots(len(SHOWN), 4)
    for row, (name, domains) in enumerate(SHOWN.items()):
        benchmark = builtin_benchmarks()[name]
        index = build_index(benchmark, root)
        palette = colors.ListedColormap([cover.colour for cover in benchmark.labels.classes])
        for side, domain in enumerate(domains):
            frame = index.frame[index.frame["domain"] == domain]
            variety = frame["class_counts"].map(lambda counts: sum(count > 200 for count in counts))
            chip = str(variety.idxmax())
            dataset = open_datasets(benchmark, index, [chip])[0]
            size = dataset.chip_rows()[0]
            sample = dataset.read_window(0, 0, 0, size["height"], size["width"])
            left, right = axes[row, 2 * side], axes[row, 2 * side + 1]
            left.imshow(picture(sample["image"].numpy(), benchmark.sensor.wavelengths), interpolation="nearest")
            label = np.ma.masked_equal(sample["mask"].numpy(), 255)
            right.imshow(label, cmap=palette, vmin=-0.5, vmax=len(palette.colors) - 0.5, interpolation="nearest")
            left.set_title(
                f"{('source', 'target')[side]}: {(benchmark.domain(domain).name or domain).split(' (')[0]}", fontsize=9
            )
            right.set_title("label", fontsize=9)
        axes[row, 0].set_ylabel(name, fontsize=10)
    for one in axes.flat:
        one.set_xticks([])
        one.set_yticks([])
    figure.suptitle("Bundled sample: synthetic scenes, not real data", fontsize=11)
    figure.savefig(Path(__file__).with_name("sample.png"), dpi=110)


if __name__ == "__main__":
    main()
