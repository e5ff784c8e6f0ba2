"""Chips that are there twice: one file under two names, or the same pixels on both sides of the gap."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts import ChipFiles, layout_of
from spectral_tl_bench.errors import DataError


def check_one_file_each(base: Path, chips: Sequence[ChipFiles]) -> None:
    """Refuse two chips whose image is one file, by a link of either kind, and an image that is its own label.

    Two images may share a label: dates of one place do.

    Raises:
        DataError: Names both chips.
    """
    first: dict[tuple[int, int], ChipFiles] = {}
    for chip in chips:
        try:
            status = (base / chip.image).stat()
        except (OSError, ValueError):  # said when it is opened
            continue
        other = first.setdefault((status.st_dev, status.st_ino), chip)
        # Some network disks give one number to several files.
        one_path = os.path.realpath(base / other.image) == os.path.realpath(base / chip.image)
        if other is not chip and (status.st_nlink > 1 or one_path):
            raise DataError(
                f"the images of the chips {other.chip!r} and {chip.chip!r} are one file: {other.image}, {chip.image}",
                where=base, expected="an image for each chip",
                fix="remove one: a chip that is counted twice weighs twice",
            )  # fmt: skip
        if chip.image == chip.label:
            raise DataError(f"the chip {chip.chip!r} has its image for a label", where=base / chip.image)


def check_copies(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> list[str]:
    """Look for images of the same pixels: on both sides of the gap they are an error, within one a note.

    What was seen in training is no test. Published data are what they are, and get a note in every case. Images of one
    value throughout are left alone: blank ones are alike.

    Args:
        base: Folder of the data, for messages.
        frame: The chips, with their sums by band.

    Raises:
        DataError: If an image of a source domain is one of a target domain, too.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    columns = ["band_sum", "band_square_sum", "band_count", "height", "width"]
    for name, row in zip(frame.index, frame[columns].to_dict("records"), strict=True):
        sums, squares, counts = (np.asarray(row.pop(column), dtype=float) for column in columns[:3])
        if (squares * counts > sums**2 * (1 + 1e-9)).any():
            key = (*row.values(), sums.tobytes(), squares.tobytes(), counts.tobytes())
            groups.setdefault(key, []).append(str(name))
    domain, images = frame["domain"].astype(str).to_dict(), frame["image"].astype(str).to_dict()
    source, target = set(benchmark.source), set(benchmark.target)
    only = {"source": source - target, "target": target - source}
    alike = [names for names in groups.values() if len(names) > 1]
    across = 0
    for names in alike:
        sides = {side: [name for name in names if domain[name] in only[side]] for side in only}
        across += bool(sides["source"] and sides["target"])
        if sides["source"] and sides["target"] and not layout_of(benchmark).published:
            one, other = sides["source"][0], sides["target"][0]
            raise DataError(
                f"the chips {one!r} of the source and {other!r} of the target hold the same pixels",
                where=base, expected="target images that are not in the source: else the test is on training data",
                fix=f"remove {images[one]} or {images[other]}",
            )  # fmt: skip
    if not alike:
        return []
    copies = sum(len(names) - 1 for names in alike)
    note = f"{copies} chips hold the same pixels as another, for example {alike[0][0]} and {alike[0][1]}"
    return [note + (f"; {across} images are in source and target" if across else "")]
