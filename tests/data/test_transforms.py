"""Flips and turns: exact, image and labels together, and random from nothing but seed and step."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from spectral_tl_bench.data.transforms import FlipsAndTurns

SIDE = 6


def coordinates(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows whose pixels tell where they come from, in two bands, and in the labels."""
    line, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    image = torch.stack([line, column]).float().repeat(count, 1, 1, 1)
    mask = (line * SIDE + column).repeat(count, 1, 1)
    mask[:, 2, 3] = 255
    return image, mask


def symmetries() -> list[np.ndarray]:
    square = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    return [np.rot90(one, k) for one in (square, square.T) for k in range(4)]


def test_every_window_gets_an_exact_symmetry_and_its_labels_go_along():
    image, mask = coordinates(200)
    turned, labels = FlipsAndTurns(0)(image, mask, 0)
    assert turned.shape == image.shape and labels.shape == mask.shape
    assert turned.dtype == image.dtype and labels.dtype == mask.dtype
    source = (turned[:, 0] * SIDE + turned[:, 1]).long()
    np.testing.assert_array_equal(labels, torch.where(source == 2 * SIDE + 3, 255, source))
    known = [tuple(one.ravel()) for one in symmetries()]
    found = [known.index(tuple(one)) for one in source.flatten(1).tolist()]
    counts = np.bincount(found, minlength=8)
    assert len(set(known)) == 8 and counts.min() > 5, f"all eight symmetries occur, about equally often: {counts}"


@pytest.mark.parametrize("scale", [1.0, 1e-7, 65_535.0])
def test_pixel_values_are_only_moved(scale):
    image = torch.rand(16, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * scale
    turned, nothing = FlipsAndTurns(1)(image, None, 5)
    assert nothing is None
    assert torch.equal(image.flatten(2).sort(dim=2).values, turned.flatten(2).sort(dim=2).values)
    assert not torch.equal(image, turned)


def test_the_same_step_moves_labelled_and_unlabelled_windows_alike():
    image, mask = coordinates(32)
    turned, _ = FlipsAndTurns(3)(image, mask, 7)
    assert torch.equal(turned, FlipsAndTurns(3)(image, None, 7)[0])


def test_step_and_seed_decide():
    image, mask = coordinates(32)
    augment = FlipsAndTurns(10)
    first = augment(image, mask, 0)[0]
    augment(image, mask, 1)
    assert torch.equal(augment(image, mask, 0)[0], first), "what came between does not matter"
    assert not torch.equal(augment(image, mask, 1)[0], first)
    assert not torch.equal(FlipsAndTurns(11)(image, mask, 0)[0], first)
    assert torch.equal(FlipsAndTurns(10)(image, mask, 0)[0], first)


def test_no_other_random_numbers_are_disturbed():
    image, mask = coordinates(8)

    def draw(disturb: bool) -> tuple[float, float, float]:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        augment = FlipsAndTurns(0)
        for step in range(3 if disturb else 0):
            augment(image, mask, step)
        return float(torch.rand(1)), random.random(), float(np.random.rand())

    assert draw(True) == draw(False)


def test_the_windows_given_are_not_changed():
    image, mask = coordinates(8)
    kept = image.clone(), mask.clone()
    FlipsAndTurns(0)(image, mask, 0)
    assert torch.equal(image, kept[0]) and torch.equal(mask, kept[1])
