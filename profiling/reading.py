"""How fast chips are read: packed, from a bare memory map, and by TorchGeo's own datasets.

    python profiling/reading.py --chips 24 --rounds 7

Chips are random numbers in uncompressed GeoTIFF below the temporary folder, at places of their own, in the page cache.
Every arm ends in float32 pixels and int64 labels. ``query`` goes through TorchGeo's interface, as samplers do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import yaml
from torchgeo.datasets import RasterDataset

from spectral_tl_bench.benchmarks import Benchmark, read_benchmark
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.packing import pack
from spectral_tl_bench.data.rasters import SpectralChips, open_datasets

SHAPES = {
    "512x512x32": (32, 512, "int16"), "256x256x13": (13, 256, "uint16"), "500x500x24": (24, 500, "uint16"),
}  # fmt: skip


class Images(RasterDataset):
    """TorchGeo's, as its documentation makes them."""

    filename_glob = "*.tif"


class Masks(RasterDataset):
    """Likewise."""

    filename_glob = "*.tif"
    is_image = False


def write(folder: Path, bands: int, side: int, dtype: str, count: int) -> Benchmark:
    """Chips 20 km apart, and a benchmark of them."""
    rng = np.random.default_rng(0)
    rows = ["name,region"]
    for number in range(count):
        name = f"c{number}"
        place = {"driver": "GTiff", "crs": "EPSG:32633", "height": side, "width": side,
                 "transform": rasterio.Affine(10, 0, 300_000 + 20_000 * number, 0, -10, 5_000_000)}  # fmt: skip
        for kind, layers in (("image", bands), ("label", 1)):
            values = rng.integers(1, 4000 if kind == "image" else 4, (layers, side, side))
            (folder / kind).mkdir(exist_ok=True)
            with rasterio.open(
                folder / kind / f"{name}.tif", "w", count=layers, dtype=dtype if kind == "image" else "uint8", **place
            ) as file:
                file.write(values)
        rows.append(f"{name},{'east' if number % 2 else 'west'}")
    (folder / "chips.csv").write_text("\n".join(rows) + "\n")
    (folder / "own.yaml").write_text(yaml.safe_dump({
        "id": "own", "title": "own", "version": "1.0", "dataset": "Own", "gap": "region", "citation": "nobody",
        "sensor": {"name": "none", "gsd": 10, "unit": "digital numbers",
                   "bands": [{"name": f"B{band}", "wavelength": 0.4 + 0.01 * band} for band in range(bands)]},
        "chip_size": side, "domains": [{"id": "east"}, {"id": "west"}], "source": ["east"], "target": ["west"],
        "layout": {"kind": "table", "table": "chips.csv", "image": "image/{name}.tif", "label": "label/{name}.tif",
                   "chip": "name", "domain": "region", "site": "name"},
        "labels": {"classes": [{"name": str(raw), "colour": f"#{raw}{raw}0000", "raw": [raw]} for raw in (1, 2, 3)]},
        "split": {"place": "site", "validation": 0.3},
    }))  # fmt: skip
    return read_benchmark(folder / "own.yaml")


def arms(folder: Path, benchmark: Benchmark, side: int, dtype: str) -> tuple[int, dict[str, Callable[..., Any]]]:
    """Number of chips, and what reads (chip, line, column, size)."""
    pack(benchmark, build_index(benchmark, folder, packed="off"), folder / "packs", 1, print)
    (dataset,) = open_datasets(benchmark, build_index(benchmark, folder, packed=folder / "packs"))
    (files,) = open_datasets(benchmark, build_index(benchmark, folder, packed="off"))
    count, bands = len(dataset.chip_rows()), len(dataset.all_bands)
    pixels = np.memmap(folder / "pixels", dtype, "w+", shape=(count, bands, side, side))
    labels = np.memmap(folder / "labels", np.uint8, "w+", shape=(count, side, side))
    for number in range(count):
        pixels[number], labels[number] = files.stored(number)[:2]
    torchgeo = Images(str(folder / "image")) & Masks(str(folder / "label"))

    def bare(number: int, line: int, column: int, size: int) -> Any:
        window = np.s_[number, ..., line : line + size, column : column + size]
        image, mask = pixels[window].astype(np.float32), labels[window].astype(np.int64)
        return torch.from_numpy(image), torch.from_numpy(mask)

    def place(number: int, line: int, column: int, size: int) -> tuple[slice, slice]:
        row = dataset.chip_rows()[number]
        x, y = row["xmin"] + 10 * column, row["ymax"] - 10 * line
        return slice(x, x + 10 * size), slice(y - 10 * size, y)

    def packed(number: int, line: int, column: int, size: int) -> Any:
        return SpectralChips.read_window(dataset, number, line, column, size, size)

    return count, {
        "bare": bare,
        "packed": packed,
        "query": lambda number, *window: dataset[(*place(number, *window), dataset.slot(number))],
        "TorchGeo": lambda *window: torchgeo[place(*window)],
    }


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    for title, (bands, side, dtype) in SHAPES.items():
        with tempfile.TemporaryDirectory(prefix="pack-reading-") as temporary:
            folder = Path(temporary)
            os.environ["STBENCH_CACHE"] = str(folder / "cache")
            count, readers = arms(folder, write(folder, bands, side, dtype, wanted.chips), side, dtype)
            for size in (side, 224):
                seconds: dict[str, list[float]] = {name: [] for name in readers}
                for number in range(wanted.rounds + 1):
                    rng = np.random.default_rng(number)
                    windows = [(int(rng.integers(count)), *map(int, rng.integers(0, side - size + 1, 2)), size)
                               for _ in range(40)]  # fmt: skip
                    for name, read in readers.items():
                        some = windows[:8] if name == "TorchGeo" else windows
                        started = time.process_time()
                        for window in some:
                            read(*window)
                        if number:
                            seconds[name].append((time.process_time() - started) / len(some))
                rate = {name: 1 / statistics.median(values) for name, values in seconds.items()}
                print(
                    f"{title} {size} px: "
                    + ", ".join(f"{name} {value:.0f}/s" for name, value in rate.items())
                    + "".join(f", {name}/bare {rate[name] / rate['bare']:.2f}, {name}/TorchGeo "
                              f"{rate[name] / rate['TorchGeo']:.0f}" for name in ("packed", "query")),
                    flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
