"""What is refused of chips that could be read, what is left out, and what a reader of the results must know."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.errors import DataError

UNUSABLE = {
    "file": ("cannot be used", "replace these files; a partial download is the usual cause"),
    "place": ("have an image or a label that does not lie where it should",
              "align the files; or, if their georeferences lie, set `labels: {align: pixels}` in the benchmark"),
}  # fmt: skip
"""What is wrong with chips by the kind of their fault, and what to do."""


def check_readable(base: Path, frame: pd.DataFrame) -> None:
    """Refuse chips that could not be read, and those whose files do not lie where they should.

    Args:
        base: Folder that the chips' paths start from.
        frame: Rows as ``scan_chip`` makes them.

    Raises:
        DataError: If there are any; up to five of one kind are named.
    """
    for fault, (what, fix) in UNUSABLE.items():
        broken = frame[frame["fault"] == fault]
        if len(broken):
            fail(f"{len(broken)} of {len(frame)} chips {what}", base, broken["chip"], broken["problem"], fix=fix)


def check(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    """Refuse chips that contradict each other or the benchmark.

    Args:
        base: Folder that the chips' paths start from.
        frame: The index of what could be read.

    Raises:
        DataError: On the first kind of trouble; up to five chips are named.
    """
    for one in CHECKS:
        one(benchmark, base, frame)


def _check_bands(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    wrong = frame[frame["bands"] != len(benchmark.sensor.bands)]
    if len(wrong):
        fail(f"{len(wrong)} of {len(frame)} images have another number of bands than the sensor", base, wrong.index,
              wrong["bands"].map(lambda bands: f"{bands} bands"),
              expected=f"{len(benchmark.sensor.bands)} bands: {', '.join(benchmark.sensor.band_names)}")  # fmt: skip


def _check_sizes(_: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    shapes = pd.Series(list(zip(frame["height"], frame["width"], strict=True)), frame.index)
    if shapes.nunique() > 1:
        usual = shapes.mode().iloc[0]
        other = shapes[shapes != usual]
        fail(f"chips have mixed sizes: {len(other)} of {len(frame)} are not {usual[0]}x{usual[1]} px",
              base, other.index, other.map(lambda shape: f"{shape[0]}x{shape[1]} px"),
              expected="one chip size within a benchmark")  # fmt: skip


def _check_labels(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    label_map = LabelMap(benchmark.labels)
    unknown = frame["labels"].map(label_map.unknown)
    bad = unknown[unknown.map(len) > 0]
    if len(bad):
        known = label_map.known
        fail(f"{len(bad)} of {len(frame)} labels hold values outside the label map", base, bad.index,
              bad.map(lambda values: f"value {', '.join(map(str, values[:5]))}"),
              expected=f"one of {', '.join(map(str, known))}",
              fix="add the value to labels.classes or labels.void, or set labels.other: void")  # fmt: skip


def _check_measured(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    holes = frame[frame["nodata_pixels"] > 0]
    if len(holes) and benchmark.nodata == "refuse":
        text = (
            holes["nodata_pixels"].map("{} px".format) + " in bands " + holes["nodata_bands"] + ": " + holes["nodata"]
        )
        fail(f"{len(holes)} of {len(frame)} images have NaN or nodata pixels, or a mask", base, holes.index, text,
              fix="mend the images, or set `nodata: fill` in the benchmark (unmeasured values get the band mean) or "
              "`nodata: void` (their pixels do not count)")  # fmt: skip


def _check_some_valid(_: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    empty = frame[frame["band_count"].map(max) == 0]
    if len(empty):
        fail(f"{len(empty)} of {len(frame)} images hold no valid pixel at all", base, empty.index,
              empty["image"], fix="replace these files")  # fmt: skip


def _check_hidden_classes(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    """A label file that calls a class of the benchmark nodata contradicts it: one of the two is wrong."""
    names = {value: cover.name for cover in benchmark.labels.classes for value in cover.raw}
    said = frame["label_nodata"].map(lambda values: names.get(int(values[0])) if len(values) else None)
    wrong = frame[said.notna() & (frame["label_hidden"] > 0)]
    if len(wrong):
        fail(f"{len(wrong)} of {len(frame)} labels call a class nodata", base, wrong.index,
              wrong["label_nodata"].map(lambda values: f"nodata value {values[0]:g} is class ")
              + said[wrong.index].map(repr),
              fix="take the tag out of the files (`gdal_edit.py -unsetnodata`), or set `labels: {nodata: ignore}` in "
              "the benchmark, or take the value out of the class")  # fmt: skip


def _check_units(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    """Files that say what unit they are in, among others that do not, cannot all be right."""
    free = frame[~frame["domain"].isin([domain.id for domain in benchmark.domains if domain.has_unit])]
    tagged = free[free["tagged"].astype(bool)]
    if 0 < len(tagged) < len(free):
        where = tagged.groupby("domain").size().map("{} of its images".format)
        fail(f"{len(tagged)} of {len(free)} images carry scale and offset tags, the others none", base, where.index,
              where, expected="tags in all of them, or in none",
              fix="give the domains `scale` and `offset` in the benchmark (reflectance = stored value * scale + "
              "offset): they win over the tags")  # fmt: skip


CHECKS = (_check_bands, _check_sizes, _check_labels, _check_hidden_classes, _check_measured, _check_units,
          _check_some_valid)  # fmt: skip
"""Each refuses one kind of trouble, in this order."""


def fail(
    what: str,
    base: Path,
    chips: Iterable[Any],
    details: Iterable[Any],
    *,
    expected: str | None = None,
    fix: str | None = None,
) -> NoReturn:
    """Refuse chips of one kind of fault: how many, up to five of them, and what to do.

    Args:
        what: The fault, with numbers.
        base: Folder that the chips' paths start from.
        details: What was found, one for each.
        expected: What would have been right.
        fix: What to do next.

    Raises:
        DataError: Always.
    """
    examples = [f"{chip}: {detail}" for chip, detail in zip(chips, details, strict=True)]
    more = f"\n    and {len(examples) - 5} more" if len(examples) > 5 else ""
    raise DataError(what + ":\n    " + "\n    ".join(examples[:5]) + more, where=base, expected=expected, fix=fix)


def drop_void_chips(
    benchmark: Benchmark, base: Path, frame: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, tuple[str, str]], list[str]]:
    """Count classes, and leave out or refuse chips without a labelled pixel.

    Args:
        base: Folder that the chips' paths start from.
        frame: The index of what could be read.

    Returns:
        The index with ``class_counts``, what was left out (domain, reason) by name, and notes.

    Raises:
        DataError: If the benchmark refuses such chips, or a side has no others.
    """
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
        why = frame.loc[void, "valid_pixels"].map(lambda pixels: "all void" if pixels else "no pixel has all bands")
        fail(f"{len(names)} of {len(frame)} chips have no labelled pixel", base, names, why,
              fix="remove these chips, or set `void_chips: skip` in the benchmark")  # fmt: skip
    for side in ("source", "target"):
        if not frame[~void]["domain"].isin(getattr(benchmark, side)).any():
            raise DataError(f"every chip of the {side} of {benchmark.id} is void", where=base)
    skipped = {name: (str(frame.loc[name, "domain"]), "all void") for name in names}
    return frame[~void], skipped, [f"{len(names)} chips without a labelled pixel are left out"]


def notes_on(benchmark: Benchmark, frame: pd.DataFrame) -> list[str]:
    """What was found in the files that a reader of the results must know."""
    notes = []
    holes = frame[frame["nodata_pixels"] > 0]
    if len(holes):
        done = "filled with the band mean" if benchmark.nodata == "fill" else "void, and filled with the band mean"
        notes.append(
            f"{len(holes)} chips have NaN, masked or nodata pixels: {int(holes['nodata_pixels'].sum())} px, {done}"
        )
    for side in ("source", "target"):
        counts = frame.loc[frame["domain"].isin(getattr(benchmark, side)), "band_count"]
        dead = np.flatnonzero(np.sum(counts.tolist(), axis=0) == 0)
        if len(dead):
            names = ", ".join(benchmark.sensor.band_names[band] for band in dead[:12])
            more = f" and {len(dead) - 12} more bands" if len(dead) > 12 else ""
            notes.append(f"no chip of the {side} has a measurement in {names}{more}")
    for column, text in (
        ("zeros", "the nodata value 0 in some bands only, which is taken for data (nodata_in)"),
        ("label_hidden", "a class value where the label's mask or nodata value hides it: void"),
    ):
        if (pixels := int(frame[column].sum())) > 0:
            notes.append(f"{pixels} px of {int((frame[column] > 0).sum())} chips have {text}")
    if (turned := int(frame["turned"].sum())) > 0:
        notes.append(f"{turned} images do not stand north up and were turned, with their labels, without resampling")
    if (bare := int((~frame["placed"].astype(bool)).sum())) > 0:
        notes.append(f"{bare} labels do not say where they lie and are taken pixel for pixel")
    if benchmark.labels.align == "pixels":
        notes.append("labels are taken pixel for pixel, whatever their georeferences say (labels.align)")
    return notes
