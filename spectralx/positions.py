"""Sine-cosine encodings of places (in metres) and of wavelengths (in nanometres)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Grid = tuple[int, int]
"""Rows and columns."""

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
    steps = torch.arange(width // 2, dtype=torch.float32, device=positions.device)
    frequencies = 1.0 / 10000.0 ** (steps / (width // 2))
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def spatial(width: int, rows: int, columns: int, resolution: float = 1.0, device: torch.device | None = None) -> Tensor:
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
    axes = torch.arange(rows, device=device), torch.arange(columns, device=device)
    y, x = torch.meshgrid(*axes, indexing="ij")
    halves = [sincos(axis.reshape(-1) * resolution, width // 2) for axis in (x, y)]
    return torch.cat(halves, dim=1)


def spectral(width: int, wavelengths: Sequence[float], rows: int | None = None) -> Tensor:
    """Encodes wavelengths, one row per band, and stretches the table over the band index.

    Args:
        width: Length of an encoding; an odd one lacks the last cosine.
        wavelengths: Centre wavelengths in micrometres, in the order of the bands.
        rows: Rows to interpolate to; by default one per band.

    Returns:
        (rows, width), float32.

    Raises:
        ValueError: If ``wavelengths`` is empty.
    """
    if not wavelengths:
        raise ValueError("no wavelengths: expected at least one")
    table = sincos(torch.tensor(wavelengths, dtype=torch.float32) * NANOMETRES, width + width % 2)[:, :width]
    if rows is not None:
        columns = table.T[None]
        table = functional.interpolate(columns, size=rows, mode="linear", align_corners=True)[0].T
    return table.contiguous()


def resized(maps: Tensor, size: Grid) -> Tensor:
    """Maps (B, C, h, w) at another size: bilinear, with antialiasing where they shrink."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    # In single precision: half precision has no antialiasing on every device.
    return functional.interpolate(maps.float(), size=size, mode="bilinear", antialias=True).to(maps.dtype)


def resized_rows(table: Tensor, grid: Grid, size: Grid) -> Tensor:
    """A table with one row per cell of ``grid``, (..., L, D), for a grid of another size."""
    if grid == size:
        return table
    maps = table.reshape(-1, *grid, table.shape[-1]).permute(0, 3, 1, 2)
    return resized(maps, size).flatten(2).transpose(1, 2).reshape(*table.shape[:-2], -1, table.shape[-1])
