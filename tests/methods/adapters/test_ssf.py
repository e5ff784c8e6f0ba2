"""SSF: where it scales and shifts, and that it folds into the layers."""

from __future__ import annotations

import copy

import pytest
import torch
from adapting import BANDS, GRID, WIDTH, adapters, eva, images, maps, stir, vit
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.ssf import Ssf, SsfLayer, add_ssf, merge

LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def test_every_linear_layer_norm_and_patch_embedding_is_scaled_and_shifted():
    backbone = add_ssf(vit(depth=2))
    found = {name for name, module in backbone.named_modules() if isinstance(module, SsfLayer)}
    assert found == {"patch_embed.proj"} | {f"blocks.{number}.{layer}" for number in (0, 1) for layer in LAYERS}
    normed = vit(depth=1, qk_norm=True, pre_norm=True)
    normed.norm = nn.LayerNorm(WIDTH)
    found |= {name for name, module in add_ssf(normed).named_modules() if isinstance(module, SsfLayer)}
    assert {"norm_pre", "norm", "blocks.0.attn.q_norm", "blocks.0.attn.k_norm"} <= found


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 10), (4, 3, 6)),
        (nn.Linear(6, 10, bias=False), (4, 3, 6)),
        (nn.Conv2d(6, 10, 2, 2), (2, 6, 4, 8)),
        (nn.LayerNorm(10), (2, 3, 10)),
        (nn.LayerNorm(10, elementwise_affine=False), (2, 3, 10)),
        (nn.LayerNorm(10, bias=False), (2, 3, 10)),
    ],
    ids=str,
)
def test_formula_and_merged_layer(layer, shape):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    before = copy.deepcopy(layer.state_dict())
    channels_first = isinstance(layer, nn.Conv2d)
    scaled = SsfLayer(layer, 10, channels_first)
    x = torch.randn(shape)
    assert torch.equal(scaled(x), layer(x)), "untrained"
    stir(scaled, 0.5)
    out = layer(x).movedim(1, -1) if channels_first else layer(x)
    expected = torch.stack([scaled.adapter.gamma[c] * out[..., c] + scaled.adapter.beta[c] for c in range(10)], dim=-1)
    torch.testing.assert_close(scaled(x), expected.movedim(-1, 1) if channels_first else expected)
    merged = scaled.merged()
    assert type(merged) is type(layer) and not any(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(merged(x), scaled(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items()), "the layer is kept"


@pytest.mark.parametrize(
    "make",
    [vit, lambda: vit(5, qk_norm=True), eva, lambda: eva(qkv_fused=False)],
    ids=["vit", "vit, registers and norms of queries", "eva", "eva with three layers"],
)
def test_a_merged_backbone_computes_the_same_with_plain_layers(make):
    plain, adapted = make(), stir(add_ssf(make()), 0.1)
    for block in adapted.blocks:
        assert getattr(block.attn, "q_bias", None) is None
    with torch.no_grad():
        expected = maps(adapted, images())
        merged = merge(adapted)
        for one, other in zip(maps(merged, images()), expected, strict=True):
            assert ((one - other).norm() / other.norm()).item() < 1e-5
    assert not [module for module in merged.modules() if isinstance(module, SsfLayer)] and not adapters(merged)
    assert {type(module) for module in merged.modules()} == {type(module) for module in plain.modules()}


def test_biases_of_query_key_and_value_stay_where_they_belong():
    plain, adapted = eva(), add_ssf(eva())
    biases = [(block.attn.q_bias, block.attn.k_bias, block.attn.v_bias) for block in plain.blocks]
    for block, expected in zip(adapted.blocks, biases, strict=True):
        assert torch.equal(block.attn.qkv.layer.bias, torch.cat(expected)) and expected[0].any()


def test_a_merged_layer_keeps_its_number_format():
    assert SsfLayer(nn.Linear(4, 3).bfloat16(), 3).merged().weight.dtype == torch.bfloat16


def test_a_patch_embedding_that_is_more_than_a_convolution_stays_adapted():
    def make() -> nn.Module:
        backbone = vit()
        backbone.patch_embed.proj = nn.Sequential(nn.Conv2d(BANDS, WIDTH, 8, 8), nn.Identity())
        return backbone

    backbone = stir(add_ssf(make()), 0.1)
    with torch.no_grad():
        expected = maps(backbone, images())
        for one, other in zip(maps(merge(backbone), images()), expected, strict=True):
            assert ((one - other).norm() / other.norm()).item() < 1e-5
    assert set(adapters(backbone)) == {"patch_embed.proj.adapter.gamma", "patch_embed.proj.adapter.beta"}
    with pytest.raises(TypeError, match="cannot be folded into Sequential"):
        backbone.patch_embed.proj.merged()
    assert expected[0].shape[-2:] == GRID


def test_blocks_without_an_attention_of_their_own_are_refused():
    backbone = vit(block_fn=ParallelScalingBlock)
    with pytest.raises(MethodError, match="SSF does not know the blocks of this backbone: ParallelScalingBlock"):
        add_ssf(backbone)


def test_the_method_inserts_it():
    assert set(adapters(Ssf().insert(vit()))) == set(adapters(add_ssf(vit())))
