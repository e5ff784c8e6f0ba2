"""From pretrained bands to those of a sensor: every strategy does what its formula says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.assemble import LowRankStem
from spectral_tl_bench.models.patch_embedding import (
    RGB,
    STRATEGIES,
    check_strategy,
    mean,
    mixed,
    mixing,
    repeat,
    rgb,
    wavelength,
)

SENSOR = (0.443, 0.490, 0.560, 0.665, 0.842, 1.610, 2.190)


def response(weight: torch.Tensor) -> torch.Tensor:
    """What a filter bank gives for an image that is one everywhere."""
    return functional.conv2d(torch.ones(1, weight.shape[1], *weight.shape[2:]), weight).flatten()


@settings(max_examples=25, deadline=None)
@given(bands=st.integers(1, 20), pretrained=st.integers(1, 13), strategy=st.sampled_from([repeat, mean]))
def test_repeat_and_mean_keep_the_response_to_a_constant_image(bands, pretrained, strategy):
    weight = torch.randn(5, pretrained, 3, 3, generator=torch.Generator().manual_seed(bands))
    torch.testing.assert_close(response(mixed(weight, strategy(bands, pretrained))), response(weight))


def test_repeat_takes_the_filters_in_turn():
    weight = torch.randn(4, 3, 2, 2)
    made = mixed(weight, repeat(7, 3))
    torch.testing.assert_close(made[:, 0] * 3, weight[:, 0])  # bands 0, 3 and 6
    torch.testing.assert_close(made[:, 5] * 2, weight[:, 2])  # bands 2 and 5
    torch.testing.assert_close(made[:, 3], made[:, 0])


def test_mean_treats_all_bands_alike():
    weight = torch.randn(4, 3, 2, 2)
    made = mixed(weight, mean(6, 3))
    torch.testing.assert_close(made, weight.mean(dim=1, keepdim=True).expand(-1, 6, -1, -1) * 3 / 6)


def test_wavelength_leaves_pretrained_bands_alone_in_any_order():
    weight = torch.randn(4, 3, 2, 2)
    assert torch.equal(mixed(weight, wavelength(RGB, RGB)), weight)
    turned = mixed(weight, wavelength(RGB[::-1], RGB))
    assert torch.equal(turned, weight.flip(1))


def test_wavelength_interpolates_between_neighbours_and_clamps_outside():
    matrix = wavelength((0.3, 0.525, 0.64, 2.0), (0.665, 0.560, 0.490))
    matrix *= 4 / 3  # without the factor K / C
    middle = (0.640 - 0.560) / (0.665 - 0.560)
    expected = [[0, 0, 1], [0, 0.5, 0.5], [middle, 1 - middle, 0], [1, 0, 0]]
    torch.testing.assert_close(matrix, torch.tensor(expected, dtype=torch.float32))


def test_wavelength_keeps_the_size_of_the_response_for_many_bands():
    flat = torch.ones(1, 3, 1, 1)
    for bands in (1, 3, 32, 200):
        made = mixed(flat, wavelength([0.4 + 0.01 * band for band in range(bands)], RGB))
        torch.testing.assert_close(response(made), response(flat))


def test_equal_pretrained_wavelengths_share():
    matrix = wavelength((0.5,), (0.5, 0.5, 0.9))
    torch.testing.assert_close(matrix, torch.tensor([[1.5, 1.5, 0.0]]))


def test_rgb_reads_the_nearest_bands_and_no_other():
    matrix = rgb(SENSOR, RGB)
    red, green, blue = SENSOR.index(0.665), SENSOR.index(0.560), SENSOR.index(0.490)
    assert (
        matrix[red].tolist() == [1, 0, 0] and matrix[green].tolist() == [0, 1, 0] and matrix[blue].tolist() == [0, 0, 1]
    )
    assert matrix.sum() == 3


def test_rgb_spreads_over_the_dates_of_a_time_series():
    matrix = rgb(SENSOR * 2, RGB)
    assert torch.equal(matrix[: len(SENSOR)], matrix[len(SENSOR) :])
    torch.testing.assert_close(matrix.sum(dim=0), torch.ones(3))


def test_rgb_of_a_multispectral_model_uses_its_filters_for_the_colours():
    matrix = rgb((0.665, 0.9), SENSOR)
    assert matrix[0, SENSOR.index(0.665)] == 1 and matrix[1].sum() == 0
    assert set(matrix.nonzero()[:, 1].tolist()) == {SENSOR.index(colour) for colour in RGB}


def test_lowrank_starts_from_rgb_and_adds_a_path():
    assert torch.equal(mixing("lowrank", SENSOR, RGB), rgb(SENSOR, RGB))
    layer = torch.nn.Conv2d(7, 8, 4, stride=4)
    stem = LowRankStem(layer, rank=2)
    images = torch.randn(2, 7, 8, 8)
    extra = stem.path.up(stem.path.down(images))
    torch.testing.assert_close(stem(images), layer(images) + extra)
    names = {name for name, _ in stem.named_parameters()}
    assert names == {"path.down.weight", "path.down.bias", "path.up.weight", "path.up.bias"}, "the rest cannot train"


def test_names_are_checked_and_those_without_a_matrix_say_so():
    assert all(check_strategy(name) == name for name in STRATEGIES)
    with pytest.raises(UserError, match="did you mean wavelength"):
        check_strategy("wavelenght")
    with pytest.raises(ValueError, match="keeps nothing"):
        mixing("random", SENSOR, RGB)


def test_the_type_of_the_weights_stays():
    assert mixed(torch.randn(2, 3, 2, 2).bfloat16(), repeat(5, 3)).dtype == torch.bfloat16
