"""The fixed set of windows: where they are, their symmetries, and the order of training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from tiny import make_source

from spectral_tl_bench.data.samplers import GridCollectionWindows
from spectral_tl_bench.features.windows import ChipLabels, Rounds, WindowImages, grid_windows, symmetry


@pytest.fixture(scope="module")
def source(tree):
    return make_source(tree)


@pytest.mark.parametrize("stride", [8, 12, 16])
def test_windows_are_those_of_the_evaluation_and_in_its_order(source, stride):
    windows = grid_windows(source.collection, 16, stride)
    samples = [source.collection[key] for key in GridCollectionWindows(source.collection, 16, stride)]
    assert [(w.chip, w.line, w.column) for w in windows] == [(s["chip"], s["line"], s["column"]) for s in samples]
    images = WindowImages(source.collection, windows, 16).rows(list(range(len(windows))))
    assert torch.equal(images, torch.stack([sample["image"] for sample in samples]))


def test_the_eight_symmetries_are_all_of_them():
    square = torch.arange(9).view(3, 3)
    turned = [torch.rot90(one, turn) for one in (square, square.flip(1)) for turn in range(4)]
    ours = {tuple(symmetry(square, copy).flatten().tolist()) for copy in range(8)}
    assert ours == {tuple(one.flatten().tolist()) for one in turned} and len(ours) == 8
    assert symmetry(square, 0) is square


def test_copies_move_pixels_and_labels_alike(source):
    windows = grid_windows(source.collection, 16, 16)
    images, labels = WindowImages(source.collection, windows, 16, copies=8), ChipLabels(source.collection)
    one = windows[3]
    sample = source.collection.datasets[one.dataset].read_window(one.number, one.line, one.column, 16, 16)
    here = labels(one.dataset, one.number)[one.line : one.line + 16, one.column : one.column + 16]
    np.testing.assert_array_equal(here, sample["mask"].numpy())
    for copy in range(8):
        assert torch.equal(images[3 * 8 + copy], symmetry(sample["image"], copy))
    assert len(images) == 8 * len(windows)


def test_every_row_comes_as_often_as_the_others():
    order = list(Rounds(7, 24, seed=1))
    assert len(order) == 24 and order == list(Rounds(7, 24, seed=1)) != list(Rounds(7, 24, seed=2))
    assert [sorted(order[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]
    assert set(Counter(order).values()) == {3, 4}
