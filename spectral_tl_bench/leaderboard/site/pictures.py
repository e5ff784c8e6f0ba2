"""Pictures beside records: read without trust, and the colours of classes in them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.text import plain
from spectral_tl_bench.results.schema import Record

_MOST_BYTES = 4_000_000
_MOST_SIDE = 2_048
Size = tuple[int, int]
NO_PNG: tuple[bytes, Size] = (b"", (0, 0))


def class_colours(record: Record) -> tuple[str, ...]:
    """``#rrggbb`` of each class in the picture of a record's predictions; empty where there is none."""
    content, _ = prediction(record) if record.pictures is not None else NO_PNG
    if not content:
        return ()
    from PIL import Image  # which takes a while to import, and not all records have pictures

    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        palette = picture.getpalette() or []
    count = len(record.classes)
    if len(palette) < 3 * count:
        return ()
    return tuple("#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3]) for index in range(count))


def prediction(record: Record) -> tuple[bytes, Size]:
    """The picture of a record's predictions, and its size; no bytes where it is missing or was changed."""
    pictures, location = record.pictures, record.location
    try:
        content = location.picture(record) if location is not None else None
    except (RecordError, OSError):
        content = None
    if content is None or pictures is None or hashlib.sha256(content).hexdigest() != pictures.sha256:
        return NO_PNG
    return _png(content)


def png_file(path: Path) -> tuple[bytes, Size]:
    """The PNG in a file and its size; no bytes where it is none of reasonable size."""
    try:
        return _png(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else NO_PNG
    except OSError:
        return NO_PNG


def _png(content: bytes) -> tuple[bytes, Size]:
    """The bytes of a PNG of reasonable size and its width and height; no bytes for anything else."""
    if len(content) > _MOST_BYTES:
        return NO_PNG
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if max(picture.size) > _MOST_SIDE:
                return NO_PNG
            picture.load()
            return content, picture.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return NO_PNG


MOST_ROWS = 16
"""So many rows show their predictions on a benchmark's page, the best ones."""
_COLOURS = ("true.png", "false.png", "first.png")


def shown_chips(writer: Writer, view: View, benchmark: BenchmarkView) -> Fields | None:
    """Copy the pictures of a benchmark's best rows.

    A file that is missing, is no PNG or was changed since its record was written is left out.

    Returns:
        None where there is nothing to show, else: ``chips``, their names from left to right; ``width`` and ``height``
        of each picture in pixels; ``images``, (title, path) of what every row was given: the image in one or two
        compositions, then the label; ``predictions``, (row, seed, path), the best row first; the ``pair`` that is shown
        first, (path, words) each; and how many ``more`` rows there are whose predictions are not shown.
    """
    drawn: list[tuple[Fields, MeasuredRecord]] = []
    for row in view.best_first(benchmark.id):
        records = [run for run in view.by_seed(row["row"], benchmark.id).values() if run.record.pictures is not None]
        drawn += [(row, run) for run in records[:1]]
    # rows can be compared by eye only over the same chips
    same = [(row, run) for row, run in drawn if (run.target, _chips(run)) == (drawn[0][1].target, _chips(drawn[0][1]))]
    images, size = _common(writer, same[0][1]) if same else ([], NO_PNG[1])
    predictions = []
    for row, run in same[:MOST_ROWS] if images else []:
        content, shape = prediction(run.record)
        if content and shape == size:
            predictions.append((row, run.record.seed, writer.picture(content)))
    if not predictions:
        return None
    pair = [(path, f"Prediction of {row['label']}, seed {seed}") for row, seed, path in predictions[:2]]
    pair += [(images[-1][1], images[-1][0])] if len(pair) < 2 else []
    return {"pair": pair, "chips": _chips(same[0][1]), "width": size[0], "height": size[1], "images": images,
            "predictions": predictions, "more": max(0, len(same) - MOST_ROWS)}  # fmt: skip


def _chips(measured: MeasuredRecord) -> list[str]:
    return list(map(plain, measured.record.pictures.chips)) if measured.record.pictures else []


def _common(writer: Writer, measured: MeasuredRecord) -> tuple[list[tuple[str, str]], Size]:
    """Image and label of the chips, which are kept once for all of a benchmark."""
    location = measured.record.location
    if location is None:
        return [], NO_PNG[1]
    folder = location.chips(measured.record, measured.target)
    label, size = png_file(folder / "label.png")
    if not label:
        return [], size
    images = []
    for file, title in _compositions(folder / "chips.json"):
        content, shape = png_file(folder / file)
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
