"""Trained networks on a small MTS12, and scenes in its bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from tiny import make_request, make_tree, quiet, run_main

from spectral_tl_bench.maps.model import LoadedModel, load_model
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

WINDOW = 16
PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 430_000, 0, -10, 5_060_000)}


@dataclass(frozen=True)
class Trained:
    """Folders of records by method, and the tree that they were trained on."""

    folders: dict[str, Path]
    tree: Path

    def load(self, method: str) -> LoadedModel:
        return load_model(self.folders[method])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    tree = make_tree(tmp_path_factory.mktemp("maps"))
    out = tmp_path_factory.mktemp("runs")
    request = make_request(
        tree, "pixel-mlp", "lora", "majority", "spectralx", window=WINDOW, steps=4, learning_rate=0.01
    )
    cells, broken = plan(request, quiet)
    outcomes = execute(cells, out, Hardware("cpu"), 0, quiet)
    assert not broken and {outcome.state for outcome in outcomes} == {"done"}
    return Trained({outcome.cell.method_name: outcome.record.parent for outcome in outcomes}, tree)


@pytest.fixture
def write_scene(tmp_path: Path) -> Callable[..., Path]:
    """Writes (C, H, W) as a GeoTIFF; fields of the profile, and ``names``, ``tags`` by band, may be given."""

    def write(pixels: np.ndarray, name: str = "scene.tif", **more: Any) -> Path:
        path, names, tags = tmp_path / name, more.pop("names", ()), more.pop("tags", ())
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {**PLACE, **more}
        scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
        bands, height, width = pixels.shape
        with rasterio.open(
            path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype, **profile
        ) as file:
            file.write(pixels)
            for number, text in enumerate(names, start=1):
                file.set_band_description(number, text)
            for number, values in enumerate(tags, start=1):
                file.update_tags(number, **values)
            if scales:
                file.scales = scales
            if offsets:
                file.offsets = offsets
        return path

    return write


@pytest.fixture
def scene_pixels(trained: Trained) -> Callable[..., np.ndarray]:
    """Makes pixels (24, H, W) whose values are like those of the training chips."""

    def make(height: int, width: int, seed: int = 0) -> np.ndarray:
        statistics = trained.load("pixel-mlp").statistics
        noise = np.random.default_rng(seed).normal(size=(24, height, width))
        values = statistics.mean[:, None, None] + statistics.std[:, None, None] * noise
        return values.clip(10, 20_000).round().astype(np.uint16)

    return make


@pytest.fixture
def stbench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    return lambda *arguments: run_main(monkeypatch, arguments)
