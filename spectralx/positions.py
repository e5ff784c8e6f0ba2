"""Sine-cosine encodings of places (in metres) and of wavelengths (in nanometres)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

NANOMETRES = 1000.0
"""Nanometres in a micrometre."""


def sincos(positions: Tensor, width: int) -> Tensor:
    """Encodes scalars as ``[sin(p w), cos(p w)]`` with ``w_d = 10000 ** (-2 d / width)``.

    Args:
        positions: (N,), any unit.
        width: Length of an encoding, even.

    Returns:
        (N, width), float32.

    Raises:
        ValueError: If ``width`` is odd.
    """
    if width % 2:
        raise ValueError(f"width of an encoding is {width}, expected an even number")
    # Single precision all through, as in the release: a phase of 2000 rad is then good to 1e-4.
    frequencies = 1.0 / 10000.0 ** (torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def spatial(width: int, rows: int, columns: int, resolution: float = 1.0) -> Tensor:
    """Encodes the cells of a grid: the first half of a row tells x, the second half y.

    Args:
        width: Length of an encoding, a multiple of 4.
        rows: Cells from north to south.
        columns: Cells from west to east.
        resolution: Factor on the cell indices. The ground sampling distance makes the encoding resolution-aware
            (Reed et al., Scale-MAE, ICCV 2023); 1 gives plain grid positions.

    Returns:
        (rows * columns, width), float32, row by row.

    Raises:
        ValueError: If ``width`` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width of a spatial encoding is {width}, expected a multiple of 4")
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = [sincos(axis.reshape(-1) * resolution, width // 2) for axis in (x, y)]
    return torch.cat(halves, dim=1)


def spectral(width: int, wavelengths: Sequence[float], rows: int | None = None) -> Tensor:
    """Encodes wavelengths, one row per band, and stretches the table over the band index.

    Args:
        width: Length of an encoding, even.
        wavelengths: Centre wavelengths in micrometres, in the order of the bands.
        rows: Rows to interpolate to; by default one per band.

    Returns:
        (rows, width), float32.

    Raises:
        ValueError: If ``wavelengths`` is empty.
    """
    if not wavelengths:
        raise ValueError("no wavelengths: expected at least one")
    table = sincos(torch.tensor(wavelengths, dtype=torch.float32) * NANOMETRES, width)
    if rows is not None:
        columns = table.T[None]
        table = functional.interpolate(columns, size=rows, mode="linear", align_corners=True)[0].T
    return table.contiguous()
