"""Vision transformers by name, with the sizes that the name promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import SIZES

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import get_backbone, load_backbone
from spectral_tl_bench.models.segmenter import ViTSegmenter


# Parameters of timm's models of these sizes without a head, at 224 px, patch 16 and three bands.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vit-tiny", 5_524_416), ("vit-small", 21_665_664), ("vit-base", 85_798_656), ("vit-large", 303_301_632)],
)
def test_the_literature_s_sizes(name, parameters):
    with torch.device("meta"):
        module = get_backbone(name).build(3, 224)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize("bands", [1, 4, 32])
def test_takes_any_number_of_bands(bands):
    spec = get_backbone("compact", **SIZES)
    module = spec.build(bands, 48)
    assert module.patch_embed.proj.weight.shape == (32, bands, 8, 8)
    assert module(torch.randn(2, bands, 48, 48)).shape == (2, 1 + 36, 32)


def test_sizes_change_one_by_one_and_leave_the_registry_alone():
    spec = get_backbone("compact", depth=3, patch=4)
    assert (spec.width, spec.depth, spec.heads, spec.patch) == (
        load_backbone("compact").width,
        3,
        load_backbone("compact").heads,
        4,
    )
    assert load_backbone("compact") == get_backbone("compact")
    assert len(spec.build(3, 16).blocks) == 3


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("vit-bas", {}, "did you mean vit-base"),
        ("resnet50", {"width": 64}, "none can be changed"),
        ("timm:vit_smal_patch16_224", {}, "did you mean vit_small_patch16_224"),
        ("compact", {"widht": 32}, "did you mean width"),
        ("compact", {"name": 3}, "has no size 'name'"),
        ("compact", {"depth": 0}, "a whole number above 0"),
        ("compact", {"depth": 2.0}, "a whole number above 0"),
        ("compact", {"width": 33, "heads": 2}, "not divisible by its 2 heads"),
    ],
)
def test_impossible_wishes_are_explained(name, sizes, message):
    with pytest.raises(UserError, match=message):
        get_backbone(name, **sizes)


@pytest.mark.parametrize(("window", "advice"), [(50, 48), (5, 8)])
def test_a_window_that_patches_do_not_fill(window, advice):
    with pytest.raises(UserError, match=rf"not a multiple of the patch[\s\S]*--window {advice}$"):
        get_backbone("compact", patch=8).build(3, window)


def test_segmenter_takes_the_outputs_of_the_blocks_it_was_told():
    torch.manual_seed(0)
    backbone = get_backbone("compact", **SIZES | {"depth": 3}).build(4, 32).eval()
    outputs: dict[int, torch.Tensor] = {}
    for number, block in enumerate(backbone.blocks):
        block.register_forward_hook(lambda _m, _i, output, number=number: outputs.__setitem__(number, output))
    seen = []
    segmenter = ViTSegmenter(backbone, lambda features, size: seen.append(size) or features[0], [2, 0, 0, 1])
    features = segmenter.features(torch.randn(2, 4, 32, 32))
    for level, feature in zip([2, 0, 0, 1], features, strict=True):
        tokens = outputs[level][:, 1:]  # without the class token
        torch.testing.assert_close(feature.flatten(2).transpose(1, 2), tokens)
    segmenter(torch.randn(1, 4, 32, 32))
    assert seen == [(32, 32)]


def test_with_a_seed_the_weights_depend_on_seed_and_sizes_alone():
    def weights(seed: int | None = 3, bands: int = 4, size: int = 32, before: int = 0, **sizes: int):
        torch.manual_seed(before)
        spec = replace(get_backbone("compact", **{"width": 32, "depth": 1, "heads": 2, **sizes}), seed=seed)
        state = torch.get_rng_state()
        built = spec.build(bands, size).state_dict()
        assert torch.equal(torch.get_rng_state(), state) == (seed is not None), "a seeded one takes no random numbers"
        return torch.cat([value.flatten() for value in built.values()])

    assert torch.equal(weights(), weights(before=9)) and torch.equal(weights(seed=0), weights(seed=0, before=9))
    others = [weights(seed=0), weights(heads=4), weights(bands=5), weights(size=40), weights(depth=2), weights(patch=4)]
    assert all(len(one) != len(weights()) or not torch.equal(one, weights()) for one in others)
    assert not torch.equal(weights(heads=4)[-1000:], weights()[-1000:])
    assert torch.equal(weights(seed=None), weights(seed=None))
    assert not torch.equal(weights(seed=None), weights(seed=None, before=9))


def test_a_seed_is_no_fact_about_a_backbone():
    spec = get_backbone("compact")
    assert replace(spec, seed=5).facts() == spec.facts()
    assert set(spec.facts()) >= {"name", "width", "depth", "heads", "patch", "pretrained"}
    assert not {"seed", "make"} & set(spec.facts())
