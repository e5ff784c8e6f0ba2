"""Images enlarged before a backbone: the rule, the network, the methods on it, identity and record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SIZES, make_request, make_task, make_tree, quiet
from torch import Tensor
from torch.nn import functional

from spectral_tl_bench.authoring.recompute import _backbone
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.identity import backbone_inputs
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import Backbone, get_backbone, load_backbone
from spectral_tl_bench.models.backbones.input_scale import (
    automatic_scale,
    chosen_scale,
    cost_factor,
    enlarged,
    read_scale,
    scaled,
)
from spectral_tl_bench.models.backbones.lines import input_lines
from spectral_tl_bench.results.schema import BackboneFacts
from spectral_tl_bench.runner.planning import plan
from spectralx.backbone import own_tokens, token_side

NARROW = {"width": 64, "depth": 4, "heads": 4}
HLS = (0.44, 0.48, 0.56, 0.66, 0.865, 1.61, 2.2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("name", "gsd", "whole", "token"),
    [
        ("dinov2-small", 30.0, False, 4), ("dinov2-small", 10.0, False, 14), ("compact", 30.0, False, 4),
        ("compact", 10.0, False, 8), ("compact", 20.0, False, 8), ("vit-large", 10.0, False, 16),
        ("vit-large", 10.01, False, 8), ("vit-large", 250.0, False, 1), ("vit-large", None, False, 16),
        ("vit-large", 30.0, True, 16), ("resnet50", 30.0, False, 32), ("resnet50", 60.0, False, 16),
        ("swin-tiny", 500.0, False, 8),
    ],
)  # fmt: skip
def test_by_the_rule_a_token_covers_160_m_at_most(name: str, gsd: float | None, whole: bool, token: int):
    spec = chosen_scale(load_backbone(name), None, gsd, whole)
    assert spec.token == token and spec.input_scale == pytest.approx(spec.patch / token, abs=1e-4)
    cells = token / (8 if spec.kind == "pyramid" else 1)
    assert spec.input_scale == 1 or cells == 1 or cells * (gsd or 0) <= 160 < 2 * cells * (gsd or 0)
    assert automatic_scale(spec, gsd, whole) == pytest.approx(spec.patch / token)


def test_a_scale_gives_tokens_of_whole_pixels_or_the_nearest_one_is_named():
    dino = load_backbone("dinov2-small")
    assert scaled(dino, 3.5).token == 4 and scaled(dino, 14).token == 1
    assert scaled(dino, 4.67) == scaled(dino, 14 / 3), "two decimals are enough to say it"
    with pytest.raises(UserError, match=r"would cover 4\.667 px") as caught:
        scaled(dino, 3)
    assert "--input-scale 2.8, with which it covers 5 px" in str(caught.value)
    with pytest.raises(UserError, match=r"--input-scale 1, with which it covers 14 px"):
        scaled(dino, 1.02)
    with pytest.raises(UserError, match="--input-scale 14, with which it covers 1 px"):
        scaled(dino, 100)


@pytest.mark.parametrize("text", ["0.5", "-2", "nan", "inf", "many", ""])
def test_what_is_no_scale_is_refused(text: str):
    with pytest.raises(UserError, match="is no scale") as caught:
        read_scale(text)
    assert "auto, or a number from 1 on" in str(caught.value)


def _maps(spec: Backbone, bands: int, images: Tensor) -> list[Tensor]:
    network: Any = spec.build(bands, images.shape[-1]).eval()
    with torch.no_grad():
        return network.forward_intermediates(
            images, indices=sorted(set(spec.levels)), norm=False, output_fmt="NCHW", intermediates_only=True
        )


@pytest.mark.parametrize(
    ("name", "sizes", "scale"),
    [
        ("vit-tiny", {"width": 32, "depth": 4, "heads": 2}, 4), ("dinov2-small", NARROW, 3.5),
        ("timm:vit_tiny_patch16_224", {"width": 32, "depth": 4, "heads": 2}, 5.333), ("galileo-nano", {}, 2),
        ("spectralgpt", NARROW, 2), ("hypersigma-base", NARROW, 2), ("hypersigma-base-global", NARROW, 4),
        ("dofa-base", NARROW, 4), ("panopticon", NARROW, 3.5), ("dinov3-large-sat", NARROW, 4), ("resnet50", {}, 2),
        ("swin-tiny", {}, 2), ("copernicus-fm", NARROW, 4),
    ],
)  # fmt: skip
def test_a_network_takes_images_as_they_are_and_enlarges_them_itself(name: str, sizes: dict[str, int], scale: float):
    usual = replace(get_backbone(name, "none", None, **sizes), seed=3).for_sensor(HLS, 10.0)
    spec = scaled(usual, scale)
    side = 2 * spec.token if spec.kind == "vit" else 2 * 32
    images = torch.randn(1, 7, side, side, generator=torch.Generator().manual_seed(0))
    large = enlarged(images, spec.token, spec.patch)
    assert large.shape[-1] == side // spec.token * spec.patch
    torch.manual_seed(0)  # two builds of one random start; the seed of a backbone depends on the size of its images
    found = _maps(replace(spec, seed=None), 7, images)
    torch.manual_seed(0)
    same = _maps(replace(usual, seed=None, gsd=10.0 / spec.input_scale), 7, large)
    assert len(found) == len(same)
    for one, other in zip(found, same, strict=True):
        assert one.shape == other.shape and one.shape[-1] >= 2 and torch.equal(one, other)


def test_scale_mae_counts_its_positions_in_metres_of_the_enlarged_image():
    spec = get_backbone("scalemae-large", "none", None, width=64, depth=2, heads=2).for_sensor(HLS, 30.0)
    assert spec.build(7, 64).res == 30.0 and scaled(spec, 4).build(7, 64).res == 7.5


METHODS = ("full", "rein", "vpt-shallow", "vpt-deep", "lora", "ssf", "slr", "linear-probe", "land-moe", "lora-biased")


@pytest.mark.parametrize("name", [*METHODS, "spectralx", "spectralx@freeze"])
def test_methods_give_logits_of_the_images_and_see_more_tokens(name: str):
    task = make_task(window=32, steps=2, pretrain_steps=2)
    task = replace(task, backbone=scaled(task.backbone, 2).for_sensor(task.wavelengths, task.gsd))
    module: Any = make_method(name, {}).build(task).eval()
    seen: list[tuple[int, ...]] = []
    backbone = getattr(module.backbone, "vit", module.backbone)
    backbone.blocks[0].norm1.register_forward_hook(lambda _norm, inputs, _out: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        assert module(torch.randn(2, 4, 32, 32)).shape == (2, 3, 32, 32)
    assert 8 * 8 <= seen[0][1] <= 8 * 8 + 51
    assert token_side(backbone) == 4


def test_stage_1_of_spectralx_hides_native_patches():
    task = make_task(window=32, steps=2, pretrain_steps=2)
    task = replace(task, backbone=scaled(task.backbone, 2))
    module: Any = make_method("spectralx", {}).build(task).eval()
    pictures, mask = module.reconstruct(torch.randn(2, 4, 32, 32), torch.Generator().manual_seed(0))
    assert module.patch == 4 and module.grid == (8, 8) and pictures.shape == (2, 4, 32, 32)
    assert mask.hidden.shape == (2, 64) and mask.hidden.sum() == 2 * 48
    assert module.gsd == task.gsd / 2
    images = torch.randn(2, 4, 32, 32)
    assert torch.equal(own_tokens(module.backbone, images), module.backbone.patch_embed(images))


def test_stage_1_of_slr_hides_native_patches():
    task = make_task(window=32, steps=2, pretrain_steps=2)
    module: Any = make_method("slr", {}).build(replace(task, backbone=scaled(task.backbone, 2)))
    predicted, mask = module.reconstruct(torch.randn(2, 4, 32, 32))
    assert predicted.shape == (2, 64, 4 * 4 * 4) and mask.hidden.shape == (2, 64)


def test_a_window_must_be_a_multiple_of_what_a_token_covers():
    spec = scaled(load_backbone("dinov2-small"), 3.5)
    assert spec.token == 4
    with pytest.raises(UserError, match="not a multiple of the 4 px that a token of dinov2-small covers") as caught:
        spec.build(3, 30)
    assert "--window 28" in str(caught.value)


def test_facts_and_identity_name_a_scale_and_nothing_where_there_is_none():
    plain = get_backbone("compact", **SIZES)
    assert "input_scale" not in plain.facts()
    twice = scaled(plain, 2)
    assert twice.facts() == {**plain.facts(), "input_scale": 2.0}
    assert backbone_inputs(twice.facts()) != backbone_inputs(plain.facts())
    for spec, said in ((plain, False), (twice, True)):
        facts = BackboneFacts.model_validate(spec.facts())
        assert facts.model_dump(mode="json") == spec.facts() and ("input_scale" in facts.model_dump()) == said
        assert _backbone(facts)["input_scale"] == ("2.0" if said else "1.0")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        BackboneFacts.model_validate({**plain.facts(), "input_scale": 0.5})


def test_a_plan_scales_by_flag_and_says_the_cost(root: Path):
    said: list[str] = []
    (plain,), _ = plan(make_request(root), quiet)
    (twice,), _ = plan(make_request(root, input_scale="2"), said.append)
    (auto,), _ = plan(make_request(root, input_scale="auto"), quiet)
    assert (plain.backbone.input_scale, twice.backbone.input_scale) == (1.0, 2.0)  # MTS12 has 10 m
    assert plain.fingerprint() == auto.fingerprint() != twice.fingerprint()
    assert twice.settings.window == plain.settings.window
    (line,) = [line for line in said if "enlarged" in line]
    assert "8 px of it are 4 px of the image, 40 m" in line and "8 x 8 tokens" in line and "not 4 x 4" in line
    (none,), _ = plan(make_request(root, "pixel-mlp", input_scale="2"), said.append)
    assert sum("enlarged" in line for line in said) == 1 and none.backbone_facts() is None
    with pytest.raises(UserError, match="would cover"):
        plan(make_request(root, input_scale="3"), quiet)


def test_the_cost_is_that_of_attention_and_linear_layers():
    wide, narrow = load_backbone("vit-large"), load_backbone("vit-tiny")
    assert cost_factor(wide, 224) == 1 and cost_factor(scaled(load_backbone("resnet50"), 2), 64) == 4
    assert 4 < cost_factor(scaled(wide, 2), 224) < cost_factor(scaled(narrow, 2), 224) < 16
    assert input_lines(wide, 224) == []
    # a block of width D on L tokens: 12 L D^2 in linear layers, 2 L^2 D in attention
    operations = [12 * length * 192**2 + 2 * length**2 * 192 for length in (14**2, 28**2)]
    assert cost_factor(scaled(narrow, 2), 224) == pytest.approx(operations[1] / operations[0])


def test_enlarging_keeps_a_constant_and_the_middle_of_a_ramp():
    flat = torch.full((1, 2, 8, 8), 3.0)
    assert torch.allclose(enlarged(flat, 4, 14), torch.full((1, 2, 28, 28), 3.0), atol=1e-5)
    assert enlarged(flat, 4, 4) is flat
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    twice = enlarged(ramp, 1, 2)
    back = functional.avg_pool2d(twice, 2)
    assert torch.allclose(back[..., 2:-2], ramp[..., 2:-2], atol=1e-5)
