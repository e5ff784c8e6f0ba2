"""LoRA and SLR of the papers: how many parameters, where, and what they compute."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny import SIZES, make_task
from torch import Tensor, nn

from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.registry import load_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.training.task import StageTask
from spectralx.low_rank import LINEAR_LAYERS, LoraLinear, SlrLinear, adapt, merge
from spectralx.method_low_rank import LoraBiased, Slr

METHODS = [LoraBiased(), Slr(pretrain=False), LoraBiased(rank=3, reading="released")]
METHODS += [Slr(rank=3, reading="released", pretrain=False)]
"""In one stage; that without labels is in tests/spectralx/test_slr_stage.py."""


def build(method: Method, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    task = make_task()
    return method.build(replace(task, backbone=replace(task.backbone, **sizes)))


def trainable(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def stir(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def vit(depth: int = 2) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, in_chans=5, embed_dim=32, depth=depth, num_heads=2, num_classes=0
    ).eval()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (LoraBiased(), 6_881_040),
        (Slr(), 7_275_280),
        (LoraBiased(reading="released"), 1_452_560),
        (Slr(reading="released"), 1_519_120),
    ],
    ids=repr,
)
def test_parameters_of_vit_large(method, expected):
    """As published, 13 bands and without the decoder."""
    task = replace(make_task(bands=13, window=224), backbone=get_backbone("vit-large"))
    with torch.device("meta"):
        backbone = method.build(task).backbone
    counts = {name: p.numel() for name, p in backbone.named_parameters() if p.requires_grad}
    assert sum(counts.values()) == expected
    norms = {name: n for name, n in counts.items() if re.search(r"(^|\.)norm[12]?\.", name)}
    assert (len(norms), sum(norms.values())) == (2 * 49, 100_352)
    path = sum(n for name, n in counts.items() if name.startswith("patch_embed"))
    assert path == 267_536 - (0 if isinstance(method, Slr) else 1024)


@pytest.mark.parametrize("name", ["lora-biased", "slr"])
def test_methods_are_installed(name):
    assert load_method(name) is {"lora-biased": LoraBiased, "slr": Slr}[name]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_exactly_these_parameters_train_and_no_others(method):
    task = make_task(steps=3, learning_rate=1e-2)
    task = replace(task, backbone=replace(task.backbone, depth=8))
    torch.manual_seed(0)
    module = method.build(task)
    blocks = range(8) if method.reading == "paper" else (1, 3, 5, 7)
    adapted = {f"backbone.blocks.{block}.{layer}" for block in blocks for layer in LINEAR_LAYERS}
    leaves = ["down.weight", "down.bias", "up.weight", "up.bias"]
    leaves += ["in_scaler", "out_scaler"] if isinstance(method, Slr) else []
    expected = {f"{layer}.{leaf}" for layer in adapted for leaf in leaves}
    path = ["down.weight", "down.bias", "up.weight", "up.bias"] + (["scale"] if isinstance(method, Slr) else [])
    expected |= {f"backbone.patch_embed.proj.path.{leaf}" for leaf in path}
    expected |= {n for n, _ in module.named_parameters() if n.startswith("decoder.") or re.search(r"\.norm[12]?\.", n)}
    declared = trainable(module)
    assert declared == expected
    assert all(p.shape[0] == method.rank for n, p in module.named_parameters() if n.endswith("down.weight"))

    before = {name: value.clone() for name, value in module.state_dict().items()}
    stage_task = StageTask(module, nn.Identity(), method.stages(task)[0], task.budget, declared, None, None, 3)
    optimiser = stage_task.configure_optimizers()
    for step in range(3):
        optimiser.zero_grad()
        batch = {"image": torch.randn(2, 4, 32, 32), "mask": torch.randint(0, 3, (2, 32, 32))}
        stage_task.training_step(batch | {"domain": torch.zeros(2, dtype=torch.long)}, step).backward()
        optimiser.step()
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    # counted as in the papers, but the decoder takes block outputs
    assert moved == declared - {"backbone.norm.weight", "backbone.norm.bias"}


@pytest.mark.parametrize("kind", ["lora", "slr"])
def test_untrained_only_the_patch_path_acts(kind):
    images = torch.randn(2, 5, 32, 32)
    expected = vit().forward_features(images)
    adapted = adapt(vit(), kind, rank=4)
    with torch.no_grad():
        assert not torch.allclose(adapted.forward_features(images), expected)
        path = adapted.patch_embed.proj.path
        nn.init.zeros_(path.up.weight)
        nn.init.zeros_(path.up.bias)
        torch.testing.assert_close(adapted.forward_features(images), expected)
        assert adapted.blocks[1].mlp.fc2.down.weight.std() > 0.8, "A starts from N(0, 1)"
        assert not adapted.blocks[1].mlp.fc2.up.weight.any()


def test_the_patch_path_is_added_to_the_frozen_convolution():
    torch.manual_seed(0)
    plain, adapted = vit(), adapt(vit(), "slr", rank=4)
    conv = adapted.patch_embed.proj
    with torch.no_grad():
        conv.path.scale.normal_()
    images = torch.randn(2, 5, 32, 32)
    low = conv.path.up(conv.path.down(images))
    expected = (plain.patch_embed.proj(images) + low) * conv.path.scale.view(-1, 1, 1)
    torch.testing.assert_close(conv(images), expected)
    torch.testing.assert_close(adapted.patch_embed(images), expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [LoraLinear, SlrLinear])
def test_formula_and_merged_layer(kind, bias):
    layer = kind(nn.Linear(6, 10, bias=bias), rank=3)
    stir(layer)
    x = torch.randn(4, 5, 6)

    def affine(z: Tensor, part: nn.Linear) -> Tensor:
        out = torch.einsum("...i,oi->...o", z, part.weight)
        return out if part.bias is None else out + part.bias

    s_in, s_out = (layer.in_scaler, layer.out_scaler) if kind is SlrLinear else (1.0, 1.0)
    expected = s_out * (affine(s_in * x, layer.linear) + affine(affine(s_in * x, layer.down), layer.up))
    torch.testing.assert_close(layer(x), expected)
    merged = layer.merged()
    assert type(merged) is nn.Linear and not any(p.requires_grad for p in merged.parameters())
    torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-5)
    assert kind(nn.Linear(6, 10).bfloat16(), rank=2).merged().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["lora", "slr"])
def test_a_merged_backbone_computes_the_same_with_plain_layers(kind):
    backbone, images = adapt(vit(), kind, rank=4), torch.randn(2, 5, 32, 32)
    stir(backbone)
    with torch.no_grad():
        expected = backbone.forward_features(images)
        merged = merge(backbone)
        torch.testing.assert_close(merged.forward_features(images), expected, rtol=1e-3, atol=1e-4)
    assert not [name for name, part in merged.named_modules() if isinstance(part, LoraLinear)]
    assert type(merged.blocks[0].attn.qkv) is nn.Linear


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("bands", [1, 13])
def test_any_number_of_bands_and_a_batch_of_one(method, bands):
    module = method.build(make_task(bands=bands, classes=5)).train()
    logits = module(torch.randn(1, bands, 32, 32))
    assert logits.shape == (1, 5, 32, 32)
    logits.square().mean().backward()
    reached = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert trainable(module) - reached == {"backbone.norm.weight", "backbone.norm.bias"}


def test_the_same_seed_builds_the_same_weights():
    one, same = build(Slr()).state_dict(), build(Slr()).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert SIZES["depth"] == len(build(Slr()).backbone.blocks)


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="kind"):
        adapt(vit(), "dora")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected numbers below 2"):
        adapt(vit(), blocks=[0, 2])
    with pytest.raises(ValueError, match="rank"):
        adapt(vit(), rank=0)
    strange = vit()
    strange.blocks[1].mlp.fc1 = nn.Identity()
    with pytest.raises(TypeError, match=r"blocks\.1\.mlp\.fc1 is Identity"):
        adapt(strange)
    assert all(p.requires_grad for p in strange.blocks.parameters()), "nothing is changed before the check"
    with pytest.raises(TypeError, match=r"expected nn\.Linear"):
        adapt(adapt(vit()))
