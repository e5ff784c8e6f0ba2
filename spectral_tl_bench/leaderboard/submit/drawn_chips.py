"""Image and label of the sample chips that pictures show: drawn here from the sample, never taken from a stranger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.loaders import BandStatistics, EvaluationData, LoaderSettings
from spectral_tl_bench.data.source import DataSource, open_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.leaderboard.submit.check import flat
from spectral_tl_bench.leaderboard.submit.findings import Finding, refused, warning
from spectral_tl_bench.leaderboard.submit.intake import PICTURE_BYTES, RECORD_BYTES, check_json, read_bounded
from spectral_tl_bench.leaderboard.submit.place import Move
from spectral_tl_bench.leaderboard.submit.png import SIDE, read_png
from spectral_tl_bench.leaderboard.submit.rules import protocol_of, resized_to
from spectral_tl_bench.results.predictions import draw_chips
from spectral_tl_bench.results.published import published_chips
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import load_evidence, target_digest

LABEL_FILE, CHIPS_FILE = "label.png", "chips.json"
COLOUR_FILES = ("true.png", "false.png", "first.png")
_CLOSE = 4.0
"""Mean difference of colours (0..255) that other versions of numpy and GDAL may make."""


def draw_shared(records: Sequence[Record], results: Path, work: Path, findings: list[Finding]) -> list[Move]:
    """Draw what the submitted records' pictures are compared with, where it is not there yet.

    Args:
        results: Root of the results.
        work: Where to draw.
        findings: Gets a warning where it cannot be drawn.

    Returns:
        How the drawn files come into place.
    """
    drawn: dict[Path, Path | None] = {}
    for record in records:
        if record.track != "sample" or record.pictures is None:
            continue
        target = published_chips(results / record.track, record.benchmark, _target(record))
        if target in drawn or target.exists():
            continue
        drawn[target] = None
        try:
            drawn[target] = _draw(record, work / "shared")
        except UserError as error:
            findings.append(warning(target.relative_to(results).as_posix(), f"was not drawn: {flat(error)}"))
    return [
        (file, target / file.name) for target, folder in drawn.items() if folder for file in sorted(folder.iterdir())
    ]


def _target(record: Record) -> str:
    return target_digest(record, load_evidence(record))


def check_shared(folder: Path, where: str, records: Sequence[Record], redraw: Path | None) -> list[Finding]:
    """Check a folder of drawn chips.

    Args:
        where: Its name in findings.
        records: The records of the sample that have pictures.
        redraw: Where to draw it again for comparison; None where that is not wanted.
    """
    try:
        content = {path.name: path for path in folder.iterdir()}
        strange = set(content) - {LABEL_FILE, CHIPS_FILE, *COLOUR_FILES}
        if strange or not {LABEL_FILE, CHIPS_FILE} <= set(content):
            raise RecordError(
                f"holds {', '.join(sorted(content)) or 'nothing'}", expected="what `stbench submit` draws"
            )
        about = check_json(read_bounded(content[CHIPS_FILE], RECORD_BYTES), where)
        pixels = {
            name: read_png(read_bounded(path, PICTURE_BYTES), 2 * SIDE, 3 if name == LABEL_FILE else 2, where)[0]
            for name, path in content.items()
            if name != CHIPS_FILE
        }
        owners = (record for record in records if folder.name.startswith(f"{record.benchmark}-"))
        owner = next((owner for owner in owners if folder.name == f"{owner.benchmark}-{_target(owner)}"), None)
        if owner is None:
            raise RecordError("no record shows these chips")
        if redraw is None:
            return []
        again = _draw(owner, redraw)
        if again is None:
            return []
        if about != json.loads((again / CHIPS_FILE).read_text(encoding="utf-8")):
            raise RecordError(f"{CHIPS_FILE} is not what is drawn here")
        for name, picture in pixels.items():
            drawn = read_png((again / name).read_bytes(), 2 * SIDE, 3 if name == LABEL_FILE else 2, where)[0]
            far = picture.shape != drawn.shape or np.abs(picture.astype(float) - drawn).mean() > _CLOSE
            if far or (name == LABEL_FILE and not np.array_equal(picture, drawn)):
                raise RecordError(f"{name} is not what is drawn here")
    except (UserError, OSError) as error:
        return [refused(where, flat(error) if isinstance(error, UserError) else error)]
    return []


def _draw(record: Record, root: Path) -> Path | None:
    from spectral_tl_bench.data.sample_source import ensure_sample

    benchmark = builtin_benchmarks()[record.benchmark]
    index, _, _ = open_index(benchmark, DataSource("sample", ensure_sample(), ""), own=False)
    target = make_split(benchmark, index, record.seed).chips("target")
    statistics = BandStatistics.of(index, target)
    side = resized_to(record) or 8
    settings = LoaderSettings(side, side, 1, rules=protocol_of(record).pixels)
    return draw_chips(record, root, benchmark, EvaluationData(benchmark, index, target, settings, statistics))
