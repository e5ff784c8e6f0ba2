"""Reading label files alone, without an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spectral_tl_bench.data.chip import ReadingRules, read_label
from spectral_tl_bench.data.placement import Grid, Turn

RULES = ReadingRules(1, 1.0, {}, "refuse", None, "georeference", "void", ())


def read_raw(path: Path, size: tuple[int, int] = (3, 4)) -> np.ndarray:
    """The values of a label whose image has a size and says no more."""
    return read_label(path, Grid(None, None, *size), Turn(), RULES).raw
