"""The chip index: every chip of a benchmark opened once, checked, and summed up.

What is kept per chip (footprint, label histogram, sums per band) is enough to check the data before anything
trains, to cut splits, to compute band statistics of any split and to name the data in a fingerprint, so pixels
are read once for all of these. The index is cached under a key made of the size and times of every file that pixels
come from.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import complain
from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.data.checks import check, check_readable, drop_void_chips, fail, notes_on
from spectral_tl_bench.data.chip import ReadingRules
from spectral_tl_bench.data.copies import check_copies, check_one_file_each
from spectral_tl_bench.data.domains import with_domains
from spectral_tl_bench.data.layouts import ChipFiles, check_sides, find_chips
from spectral_tl_bench.data.packed import PackedChips, find_packed
from spectral_tl_bench.data.placement import LOCAL_CRS
from spectral_tl_bench.data.reading_processes import look_at_each
from spectral_tl_bench.data.scan import scan_chip
from spectral_tl_bench.data.sources.progress import Progress, Say
from spectral_tl_bench.data.stamps import ChipStamps, stamp_chips
from spectral_tl_bench.data.units import suspicions, unit_line
from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.files import digest
from spectral_tl_bench.storage import INDEX, obtain

INDEX_VERSION = 5
PER_TASK, TASK_BYTES = 32, 2**22
"""Chips that a reader gets at a time: of large ones fewer, since the rows of a task come all at once, at its end."""
PLACE = ["crs", "xmin", "ymin", "xmax", "ymax"]
"""Columns that say where a chip lies."""


@dataclass(frozen=True)
class ChipIndex:
    """The checked chips of one benchmark.

    Attributes:
        root: Folder that the paths in ``frame`` start from.
        frame: One row per chip, indexed by chip name: domain, site, image, label, crs, xmin, ymin, xmax, ymax,
            height, width, labels (raw values), label_counts (of pixels that count), band_count, band_sum,
            band_square_sum (float64 per band, of measured values in the benchmark's unit), band_low (1st percentile),
            gain and bias (see ``units.Unit``; empty where values are as stored), valid_pixels (measured in all
            bands), nodata_pixels (not so), nodata (pixels by reason), content (a hash of what is read), image_files
            and label_files (stamps of every file that was read for it).
        skipped: Chips that were left out: (domain, reason) by name.
        notes: Facts about the data that belong into the record.
        unit: The unit of the pixels, and how the files' values became it.
        packed: Those of them that are packed for fast reading; they are the same, wherever they are read from.
    """

    root: Path
    frame: pd.DataFrame
    skipped: dict[str, tuple[str, str]]
    notes: tuple[str, ...]
    unit: str = ""
    packed: PackedChips = field(default_factory=PackedChips, compare=False)

    @functools.cached_property
    def manifest(self) -> str:
        """A hash of what the chips hold, whatever their folder, dates or compression."""
        columns = ["domain", "site", "height", "width", "valid_pixels", "content"]
        frame = self.frame.sort_index()
        return digest(
            [[str(chip), *row] for chip, row in zip(frame.index, frame[columns].values.tolist(), strict=True)]
        )

    @functools.cached_property
    def places(self) -> str:
        """A hash of what splits are made of: where the chips are, and how much of which class they hold."""
        frame = self.frame
        crs, known = pd.factorize(frame["crs"])
        names = ["domain", "site", "xmin", "ymin", "xmax", "ymax"]
        columns = [frame.index.tolist(), crs.tolist(), *(frame[name].tolist() for name in names)]
        return digest(columns, list(known), [list(map(int, row)) for row in frame["class_counts"]])


def content_key(row: Mapping[Any, Any], digits: int) -> str:
    """What names the pixels of a chip in the identity of anything made of them.

    Args:
        row: Its row of an index.
        digits: Length.
    """
    content = str(row["content"])
    # The same bytes are other pixels once a tag calls some of them nodata.
    return (digest(content, int(row["valid_pixels"])) if row["nodata_pixels"] else content)[:digits]


def build_index(
    benchmark: Benchmark, root: Path, workers: int | None = None, *, trusted: bool = False,
    domains: Path | None = None, packed: str | Path | None = None,
) -> ChipIndex:  # fmt: skip
    """Find, open and check every chip of a benchmark.

    Args:
        workers: Readers; by default one per core.
        trusted: Whether links and VRTs may lead out of the data root.
        domains: Table of the chips' domains, where names tell none; by default the one in the dataset's folder.
        packed: Where packed chips are, see ``find_packed``.

    Raises:
        DataError: If chips are missing, unreadable or contradict the benchmark; up to five are named.
    """
    base, chips = find_chips(benchmark, root)
    check_one_file_each(base, chips)
    rules = ReadingRules.of(benchmark)
    frame = _kept_scan(base, chips, rules, workers, root, trusted)
    index = _checked(benchmark, base, frame, domains, check_copies)
    if trusted:
        trust = "the data were trusted (--trust-data): links and VRTs may lead out of the data root"
        index = replace(index, notes=(*index.notes, trust))
    return replace(index, packed=find_packed(benchmark, index.frame, packed))


def index_usable(
    benchmark: Benchmark, root: Path, *, trusted: bool = False, domains: Path | None = None
) -> tuple[ChipIndex, dict[str, str]]:
    """As ``build_index``, but go on without chips that cannot be read, and leave copies where they are.

    Args:
        trusted: Whether links and VRTs may lead out of the data root.
        domains: Table of the chips' domains, where names tell none.

    Returns:
        The index of the others, and what is wrong with those, by chip.

    Raises:
        DataError: If files are missing, or chips contradict the benchmark.
    """
    base, frame, broken = look_at_all(benchmark, root, trusted=trusted)
    index = _checked(benchmark, base, frame, domains, lambda *_: [])
    return index, dict(zip(broken["chip"].astype(str), broken["problem"].astype(str), strict=True))


def _checked(
    benchmark: Benchmark, base: Path, frame: pd.DataFrame, domains: Path | None,
    copies_in: Callable[[Benchmark, Path, pd.DataFrame], Iterable[str]],
) -> ChipIndex:  # fmt: skip
    """The index of chips that were opened, held against the benchmark; ``copies_in`` has notes on copies."""
    frame, found = with_domains(benchmark, base, frame.set_index("chip"), domains)
    check_sides(benchmark, base, frame["domain"])
    check(benchmark, base, frame)
    copies = copies_in(benchmark, base, frame)
    frame, skipped, notes = drop_void_chips(benchmark, base, frame)
    notes += [*found, *copies, *notes_on(benchmark, frame), *suspicions(benchmark, frame)]
    return ChipIndex(base, _place_local(frame), skipped, tuple(notes), unit_line(benchmark, frame))


def look_at_all(
    benchmark: Benchmark, root: Path, workers: int | None = None, *, trusted: bool = False, say: Say = complain
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Open every chip of a benchmark, and go on where one cannot be used; what was found is kept.

    Args:
        workers: Readers; by default one per core.
        trusted: Whether links and VRTs may lead out of the data root.
        say: Prints one line, about how far it is.

    Returns:
        The folder that paths start from; the rows of the chips that can be used; those of the others, with ``problem``.

    Raises:
        DataError: If files are missing, or named as no chip is.
    """
    base, chips = find_chips(benchmark, root)
    look = _Look.at(base, chips, ReadingRules.of(benchmark), workers, root, trusted)
    frame, broken = look.scan(say)
    look.keep(frame)
    refused = pd.DataFrame([{"chip": chip, "image": image, "fault": "file", "problem": problem}
                            for chip, image, problem in look.refused])  # fmt: skip
    return base, frame, pd.concat([broken, refused]) if len(refused) else broken


def _scan(base: Path, rules: ReadingRules, each: tuple[ChipFiles, ChipStamps, str]) -> dict[str, Any]:
    chip, stamps, _ = each
    return scan_chip(base, chip, rules, (len(stamps.image) == 1, len(stamps.label) == 1))


@dataclass(frozen=True)
class _Look:
    """A look at chips: what is known of them is kept by ``about``, and by ``marks``, of which each chip has one."""

    base: Path
    chips: list[ChipFiles]
    stamps: list[ChipStamps]
    refused: list[tuple[str, str, str]]
    rules: ReadingRules
    workers: int
    about: str
    marks: list[str]

    @classmethod
    def at(
        cls, base: Path, chips: list[ChipFiles], rules: ReadingRules, workers: int | None, root: Path, trusted: bool
    ) -> _Look:
        workers = workers or available_cores()
        stamps = stamp_chips(base, chips, (root, base), trusted, workers)
        both = list(zip(chips, stamps, strict=True))
        good = [(chip, stamp) for chip, stamp in both if not stamp.problem]
        marks = [
            digest([chip.chip, chip.domain, chip.site, chip.image, chip.label], stamp.image, stamp.label)
            for chip, stamp in good
        ]
        return cls(
            base, [chip for chip, _ in good], [stamp for _, stamp in good],
            [(chip.chip, chip.image, stamp.problem) for chip, stamp in both if stamp.problem], rules, workers,
            digest(INDEX_VERSION, str(base.resolve()), asdict(rules))[:16], marks,
        )  # fmt: skip

    def scan(self, say: Say = complain) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of the chips that can be used, and of the others; only what has changed is opened.

        What was read before an interruption is kept.
        """
        kept = _latest(self.about)
        kept = kept[kept["mark"].isin(self.marks)]
        known = set(kept["mark"])
        new = [each for each in zip(self.chips, self.stamps, self.marks, strict=True) if each[2] not in known]
        if not new:
            return _in_order([kept], self.marks), kept[:0]

        sizes = [sum(size for _, size, *_ in (*stamps.image, *stamps.label)) for _, stamps, _ in new]
        rows: list[dict[str, Any]] = []
        progress, done = Progress("chips read", sum(sizes), 0, say), 0
        look = functools.partial(_scan, self.base, self.rules)
        try:
            per_task = max(1, min(PER_TASK, TASK_BYTES * len(sizes) // max(1, sum(sizes))))
            with contextlib.closing(look_at_each(look, new, self.workers, per_task)) as seen:
                for (*_, mark), size, row in zip(new, sizes, seen, strict=True):
                    rows.append(row | {"mark": mark})
                    progress.at(done := done + size)
        except BaseException:
            if good := [row for row in rows if not row["fault"]]:
                self.keep(_in_order([kept, pd.DataFrame(good)], self.marks))
            raise
        read = pd.DataFrame(rows)
        bad = read["fault"] != ""
        return _in_order([kept, read[~bad]], self.marks), read[bad]

    def keep(self, frame: pd.DataFrame) -> None:
        """Keep the rows of some chips: they are not read again when the others are mended."""
        part = self.about + digest(frame["mark"].tolist())[:16]
        with contextlib.suppress(StorageError):
            obtain(INDEX, part, pd.read_parquet, frame.to_parquet, damaged=(Exception,))


def _kept_scan(
    base: Path, chips: list[ChipFiles], rules: ReadingRules, workers: int | None, root: Path, trusted: bool
) -> pd.DataFrame:
    look = _Look.at(base, chips, rules, workers, root, trusted)
    if look.refused:  # before GDAL sees any of them
        names, _, problems = zip(*look.refused, strict=True)
        fail(f"{len(names)} of {len(chips)} chips are not read", base, names, problems)

    def scan() -> pd.DataFrame:
        frame, broken = look.scan()
        if len(broken):
            look.keep(frame)
            check_readable(base, _in_order([frame, broken], look.marks))
        return frame

    key = look.about + digest(look.marks)[:16]
    try:
        frame = obtain(INDEX, key, pd.read_parquet, lambda path: scan().to_parquet(path), damaged=(Exception,))[0]
    except StorageError as error:  # it only takes longer
        complain(f"what the chips of {base} hold is not kept, and found again by the next run: {error.what}")
        frame = scan()
    image_files: list[Any] = [stamp.image for stamp in look.stamps]
    label_files: list[Any] = [stamp.label for stamp in look.stamps]
    return frame.drop(columns="mark").assign(image_files=image_files, label_files=label_files)


def _in_order(parts: list[pd.DataFrame], marks: list[str]) -> pd.DataFrame:
    """Rows of several frames in the order of their marks."""
    frame = pd.concat([part for part in parts if len(part)] or parts).set_index("mark")
    return frame.loc[[mark for mark in marks if mark in frame.index]].reset_index()


def _latest(about: str) -> pd.DataFrame:
    """What was last found of a folder that is read by the same rules; empty where that is not kept."""
    with contextlib.suppress(OSError, StorageError):
        for entry in reversed(INDEX.entries()):
            if entry.path.name.startswith(about):
                with contextlib.suppress(Exception):  # a damaged one is made again by whoever wants it
                    return pd.read_parquet(entry.path)
    return pd.DataFrame({"mark": pd.Series(dtype=str)})


def _place_local(frame: pd.DataFrame) -> pd.DataFrame:
    """Give chips without a CRS a place on a local grid."""
    frame = frame.sort_index()
    homeless = frame["crs"] == ""
    if homeless.any():
        frame.loc[homeless, PLACE] = side_by_side(frame[homeless])[PLACE]
    return frame


def side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """Chips on a local grid, one pixel per unit, a chip's width apart, whatever CRS they are in."""
    columns = int(np.ceil(np.sqrt(len(frame))))
    number = np.arange(len(frame))
    height, width = frame["height"].to_numpy(), frame["width"].to_numpy()
    x, y = (number % columns) * 2.0 * width.max(), (number // columns) * 2.0 * height.max()
    return frame.assign(crs=LOCAL_CRS, xmin=x, ymin=y, xmax=x + width, ymax=y + height)
