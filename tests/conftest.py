"""For every test: a cache folder of its own and no data root from outside; and a small data set of a user's own."""

from __future__ import annotations

import copy
import csv
import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from shared import VARIABLE

from spectral_tl_bench.benchmarks import Benchmark, read_benchmark

SIDE = 16
RESOLUTION = 10.0

DEFINITION: dict[str, Any] = {
    "id": "mine",
    "title": "Two regions of my own",
    "version": "1.0",
    "dataset": "Mine",
    "gap": "region",
    "citation": "nobody",
    "sensor": {
        "name": "Toy",
        "gsd": 10,
        "unit": "digital numbers",
        "bands": [
            {"name": "green", "wavelength": 0.56},
            {"name": "red", "wavelength": 0.66},
            {"name": "nir", "wavelength": 0.84},
        ],
    },
    "chip_size": SIDE,
    "layout": {
        "kind": "table",
        "table": "chips.csv",
        "image": "image/{name}.tif",
        "label": "label/{name}.tif",
        "chip": "name",
        "domain": "region",
        "site": "place",
    },
    "domains": [{"id": "east"}, {"id": "west"}],
    "source": ["east"],
    "target": ["west"],
    "labels": {
        "void": [0],
        "classes": [
            {"name": "Land", "colour": "#0b6623", "raw": [1]},
            {"name": "Water", "colour": "#1f5fc0", "raw": [2, 3]},
        ],
    },
    "split": {"place": "site", "validation": 0.3},
}


def pytest_collection_finish() -> None:
    """Every cell collects garbage, which takes a third of a second among all that was imported."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count the tests that were skipped, by their reason: what is not tested here should be seen."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons = Counter(
        str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix("Skipped: ")
        for report in skipped
    )
    terminalreporter.section(f"{len(skipped)} tests skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5d}  {reason}")
    if missing := sum(count for reason, count in reasons.items() if VARIABLE in reason):
        terminalreporter.write_line(f"{missing} of them need data from outside the repository; see CONTRIBUTING.md")


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the user's cache, or finds the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("STBENCH_CACHE", str(cache))
        patch.delenv("STBENCH_DATA", raising=False)
        yield cache


@dataclass
class Own:
    """A user's data set: ``mine.yaml``, ``chips.csv`` and GeoTIFFs in one folder.

    East has three sites of two chips, west has two; the chips of a site overlap by half. East and west lie in
    different UTM zones.
    """

    root: Path
    crs: dict[str, str | None] = field(default_factory=lambda: {"east": "EPSG:32633", "west": "EPSG:32634"})
    rows: list[dict[str, str]] = field(default_factory=list)
    definition: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(DEFINITION))

    @property
    def yaml(self) -> Path:
        return self.root / "mine.yaml"

    def image(self, name: str) -> Path:
        return self.root / "image" / f"{name}.tif"

    def label(self, name: str) -> Path:
        return self.root / "label" / f"{name}.tif"

    def corner(self, name: str) -> tuple[float, float]:
        site, number = int(name[1]), int(name[3])
        return 500_000.0 + 2_000.0 * site + 80.0 * number, 5_000_000.0

    def write_raster(self, path: Path, values: np.ndarray, name: str, nodata: float | None = None) -> None:
        """Write (bands, H, W) at the place of chip ``name``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        crs = self.crs["east" if name[0] == "e" else "west"]
        place = {}
        if crs:
            place = {
                "crs": crs,
                "transform": rasterio.Affine(10, 0, self.corner(name)[0], 0, -10, self.corner(name)[1]),
            }
        bands, height, width = values.shape
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=bands,
            height=height,
            width=width,
            dtype=values.dtype,
            nodata=nodata,
            **place,
        ) as file:
            file.write(values)

    def fill(self, dtype: str = "uint16") -> Own:
        """Write all chips, the table and the definition."""
        rng = np.random.default_rng(7)
        for site in ("e0", "e1", "e2", "w0", "w1"):
            for number in (0, 1):
                name = f"{site}_{number}"
                image = rng.integers(1, 4_000, (3, SIDE, SIDE)).astype(dtype)
                self.write_raster(self.image(name), image, name)
                label = rng.integers(0, 4, (1, SIDE, SIDE)).astype("uint8")
                self.write_raster(self.label(name), label, name)
                self.rows.append({"name": name, "region": "east" if site[0] == "e" else "west", "place": site})
        self.write_table()
        self.write_definition()
        return self

    def write_table(self) -> None:
        with (self.root / "chips.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def write_definition(self) -> None:
        self.yaml.write_text(yaml.safe_dump(self.definition, sort_keys=False))

    def benchmark(self, **changes: Any) -> Benchmark:
        """The benchmark, with top-level keys changed."""
        self.definition |= changes
        self.write_definition()
        return read_benchmark(self.yaml)

    def pixels(self, name: str) -> np.ndarray:
        with rasterio.open(self.image(name)) as file:
            return file.read()

    def labels(self, name: str) -> np.ndarray:
        with rasterio.open(self.label(name)) as file:
            return file.read(1)


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """A user's own data set, complete and right."""
    folder = tmp_path / "own"
    folder.mkdir()
    return Own(folder).fill()


@pytest.fixture
def own_without_crs(tmp_path: Path) -> Own:
    """The same without georeference."""
    folder = tmp_path / "bare"
    folder.mkdir()
    return Own(folder, crs={"east": None, "west": None}).fill()
