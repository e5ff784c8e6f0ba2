"""Memory and time of ``stbench predict`` by the height of a scene: ``python profiling/predict_memory.py WEIGHTS``.

Scenes of 10,980 px width and the model's bands, invented around the statistics of its training chips; each is mapped
in a process of its own. The largest is a Sentinel-2 tile (10,980 x 10,980); files are removed afterwards.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from spectral_tl_bench.maps.model import load_model
from spectral_tl_bench.maps.predict import MapOptions, predict
from spectral_tl_bench.maps.scene import SceneOptions

WIDTH = 10_980


def write_scene(path: Path, weights: Path, height: int) -> None:
    """Noise around the means of the training chips, uint16, tiled."""
    statistics, rng = load_model(weights).statistics, np.random.default_rng(0)
    bands = len(statistics.mean)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=WIDTH, count=bands, dtype="uint16", tiled=True,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 300_000, 0, -10, 5_100_000), BIGTIFF="YES",
    ) as file:  # fmt: skip
        for line in range(0, height, 256):
            lines = min(256, height - line)
            noise = rng.standard_normal((bands, lines, WIDTH), dtype=np.float32)
            values = statistics.mean[:, None, None] + statistics.std[:, None, None] * noise
            file.write(values.clip(1, 65_000).astype(np.uint16), window=Window(0, line, WIDTH, lines))


def map_one(weights: Path, scene: Path, out: Path, stride: int | None) -> None:
    """In this process: seconds and peak memory, printed."""
    started, cpu = time.monotonic(), time.process_time()
    predict(weights, [scene], out, options=MapOptions(stride=stride, batch_size=64),
            scene_options=SceneOptions(trust_unit=True))  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} CPU s, peak {peak:.2f} GiB", flush=True)


def main() -> None:
    """Map scenes of rising height."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--heights", type=int, nargs="+", default=[256, 2_048, 10_980])
    parser.add_argument("--stride", type=int)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.scene:
            map_one(chosen.weights, chosen.scene, Path(folder), chosen.stride)
            return
        for height in chosen.heights:
            scene = Path(folder) / "scene.tif"
            write_scene(scene, chosen.weights, height)
            print(f"{height} x {WIDTH} px, {scene.stat().st_size / 2**30:.1f} GiB: ", end="", flush=True)
            stride = [] if chosen.stride is None else ["--stride", str(chosen.stride)]
            subprocess.run([sys.executable, __file__, str(chosen.weights), "--scene", str(scene), *stride], check=True)


if __name__ == "__main__":
    main()
