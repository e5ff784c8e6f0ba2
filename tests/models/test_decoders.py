"""The decoder gives logits of the image's size, whatever that is, from any batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectral_tl_bench.models.decoders import STRIDES, PyramidNeck, build_decoder


def features(batch: int = 2, width: int = 16, side: int = 4) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, width, side, side, requires_grad=True) for _ in STRIDES]


@pytest.mark.parametrize("size", [(32, 32), (37, 53), (8, 8), (96, 40), (224, 224)])
def test_logits_have_the_size_of_the_image(size):
    decoder = build_decoder(16, 5).eval()
    assert decoder(features(), size).shape == (2, 5, *size)


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (5, 5)])
def test_the_pyramid_has_the_strides_it_says(size):
    levels = PyramidNeck(16, 6)(features(), size)
    for level, stride in zip(levels, (4, 8, 16, 32), strict=True):
        assert level.shape == (2, 6, -(-size[0] // stride), -(-size[1] // stride))


def test_a_batch_of_one_trains_and_all_four_maps_matter():
    decoder, maps = build_decoder(16, 5).train(), features(batch=1, side=1)
    decoder(maps, (8, 8)).square().sum().backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in maps)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch():
    decoder, maps = build_decoder(16, 5).eval(), features(batch=3)
    together = decoder(maps, (32, 32))
    alone = decoder([one[1:2] for one in maps], (32, 32))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in decoder.modules())
    assert any(isinstance(module, nn.GroupNorm) for module in decoder.modules())


@pytest.mark.parametrize(("width", "channels", "expected"), [(96, None, 32), (1024, None, 512), (1024, 24, 24)])
def test_inner_channels(width, channels, expected):
    with torch.device("meta"):
        decoder = build_decoder(width, 5, channels)
    assert decoder.classifier.in_channels == expected and decoder.classifier.out_channels == 5


def test_dropout_acts_in_training_only():
    decoder, maps = build_decoder(16, 5), features()
    decoder.eval()
    assert torch.equal(decoder(maps, (16, 16)), decoder(maps, (16, 16)))
    decoder.train()
    assert not torch.equal(decoder(maps, (16, 16)), decoder(maps, (16, 16)))
