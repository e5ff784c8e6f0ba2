"""What a run shows of its target: predictions of a few chips beside the record, image and label once for all runs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.pictures import compositions
from spectral_tl_bench.files import write_bytes, write_json
from spectral_tl_bench.results.location import chips_in_runs
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import load_evidence, target_digest

SHOWN = 2
"""Chips that are shown; of different target domains where there are several."""
SIDE = 256
"""Larger chips are cut to this many pixels around their centre."""
_NEVER_SHOWN = (0, 0, 0)  # entries of a palette beyond the classes, and void

Predictions = Mapping[str, NDArray[np.integer[Any]]]
"""Class maps (H, W) by chip."""


def chips_to_show(frame: pd.DataFrame) -> tuple[str, ...]:
    """The target chips with most classes, first one of each domain.

    Args:
        frame: Rows of the chip index, of target chips only: ``domain`` and ``class_counts``, indexed by chip.

    Returns:
        At most ``SHOWN`` names; the same for every method and seed of a benchmark.
    """
    variety = {str(chip): sum(count > 0 for count in counts) for chip, counts in frame["class_counts"].items()}
    domains = {str(chip): str(domain) for chip, domain in frame["domain"].items()}
    order = sorted(variety, key=lambda chip: (-variety[chip], chip))
    seen: set[str] = set()
    again = {}
    for chip in order:
        again[chip] = domains[chip] in seen
        seen.add(domains[chip])
    return tuple(sorted(order, key=lambda chip: again[chip])[:SHOWN])


def predictions_png(benchmark: Benchmark, predictions: Predictions) -> tuple[str, str, bytes]:
    """Predictions side by side, as a PNG of class indices.

    Returns:
        File name, SHA-256 and content.
    """
    content = _indexed([_centre(prediction) for prediction in predictions.values()], benchmark)
    sha256 = hashlib.sha256(content).hexdigest()
    return f"pictures-{sha256[:16]}.png", sha256, content


def draw_chips(record: Record, root: Path, benchmark: Benchmark, data: EvaluationData) -> Path | None:
    """Draw image and label of the chips that a record shows, unless another record has done so.

    Args:
        root: Root of the record store.

    Returns:
        The folder: ``label.png`` (class indices, void 255), ``true.png`` and ``false.png`` where the sensor has the
        bands (else ``first.png``), and ``chips.json``, which comes last. None where the record shows nothing.
    """
    if record.pictures is None:
        return None
    folder = chips_in_runs(root, record.benchmark, target_digest(record, load_evidence(record)))
    if (folder / "chips.json").is_file():
        return folder
    chips = record.pictures.chips
    write_bytes(folder / "label.png", _indexed([_centre(data.truth(chip)) for chip in chips], benchmark))
    images = [_centre(data.seen(chip)) for chip in chips]
    drawn = []
    for title, bands in compositions(benchmark.sensor.wavelengths).items():
        name = f"{title.split(' ')[0]}.png"
        write_bytes(folder / name, _colour(images, bands))
        drawn.append({"file": name, "title": title, "bands": [benchmark.sensor.band_names[band] for band in bands]})
    sizes = [list(image.shape[-2:]) for image in images]
    write_json(folder / "chips.json", {"chips": list(chips), "sizes": sizes, "colours": drawn})
    return folder


def _centre(pixels: NDArray[Any]) -> NDArray[Any]:
    """The middle of (..., H, W)."""
    height, width = pixels.shape[-2:]
    line, column = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    return pixels[..., line : line + SIDE, column : column + SIDE]


def _side_by_side(pictures: list[Image.Image], mode: str, background: int) -> Image.Image:
    sheet = Image.new(
        mode, (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)), background
    )
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet


def _indexed(maps: list[NDArray[Any]], benchmark: Benchmark) -> bytes:
    sheet = _side_by_side([Image.fromarray(class_map.astype(np.uint8)) for class_map in maps], "L", VOID)
    picture = Image.fromarray(np.asarray(sheet), mode="P")
    palette = [value for cover in benchmark.labels.classes for value in cover.rgb]
    picture.putpalette(palette + list(_NEVER_SHOWN) * (256 - len(palette) // 3))
    return _png(picture)


def _colour(images: list[NDArray[Any]], bands: tuple[int, ...]) -> bytes:
    """Images (C, H, W), each band stretched from its 2nd to its 98th percentile over all of them."""
    shown = [image[[bands[index % len(bands)] for index in range(3)]].astype(np.float64) for image in images]
    pixels = np.concatenate([image.reshape(3, -1) for image in shown], axis=1)
    low, high = np.nanpercentile(pixels, (2, 98), axis=1)
    stretched = [
        np.nan_to_num((image - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]).clip(0, 1)
        for image in shown
    ]
    tiles = [Image.fromarray((255 * image).round().astype(np.uint8).transpose(1, 2, 0)) for image in stretched]
    return _png(_side_by_side(tiles, "RGB", 0))


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
