"""AdaptFormer and Houlsby adapters against their equations, and how they start."""

from __future__ import annotations

import pytest
import torch
from adapting import WIDTH, adapters, eva, images, maps, stir, vit
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.adaptformer import AdaptFormer, add_adaptformer
from spectral_tl_bench.methods.adapters.bottleneck import Bottleneck
from spectral_tl_bench.methods.adapters.houlsby import Houlsby, ResidualBottleneck, add_houlsby


def affine(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.einsum("...i,oi->...o", x, layer.weight) + layer.bias


def outputs_of_blocks(backbone: nn.Module, tokens: Tensor, step) -> list[Tensor]:
    """What ``step(tokens, block, number)`` gives block after block, as maps."""
    given = []
    for number, block in enumerate(backbone.blocks):
        tokens = step(tokens, block, number)
        given.append(tokens[:, 1:].transpose(1, 2).reshape(len(tokens), WIDTH, 3, 5))
    return given


def normalised(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("layernorm", ["none", "in", "out", "block"])
@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_adaptformer_is_its_equation(layer_scale, layernorm):
    """The branch reads the tokens in front of the block's norm, unless the paper's equation is asked for."""
    plain = vit(init_values=layer_scale)
    for block in plain.blocks:  # so that it shows which of the two the branch reads
        nn.init.normal_(block.norm2.weight)
    adapted = vit(init_values=layer_scale)
    adapted.load_state_dict(plain.state_dict())
    adapted = stir(add_adaptformer(adapted, bottleneck=6, scale=0.7, layernorm=layernorm))

    def step(x: Tensor, block: nn.Module, number: int) -> Tensor:
        adapter = adapted.blocks[number].mlp.adapter
        x = x + block.ls1(block.attn(block.norm1(x)))
        hidden = block.norm2(x)
        read = {"none": lambda: x, "in": lambda: normalised(x, adapter.norm), "out": lambda: x, "block": lambda: hidden}
        beside = 0.7 * affine(affine(read[layernorm](), adapter.down).clamp(min=0), adapter.up)
        beside = normalised(beside, adapter.norm) if layernorm == "out" else beside
        return block.ls2(block.mlp(hidden)) + beside + x

    tokens = plain._pos_embed(plain.patch_embed(images()))
    for one, other in zip(maps(adapted, images()), outputs_of_blocks(plain, tokens, step), strict=True):
        torch.testing.assert_close(one, other)


def test_adaptformer_keeps_layer_scales_of_either_kind_to_the_mlp():
    plain, adapted = eva(), add_adaptformer(eva(), bottleneck=6, scale=0.7)
    for one, other in zip(maps(adapted, images()), maps(plain, images()), strict=True):
        torch.testing.assert_close(one, other)
    block, own = stir(adapted).blocks[0], plain.blocks[0]
    x = torch.randn(2, 4, WIDTH)
    expected = own.gamma_2 * own.mlp(own.norm2(x)) + 0.7 * block.mlp.adapter(x)
    torch.testing.assert_close(block.mlp(block.norm2(x)), expected)
    assert block.gamma_2 is None


@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_houlsby_adapters_are_behind_both_branches(layer_scale):
    plain, adapted = vit(init_values=layer_scale), stir(add_houlsby(vit(init_values=layer_scale), bottleneck=6))

    def residual(x: Tensor, adapter: nn.Module) -> Tensor:
        return x + affine(functional.gelu(affine(x, adapter.down)), adapter.up)

    def step(x: Tensor, block: nn.Module, number: int) -> Tensor:
        own = adapted.blocks[number]
        x = x + residual(block.ls1(block.attn(block.norm1(x))), own.drop_path1.adapter)
        return x + residual(block.ls2(block.mlp(block.norm2(x))), own.drop_path2.adapter)

    tokens = plain._pos_embed(plain.patch_embed(images()))
    for one, other in zip(maps(adapted, images()), outputs_of_blocks(plain, tokens, step), strict=True):
        torch.testing.assert_close(one, other)


def test_how_they_start():
    torch.manual_seed(0)
    plain, residual = Bottleneck(256, 64), ResidualBottleneck(256, 64)
    x = torch.randn(3, 256)
    assert not plain(x).any() and plain.down.weight.any() and not plain.down.bias.any()
    for layer in (residual.down, residual.up):
        assert layer.weight.abs().max() <= 0.02 and 0.008 < layer.weight.std() < 0.01, "cut off at two deviations"
        assert not layer.bias.any()
    assert 0 < ((residual(x) - x).norm() / x.norm()).item() < 0.05


def test_dropout_is_inside_and_in_training_only():
    torch.manual_seed(0)
    bottleneck = Bottleneck(16, 8, dropout=0.5)
    nn.init.normal_(bottleneck.up.weight)
    x = torch.randn(4, 16)
    assert not torch.equal(bottleneck(x), bottleneck(x))
    assert torch.equal(bottleneck.eval()(x), bottleneck(x))


def test_the_options_reach_the_adapters():
    backbone = AdaptFormer(bottleneck=5, scale=0.25, dropout=0.1).insert(vit())
    for block in backbone.blocks:
        assert block.mlp.adapter.down.weight.shape == (5, WIDTH)
        assert (block.mlp.scale, block.mlp.adapter.dropout.p) == (0.25, 0.1)
    wide = Houlsby(bottleneck=9).insert(vit())
    assert len(adapters(wide)) == 4 * 2 * 4
    assert all(9 in parameter.shape or parameter.shape == (WIDTH,) for parameter in adapters(wide).values())
    assert Houlsby().train_norms and not AdaptFormer().train_norms
    assert (AdaptFormer().dropout, AdaptFormer().layernorm) == (0.1, "none"), "as the source runs it"
    for layernorm, own in (("in", True), ("out", True), ("block", False)):
        backbone = AdaptFormer(layernorm=layernorm).insert(vit(depth=1))
        assert ("blocks.0.mlp.adapter.norm.weight" in adapters(backbone)) is own


@pytest.mark.parametrize(("add", "part"), [(add_adaptformer, "norm2"), (add_houlsby, "drop_path1")])
def test_unknown_blocks_are_refused(add, part):
    backbone = vit()
    delattr(backbone.blocks[0], part)
    with pytest.raises(MethodError, match=r"do(es)? not know the blocks of this backbone: Block"):
        add(backbone)
