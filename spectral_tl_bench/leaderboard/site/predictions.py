"""Sample chips of a benchmark: image and label once, predictions of the best rows, all from beside the records."""

from __future__ import annotations

import json
from pathlib import Path

from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.leaderboard.site.pictures import NO_PNG, Size, png_file, prediction
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.text import plain

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
