"""The door to the bundled sample: where its files are. Nothing else in the suite knows who invents its scenes."""

from __future__ import annotations

from pathlib import Path


def ensure_sample() -> Path:
    """The data root of the sample, a folder for each dataset in its published layout; made on first use.

    Raises:
        DataError: If it cannot be made, or parts of it were taken away.
    """
    from spectral_tl_bench import sample  # scipy and rasterio, which only the making needs

    return sample.ensure_sample()
