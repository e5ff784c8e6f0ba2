"""The sample as a whole: three datasets in the cache folder, complete or not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from spectral_tl_bench.console import complain
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import digest, write_json
from spectral_tl_bench.sample.dfc2020 import write_dfc2020
from spectral_tl_bench.sample.mts12 import write_mts12
from spectral_tl_bench.sample.scene import SAMPLE_VERSION
from spectral_tl_bench.sample.whuohs import PLACES, write_whu_ohs
from spectral_tl_bench.storage import SAMPLE, hold, obtain

PARAMETERS: dict[str, dict[str, int]] = {
    "whu_ohs_transfer": {"chip": 96, "chips_per_city": 5},
    "whu_ohs_official_s": {"chip": 96, "chips_per_city": 3},
    "whu_ohs_official_t": {"chip": 96, "chips_per_city": 2},
    "dfc2020": {"chip": 96, "chips_per_city": 12},
    "mts12": {"chip": 96, "north": 36, "south": 20},
}
"""Sizes of the bundled sample, by tree."""

ROOM = 100 * 10**6
"""About how many bytes the bundled sample takes."""

STATEMENT = (
    "Synthetic data. Every pixel was computed by the sample generator of Spectral TL Bench from simple physics; none "
    "comes from the datasets whose layouts and names are used. Scores on it say nothing about the real benchmarks."
)


def write_sample(root: Path, parameters: dict[str, dict[str, int]] | None = None) -> None:
    """Write all three datasets and ``sample.json`` into a folder.

    Args:
        root: The folder, empty or missing.
        parameters: Sizes by tree as in `PARAMETERS`; a tree that is left out is not written.
    """
    sizes: dict[str, Any] = PARAMETERS if parameters is None else parameters
    if "whu_ohs_transfer" in sizes:
        write_whu_ohs(root / "WHU-OHS", layout="flat", **sizes["whu_ohs_transfer"])
    for side in "ST":
        key = f"whu_ohs_official_{side.lower()}"
        if key in sizes:
            cities = [code for code in PLACES if code.startswith(side)]
            write_whu_ohs(root / "WHU-OHS", layout="official", cities=cities, **sizes[key])
    if "dfc2020" in sizes:
        write_dfc2020(root / "DFC2020", layout="seasons", **sizes["dfc2020"])
    if "mts12" in sizes:
        write_mts12(root / "MTS12", **sizes["mts12"])
    about = {
        "name": "Spectral TL Bench sample",
        "version": SAMPLE_VERSION,
        "parameters": sizes,
        "synthetic": True,
        "statement": STATEMENT,
    }
    write_json(root / "sample.json", about)


def ensure_sample(parameters: dict[str, dict[str, int]] | None = None) -> Path:
    """The folder of the sample, generated on first use and kept in the cache folder.

    Args:
        parameters: Sizes by tree; `PARAMETERS` when None.

    Returns:
        Folder with ``WHU-OHS/``, ``DFC2020/``, ``MTS12/`` and ``sample.json``.

    Raises:
        DataError: The cache folder holds a sample that somebody took parts from.
        StorageError: The cache folder cannot be written.
    """
    sizes = PARAMETERS if parameters is None else parameters
    key = f"{SAMPLE_VERSION}-{digest(sizes)[:12]}"
    root, _ = obtain(SAMPLE, key, _complete, lambda folder: _write(folder, sizes), size=ROOM)
    hold(root)
    return root


def _write(folder: Path, sizes: dict[str, dict[str, int]]) -> None:
    if sys.stderr.isatty():  # somebody waits
        complain("making the synthetic sample, once; it is kept in the cache (some 15 s)")
    write_sample(folder, sizes)


def _complete(root: Path) -> Path:
    if not (root / "sample.json").is_file():
        raise DataError("The folder of the sample is incomplete.", where=root, fix="delete this folder and run again")
    return root
