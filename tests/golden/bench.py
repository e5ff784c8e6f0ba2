"""A data set of a few chips, made of whole numbers alone, and runs on it through the command."""

from __future__ import annotations

import contextlib
import csv
import functools
import gc
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import golden_methods
import numpy as np
import pandas as pd
import rasterio
import yaml
from safetensors.torch import load_file
from torch import Tensor

from spectral_tl_bench.benchmarks import Benchmark, read_benchmark
from spectral_tl_bench.cli.main import main
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import evidence, read_record

SIDE, WINDOW, STRIDE = 28, 16, 8
SIZES = {"width": 32, "depth": 4, "heads": 2, "patch": 8}
WAVELENGTHS = (0.49, 0.56, 0.665, 0.842)
BASES = np.array([[400, 700, 500, 3000], [900, 800, 700, 300], [1200, 1500, 1900, 2300]])
"""Pixel values by class and band."""

DEFINITION: dict[str, Any] = {
    "id": "golden", "title": "Golden", "version": "1.0", "dataset": "Golden", "gap": "region", "citation": "nobody",
    "sensor": {
        "name": "Toy", "gsd": 10, "unit": "digital numbers",
        "bands": [{"name": f"B{number}", "wavelength": value} for number, value in enumerate(WAVELENGTHS)],
    },
    "chip_size": SIDE, "nodata": "fill",
    "layout": {
        "kind": "table", "table": "chips.csv", "image": "image/{name}.tif", "label": "label/{name}.tif",
        "chip": "name", "domain": "region", "site": "place",
    },
    "domains": [{"id": "north"}, {"id": "south"}, {"id": "east"}],
    "source": ["north", "south"], "target": ["east"],
    "labels": {
        "void": [0],
        "classes": [
            {"name": "Grass", "colour": "#0b6623", "raw": [1]},
            {"name": "Water", "colour": "#1f5fc0", "raw": [2, 3]},
            {"name": "Rock", "colour": "#999999", "raw": [7]},
        ],
    },
    "split": {"place": "site", "validation": 0.3},
}  # fmt: skip

PLACES = {"north": ("n", 4, "EPSG:32633"), "south": ("s", 3, "EPSG:32634"), "east": ("e", 2, "EPSG:32633")}
"""Letter, number of sites with two chips each, and CRS."""


def chip(region: int, site: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (C, H, W) uint16 and raw labels (H, W) uint8 of a chip, by arithmetic of whole numbers."""
    line, column = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    patch = (line // 7 * 5 + column // (5 + site % 2) * 3 + site + 2 * number + region) % 5
    classes = np.array([0, 1, 2, 0, 1])[patch]
    band = np.arange(len(WAVELENGTHS))[:, None, None]
    noise = (line * 7919 + column * 104_729 + band * 1_299_709 + (7 * region + 3 * site + number) * 15_485_863) % 1_009
    image = (BASES[classes].transpose(2, 0, 1) * (20 + region) // 20 + noise // 2).astype(np.uint16)
    raw = np.array([1, 2, 7])[classes] + ((classes == 1) & (column % 2 == 1))
    raw = np.where((line + column) % 11 == 0, 0, raw).astype(np.uint8)
    if site == 1 and number == 0:
        image[:, 3:8, 20:24] = 0  # nodata
    return image, raw


def write_tree(root: Path) -> None:
    """Writes chips, table and definition."""
    rows = []
    for region, (name, (letter, sites, crs)) in enumerate(PLACES.items()):
        for site in range(sites):
            for number in range(2):
                title = f"{letter}{site}_{number}"
                image, raw = chip(region, site, number)
                corner = (500_000 + 2_000 * site + 290 * number, 5_000_000 - 40_000 * region)
                place = {"crs": crs, "transform": rasterio.Affine(10, 0, corner[0], 0, -10, corner[1])}
                for kind, values in (("image", image), ("label", raw[None])):
                    path = root / kind / f"{title}.tif"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    options: dict[str, Any] = {"nodata": 0} if kind == "image" else {}
                    with rasterio.open(
                        path, "w", driver="GTiff", count=len(values), height=SIDE, width=SIDE, dtype=values.dtype,
                        **place, **options,
                    ) as file:  # fmt: skip
                        file.write(values)
                rows.append({"name": title, "region": name, "place": f"{letter}{site}"})
    with (root / "chips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (root / "golden.yaml").write_text(yaml.safe_dump(DEFINITION, sort_keys=False))


@dataclass(frozen=True)
class Run:
    """What a run left."""

    record: Record
    counts: pd.DataFrame
    weights: dict[str, Tensor]
    stages: list[tuple[list[float], dict[str, Tensor]]]
    """Losses and tensors of first stages that were kept."""

    def shares(self, checkpoint: str = "selected") -> list[float]:
        """The confusion matrix of a checkpoint over the target, as shares of all pixels."""
        rows = self.counts[self.counts["checkpoint"] == checkpoint]
        matrix = np.sum(rows["matrix"].tolist(), axis=0)
        return [float(value) for value in (matrix / matrix.sum()).ravel()]


@dataclass(frozen=True)
class Bench:
    """The data set."""

    root: Path

    def benchmark(self) -> Benchmark:
        return read_benchmark(self.root / "golden.yaml")

    def index(self) -> ChipIndex:
        return build_index(self.benchmark(), self.root)

    def source(self, order_seed: int = 0, batch_size: int = 2) -> SourceData:
        """What training may see."""
        benchmark, index = self.benchmark(), self.index()
        settings = LoaderSettings(WINDOW, STRIDE, batch_size)
        return SourceData(benchmark, index, make_split(benchmark, index, 0), settings, order_seed)

    def run(
        self,
        method: str,
        *more: object,
        steps: int = 4,
        rate: float = 1e-2,
        validations: int | None = 2,
        stride: int = STRIDE,
    ) -> Run:
        """A run of a method through the command, in this process."""
        with (
            tempfile.TemporaryDirectory(dir=self.root) as folder,
            mock.patch.dict(os.environ, {"STBENCH_CACHE": f"{folder}/cache"}),  # nothing of another run is found again
        ):
            arguments = [
                "run", "--benchmark", self.root / "golden.yaml", "--method", method, "--out", f"{folder}/runs",
                "--steps", steps,
                "--batch-size", 4, "--learning-rate", rate, "--window", WINDOW,
                *(("--validations", validations) if validations else ()),
                "--stride", stride, "--accelerator", "cpu", "--jobs", 1, "--backbone", "compact", "--weights", "none",
                *(part for size in SIZES.items() for part in ("--backbone-size", "=".join(map(str, size)))), *more,
            ]  # fmt: skip
            command(*arguments)
            (path,) = Path(folder, "runs").rglob("record.json")
            record = read_record(path)
            stages = [stage_in(card.parent) for card in sorted(Path(folder).glob("cache/stages/*/stage.json"))]
            return Run(record, evidence(record), load_file(path.parent / "selected.safetensors"), stages)


def stage_in(folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and tensors of a kept first stage."""
    card = json.loads((folder / "stage.json").read_text())
    return [value for _, value in card["loss"]], load_file(folder / "stage.safetensors")


def command(*arguments: object) -> None:
    """Runs the command in this process; what it says is shown only where it fails."""
    said = io.StringIO()
    code: Any = 0
    gc.freeze()  # every cell collects garbage, which takes long among all that a test session holds
    with (
        installed_methods(),
        # Cells with methods of others get a process, into which no planted change would reach.
        mock.patch("spectral_tl_bench.runner.processes.is_foreign", lambda _: False),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        mock.patch.object(sys, "argv", ["stbench", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as ending:
            code = ending.code
        finally:
            gc.unfreeze()
    assert not code, said.getvalue()


@contextlib.contextmanager
def installed_methods() -> Iterator[None]:
    """Our methods for golden runs, with entry points as pip would leave them."""
    site = bench().root / "site"
    info = site / "golden_methods-1.0.dist-info"
    if not info.is_dir():
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: golden-methods\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in golden_methods.ENTRIES.items())
        (info / "entry_points.txt").write_text(f"[spectral_tl_bench.methods]\n{lines}")
    with mock.patch.object(sys, "path", [str(site), *sys.path]):
        yield


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def bench() -> Bench:
    """The data set, made once in a folder that is removed at the end."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="stbench-golden-"))
    root = Path(_FOLDERS[-1].name)
    if "STBENCH_CACHE" not in os.environ:
        os.environ["STBENCH_CACHE"] = str(root / "cache")
    write_tree(root)
    return Bench(root)
