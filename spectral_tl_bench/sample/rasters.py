"""Writing chips and labels, and where on the ground they lie."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform
from scipy.io import savemat

from spectral_tl_bench.files import atomic_path

PIXEL = 10.0
"""Edge of a pixel in metres, in all three datasets."""

_MAT_HEADER = b"MATLAB 5.0 MAT-file, Spectral TL Bench sample"


def utm(longitude: float, latitude: float) -> tuple[str, float, float]:
    """The UTM zone of a place, and the place in it.

    Args:
        longitude: Degrees east.
        latitude: Degrees north.

    Returns:
        The EPSG name, easting and northing in metres, rounded to full kilometres.
    """
    code = (32600 if latitude >= 0 else 32700) + int((longitude + 180.0) // 6.0) + 1
    xs, ys = transform("EPSG:4326", f"EPSG:{code}", [longitude], [latitude])
    return f"EPSG:{code}", round(xs[0] / 1000.0) * 1000.0, round(ys[0] / 1000.0) * 1000.0


def write_tif(path: Path, bands: np.ndarray, *, crs: str, corner: tuple[float, float]) -> None:
    """Write a GeoTIFF with pixels of 10 m.

    Args:
        path: The file; folders above it are made.
        bands: Values, shape (bands, H, W).
        crs: Name of the coordinate reference system.
        corner: Left and upper edge in metres.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": crs,
        "transform": rasterio.Affine(PIXEL, 0.0, corner[0], 0.0, -PIXEL, corner[1]),
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 4,
        "interleave": "band",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)


def write_mat(path: Path, label: np.ndarray) -> None:
    """Write a label as the variable ``label`` of a compressed MATLAB file.

    The writer puts the time of day into the file's text header; a fixed text stands there instead, so that the same
    label gives the same bytes.
    """
    buffer = io.BytesIO()
    savemat(buffer, {"label": label}, do_compression=True)
    content = _MAT_HEADER.ljust(116) + buffer.getvalue()[116:]
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
