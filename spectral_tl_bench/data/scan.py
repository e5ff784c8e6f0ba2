"""One chip opened and summed up: a row of the index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from spectral_tl_bench.data.chip import SHORT, Image, Label, ReadingRules, read_image, read_label
from spectral_tl_bench.data.layouts import ChipFiles
from spectral_tl_bench.data.placement import PlacementError, Turn, name_of
from spectral_tl_bench.data.units import Unit
from spectral_tl_bench.errors import DataError

SEEN = 4096
"""Pixels of a chip, about, from which the spectra of its classes and its darkest values are known."""
ALL = slice(None)
PIECE = 2**18
"""Values that are summed at a time."""
EXACT = 2**21
"""Pixels, whose squares of 16 bits add up to less than 2**53."""


def scan_chip(
    base: Path, chip: ChipFiles, rules: ReadingRules, alone: tuple[bool, bool] = (False, False)
) -> dict[str, Any]:
    """Open one chip and sum it up.

    Args:
        base: Folder that the chip's paths start from.
        rules: How files are read.
        alone: Of image and label, whether no other file is read with it.

    Returns:
        A row of the index; ``problem`` is empty, or says what is wrong with the chip.
    """
    row: dict[str, Any] = {
        "chip": chip.chip, "domain": chip.domain, "site": chip.site, "image": chip.image, "label": chip.label,
        "crs": "", "xmin": 0.0, "ymin": 0.0, "xmax": 0.0, "ymax": 0.0, "height": 0, "width": 0, "bands": 0, "type": "",
        "labels": [], "label_counts": [], "band_count": [], "band_sum": [], "band_square_sum": [], "band_low": [],
        "seen_labels": [], "seen_counts": [], "seen_sums": [],
        "gain": [], "bias": [], "tagged": False, "turned": False, "placed": False, "valid_pixels": 0,
        "nodata_pixels": 0, "nodata_bands": "", "nodata": "", "zeros": 0, "label_hidden": 0, "label_nodata": [],
        "content": "", "fault": "", "problem": "",
    }  # fmt: skip
    try:
        image = read_image(base / chip.image, chip.domain, rules, alone[0])
        label = read_label(base / chip.label, image.grid, image.turn, rules, alone[1])
    except DataError as error:
        expected = f"; expected: {error.expected}" if error.expected else ""
        problem = f"{error.what}{expected}" + (f" ({error.where})" if error.where else "")
        return row | {"fault": "place" if isinstance(error, PlacementError) else "file", "problem": problem}
    return row | _place(image, chip) | _label_facts(label, image, rules) | _band_facts(image) | {
        "placed": image.grid.transform is None or label.georeferenced or chip.label.endswith(".mat"),
        "turned": image.turn != Turn(),
        "content": _content(image, label, rules),
    } | _spectra(label, image)  # fmt: skip


def _place(image: Image, chip: ChipFiles) -> dict[str, Any]:
    """Size, and where the file, or the chip's name, says that it lies."""
    count, height, width = image.pixels.shape
    facts: dict[str, Any] = {"height": height, "width": width, "bands": count, "type": image.pixels.dtype.name}
    if image.transform is not None and image.grid.crs is not None:
        number, t = image.grid.crs.to_epsg(), image.transform
        facts |= {"crs": name_of(image.grid.crs) if number else image.grid.crs.to_wkt()}
        facts |= {"xmin": t.c, "ymin": t.f + height * t.e, "xmax": t.c + width * t.a, "ymax": t.f}
    elif chip.footprint:
        facts |= dict(zip(("crs", "xmin", "ymin", "xmax", "ymax"), chip.footprint, strict=True))
    return facts


def _label_facts(label: Label, image: Image, rules: ReadingRules) -> dict[str, Any]:
    """A histogram of the pixels that count, and what was hidden."""
    facts: dict[str, Any] = {}
    counted = np.ones(label.raw.shape, dtype=bool)
    if label.hidden is not None:
        counted &= ~label.hidden
        facts |= {"label_hidden": int((label.hidden & np.isin(label.raw, rules.classes)).sum())}
        facts |= {
            "label_nodata": [float(label.nodata)] if label.nodata is not None and np.isfinite(label.nodata) else []
        }
    if rules.nodata == "void" and image.holes.values is not None:
        counted &= ~image.holes.values.any(axis=0)
    values, counts = _histogram(label.raw if counted.all() else label.raw[counted])
    return facts | {"labels": values.astype(np.int64).tolist(), "label_counts": counts.astype(np.int64).tolist()}


def _histogram(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """As ``np.unique`` with counts; without sorting where there are few values that could be."""
    if values.dtype != np.uint8:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values.reshape(-1))
    there = np.flatnonzero(counts)
    return there, counts[there]


def _band_facts(image: Image) -> dict[str, Any]:
    """Sums per band over measured values, in the benchmark's unit, and what is not measured."""
    pixels, holes, unit = image.pixels, image.holes.values, image.unit
    facts: dict[str, Any] = {"zeros": image.holes.zeros, "tagged": image.tagged}
    if unit is not None:
        facts |= {"gain": list(unit.gain), "bias": list(unit.bias)}
    count, size = len(pixels), pixels[0].size
    measured = np.full(count, size, dtype=np.int64)
    invalid = 0
    if holes is not None:
        hidden = holes.reshape(count, -1)
        measured -= hidden.sum(axis=1)
        invalid = int(hidden.any(axis=0).sum())
        touched = [str(band + 1) for band in range(count) if hidden[band].any()]
        facts |= {"nodata_bands": "all" if len(touched) == count else ", ".join(touched)}
        facts |= {"nodata": ", ".join(f"{reason} {number}" for reason, number in image.holes.reasons.items())}
    some = slice(None, None, max(1, size // SEEN))
    seen = np.empty((count, -(-size // some.step)))
    sums: list[float] = []
    square_sums: list[float] = []
    # Sums of few enough short integers are exact in any order: those of large chips are made by pieces that stay in
    # the processor's cache. Other sums are those of all bands at once, to the last bit.
    exact = unit is None and pixels.dtype.name in SHORT and size <= EXACT
    step = max(1, PIECE // size) if exact else count
    for bands in (slice(first, first + step) for first in range(0, count, step)):
        values = _in_unit(pixels[bands], image, bands).reshape(-1, size)
        if holes is not None:
            values[holes[bands].reshape(-1, size)] = 0.0
        sums += values.sum(axis=1).tolist()
        square_sums += np.einsum("bp,bp->b", values, values).tolist()
        seen[bands] = values[:, some]
    return facts | {
        "band_count": measured.tolist(),
        "band_sum": sums,
        "band_square_sum": square_sums,
        "band_low": _low(seen, None if holes is None else holes.reshape(count, -1)[:, some]),
        "valid_pixels": size - invalid,
        "nodata_pixels": invalid,
    }


def _in_unit(pixels: np.ndarray[Any, Any], image: Image, bands: slice = ALL) -> np.ndarray[Any, Any]:
    """Pixels of some bands of an image (C, ...) in the benchmark's unit, float64."""
    if image.unit is None:
        return pixels.astype(np.float64)
    return Unit(image.unit.gain[bands], image.unit.bias[bands])(pixels)


def _spectra(label: Label, image: Image) -> dict[str, Any]:
    """Of about 4,000 pixels that are measured in all bands: raw labels, how many pixels, and the sums of their bands.

    The sums (bands of the first label, then of the next) are in the benchmark's unit.
    """
    flat = image.pixels.reshape(len(image.pixels), -1)
    some = np.arange(0, flat.shape[1], max(1, flat.shape[1] // SEEN))
    if image.holes.values is not None:
        some = some[~image.holes.values.reshape(len(flat), -1)[:, some].any(axis=0)]
    values, which, counts = np.unique(label.raw.reshape(-1)[some], return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    sums = [np.bincount(which, band, len(values)) for band in _in_unit(flat[:, some], image)]
    labels = values.astype(np.int64).tolist()
    return {"seen_labels": labels, "seen_counts": counts.tolist(), "seen_sums": np.stack(sums, axis=1).ravel().tolist()}


def _low(values: np.ndarray[Any, Any], holes: np.ndarray[Any, Any] | None) -> list[float]:
    """First percentile of each band; NaN where a band holds none."""
    if holes is None:
        return [float(value) for value in np.percentile(values, 1, axis=1)]
    values = np.where(holes, np.nan, values)
    return [float(np.percentile(band[~np.isnan(band)], 1)) if (~np.isnan(band)).any() else np.nan for band in values]


def _content(image: Image, label: Label, rules: ReadingRules) -> str:
    """A hash of what is read. Sums and histograms do not change when pixels or labels change places; this does."""
    found = hashlib.sha256(np.ascontiguousarray(image.pixels).data)
    for line in label.raw:  # a large label of bytes would take eight times its room
        found.update(line.astype(np.int64).data)
    holes = image.holes.values
    # Pixels that miss all bands are told by the values and by valid_pixels; manifests from before masks counted stay.
    if holes is not None and ("mask" in image.holes.reasons or (holes != holes[:1]).any()):
        found.update(b"unmeasured" + np.packbits(holes).tobytes())
    if image.unit is not None:
        found.update(b"unit" + np.array(image.unit, dtype=np.float64).tobytes())
    if label.hidden is not None and np.isin(label.raw[label.hidden], rules.classes).any():
        found.update(b"hidden" + np.packbits(label.hidden).tobytes())
    return found.hexdigest()
