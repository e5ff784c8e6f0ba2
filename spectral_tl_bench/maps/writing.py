"""A map as files: a cloud-optimised GeoTIFF with colours and class names, and a picture to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.files import atomic_path, write_text

PREVIEW = 1200
"""Pixels of a picture's longer side, at most."""


class Layers:
    """Rasters on the grid of a scene, written a few lines at a time, and only whole.

    Args:
        folder: For files that are not whole yet.
        source: The open scene, which gives CRS and transform.
        count: Bands.
        dtype: Of the pixels.
        nodata: Where the scene measures nothing.
    """

    def __init__(self, folder: Path, source: Any, count: int, dtype: str, nodata: float) -> None:
        self.path = folder / f"{count}-{dtype}.tif"
        points, points_crs = source.gcps
        located = {"gcps": points, "crs": points_crs} if points and source.crs is None else {
            "crs": source.crs, "transform": source.transform,
        }  # fmt: skip
        self.file = rasterio.open(
            self.path, "w", driver="GTiff", height=source.height, width=source.width, count=count, dtype=dtype,
            nodata=nodata, tiled=True, blockxsize=256, blockysize=256, compress="deflate", BIGTIFF="IF_SAFER",
            **located,
        )  # fmt: skip

    def write(self, line: int, values: np.ndarray[Any, Any]) -> None:
        """Lines (bands, n, W) from ``line`` on."""
        self.file.write(values, window=Window(0, line, values.shape[2], values.shape[1]))

    def finish(self, target: Path, resampling: str) -> None:
        """Put a cloud-optimised copy where it belongs."""
        self.file.close()
        with atomic_path(target) as temporary:
            rasterio.shutil.copy(
                self.path, temporary, driver="COG", compress="deflate", overview_resampling=resampling,
                bigtiff="if_safer",
            )  # fmt: skip


def colour(layers: Layers, benchmark: Benchmark) -> None:
    """Give a map of classes the colours of a benchmark."""
    table = {number: (*cover.rgb, 255) for number, cover in enumerate(benchmark.labels.classes)}
    layers.file.write_colormap(1, table | {VOID: (0, 0, 0, 0)})


def write_names(path: Path, names: tuple[str, ...]) -> None:
    """The names of classes beside a map, where GDAL and QGIS look for them."""
    rows = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    write_text(
        path.with_name(f"{path.name}.aux.xml"),
        "<PAMDataset>\n  <PAMRasterBand band=\"1\">\n    <CategoryNames>\n"
        f"{rows}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n",
    )  # fmt: skip


def preview(path: Path, benchmark: Benchmark, title: str, shares: dict[str, float]) -> None:
    """Draw a map with its legend as a PNG beside it.

    Args:
        benchmark: Gives classes and colours.
        shares: Of the mapped area, by class.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with rasterio.open(path) as source:
        factor = max(1.0, max(source.shape) / PREVIEW)
        shape = tuple(max(1, round(side / factor)) for side in source.shape)
        classes = source.read(1, out_shape=shape)
    palette = np.full((256, 3), 255, dtype=np.uint8)
    palette[: len(benchmark.labels.classes)] = [cover.rgb for cover in benchmark.labels.classes]
    height, width = shape
    wide = 6.0 * min(1.0, width / height)
    figure = Figure(figsize=(wide + 2.8, max(2.4, wide * height / width + 0.5)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(palette[classes], interpolation="nearest")
    axes.axis("off")
    figure.suptitle(title, fontsize=9)
    legend = [
        Patch(facecolor=cover.colour, edgecolor="0.4", linewidth=0.5,
              label=f"{_shown(cover.name)}  {100 * shares[cover.name]:.1f} %")
        for cover in benchmark.labels.classes if shares.get(cover.name)
    ]  # fmt: skip
    if legend:
        figure.legend(handles=legend, loc="outside right center", fontsize=8, frameon=False, title="share of the area",
                      title_fontsize=8)  # fmt: skip
    with atomic_path(path.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _shown(name: str) -> str:
    """A class name that matplotlib does not take for a formula."""
    return name.replace("$", r"\$")
