"""Decoders give logits of the image's size, whatever that is, from any batch and any four maps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import make_task
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.decoders import (
    DECODERS,
    PLAIN,
    STRIDES,
    PyramidNeck,
    build_decoder,
    resolved,
    takes_images,
)

WIDTHS = (8, 12, 16, 24)
SIZES = [(32, 32), (37, 53), (8, 8), (96, 40), (224, 224)]
decoders = pytest.mark.parametrize("kind", DECODERS)


def features(batch: int = 2, width: int = 16, side: int = 4) -> list[Tensor]:
    """Four maps of one size, as a plain vision transformer gives them."""
    torch.manual_seed(1)
    return [torch.randn(batch, width, side, side, requires_grad=True) for _ in STRIDES]


def pyramid(size: tuple[int, int], batch: int = 2) -> list[Tensor]:
    """Four maps of falling size, as a convolutional network gives them."""
    torch.manual_seed(1)
    return [
        torch.randn(batch, width, *(-(-side // stride) for side in size), requires_grad=True)
        for width, stride in zip(WIDTHS, STRIDES, strict=True)
    ]


def built(kind: str, width=16) -> nn.Module:
    torch.manual_seed(2)
    return build_decoder(width, 5, kind=kind)


@decoders
@pytest.mark.parametrize("size", SIZES)
def test_logits_have_the_size_of_the_image(kind, size):
    assert built(kind).eval()(features(), size).shape == (2, 5, *size)
    assert built(kind, WIDTHS).eval()(pyramid(size), size).shape == (2, 5, *size)


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (5, 5)])
def test_the_pyramid_has_the_strides_it_says(size):
    levels = PyramidNeck(16, 6)(features(), size)
    for level, stride in zip(levels, (4, 8, 16, 32), strict=True):
        assert level.shape == (2, 6, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (5, 5)])
def test_a_doubling_pyramid_doubles(size):
    levels = PyramidNeck(16, (6, 7, 8, 9), doubling=True)(features(), size)
    assert [level.shape[1] for level in levels] == [6, 7, 8, 9]
    coarse = [-(-side // 32) for side in size]
    assert [list(level.shape[2:]) for level in levels] == [
        [factor * side for side in coarse] for factor in (8, 4, 2, 1)
    ]


@pytest.mark.parametrize("doubling", [False, True])
def test_a_map_that_has_its_stride_is_projected_and_not_resampled(doubling):
    neck, maps = PyramidNeck(WIDTHS, 6, doubling), pyramid((64, 96))
    for level, one, projection in zip(neck(maps, (64, 96)), maps, neck.projections, strict=True):
        assert torch.equal(level, projection(one))


@decoders
@pytest.mark.parametrize("width", [16, WIDTHS], ids=["one size", "pyramid"])
def test_a_batch_of_one_trains_all_parameters_and_every_map_that_counts(kind, width):
    decoder = built(kind, width).train()
    maps = features(batch=1, side=1) if width == 16 else pyramid((8, 8), batch=1)
    (decoder(maps, (8, 8)) * torch.randn(5, 8, 8)).sum().backward()
    used = [one.grad is not None and bool(one.grad.abs().sum() > 0) for one in maps]
    assert used == [kind not in ("linear", "fcn")] * 3 + [True]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


@decoders
def test_every_parameter_gets_a_gradient(kind):
    decoder = built(kind).train()
    (decoder(features(batch=4, side=6), (96, 64)) * torch.randn(5, 96, 64)).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@decoders
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(kind):
    decoder, maps = built(kind).eval(), features(batch=3)
    together = decoder(maps, (32, 32))
    alone = decoder([one[1:2] for one in maps], (32, 32))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    norms = [module for module in decoder.modules() if isinstance(module, nn.GroupNorm)]
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in decoder.modules())
    assert bool(norms) == (kind not in ("linear", "linear-levels", "light"))
    assert all(norm.num_channels >= 2 * norm.num_groups for norm in norms)


@pytest.mark.parametrize("kind", ["upernet", "fcn", "dpt", "fpn", "light"])
@pytest.mark.parametrize("channels", [2, 16, 24])
def test_few_channels_train_on_a_batch_of_one_too(kind, channels):
    build_decoder(16, 3, channels, kind).train()(features(batch=1, side=1), (8, 8)).sum().backward()


@pytest.mark.parametrize(
    ("width", "channels", "kind", "expected"),
    [
        (96, None, "upernet", 32), (1024, None, "upernet", 512), (1024, 24, "upernet", 24),
        ((64, 128, 256, 512), None, "upernet", 512), ((8, 16, 32, 64), None, "upernet", 32),
        (1024, None, "fcn", 512), (96, None, "fcn", 32), (1024, None, "dpt", 256), (1024, None, "fpn", 128),
        (96, None, "fpn", 32), (1024, None, "linear", 1024), ((8, 16, 32, 64), None, "linear", 64),
        (1024, None, "light", 128), (96, None, "light", 128), (96, 24, "light", 24), (1024, None, "upernet-small", 64),
        (96, None, "upernet-small", 64), ((8, 16, 32, 64), None, "linear-levels", 120),
    ],
)  # fmt: skip
def test_inner_channels(width, channels, kind, expected):
    with torch.device("meta"):
        decoder = build_decoder(width, 5, channels, kind)
    assert decoder.classifier.in_channels == expected and decoder.classifier.out_channels == 5


@decoders
def test_dropout_acts_in_training_only(kind):
    decoder, maps = built(kind), features()
    decoder.eval()
    assert torch.equal(decoder(maps, (16, 16)), decoder(maps, (16, 16)))
    decoder.train()
    assert torch.equal(decoder(maps, (16, 16)), decoder(maps, (16, 16))) == (kind in PLAIN)


def test_linear_is_a_matrix_and_a_bias_for_every_token():
    decoder, maps = built("linear"), features(side=4)
    assert sum(p.numel() for p in decoder.parameters()) == 16 * 5 + 5
    weight, bias = decoder.classifier.weight[:, :, 0, 0], decoder.classifier.bias
    logits = torch.einsum("kd,bdhw->bkhw", weight, maps[-1]) + bias[:, None, None]
    torch.testing.assert_close(decoder(maps, (4, 4)), logits, rtol=1e-4, atol=1e-5)
    larger = functional.interpolate(logits, size=(12, 20), mode="bilinear")
    torch.testing.assert_close(decoder(maps, (12, 20)), larger, rtol=1e-4, atol=1e-5)


def test_fcn_sees_two_cells_to_each_side_and_no_more():
    decoder = built("fcn").eval()
    for module in decoder.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda x: x  # its statistics see the whole map
    maps = features(side=9)
    decoder(maps, (9, 9))[0, :, 4, 4].sum().backward()
    seen = maps[-1].grad[0].abs().sum(0) > 0
    assert seen[2:7, 2:7].any() and int(seen.sum()) == int(seen[2:7, 2:7].sum())


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match=r"there is no decoder 'upernett'[\s\S]*did you mean upernet"):
        build_decoder(16, 5, kind="upernett")


@decoders
@pytest.mark.parametrize("width", [(8, 16), (8,) * 5])
def test_maps_are_four(kind, width):
    with pytest.raises(ValueError, match="takes 4 feature maps"):
        build_decoder(width, 5, kind=kind)


# ---------------------------------------------------------------------------------------------- light decoders


@pytest.mark.parametrize("kind", ["light", "linear-levels"])
def test_levels_are_joined_at_the_size_of_the_finest(kind):
    decoder = built(kind, WIDTHS).eval()
    maps, seen = pyramid((64, 64)), []
    decoder.classifier.register_forward_hook(lambda _module, given, _logits: seen.append(given[0].shape))
    decoder(maps, (64, 64)).sum().backward()
    assert tuple(seen[0][-2:]) == (16, 16) and all(one.grad.abs().sum() > 0 for one in maps)
    same = [functional.interpolate(one.detach(), size=(16, 16), mode="bilinear") for one in maps]
    torch.testing.assert_close(decoder(same, (64, 64)), decoder(maps, (64, 64)))


def test_light_sees_one_cell_to_each_side_and_no_more():
    maps = features(side=9)
    built("light").eval()(maps, (9, 9))[0, :, 4, 4].sum().backward()
    for one in maps:
        seen = one.grad[0].abs().sum(0) > 0
        assert seen[3:6, 3:6].all() and int(seen.sum()) == 9


def test_light_is_small_beside_a_wide_backbone():
    with torch.device("meta"):
        sizes = {kind: sum(p.numel() for p in build_decoder(384, 5, kind=kind).parameters()) for kind in DECODERS}
    assert sizes["linear-levels"] == 4 * 384 * 5 + 5
    assert sizes["light"] == 4 * 384 * 128 + 128 + 128 * 128 * 9 + 128 + 128 * 5 + 5
    assert sizes["upernet"] > 20 * max(sizes["light"], sizes["upernet-small"])


# ---------------------------------------------------------------------------------------------- the pixel path


@decoders
def test_a_pixel_path_adds_what_a_pixel_says_by_itself(kind):
    torch.manual_seed(3)
    decoder = build_decoder(16, 5, kind=f"{kind}+pixels", bands=6).eval()
    maps, images = features(), torch.randn(2, 6, 32, 32, requires_grad=True)
    assert takes_images(decoder) and not takes_images(decoder.maps)
    logits = decoder([*maps, images], (32, 32))
    added = logits - decoder.maps(maps, (32, 32))
    torch.testing.assert_close(added, decoder.pixels(images), rtol=1e-3, atol=1e-4)
    added[0, :, 3, 5].sum().backward()
    seen = images.grad.abs().sum(1) > 1e-6
    assert seen[0, 3, 5] and int(seen.sum()) == 1


def test_a_pixel_path_is_a_small_mlp():
    decoder = build_decoder(16, 5, kind="linear+pixels", bands=7)
    assert sum(p.numel() for p in decoder.pixels.parameters()) == 7 * 64 + 64 + 64 * 64 + 64 + 64 * 5 + 5
    torch.manual_seed(4)
    with_path = build_decoder(16, 5, kind="upernet+pixels", bands=7).maps.state_dict()
    torch.manual_seed(4)
    torch.testing.assert_close(with_path, build_decoder(16, 5, kind="upernet").state_dict(), rtol=0, atol=0)


def test_a_pixel_path_needs_the_bands_and_a_decoder():
    with pytest.raises(ValueError, match="number of bands"):
        build_decoder(16, 5, kind="light+pixels")
    with pytest.raises(UserError, match=r"no decoder 'ligth\+pixels'[\s\S]*light[\s\S]*with \+pixels"):
        build_decoder(16, 5, kind="ligth+pixels", bands=3)
    for odd in ("+pixels", "light+pixel", "light+pixels+pixels", "pixels", ""):
        with pytest.raises(UserError, match="there is no decoder"):
            build_decoder(16, 5, kind=odd, bands=3)


# ---------------------------------------------------------------------------------------------- auto


@pytest.mark.parametrize(
    ("backbone", "steps", "expected"),
    [
        ("vit-large", 45_000, "upernet"), ("vit-large", 10_000, "upernet"), ("vit-large", 9_999, "light"),
        ("vit-base", 10_000, "upernet"), ("vit-small", 45_000, "light"), ("compact", 45_000, "light"),
        ("timm:resnet50", 10_000, "upernet"), ("timm:resnet18", 45_000, "light"), ("timm:resnet50", 60, "light"),
    ],
)  # fmt: skip
def test_auto_is_by_backbone_and_budget(backbone, steps, expected):
    task = replace(make_task(steps=steps), backbone=get_backbone(backbone, "none"))
    assert resolved("auto", task) == expected and resolved("auto+pixels", task) == f"{expected}+pixels"
    assert resolved("fpn", task) == "fpn" and resolved("dpt+pixels", task) == "dpt+pixels"


PAGE = Path(__file__).resolve().parents[2] / "docs" / "decoders.md"


@decoders
def test_the_page_has_every_decoder_with_its_size(kind):
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in build_decoder(width, 9, kind=kind).parameters()) for width in (384, 1024)]
    (row,) = re.findall(rf"^\| `{kind}` \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row.endswith(f"| {sizes[0]:,} / {sizes[1]:,} |")
