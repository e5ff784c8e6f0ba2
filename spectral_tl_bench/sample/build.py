"""The sample as a whole: three datasets in a cache folder, complete or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import cache_folder, digest, file_digest, write_json
from spectral_tl_bench.sample.dfc2020 import write_dfc2020
from spectral_tl_bench.sample.mts12 import write_mts12
from spectral_tl_bench.sample.scene import SAMPLE_VERSION
from spectral_tl_bench.sample.whuohs import PLACES, write_whu_ohs

PARAMETERS: dict[str, dict[str, int]] = {
    "whu_ohs_transfer": {"chip": 96, "chips_per_city": 5},
    "whu_ohs_official_s": {"chip": 96, "chips_per_city": 3},
    "whu_ohs_official_t": {"chip": 96, "chips_per_city": 2},
    "dfc2020": {"chip": 96, "chips_per_city": 12},
    "mts12": {"chip": 96, "north": 36, "south": 20},
}
"""Sizes of the bundled sample, by tree."""

STATEMENT = (
    "Synthetic data. Every pixel was computed by the sample generator of Spectral TL Bench from simple physics; none "
    "comes from the datasets whose layouts and names are used. Scores on it say nothing about the real benchmarks."
)


def _generator() -> list[str]:
    """Digests of the generator's own files: its parameters stand there as tables and constants."""
    return [file_digest(path) for path in sorted(Path(__file__).parent.glob("*.py"))]


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


def ensure_sample(cache: Path | None = None, *, parameters: dict[str, dict[str, int]] | None = None) -> Path:
    """The folder of the sample, generated on first use.

    The sample is built in a temporary folder beside its place and renamed when it is complete. Of two processes that
    build at once, the second to finish uses the folder of the first.

    Args:
        cache: Folder to keep it in; `cache_folder` when None.
        parameters: Sizes by tree; `PARAMETERS` when None.

    Returns:
        Folder with ``WHU-OHS/``, ``DFC2020/``, ``MTS12/`` and ``sample.json``.

    Raises:
        DataError: The cache folder cannot be written, or holds a sample that somebody took parts from.
    """
    base = cache_folder() if cache is None else Path(cache)
    sizes = PARAMETERS if parameters is None else parameters
    target = base / f"sample-{SAMPLE_VERSION}-{digest(sizes, _generator())[:12]}"
    if (target / "sample.json").is_file():
        return target
    try:
        base.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=base, prefix=f".{target.name}-"))
        try:
            write_sample(temporary, sizes)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders; a group may share the cache
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"The sample cannot be generated: {error.strerror or error}.",
            where=base,
            expected="a folder that may be written to, with about 100 MB to spare",
            fix="make room, or set STBENCH_CACHE to another folder",
        ) from error
    return target


def _publish(temporary: Path, target: Path) -> None:
    """Rename a complete sample into place, unless another process was quicker."""
    try:
        temporary.rename(target)
    except OSError:
        if (target / "sample.json").is_file():
            return
        if not target.is_dir():
            raise
        raise DataError(
            "The folder of the sample is incomplete.", where=target, fix="delete this folder and run again"
        ) from None
