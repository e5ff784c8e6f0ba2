"""Image and label of the sample chips that pictures show: drawn here from the sample, never taken from a stranger."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from spectral_tl_bench.leaderboard.submit.png import SIDE, read_png
from spectral_tl_bench.results.predictions import draw_chips
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, load_evidence, read_record, target_digest

LABEL_FILE, CHIPS_FILE = "label.png", "chips.json"
COLOUR_FILES = ("true.png", "false.png", "first.png")
_CLOSE = 4.0
"""Mean difference of colours (0..255) that other versions of numpy and GDAL may make."""


def draw_shared(folders: Mapping[Path, Path], results: Path, work: Path, findings: list[Finding]) -> dict[Path, Path]:
    """Draw what the submitted records' pictures are compared with, where it is not there yet.

    Args:
        folders: Staged folder of each record, by its place relative to ``results``.
        results: Root of the results.
        work: Where to draw.
        findings: Gets a warning where it cannot be drawn.

    Returns:
        Drawn folder by its place relative to ``results``.
    """
    drawn: dict[Path, Path] = {}
    for place, folder in folders.items():
        if place.parts[0] != "sample":
            continue
        record = read_record(folder / RECORD_FILE)
        if record.pictures is None:
            continue
        target = Path("sample", record.benchmark, f"pictures-{target_digest(record, load_evidence(record))}")
        if target in drawn or (results / target).exists():
            continue
        try:
            made = _draw(record, work / "shared")
        except UserError as error:
            findings.append(warning(target.as_posix(), f"was not drawn: {flat(error)}"))
            continue
        if made is not None:
            drawn[target] = made
    return drawn


def check_shared(folder: Path, where: str, records: list[Record], redraw: Path | None) -> list[Finding]:
    """Check a folder of drawn chips.

    Args:
        folder: The folder.
        where: Its name in findings.
        records: The benchmark's records that have pictures.
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
        owner = next((r for r in records if f"pictures-{target_digest(r, load_evidence(r))}" == folder.name), None)
        if owner is None:
            raise RecordError("no record shows these chips")
        if redraw is None:
            return []
        again = _draw(owner, redraw)
        if again is None:
            return []
        if about != json.loads((again / CHIPS_FILE).read_text(encoding="utf-8")):
            raise RecordError(f"{CHIPS_FILE} is not what is drawn here")
        for name, found in pixels.items():
            drawn = read_png((again / name).read_bytes(), 2 * SIDE, 3 if name == LABEL_FILE else 2, where)[0]
            far = found.shape != drawn.shape or np.abs(found.astype(float) - drawn).mean() > _CLOSE
            if far or (name == LABEL_FILE and not np.array_equal(found, drawn)):
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
    return draw_chips(
        record, root, benchmark, EvaluationData(benchmark, index, target, LoaderSettings(8, 8, 1), statistics)
    )
