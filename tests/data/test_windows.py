"""Windows cover every pixel, and stitching a pixelwise model changes nothing."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.windows import ChipStitcher, blend_weights


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 600), st.data())
def test_grid_covers_every_pixel_within_the_chip(size, data):
    window = data.draw(st.integers(1, size))
    stride = data.draw(st.integers(1, window))
    offsets = grid(size, window, stride)
    assert offsets == sorted(set(offsets))
    assert offsets[0] == 0 and offsets[-1] + window == size
    assert all(b - a <= stride for a, b in itertools.pairwise(offsets))


def test_grid_examples():
    assert grid(512, 224, 112) == [0, 112, 224, 288]
    assert grid(500, 224, 224) == [0, 224, 276]
    assert grid(64, 64, 32) == [0]
    assert grid(128, 64, 32) == [0, 32, 64]


@pytest.mark.parametrize(("size", "window", "stride"), [(63, 64, 32), (64, 32, 0), (64, 32, 33), (64, 0, 1)])
def test_grid_refuses_what_cannot_cover(size, window, stride):
    with pytest.raises(ValueError, match=r"window|stride"):
        grid(size, window, stride)


@pytest.mark.parametrize("window", [1, 2, 7, 64, 224])
def test_weights_are_positive_symmetric_and_highest_in_the_middle(window):
    weights = blend_weights(window)
    assert weights.shape == (window, window) and weights.dtype == torch.float32
    assert weights.min() > 0
    torch.testing.assert_close(weights, weights.flip(0))
    torch.testing.assert_close(weights, weights.T)
    assert weights[window // 2, window // 2] == weights.max()


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"), [(64, 64, 32, 16), (50, 61, 32, 13), (32, 32, 32, 32), (33, 70, 32, 32)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stitching_a_pixelwise_model_equals_the_whole_chip(height, width, window, stride, dtype):
    torch.manual_seed(height * width)
    logits = (torch.randn(5, height, width) * 3).to(dtype)
    stitcher = ChipStitcher(5, height, width, window)
    offsets = [(row, column) for row in grid(height, window, stride) for column in grid(width, window, stride)]
    for number in torch.randperm(len(offsets)).tolist():
        row, column = offsets[number]
        stitcher.add(logits[:, row : row + window, column : column + window], row, column)
    result = stitcher.finish()
    whole = logits.float()
    # bfloat16 logits tie now and then; a tie may go to either class, so compare what was chosen
    chosen = whole.gather(0, result[None])[0]
    torch.testing.assert_close(chosen, whole.max(dim=0).values, rtol=0, atol=0)
    if dtype == torch.float32:
        assert torch.equal(result, whole.argmax(dim=0))
    assert result.shape == (height, width) and result.dtype == torch.int64


def test_middles_outvote_rims():
    stitcher = ChipStitcher(2, 8, 12, 8)
    left, right = torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)
    left[0], right[1] = 1.0, 1.0
    stitcher.add(left, 0, 0)
    stitcher.add(right, 0, 4)
    assert stitcher.finish()[4].tolist() == [0] * 6 + [1] * 6


def test_a_window_counts_once_and_must_fit():
    stitcher, zeros = ChipStitcher(2, 8, 12, 8), torch.zeros(2, 8, 8)
    stitcher.add(zeros, 0, 0)
    with pytest.raises(ValueError, match="has come already"):
        stitcher.add(zeros, 0, 0)
    for row, column in ((0, 5), (1, 0), (0, -1)):
        with pytest.raises(ValueError, match="outside the chip"):
            stitcher.add(zeros, row, column)
    with pytest.raises(ValueError, match="must have shape"):
        stitcher.add(zeros[:, :4], 0, 4)
    with pytest.raises(ValueError, match="does not fit"):
        ChipStitcher(2, 8, 12, 9)


def test_an_uncovered_pixel_or_nan_gives_no_map():
    stitcher = ChipStitcher(2, 8, 12, 8)
    stitcher.add(torch.zeros(2, 8, 8), 0, 0)
    with pytest.raises(ValueError, match="32 pixels lie in none of the 1 windows"):
        stitcher.finish()
    stitcher.add(torch.full((2, 8, 8), float("nan")), 0, 4)
    with pytest.raises(ValueError, match="NaN"):
        stitcher.finish()


def test_no_gradient_is_kept():
    stitcher = ChipStitcher(2, 8, 8, 8)
    stitcher.add(torch.randn(2, 8, 8, requires_grad=True), 0, 0)
    assert not stitcher.finish().requires_grad
    assert not stitcher._sum.requires_grad
