"""What each baseline trains, exactly, and that nothing else moves."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from timm.layers import PatchEmbed
from tiny import SIZES, make_task
from torch import nn

from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.methods.baselines import BitFit, Frozen, Full, LinearProbe
from spectral_tl_bench.methods.peft_methods import Lora
from spectral_tl_bench.methods.tuners import block_layers
from spectral_tl_bench.models.backbones import backbone_entries, load_backbone
from spectral_tl_bench.models.patch_embedding import SENTINEL2
from spectral_tl_bench.training.task import StageTask

METHODS = [Full(), Frozen(), Frozen(train_patch_embed=False), Lora(), Lora(train_norms=False, train_patch_embed=False)]


def build(method, task: Task | None = None) -> nn.Module:
    torch.manual_seed(0)
    return method.build(task or make_task())


def trainable(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def expected(method, module: nn.Module) -> set[str]:
    def is_trained(name: str) -> bool:
        if isinstance(method, Full) or name.startswith("decoder."):
            return True
        if name.startswith("backbone.patch_embed."):
            return method.train_patch_embed
        if isinstance(method, Frozen):
            return False
        return ".lora_" in name or (bool(re.search(r"\.norm[12]?\.", name)) and method.train_norms)

    return {name for name, _ in module.named_parameters() if is_trained(name)}


def some(task: Task, batch: int = 2, window: int = 32) -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(batch, task.num_bands, window, window),
        "mask": torch.randint(0, task.num_classes, (batch, window, window)),
        "domain": torch.zeros(batch, dtype=torch.long),
    }


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_exactly_these_parameters_train_and_no_others(method):
    task = make_task(steps=3, learning_rate=1e-2)
    module = build(method, task)
    declared = trainable(module)
    assert declared == expected(method, module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stage_task = StageTask(module, nn.Identity(), method.stages(task)[0], task.budget, declared, None, None, 3)
    optimiser = stage_task.configure_optimizers()
    for step in range(3):
        optimiser.zero_grad()
        stage_task.training_step(some(task), step).backward()
        optimiser.step()
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == declared


def test_full_trains_everything_and_the_others_keep_the_transformer():
    assert trainable(build(Full())) == {name for name, _ in build(Full()).named_parameters()}
    counts = [sum(p.numel() for p in build(m).parameters() if p.requires_grad) for m in (Frozen(), Lora(), Full())]
    assert counts == sorted(counts) and len(set(counts)) == 3
    for method in (Frozen(), Lora()):
        names = trainable(build(method))
        assert not any(re.search(r"(attn|mlp)\.\w+\.(base_layer\.)?(weight|bias)", name) for name in names)
        assert not {"backbone.cls_token", "backbone.pos_embed"} & names


def test_lora_wraps_every_linear_layer_of_every_block_and_nothing_else():
    module = build(Lora(rank=3))
    wrapped = {name.partition(".lora_A")[0] for name, _ in module.named_parameters() if ".lora_A" in name}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert wrapped == {f"backbone.blocks.{block}.{layer}" for block in range(SIZES["depth"]) for layer in layers}
    assert all(p.shape[0] == 3 for name, p in module.named_parameters() if "lora_A" in name)
    assert isinstance(module.backbone.patch_embed, PatchEmbed)
    assert {f"backbone.{name}" for name in block_layers(build(Full()).backbone, nn.Linear)} == wrapped


def test_untrained_lora_changes_nothing_and_a_trained_one_does():
    plain, adapted = build(Frozen()).eval(), build(Lora()).eval()
    images = some(make_task())["image"]
    for one, other in zip(plain.features(images), adapted.features(images), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(plain(images), adapted(images))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(parameter)
    assert not torch.allclose(plain(images), adapted(images))


@pytest.mark.parametrize("method", [Full(), Frozen(), Lora(dropout=0.1)], ids=repr)
@pytest.mark.parametrize("bands", [1, 3, 13, 32])
def test_any_number_of_bands_and_a_batch_of_one(method, bands):
    task = make_task(bands=bands, classes=5)
    module = build(method, task).train()
    logits = module(some(task, batch=1)["image"])
    assert logits.shape == (1, 5, 32, 32)
    logits.square().mean().backward()
    gradients = [p.grad for p in module.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_the_same_seed_builds_the_same_weights():
    one, same = build(Lora()).state_dict(), build(Lora()).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_the_linear_probe_is_a_linear_map_of_normed_tokens():
    task = make_task()
    module = build(LinearProbe(), task).eval()
    vit, images = module.backbone, some(task)["image"]
    nn.init.normal_(vit.norm.weight)
    nn.init.normal_(vit.norm.bias)
    with torch.no_grad():
        tokens = vit.forward_features(images)[:, vit.num_prefix_tokens :]  # timm's, behind the norm
        weight, bias = module.decoder.classifier.weight[:, :, 0, 0], module.decoder.classifier.bias
        logits = (tokens @ weight.T + bias).transpose(1, 2).unflatten(2, (4, 4))
        expected = nn.functional.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
        torch.testing.assert_close(module(images), expected)
        torch.testing.assert_close(module.features(images)[-1].flatten(2).transpose(1, 2), tokens)
        plain = build(Frozen(train_patch_embed=False), task).eval()
        for one, other in zip(module.features(images)[:-1], plain.features(images)[:-1], strict=True):
            assert torch.equal(one, other), "other levels are block outputs, as decoders take them"
    assert trainable(module) == {"decoder.classifier.weight", "decoder.classifier.bias"}


@pytest.mark.parametrize("name", [name for name in backbone_entries() if load_backbone(name).kind == "vit"])
def test_every_vision_transformer_has_a_norm_for_the_probe(name):
    spec = replace(load_backbone(name), named_weights=False).for_sensor(SENTINEL2, 10.0)
    with torch.device("meta"):
        norm = spec.build(len(SENTINEL2), 4 * spec.patch).norm
    assert isinstance(norm, nn.LayerNorm) and norm.normalized_shape == (spec.width,)


@pytest.mark.parametrize("name", ["resnet50", "swin-tiny"])
def test_the_maps_of_a_pyramid_pass_no_norm(name):
    task = replace(make_task(window=64), backbone=load_backbone(name))
    module = build(LinearProbe(), task).eval()
    with torch.no_grad():
        plain = module.backbone.forward_intermediates(torch.ones(1, 4, 64, 64), [3])[0]
        assert torch.equal(module.features(torch.ones(1, 4, 64, 64))[-1], plain)


@pytest.mark.parametrize("norms", [False, True])
def test_bitfit_trains_biases_and_norms_if_asked_for(norms):
    module = build(BitFit(train_norms=norms, train_patch_embed=False))
    names = {name for name, _ in module.named_parameters()}
    wanted = {name for name in names if name.startswith("decoder.") or name.endswith(".bias")}
    wanted |= {name for name in names if norms and re.search(r"\.norm[12]\.weight$", name)}
    assert trainable(module) == wanted
