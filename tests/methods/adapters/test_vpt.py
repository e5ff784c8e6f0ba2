"""VPT: where prompts stand, what becomes of them, and that maps are made of patches alone."""

from __future__ import annotations

import math

import pytest
import torch
from adapting import GRID, PATCH, WIDTH, adapters, eva, images, maps, stir, vit

from spectral_tl_bench.methods.adapters.vpt import Prompts, ShallowPrompted, VptDeep, VptShallow, add_prompts


def expected_maps(backbone, prompts: torch.Tensor, deep: bool) -> list[torch.Tensor]:
    """The equations of the paper, with prompts behind all other tokens: without positions, places mean nothing."""
    tokens = backbone._pos_embed(backbone.patch_embed(images()))
    length, given = tokens.shape[1], []
    for number, block in enumerate(backbone.blocks):
        if deep or number == 0:
            tokens = torch.cat([tokens[:, :length], torch.stack([prompts[number]] * len(tokens))], dim=1)
        tokens = block(tokens)
        patches = tokens[:, backbone.num_prefix_tokens : length]
        given.append(torch.stack([one.T.reshape(WIDTH, *GRID) for one in patches]))
    return given


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_prompts_go_through_the_blocks_as_in_the_paper(deep, prefix):
    prompted = stir(add_prompts(vit(prefix), deep, count=7))
    with torch.no_grad():
        expected = expected_maps(vit(prefix), prompted.adapter.prompts, deep)
        for one, other in zip(maps(prompted, images()), expected, strict=True):
            torch.testing.assert_close(one, other)


def test_shallow_prompts_act_through_later_blocks_and_deep_ones_do_not():
    """Without the outputs of prompts, block 2 sees no more than what block 1 made of the other tokens."""
    for deep in (False, True):
        prompted = stir(add_prompts(vit(), deep, count=7))
        vision = prompted.adapter, getattr(prompted, "vit", prompted)
        seen = []
        vision[1].blocks[1].attn.register_forward_pre_hook(lambda _m, inputs, seen=seen: seen.append(inputs[0]))
        maps(prompted, images())
        assert seen[0].shape[1] == 1 + 7 + 15
        alike = torch.allclose(seen[0][0, 1:8], seen[0][1, 1:8])
        assert alike == deep, "prompts that passed a block differ from image to image"


@pytest.mark.parametrize("deep", [False, True])
def test_rotary_positions_stay_with_their_patches(deep):
    """A prompt that no token looks at, and no position that moves: the outputs are those without it."""
    plain, prompted = eva(2), add_prompts(eva(2), deep, count=3)
    key = []
    for block in prompted.vit.blocks if not deep else prompted.blocks:
        assert block.attn.num_prefix_tokens == 2 + 3
        block.attn.register_forward_pre_hook(
            lambda _m, args, kwargs: (args, {**kwargs, "attn_mask": mask}), with_kwargs=True
        )
        key.append(block)
    mask = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    mask[..., 2:5] = False
    for one, other in zip(maps(prompted, images()), maps(plain, images()), strict=True):
        torch.testing.assert_close(one, other)


def test_how_prompts_start_and_how_many_there_are():
    torch.manual_seed(0)
    prompts = Prompts(3, 50, WIDTH, (PATCH, PATCH)).prompts
    reach = math.sqrt(6 / (3 * PATCH * PATCH + WIDTH))
    assert prompts.shape == (3, 50, WIDTH)
    assert 0.95 * reach < prompts.max() <= reach and -reach <= prompts.min() < -0.95 * reach
    shallow, deep = VptShallow(prompts=4).insert(vit()), VptDeep(prompts=4, dropout=0.2).insert(vit())
    assert isinstance(shallow, ShallowPrompted) and not isinstance(deep, ShallowPrompted)
    assert [tuple(p.shape) for p in adapters(shallow).values()] == [(1, 4, WIDTH)]
    assert [tuple(p.shape) for p in adapters(deep).values()] == [(4, 4, WIDTH)]
    assert deep.adapter.dropout.p == 0.2


def test_a_shallow_prompted_transformer_gives_tokens_as_timm_does():
    prompted, plain = add_prompts(vit(5), deep=False, count=3), vit(5)
    last, taken = prompted.forward_intermediates(images(), indices=[1, 3], norm=True, output_fmt="NLC")
    other, same = plain.forward_intermediates(images(), indices=[1, 3], norm=True, output_fmt="NLC")
    assert last.shape == other.shape and [one.shape for one in taken] == [one.shape for one in same]
    torch.testing.assert_close(last[:, 5:], taken[-1])
