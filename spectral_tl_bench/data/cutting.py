"""Cuts published scenes into the chips of a benchmark: GeoTIFFs and a table, in a folder that is whole or not there."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts import layout_of
from spectral_tl_bench.data.layouts.table import TableLayout
from spectral_tl_bench.data.scenes import Part, SceneFiles, bands_of, find_scenes, opened, raw_label
from spectral_tl_bench.data.sources.progress import Say
from spectral_tl_bench.errors import BenchmarkError, DataError
from spectral_tl_bench.files import file_digest, fsync_folder, write_json
from spectral_tl_bench.storage.signs import unfinished

COLUMNS = ("chip", "domain", "site", "scene", "row", "column", "labelled")
"""Of the table: names, then the chip's first row and column in its scene, and how many pixels have a class."""
ORIGIN = "cut.json"
"""What was cut, with the SHA-256 of every file."""


def cut_scenes(benchmark: Benchmark, folder: Path, root: Path, say: Say, allow_partial: bool = False) -> Path:
    """Cut all scenes of a benchmark into chips, of which other benchmarks on the same data set may be made as well.

    Chips of a scene do not overlap. Those at its right and lower end are filled up to the benchmark's size: with void
    in the label, and with zeros that are masked in the image. Image values are those of the file.

    Args:
        benchmark: A benchmark with ``cut`` and the layout ``table``.
        folder: Where the published files are, in whatever folders below it.
        allow_partial: Whether scenes may be missing.

    Raises:
        BenchmarkError: If the benchmark does not say what to cut, or reads other chips than are made.
        DataError: If files are missing or not what the benchmark says, or the folder is there already.
    """
    target = root / _folder_name(benchmark)
    if target.exists():
        raise DataError(
            "this is where the chips would go, and something is there", where=target,
            fix="if they are of an earlier cut, use them as they are; otherwise move it away",
        )  # fmt: skip
    if not folder.is_dir():
        raise DataError("--from is no folder", where=folder, expected="the folder of the published files")
    scenes = find_scenes(benchmark, folder, allow_partial)
    root.mkdir(parents=True, exist_ok=True)
    with unfinished(target) as work:
        rows, origin = [], []
        for number, files in enumerate(scenes, 1):
            written = list(_cut_scene(benchmark, files, work))
            rows += written
            say(f"{files.name}: {len(written)} chips ({number} of {len(scenes)} scenes)")
            origin.append({"scene": files.name} | {
                part: {"file": path.relative_to(folder).as_posix(), "sha256": file_digest(path)}
                for part, path in (("image", files.image), ("label", files.label))
            })  # fmt: skip
        _write_table(work / "chips.csv", rows)
        write_json(work / ORIGIN, {"benchmark": benchmark.id, "version": benchmark.version, "scenes": origin})
        work.rename(target)
        fsync_folder(root)
    return target


def _folder_name(benchmark: Benchmark) -> str:
    """The folder of the chips below the data root, from a layout that reads what is made here."""
    if benchmark.cut is None:
        raise BenchmarkError(
            f"the definition of {benchmark.id} names no scenes to cut", expected="a section 'cut'",
            fix="`stbench benchmarks show ID` says which has one; data in chips are used as they are",
        )  # fmt: skip
    layout = layout_of(benchmark)
    wanted = {"table": "chips.csv", "image": "image/{chip}.tif", "label": "label/{chip}.tif", "chip": "chip",
              "site": "site"}  # fmt: skip
    if not isinstance(layout, TableLayout) or not layout.folders:
        raise BenchmarkError(
            f"the layout of {benchmark.id} does not say in which folder the chips are", where="layout",
            expected="kind: table, and folders: [NAME]",
        )  # fmt: skip
    other = [name for name, value in wanted.items() if getattr(layout, name) != value]
    if other or layout.domain not in ("domain", ""):
        raise BenchmarkError(
            f"the layout of {benchmark.id} reads other chips than are cut", where=f"layout.{(*other, 'domain')[0]}",
            expected=", ".join(f"{name}: {value}" for name, value in (*wanted.items(), ("domain", "domain"))),
        )  # fmt: skip
    return layout.folders[0]


def _cut_scene(benchmark: Benchmark, files: SceneFiles, work: Path) -> Iterator[dict[str, object]]:
    """Write the chips of one scene; a row of the table for each."""
    assert benchmark.cut is not None  # noqa: S101 - asked before
    side, block, other = benchmark.chip_size, benchmark.cut.block, 0
    classes = [value for cover in benchmark.labels.classes for value in cover.raw]
    with opened(benchmark, files) as (image, label):
        bands = bands_of(benchmark, files, image)
        _, height, width = image.shape
        for top in range(0, height, side):
            for left in range(0, width, side):
                window = Window(left, top, min(side, width - left), min(side, height - top))
                chip = f"{files.name}-r{top:05d}-c{left:05d}"
                raw, strange = raw_label(benchmark, files, label.read(window))
                raw = np.where(label.measured(window), raw, benchmark.labels.void[0])
                other += strange
                _write_image(work / "image" / f"{chip}.tif", image, bands, window, side)
                _write_label(work / "label" / f"{chip}.tif", raw, benchmark.labels.void[0], image.place(window), side)
                site = files.name if block is None else f"{files.name}-{top // block}-{left // block}"
                labelled = int(np.isin(raw, classes).sum())
                yield dict(zip(COLUMNS, (chip, files.rule.domain, site, files.name, top, left, labelled), strict=True))
    if other > benchmark.cut.other_colours * height * width:
        raise DataError(
            f"{other} of {height * width} pixels of the label have a colour that means no class", where=files.label,
            expected=", ".join(f"{cover.colour} {cover.name}" for cover in benchmark.labels.classes),
            fix="a label that was compressed with loss or resampled is not what its authors have published",
        )  # fmt: skip


def _write_image(path: Path, image: Part, bands: list[int], window: Window, side: int) -> None:
    values, measured = image.read(window)[bands], image.measured(window)
    padding = ((0, side - values.shape[1]), (0, side - values.shape[2]))
    values, mask = np.pad(values, ((0, 0), *padding)), np.pad(measured, padding)
    _write(path, values, image.place(window), None if mask.all() else mask)


def _write_label(path: Path, raw: np.ndarray[Any, Any], void: int, place: dict[str, Any], side: int) -> None:
    padding = ((0, side - raw.shape[0]), (0, side - raw.shape[1]))
    values = np.pad(raw, padding, constant_values=void)
    small = values.min() >= 0 and values.max() <= np.iinfo(np.uint8).max
    where = {key: value for key, value in place.items() if key != "nodata"}
    _write(path, values[None].astype(np.uint8 if small else np.int32), where, None)


def _write(path: Path, values: np.ndarray[Any, Any], place: dict[str, Any], mask: np.ndarray[Any, Any] | None) -> None:
    path.parent.mkdir(exist_ok=True)
    count, height, width = values.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype,
            compress="deflate", predictor=3 if values.dtype.kind == "f" else 2, photometric="MINISBLACK", **place,
        ) as file,
    ):  # fmt: skip
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: str(row["chip"])))
