"""Spatial frequencies of a token grid, in single precision also under autocast."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_FREQUENCY = 0.5**0.5
"""Distance of the largest frequency of a grid (half a cycle per token in both directions) from zero."""


def split_frequencies(tokens: Tensor, grid: tuple[int, int], cutoff: float) -> tuple[Tensor, Tensor]:
    """Splits tokens into their low- and their high-frequency part.

    The low part are the frequencies within a square around zero of side ``cutoff * min(h, w)``, that is, of at most
    half that many cycles over the grid in either direction; with both signs of each, so that the parts are real. The
    mean is always in it.

    Args:
        tokens: (B, h * w, D), row by row.
        grid: Rows h and columns w.
        cutoff: Side of the square, relative to the shorter side of the grid.

    Returns:
        Two tensors (B, h * w, D) that add up to the tokens.
    """
    rows, columns = grid
    reach = cutoff * min(grid) / 2
    with torch.autocast(tokens.device.type, enabled=False):
        cells = _cells(tokens, grid)
        spectrum = torch.fft.rfft2(cells, dim=(1, 2))
        down = torch.fft.fftfreq(rows, 1 / rows, device=tokens.device).abs() <= reach
        right = torch.fft.rfftfreq(columns, 1 / columns, device=tokens.device) <= reach
        keep = (down[:, None] & right)[..., None]
        low = torch.fft.irfft2(spectrum * keep, s=grid, dim=(1, 2))
        high = cells - low
    return tuple(part.reshape(tokens.shape).to(tokens.dtype) for part in (low, high))


def modulate(tokens: Tensor, grid: tuple[int, int], gains: Tensor) -> Tensor:
    """Multiplies every frequency of every channel by ``1 + gain``, which depends on how high the frequency is.

    Gains are given at equally spaced distances from frequency zero and interpolated in between, so that they fit a
    grid of any size. They are real: amplitudes change, and places do not.

    Args:
        tokens: (B, h * w, D), row by row.
        grid: Rows h and columns w.
        gains: (K, D), from frequency zero to the largest (half a cycle per token in both directions); K is 2 or more.

    Returns:
        (B, h * w, D).
    """
    rows, columns = grid
    with torch.autocast(tokens.device.type, enabled=False):
        spectrum = torch.fft.rfft2(_cells(tokens, grid), dim=(1, 2))
        down = torch.fft.fftfreq(rows, device=tokens.device)
        right = torch.fft.rfftfreq(columns, device=tokens.device)
        distance = (down[:, None].square() + right.square()).sqrt() / LARGEST_FREQUENCY
        knots = torch.arange(len(gains), device=tokens.device)
        weights = (1 - (distance[..., None] * (len(gains) - 1) - knots).abs()).clamp(min=0)
        factor = 1 + weights @ gains.to(weights.dtype)
        changed = torch.fft.irfft2(spectrum * factor, s=grid, dim=(1, 2))
    return changed.reshape(tokens.shape).to(tokens.dtype)


def _cells(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    wide = torch.promote_types(tokens.dtype, torch.float32)
    return tokens.to(wide).reshape(len(tokens), *grid, tokens.shape[-1])
