"""Backbones that are told the wavelengths: the same numbers as TorchGeo's models, and what methods need of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_task
from torch import Tensor, nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import Backbone, get_backbone
from spectral_tl_bench.models.backbones.spectral import SENTINEL2_WIDTHS, bandwidths
from spectral_tl_bench.models.patch_embedding import SENTINEL2

WAVELENGTHS = (0.490, 0.560, 0.665, 0.842, 1.610)
TINY = {"width": 48, "depth": 4, "heads": 4}


def randomised(network: nn.Module) -> nn.Module:
    """Tables that start at zero would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def block_outputs(network: nn.Module, call: Any) -> list[Tensor]:
    """Outputs of all blocks, without the class token."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _m, _i, out: outputs.append(out[:, 1:])) for block in network.blocks]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return outputs


def ours(name: str, path: Path, side: int, gsd: float | None, **sizes: int) -> tuple[Backbone, nn.Module]:
    spec = get_backbone(name, str(path), **sizes).for_sensor(WAVELENGTHS, gsd)
    return spec, spec.build(len(WAVELENGTHS), side).eval()


def check(network: nn.Module, spec: Backbone, images: Tensor, expected: list[Tensor]) -> None:
    with torch.no_grad():
        maps = network.forward_intermediates(
            images, indices=list(spec.levels), norm=False, output_fmt="NCHW", intermediates_only=True
        )
    for level, found in zip(spec.levels, maps, strict=True):
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected[level], rtol=1e-4, atol=1e-5)


def test_dofa_computes_what_torchgeo_s_does(tmp_path):
    from torchgeo.models.dofa import DOFA

    theirs = randomised(DOFA(img_size=64, embed_dim=48, depth=4, num_heads=4, num_classes=0))
    torch.save(theirs.state_dict(), tmp_path / "dofa.pth")
    images = torch.randn(2, 5, 64, 64)
    expected = block_outputs(theirs, lambda: theirs(images, list(WAVELENGTHS)))
    spec, network = ours("dofa-base", tmp_path / "dofa.pth", 64, 10.0, **TINY)
    check(network, spec, images, expected)
    assert spec.weights is not None and spec.weights.unexpected == 0
    assert spec.facts()["patch_embedding"] == "hypernetwork"
    assert not network.pos_embed.requires_grad


def test_panopticon_computes_what_torchgeo_s_does(tmp_path):
    panopticon = pytest.importorskip("torchgeo.models.panopticon", reason="this TorchGeo has no Panopticon")
    import timm

    network = timm.create_model(
        "vit_base_patch14_dinov2", img_size=56, embed_dim=48, depth=4, num_heads=4, num_classes=0
    )
    network.patch_embed = panopticon.PanopticonPE(144, 48, 14, {"attn_cfg": {"num_heads": 16}}, 56)
    theirs = randomised(network)
    torch.save(theirs.state_dict() | {"mask_token": torch.zeros(1, 48)}, tmp_path / "panopticon.pth")
    images = torch.randn(2, 5, 56, 56)
    channels = (torch.tensor(WAVELENGTHS) * 1000).expand(2, -1)
    expected = block_outputs(theirs, lambda: theirs({"imgs": images, "chn_ids": channels.clone()}))
    spec, built = ours("panopticon", tmp_path / "panopticon.pth", 56, 10.0, **TINY)
    check(built, spec, images, expected)


@pytest.mark.parametrize("gsd", [None, 10.0])
def test_copernicus_fm_computes_what_torchgeo_s_does(tmp_path, gsd):
    copernicus = pytest.importorskip("torchgeo.models.copernicusfm", reason="this TorchGeo has no Copernicus-FM")
    theirs = randomised(copernicus.CopernicusFM(img_size=64, embed_dim=48, depth=4, num_heads=4))
    torch.save(theirs.state_dict(), tmp_path / "copernicus.pth")
    images, nan = torch.randn(2, 5, 64, 64), float("nan")
    area = nan if gsd is None else (16 * gsd / 1000) ** 2
    metadata = torch.tensor([[nan, nan, nan, area]] * 2)
    centres = [value * 1000 for value in WAVELENGTHS]
    widths = [65.0, 35.0, 30.0, 115.0, 90.0]  # those of Sentinel-2's bands
    expected = block_outputs(theirs, lambda: theirs(images, metadata, centres, widths))
    spec, built = ours("copernicus-fm", tmp_path / "copernicus.pth", 64, gsd, **TINY)
    check(built, spec, images, expected)


@pytest.mark.parametrize(
    ("centres", "widths"),
    [
        (SENTINEL2, SENTINEL2_WIDTHS),
        ((0.833, 0.490), (115, 65)),
        ((0.482, 0.561, 0.655, 0.865, 1.609, 2.201), (65, 35, 30, 20, 90, 180)),
        ((0.49, 0.842) * 3, (65, 115) * 3),
        ((0.842, 0.850, 0.858), (5, 5, 5)),  # two of them would be Sentinel-2's B8
        ((0.49, 0.52, 1.2), (15, 15, 100)),
        ((1.2,), (50,)),
    ],
)
def test_copernicus_fm_is_told_bandwidths(centres, widths):
    found = bandwidths(torch.tensor(centres) * 1000)
    torch.testing.assert_close(found, torch.tensor(widths, dtype=torch.float32))


def test_scale_mae_knows_the_ground_sampling_distance(tmp_path):
    sizes = {"width": 32, "depth": 1, "heads": 2, "patch": 16}
    spec = replace(get_backbone("scalemae-large", "none", **sizes), seed=1)
    images = torch.randn(1, 3, 64, 64)

    def tokens(gsd: float | None) -> Tensor:
        return spec.for_sensor((0.6, 0.5, 0.4), gsd).build(3, 64)(images)

    assert torch.equal(tokens(None), tokens(1.0)) and not torch.allclose(tokens(1.0), tokens(10.0))


@pytest.mark.parametrize("name", ["dofa-base", "copernicus-fm"])
def test_wavelengths_change_what_is_read(name):
    spec = replace(get_backbone(name, "none", **TINY), seed=1)
    images = torch.randn(1, 2, 32, 32)
    one, other, same = (
        spec.for_sensor(wavelengths, None).build(2, 32)(images) for wavelengths in ((0.5, 0.6), (0.5, 2.2), (0.5, 0.6))
    )
    assert torch.equal(one, same) and not torch.allclose(one, other)


def test_wavelengths_must_be_told():
    spec = get_backbone("dofa-base", "none", **TINY)
    with pytest.raises(UserError, match="0 are given for 5 bands"):
        spec.build(5, 64)
    with pytest.raises(UserError, match="2 are given for 5 bands"):
        spec.for_sensor((0.5, 0.6), None).build(5, 64)


@pytest.mark.parametrize(
    ("name", "strategy"), [("dofa-base", "repeat"), ("compact", "hypernetwork"), ("panopticon", "lowrank")]
)
def test_a_hypernetwork_belongs_to_its_backbone(name, strategy):
    with pytest.raises(UserError, match="cannot have the patch embedding"):
        get_backbone(name, "none", strategy)


def spectral_task(name: str = "dofa-base") -> Task:
    task = make_task(window=56 if name == "panopticon" else 64)
    spec = get_backbone(name, "none", **TINY)
    return replace(task, backbone=spec.for_sensor(task.wavelengths, task.gsd))


@pytest.mark.parametrize("backbone", ["dofa-base", "panopticon", "copernicus-fm"])
@pytest.mark.parametrize("method", ["full", "frozen", "lora", "slr", "spectralx"])
def test_methods_work_on_it(method, backbone):
    task = spectral_task(backbone)
    module = make_method(method).build(task)
    logits = module(torch.randn(2, task.num_bands, task.window, task.window))
    assert logits.shape == (2, task.num_classes, task.window, task.window)
    logits.mean().backward()
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in module.parameters())


def test_an_older_torchgeo_is_said(monkeypatch):
    import torchgeo.models.dofa

    monkeypatch.delattr(torchgeo.models.dofa, "DOFAEmbedding")
    with pytest.raises(UserError, match="install a newer TorchGeo"):
        spectral_task().backbone.build(4, 64)
