"""The chip index: every chip of a benchmark opened once, checked, and summed up.

What is kept per chip (footprint, label histogram, sums per band) is enough to check the data before anything
trains, to cut splits, to compute band statistics of any split and to name the data in a fingerprint, so pixels
are read once for all of these. The index is cached under a key made of every file's size and time.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import complain
from spectral_tl_bench.data.labels import LabelMap, open_raster, read_raw_label
from spectral_tl_bench.data.layouts import ChipFiles, find_chips
from spectral_tl_bench.errors import DataError, StorageError
from spectral_tl_bench.files import digest
from spectral_tl_bench.storage import INDEX, obtain

INDEX_VERSION = 2
LOCAL_CRS = 'LOCAL_CS["chips without a CRS, side by side",UNIT["pixel",1],AXIS["x",EAST],AXIS["y",NORTH]]'
"""An engineering CRS: coordinates are pixels, positions mean nothing but 'another chip'."""


@dataclass(frozen=True)
class ChipIndex:
    """The checked chips of one benchmark.

    Attributes:
        root: Folder that the paths in ``frame`` start from.
        frame: One row per chip, indexed by chip name: domain, site, image, label, crs, xmin, ymin, xmax, ymax,
            height, width, labels (raw values), label_counts, band_sum, band_square_sum (float64 per band),
            valid_pixels, nodata_pixels, content (a hash of pixels and labels).
        skipped: Chips that were left out: (domain, reason) by name.
        notes: Facts about the data that belong into the record.
    """

    root: Path
    frame: pd.DataFrame
    skipped: dict[str, tuple[str, str]]
    notes: tuple[str, ...]

    @functools.cached_property
    def manifest(self) -> str:
        """A hash of what the chips hold, whatever their folder, dates or compression."""
        columns = ["domain", "site", "height", "width", "valid_pixels", "content"]
        frame = self.frame.sort_index()
        return digest(
            [[str(chip), *row] for chip, row in zip(frame.index, frame[columns].values.tolist(), strict=True)]
        )


def build_index(benchmark: Benchmark, root: Path, workers: int | None = None) -> ChipIndex:
    """Find, open and check every chip of a benchmark.

    Args:
        benchmark: The benchmark.
        root: Data root.
        workers: Threads that read; by default one per core.

    Returns:
        The index.

    Raises:
        DataError: If chips are missing, unreadable or contradict the benchmark; up to five are named.
    """
    base, chips = find_chips(benchmark, root)
    frame = _kept_scan(base, chips, workers).set_index("chip")
    _check(benchmark, base, frame)
    frame, skipped, notes = _drop_void_chips(benchmark, base, frame)
    filled = int((frame["nodata_pixels"] > 0).sum())
    if filled:
        notes.append(f"{filled} chips have NaN or nodata pixels, filled with the band mean")
    return ChipIndex(base, _place_local(frame), skipped, tuple(notes))


def _kept_scan(base: Path, chips: list[ChipFiles], workers: int | None) -> pd.DataFrame:
    stamps = []
    for chip in chips:
        stamp: list[Any] = [chip.chip, chip.domain, chip.site, chip.image, chip.label]
        for relative in (chip.image, chip.label):
            try:
                status = (base / relative).stat()
            except OSError:
                status = None
            stamp += [status and status.st_size, status and status.st_mtime_ns]
        stamps.append(stamp)
    key = digest(INDEX_VERSION, str(base.resolve()), stamps)

    def scan() -> pd.DataFrame:
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            frame = pd.DataFrame(pool.map(lambda chip: scan_chip(base, chip), chips))
        broken = frame[frame["problem"] != ""]
        if len(broken):  # before anything is kept: a file may be mended without a change of size and time
            _fail(f"{len(broken)} of {len(frame)} chips cannot be used", base, broken["chip"], broken["problem"],
                  fix="replace these files; a partial download is the usual cause")  # fmt: skip
        return frame

    try:
        return obtain(INDEX, key[:32], pd.read_parquet, lambda path: scan().to_parquet(path), damaged=(Exception,))[0]
    except StorageError as error:  # it only takes longer
        complain(f"what the chips of {base} hold is not kept, and found again by the next run: {error.what}")
        return scan()


def scan_chip(base: Path, chip: ChipFiles) -> dict[str, Any]:
    """Open one chip and sum it up.

    Args:
        base: Folder that the chip's paths start from.
        chip: The chip.

    Returns:
        A row of the index; ``problem`` is empty, or says what is wrong with the chip.
    """
    row: dict[str, Any] = {
        "chip": chip.chip, "domain": chip.domain, "site": chip.site, "image": chip.image, "label": chip.label,
        "crs": "", "xmin": 0.0, "ymin": 0.0, "xmax": 0.0, "ymax": 0.0, "height": 0, "width": 0, "bands": 0,
        "labels": [], "label_counts": [], "band_sum": [], "band_square_sum": [], "valid_pixels": 0,
        "nodata_pixels": 0, "nodata_bands": "", "content": "", "problem": "",
    }  # fmt: skip
    try:
        image, nodata = _scan_image(base / chip.image, chip, row)
        raw = read_raw_label(base / chip.label)
    except DataError as error:
        return row | {"problem": f"{error.what}" + (f" ({error.where})" if error.where else "")}
    if raw.shape != image.shape[1:]:
        problem = f"image is {image.shape[1]}x{image.shape[2]} px, its label {raw.shape[0]}x{raw.shape[1]}"
        return row | {"problem": problem}
    # Sums and histograms do not change when pixels or labels change places; this does.
    content = hashlib.sha256(image.tobytes() + raw.astype(np.int64).tobytes()).hexdigest()
    invalid = invalid_pixels(image, nodata)
    if invalid.any():
        row["nodata_pixels"] = int(invalid.sum())
        bad = [str(band + 1) for band in range(len(image)) if not np.isfinite(image[band]).all()]
        row["nodata_bands"] = ", ".join(bad) or "all"
        image = image[:, ~invalid]
    flat = image.reshape(len(image), -1).astype(np.float64)
    values, counts = np.unique(raw, return_counts=True)
    return row | {
        "labels": values.astype(np.int64).tolist(),
        "label_counts": counts.astype(np.int64).tolist(),
        "band_sum": flat.sum(axis=1).tolist(),
        "band_square_sum": np.einsum("bp,bp->b", flat, flat).tolist(),
        "valid_pixels": int(flat.shape[1]),
        "content": content,
    }


def _scan_image(path: Path, chip: ChipFiles, row: dict[str, Any]) -> tuple[np.ndarray[Any, Any], float | None]:
    import rasterio

    with open_raster(path) as source:
        transform = source.transform
        try:
            image = source.read()
        except rasterio.errors.RasterioError as error:
            raise DataError(f"the pixels cannot be read: {error}", where=path) from None
        row |= {"height": source.height, "width": source.width, "bands": source.count}
        if source.crs:
            if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
                raise DataError("the image is rotated or stands on its head", where=path, expected="north up")
            bounds = source.bounds
            crs = f"EPSG:{source.crs.to_epsg()}" if source.crs.to_epsg() else source.crs.to_wkt()
            row |= {"crs": crs, "xmin": bounds.left, "ymin": bounds.bottom, "xmax": bounds.right, "ymax": bounds.top}
        elif chip.footprint:
            row |= dict(zip(("crs", "xmin", "ymin", "xmax", "ymax"), chip.footprint, strict=True))
        if image.dtype.kind not in "iuf":
            raise DataError(f"the image holds {image.dtype} pixels", where=path, expected="integers or floats")
        return image, source.nodata


def invalid_pixels(image: np.ndarray[Any, Any], nodata: float | None) -> np.ndarray[Any, Any]:
    """Pixels (H, W) that hold no measurement: NaN or infinite in any band, or nodata in every band.

    Args:
        image: (C, H, W).
        nodata: The file's nodata value, if it declares one. A single band may well reach that value honestly
            (cirrus is 0 under a clear sky), so only pixels that have it in every band count.
    """
    invalid = np.zeros(image.shape[1:], dtype=bool)
    if image.dtype.kind == "f":
        invalid = ~np.isfinite(image).all(axis=0)
    if nodata is not None and np.isfinite(nodata):
        invalid |= (image == nodata).all(axis=0)
    return invalid


def _check(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    """Raise on the first kind of trouble, with examples."""
    wrong = frame[frame["bands"] != len(benchmark.sensor.bands)]
    if len(wrong):
        _fail(f"{len(wrong)} of {len(frame)} images have another number of bands than the sensor", base, wrong.index,
              wrong["bands"].map(lambda bands: f"{bands} bands"),
              expected=f"{len(benchmark.sensor.bands)} bands: {', '.join(benchmark.sensor.band_names)}")  # fmt: skip
    shapes = frame[["height", "width"]].apply(tuple, axis=1)
    if shapes.nunique() > 1:
        usual = shapes.mode().iloc[0]
        other = shapes[shapes != usual]
        _fail(f"chips have mixed sizes: {len(other)} of {len(frame)} are not {usual[0]}x{usual[1]} px",
              base, other.index, other.map(lambda shape: f"{shape[0]}x{shape[1]} px"),
              expected="one chip size within a benchmark")  # fmt: skip
    label_map = LabelMap(benchmark.labels)
    unknown = frame["labels"].map(label_map.unknown)
    bad = unknown[unknown.map(len) > 0]
    if len(bad):
        known = label_map.known
        _fail(f"{len(bad)} of {len(frame)} labels hold values outside the label map", base, bad.index,
              bad.map(lambda values: f"value {', '.join(map(str, values[:5]))}"),
              expected=f"one of {', '.join(map(str, known))}",
              fix="add the value to labels.classes or labels.void, or set labels.other: void")  # fmt: skip
    holes = frame[frame["nodata_pixels"] > 0]
    if len(holes) and benchmark.nodata == "error":
        text = holes["nodata_pixels"].map("{} px".format) + " in bands " + holes["nodata_bands"]
        _fail(f"{len(holes)} of {len(frame)} images have NaN or nodata pixels", base, holes.index, text,
              fix="mend the images, or set `nodata: fill` in the benchmark: they get the band mean")  # fmt: skip
    empty = frame[frame["valid_pixels"] == 0]
    if len(empty):
        _fail(f"{len(empty)} of {len(frame)} images hold no valid pixel at all", base, empty.index,
              empty["image"], fix="replace these files")  # fmt: skip


def _fail(
    what: str,
    base: Path,
    chips: Iterable[Any],
    details: Iterable[Any],
    *,
    expected: str | None = None,
    fix: str | None = None,
) -> None:
    examples = [f"{chip}: {detail}" for chip, detail in zip(chips, details, strict=True)]
    more = f"\n    and {len(examples) - 5} more" if len(examples) > 5 else ""
    raise DataError(what + ":\n    " + "\n    ".join(examples[:5]) + more, where=base, expected=expected, fix=fix)


def _drop_void_chips(
    benchmark: Benchmark, base: Path, frame: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, tuple[str, str]], list[str]]:
    label_map = LabelMap(benchmark.labels)
    counts = [
        label_map.counts(values, numbers)
        for values, numbers in zip(frame["labels"], frame["label_counts"], strict=True)
    ]
    frame = frame.assign(class_counts=[count.tolist() for count in counts])
    void = np.array([count.sum() == 0 for count in counts])
    if not void.any():
        return frame, {}, []
    names = list(frame.index[void])
    if benchmark.void_chips == "error":
        _fail(f"{len(names)} of {len(frame)} chips have no labelled pixel", base, names, ["all void"] * len(names),
              fix="remove these chips, or set `void_chips: skip` in the benchmark")  # fmt: skip
    for side in ("source", "target"):
        if not frame[~void]["domain"].isin(getattr(benchmark, side)).any():
            raise DataError(f"every chip of the {side} of {benchmark.id} is void", where=base)
    skipped = {name: (str(frame.loc[name, "domain"]), "all void") for name in names}
    return frame[~void], skipped, [f"{len(names)} chips without a labelled pixel are left out"]


def _place_local(frame: pd.DataFrame) -> pd.DataFrame:
    """Give chips without a CRS a place on a local grid, one pixel per unit, a chip's width apart."""
    frame = frame.sort_index()
    homeless = frame["crs"] == ""
    if not homeless.any():
        return frame
    columns = int(np.ceil(np.sqrt(homeless.sum())))
    number = np.arange(homeless.sum())
    height, width = frame.loc[homeless, "height"].to_numpy(), frame.loc[homeless, "width"].to_numpy()
    x, y = (number % columns) * 2.0 * width.max(), (number // columns) * 2.0 * height.max()
    frame.loc[homeless, ["xmin", "ymin", "xmax", "ymax"]] = np.stack([x, y, x + width, y + height], axis=1)
    frame.loc[homeless, "crs"] = LOCAL_CRS
    return frame
