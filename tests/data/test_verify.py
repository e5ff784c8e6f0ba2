"""Faults planted in a copy of a dataset, each found by name; what is sound passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.physics import band_physics
from spectral_tl_bench.data.source import DataSource
from spectral_tl_bench.data.verify import verify
from tests.tiny import run_main

DFC = builtin_benchmarks()["dfc2020-spring"]
CITY = "BlackForest"
BANDS = list(DFC.sensor.band_names)


@pytest.fixture
def copy(trees: Path, tmp_path: Path) -> Path:
    shutil.copytree(trees / "DFC2020", tmp_path / "DFC2020")
    return tmp_path


def change(root: Path, what: Callable[[np.ndarray], np.ndarray], pattern: str = f"*/image/s2_{CITY}/*.tif") -> None:
    for path in (root / "DFC2020").glob(pattern):
        with rasterio.open(path) as source:
            pixels, profile = source.read(), source.profile
        pixels = what(pixels)
        with rasterio.open(path, "w", **profile | {"dtype": pixels.dtype}) as target:
            target.write(pixels)


def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small copy for a complete one of full size."""
    monkeypatch.setattr("spectral_tl_bench.data.verify._missing", lambda *_: [])
    monkeypatch.setattr("spectral_tl_bench.data.verify.other_size", lambda *_: [])


def swap(first: str, second: str) -> Callable[[np.ndarray], np.ndarray]:
    order = list(range(len(BANDS)))
    one, other = BANDS.index(first), BANDS.index(second)
    order[one], order[other] = other, one
    return lambda pixels: pixels[order]


def standardise(pixels: np.ndarray) -> np.ndarray:
    values = pixels.astype("float32")
    return (values - values.mean(axis=(1, 2), keepdims=True)) / values.std(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (swap("B4", "B8"), "not so: vegetation is brighter in the near infrared than in red"),
        (swap("B5", "B7"), "not so: the red edge of vegetation rises"),
        (swap("B10", "B11"), "not so: the band at 1.38 um is dark"),
        (lambda pixels: pixels[::-1], "not so: vegetation is brighter in the near infrared than in red"),
        (lambda pixels: pixels / np.float32(10_000), "not so: values are in the unit of the benchmark (the mean"),
        (lambda pixels: pixels.astype("float32") * 10, "not so: values are in the unit of the benchmark (the mean"),
        (standardise, "values are standardised already"),
    ],
    ids=["red and NIR", "red edge", "cirrus and SWIR", "all reversed", "reflectance", "times ten", "z-scores"],
)
def test_bands_that_are_not_what_they_are_called(copy, what, said):
    change(copy, what)
    findings = {f.domain: f for f in verify(DFC, DataSource("sample", copy, "")).findings}
    assert said in findings.pop(CITY).fault
    assert len(findings) > 1
    assert {finding.fault for finding in findings.values()} == {""}
    assert min(len(finding.held) for finding in findings.values()) >= 4


def test_water_that_shines_in_the_infrared(copy):
    raw = next(cover.raw[0] for cover in DFC.labels.classes if cover.kind == "water")
    for path in (copy / "DFC2020").glob(f"*/image/s2_{CITY}/*.tif"):
        label = str(path).replace("/image/s2_", "/label/dfc_").replace("_s2_", "_dfc_")
        with rasterio.open(label) as source:
            water = source.read(1) == raw
        with rasterio.open(path) as source:
            pixels, profile = source.read(), source.profile
        pixels[BANDS.index("B8"), water] = 6000
        pixels[BANDS.index("B8A"), water] = 6000
        with rasterio.open(path, "w", **profile) as target:
            target.write(pixels)
    findings = {f.domain: f.fault for f in verify(DFC, DataSource("sample", copy, "")).findings}
    assert "not so: water is darker in the near infrared than in visible light" in findings[CITY]


def test_the_other_datasets_hold(trees):
    for name in ("whuohs-s2t", "mts12-n2s"):
        findings = band_physics(builtin_benchmarks()[name], build_index(builtin_benchmarks()[name], trees).frame)
        assert {finding.fault for finding in findings} == {""}
        assert all(len(finding.held) >= 3 for finding in findings)


def test_all_broken_files_are_listed_and_the_others_counted(copy, monkeypatch, capsys):
    broken = sorted((copy / "DFC2020").glob(f"*/image/s2_{CITY}/*.tif"))[:7]
    for path in broken:
        path.write_bytes(path.read_bytes()[:300])
    command = ["data", "verify", "dfc2020-spring", f"--data-root={copy}"]
    assert run_main(monkeypatch, command) == 2
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("broken: ")]
    assert sorted(line.split(": ")[1].rpartition("/")[2] for line in lines) == [path.name for path in broken]
    assert f"{CITY} has 1 chips, published are 1444" in out
    assert "not sound, and no manifest was written" in out
    assert not list(copy.rglob("*manifest*"))


def test_a_sound_copy_has_a_manifest_with_the_name_that_records_use(copy, monkeypatch, capsys, tmp_path):
    path = tmp_path / "m.json"
    complete(monkeypatch)
    command = ["data", "verify", "dfc2020-spring", f"--data-root={copy}", f"--manifest={path}"]
    assert run_main(monkeypatch, command) == 0
    index = build_index(DFC, copy)
    written = json.loads(path.read_text())
    assert written["manifest"] == index.manifest
    assert {chip: facts["pixels"] for chip, facts in written["chips"].items()} == index.frame["content"].to_dict()
    assert index.manifest[:16] in capsys.readouterr().out


def test_what_contradicts_the_benchmark_is_said_and_the_rest_goes_on(copy):
    for path in (copy / "DFC2020").glob(f"*/label/dfc_{CITY}/*.tif"):
        with rasterio.open(path) as source:
            pixels, profile = source.read(), source.profile
        with rasterio.open(path, "w", **profile) as target:
            target.write(np.full_like(pixels, 8))  # void, everywhere
    found = verify(DFC, DataSource("files", copy, ""))
    assert any("published are 1444" in fault for fault in found.faults)
    assert len(found.findings) > 1
    assert not found.sound
