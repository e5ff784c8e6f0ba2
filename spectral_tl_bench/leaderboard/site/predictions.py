"""Sample chips of a benchmark: image and label once, predictions of the best rows, all from beside the records."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.text import plain
from spectral_tl_bench.results.schema import Record

MOST_ROWS = 16
"""So many rows show their predictions on a benchmark's page, the best ones."""
_MOST_BYTES = 4_000_000
_MOST_SIDE = 2_048
Size = tuple[int, int]
_NO_PNG: tuple[bytes, Size] = (b"", (0, 0))
_COLOURS = ("true.png", "false.png", "first.png")


def shown_chips(writer: Writer, view: View, benchmark: BenchmarkView) -> Fields | None:
    """Copy the pictures of a benchmark's best rows.

    A file that is missing, is no PNG or was changed since its record was written is left out.

    Returns:
        None where there is nothing to show, else: ``chips``, their names from left to right; ``width`` and ``height``
        of each picture in pixels; ``images``, (title, path) of what every row was given: the image in one or two
        compositions, then the label; ``predictions``, (row, seed, path), the best row first; and how many ``more``
        rows there are whose predictions are not shown.
    """
    drawn: list[tuple[Fields, MeasuredRecord]] = []
    for row in view.best_first(benchmark.id):
        records = [run for run in view.by_seed(row["row"], benchmark.id).values() if run.record.pictures is not None]
        drawn += [(row, run) for run in records[:1]]
    # rows can be compared by eye only over the same chips
    same = [(row, run) for row, run in drawn if (run.target, _chips(run)) == (drawn[0][1].target, _chips(drawn[0][1]))]
    images, size = _common(writer, same[0][1]) if same else ([], _NO_PNG[1])
    predictions = []
    for row, run in same[:MOST_ROWS] if images else []:
        content, shape = _prediction(run.record)
        if content and shape == size:
            predictions.append((row, run.record.seed, writer.picture(content)))
    if not predictions:
        return None
    return {"chips": _chips(same[0][1]), "width": size[0], "height": size[1], "images": images,
            "predictions": predictions, "more": max(0, len(same) - MOST_ROWS)}  # fmt: skip


def _chips(measured: MeasuredRecord) -> list[str]:
    return list(map(plain, measured.record.pictures.chips)) if measured.record.pictures else []


def _common(writer: Writer, measured: MeasuredRecord) -> tuple[list[tuple[str, str]], Size]:
    """Image and label of the chips, which are kept once for all of a benchmark."""
    location = measured.record.location
    if location is None:
        return [], _NO_PNG[1]
    folder = location.chips(measured.record, measured.target)
    label, size = _png_file(folder / "label.png")
    if not label:
        return [], size
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
        titles = {
            entry["file"]: f"{entry['title'].capitalize()} ({', '.join(map(str, entry['bands']))})" for entry in entries
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        titles = {}
    return [(file, plain(titles.get(file, f"{file.partition('.')[0].capitalize()} colour"))) for file in _COLOURS]


def _prediction(record: Record) -> tuple[bytes, Size]:
    pictures, location = record.pictures, record.location
    try:
        content = location.picture(record) if location is not None else None
    except (RecordError, OSError):
        content = None
    if content is None or pictures is None or hashlib.sha256(content).hexdigest() != pictures.sha256:
        return _NO_PNG
    return _png(content)


def _png_file(path: Path) -> tuple[bytes, Size]:
    try:
        return _png(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else _NO_PNG
    except OSError:
        return _NO_PNG


def _png(content: bytes) -> tuple[bytes, Size]:
    """The bytes of a PNG of reasonable size and its width and height; no bytes for anything else."""
    if len(content) > _MOST_BYTES:
        return _NO_PNG
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if max(picture.size) > _MOST_SIDE:
                return _NO_PNG
            picture.load()
            return content, picture.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return _NO_PNG
