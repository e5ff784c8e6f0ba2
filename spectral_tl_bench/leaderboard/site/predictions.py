"""Sample chips of a benchmark: image and label once, predictions of the best rows, all from beside the records."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.cells import Cell
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.text import plain

MOST_ROWS = 16
"""So many rows show their predictions on a benchmark's page, the best ones."""
_MOST_BYTES = 4_000_000
_MOST_SIDE = 2_048
_COLOURS = ("true.png", "false.png", "first.png")


@dataclass(frozen=True)
class Shown:
    """Sample chips of one benchmark.

    Attributes:
        chips: Their names, from left to right.
        width: Of each picture, in pixels.
        height: Of each picture, in pixels.
        images: (title, path) of what every row was given: the image in one or two compositions, then the label.
        predictions: (row, seed, path), the best row first.
        more: How many further rows there are whose predictions are not shown.
    """

    chips: tuple[str, ...]
    width: int
    height: int
    images: list[tuple[str, str]]
    predictions: list[tuple[dict[str, Any], int, str]]
    more: int


def shown_chips(writer: Writer, view: View, benchmark: BenchmarkView) -> Shown | None:
    """Copy the pictures of a benchmark's best rows.

    A file that is missing, is no PNG or was changed since its record was written is left out.

    Returns:
        What to show; None where there is nothing.
    """
    found: list[tuple[dict[str, Any], Cell]] = []
    for row in view.best_first(benchmark.id):
        by_seed = view.measured.get((row["row"], benchmark.id), {})
        cells = [by_seed[seed] for seed in sorted(by_seed) if by_seed[seed].record.pictures is not None]
        if cells:
            found.append((row, cells[0]))
    # rows can be compared by eye only over the same chips
    target = found[0][1].target if found else ""
    same = [(row, cell) for row, cell in found if cell.target == target and _chips(cell) == _chips(found[0][1])]
    images, size = _common(writer, same[0][1]) if same else ([], (0, 0))
    predictions = []
    for row, cell in same[:MOST_ROWS] if images else []:
        content, shape = _prediction(cell)
        if content and shape == size:
            predictions.append((row, cell.record.seed, writer.picture(content)))
    if not predictions:
        return None
    return Shown(_chips(same[0][1]), *size, images, predictions, max(0, len(same) - MOST_ROWS))


def _chips(cell: Cell) -> tuple[str, ...]:
    return tuple(plain(chip) for chip in cell.record.pictures.chips) if cell.record.pictures else ()


def _common(writer: Writer, cell: Cell) -> tuple[list[tuple[str, str]], tuple[int, int]]:
    """Image and label of the chips, which are kept once for all of a benchmark."""
    if cell.record.location is None:
        return [], (0, 0)
    folder = cell.record.location.chips(cell.record, cell.target)
    label, size = _png_file(folder / "label.png")
    if not label:
        return [], (0, 0)
    images = []
    for file, title in _compositions(folder / "chips.json"):
        content, shape = _png_file(folder / file)
        if content and shape == size:
            images.append((title, writer.picture(content)))
    return [*images, ("Label", writer.picture(label))], size


def _compositions(path: Path) -> list[tuple[str, str]]:
    """File and title of each composition, with its bands."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["colours"]
        told = {one["file"]: f"{one['title'].capitalize()} ({', '.join(map(str, one['bands']))})" for one in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        told = {}
    return [(file, plain(told.get(file, f"{file.partition('.')[0].capitalize()} colour"))) for file in _COLOURS]


def _prediction(cell: Cell) -> tuple[bytes, tuple[int, int]]:
    pictures, location = cell.record.pictures, cell.record.location
    try:
        content = location.picture(cell.record) if location is not None else None
    except (RecordError, OSError):
        content = None
    if content is None or pictures is None or hashlib.sha256(content).hexdigest() != pictures.sha256:
        return b"", (0, 0)
    return _png(content)


def _png_file(path: Path) -> tuple[bytes, tuple[int, int]]:
    try:
        return _png(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else (b"", (0, 0))
    except OSError:
        return b"", (0, 0)


def _png(content: bytes) -> tuple[bytes, tuple[int, int]]:
    """The bytes of a PNG of reasonable size and its width and height; no bytes for anything else."""
    if len(content) > _MOST_BYTES:
        return b"", (0, 0)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            size = picture.size
            if max(size) > _MOST_SIDE:
                return b"", (0, 0)
            picture.load()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return b"", (0, 0)
    return content, size
