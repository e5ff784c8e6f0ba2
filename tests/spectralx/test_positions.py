from __future__ import annotations

import math

import pytest
import torch

from spectralx import positions


def test_sincos_by_hand() -> None:
    row = positions.sincos(torch.tensor([3.0]), 4)[0]
    expected = torch.tensor([math.sin(3), math.sin(3 / 100), math.cos(3), math.cos(3 / 100)])
    torch.testing.assert_close(row, expected)


def test_spatial_first_half_is_x() -> None:
    table = positions.spatial(8, 2, 3).view(2, 3, 8)
    torch.testing.assert_close(table[0, :, :4], table[1, :, :4])
    torch.testing.assert_close(table[:, 0, 4:], table[:, 2, 4:])
    assert not torch.allclose(table[0, 0, :4], table[0, 1, :4])


def test_resolution_scales_positions() -> None:
    coarse, fine = positions.spatial(8, 1, 3, 20.0), positions.spatial(8, 1, 5, 10.0)
    torch.testing.assert_close(coarse[1], fine[2])


def test_spectral_keeps_ends_and_interpolates() -> None:
    raw = positions.spectral(8, [0.4, 0.5, 0.7])
    table = positions.spectral(8, [0.4, 0.5, 0.7], 5)
    torch.testing.assert_close(table[[0, 2, 4]], raw)
    torch.testing.assert_close(table[1], raw[:2].mean(0))
    torch.testing.assert_close(positions.spectral(8, [0.4], 3), positions.spectral(8, [0.4]).expand(3, 8))


def test_impossible_widths() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        positions.spatial(6, 2, 2)
    with pytest.raises(ValueError, match="even"):
        positions.sincos(torch.zeros(1), 3)
    with pytest.raises(ValueError, match="wavelengths"):
        positions.spectral(8, [])
