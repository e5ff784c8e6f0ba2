"""Weights with other patches than they were trained with: filters by FlexiViT's pseudo-inverse, positions by grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.backbones.lines import weights_line
from spectral_tl_bench.models.patch_embedding import RGB, resampled

SIZES = {"width": 48, "depth": 2, "heads": 4}


def _resized(images: Tensor, side: int) -> Tensor:
    """As timm resizes for the pseudo-inverse."""
    return functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def test_a_larger_patch_has_the_response_of_the_smaller_one():
    weight = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    patch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = torch.einsum("bchw,dchw->bd", _resized(patch, 16), resampled(weight, 16))
    assert torch.allclose(found, torch.einsum("bchw,dchw->bd", patch, weight), atol=1e-3)


def test_a_smaller_patch_has_nearly_the_response_where_filters_and_image_are_smooth():
    generator = torch.Generator().manual_seed(0)
    weight = _resized(torch.randn(64, 3, 3, 3, generator=generator), 14)
    smooth = _resized(torch.randn(1, 3, 3, 3, generator=generator), 14)
    small = resampled(weight, 4)
    assert small.shape == (64, 3, 4, 4)
    seen = torch.einsum("bchw,dchw->d", _resized(smooth, 4), small)
    wanted = torch.einsum("bchw,dchw->d", smooth, weight)
    assert torch.corrcoef(torch.stack([seen, wanted]))[0, 1] > 0.98
    assert 0.9 < float(seen.norm() / wanted.norm()) < 1.1, "not as many times smaller as there are fewer pixels"


def test_what_is_no_filter_stays():
    weight = torch.randn(4, 3, 8, 8)
    assert resampled(weight, 8) is weight and resampled(weight[0], 4).shape == (3, 8, 8)
    assert resampled(weight.to("meta"), 2).shape == (4, 3, 2, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = get_backbone("dinov2-small", "none", **SIZES).build(3, 70)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def test_weights_take_another_patch_with_positions_and_bands(file: Path):
    spec = get_backbone("dinov2-small", str(file), "wavelength", patch=4, **SIZES)
    assert spec.weights and spec.weights.matched == 1 and spec.facts()["patch"] == 4
    line = weights_line(spec)
    assert line is not None and "patches of 4 px, to which filters of 14 px are resampled" in line
    usual: Any = get_backbone("dinov2-small", str(file), **SIZES).for_sensor(RGB, 10.0).build(3, 56)
    network: Any = spec.for_sensor(RGB, 10.0).build(3, 16)
    assert torch.allclose(network.patch_embed.proj.weight, resampled(usual.patch_embed.proj.weight, 4), atol=1e-5)
    assert torch.equal(network.pos_embed, usual.pos_embed), "both have a grid of 4 x 4"
    assert torch.equal(network.blocks[1].mlp.fc1.weight, usual.blocks[1].mlp.fc1.weight)
    wide: Any = spec.for_sensor((0.44, 0.49, 0.56, 0.665, 0.86), 10.0).build(5, 32)
    assert wide.patch_embed.proj.weight.shape == (48, 5, 4, 4) and wide.pos_embed.shape == (1, 65, 48)
    low: Any = get_backbone("dinov2-small", str(file), "lowrank", patch=4, **SIZES).for_sensor(RGB, 10.0).build(3, 16)
    assert low.patch_embed.proj.frozen.weight.shape == (48, 3, 4, 4)


def test_a_file_with_patches_that_nobody_declared_is_still_refused(file: Path):
    with pytest.raises(UserError, match=r"48 x 3 x 16 x 16, found 48 x 3 x 14 x 14"):
        get_backbone("vit-small", str(file), **SIZES)
    with pytest.raises(UserError, match=r"48 x 3 x 8 x 8, found 48 x 3 x 14 x 14"):
        get_backbone("vit-small", str(file), patch=8, **SIZES)


def test_the_same_patch_is_no_change(file: Path):
    spec = get_backbone("dinov2-small", str(file), patch=14, **SIZES)
    assert spec.trained_patch is None and "resampled" not in str(weights_line(spec))
