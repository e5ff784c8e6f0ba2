"""DINOv2: files as Meta, timm and Hugging Face publish them, tables of positions, and the real weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from real import HLS, pattern, short_run
from safetensors.torch import save_file
from shared import SHARED
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.backbones.files import read_state
from spectral_tl_bench.models.patch_embedding import RGB, mixed, wavelength

VARIABLE = "STBENCH_TEST_DINOV2"
REAL = Path(os.environ.get(VARIABLE) or SHARED / "weights" / "dinov2-vits14.safetensors")
CHIPS = SHARED / "data" / "hls-worldcover"

needs_real = pytest.mark.skipif(
    not REAL.is_file(), reason=f"needs DINOv2 ViT-S/14 in timm's names: the file that {VARIABLE} names"
)

SIZES = {"width": 32, "depth": 3, "heads": 2}


def network(side: int = 518, **more: Any) -> nn.Module:
    """timm's, with noise on its weights; layer scales start too small to see anything."""
    torch.manual_seed(0)
    one = timm.create_model(
        "vit_small_patch14_dinov2", img_size=side, num_classes=0, embed_dim=32, depth=3, num_heads=2, **more
    )
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return one.eval()


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of Hugging Face's Dinov2Model."""
    names = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.", "norm.": "layernorm.",
        "blocks.": "encoder.layer.",
        "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1",
    }  # fmt: skip
    found = {"embeddings.mask_token": torch.zeros(1, 32)}
    for name, value in state.items():
        new = name
        for old, other in names.items():
            if name.startswith(old) or (old[:2] in ("at", "ls") and old in name):
                new = new.replace(old, other, 1)
        if "attn.qkv" in new:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[new.replace("attn.qkv", f"attention.attention.{part}")] = piece.clone()
        else:
            found[new] = value
    return found


PUBLISHED = {
    "timm": lambda state: state,
    "meta": lambda state: state | {"mask_token": torch.zeros(1, 32)},
    "transformers": as_transformers,
    "a model of transformers around it": lambda state: {f"dinov2.{k}": v for k, v in as_transformers(state).items()},
}


@pytest.mark.parametrize("publisher", PUBLISHED)
def test_every_publisher_s_file_is_the_same_network(tmp_path, publisher):
    theirs = network()
    path = tmp_path / "weights.safetensors"
    save_file(PUBLISHED[publisher](theirs.state_dict()), path)
    spec = get_backbone("dinov2-small", str(path), **SIZES)
    assert spec.weights is not None
    assert (spec.weights.matched, spec.weights.missing, spec.weights.unexpected) == (1.0, 0, 0)
    ours = spec.for_sensor(RGB, None).build(3, 518)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("side", [28, 126, 224])
def test_positions_are_resampled_as_timm_does(tmp_path, side):
    save_file(network().state_dict(), tmp_path / "weights.safetensors")
    theirs = network(side)
    theirs.load_state_dict(checkpoint_filter_fn(network().state_dict(), theirs))
    ours = get_backbone("dinov2-small", str(tmp_path / "weights.safetensors"), **SIZES).for_sensor(RGB, None)
    built = ours.build(3, side).eval()
    images = torch.randn(1, 3, side, side)
    assert built.pos_embed.shape == (1, 1 + (side // 14) ** 2, 32)
    with torch.no_grad():
        torch.testing.assert_close(built.forward_features(images), theirs.forward_features(images))


def test_registers_are_not_dropped_in_silence(tmp_path):
    save_file(network().state_dict() | {"register_tokens": torch.zeros(1, 4, 32)}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"register tokens[\s\S]*timm:vit_small_patch14_reg4_dinov2"):
        get_backbone("dinov2-small", str(tmp_path / "weights.safetensors"), **SIZES)


def test_another_size_is_said(tmp_path):
    save_file(network().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"do not have the shapes of dinov2-base[\s\S]*expected 768, found 32"):
        get_backbone("dinov2-base", str(tmp_path / "weights.safetensors"))


# ------------------------------------------------------------------------------------------------ the real weights


def corner(maps: list[Tensor]) -> Tensor:
    return torch.stack([one[0, :3, 1, 2] for one in maps])


MAPS = {
    RGB: [[0.0183, -0.0532, 0.0064], [0.0169, -0.0198, -0.0590], [-0.2805, 0.1049, -0.2290], [0.6106, 0.0543, 1.5956]],
    HLS: [[-0.0048, -0.0591, 0.0285], [-0.0510, 0.0148, -0.0995], [-0.3170, 0.2001, -0.2387], [0.5715, 0.1697, 1.2142]],
}


@needs_real
@pytest.mark.parametrize(("bands", "expected"), MAPS.items())
def test_maps_of_the_real_weights(bands, expected):
    spec = get_backbone("dinov2-small", str(REAL)).for_sensor(bands, 30.0)
    assert spec.weights is not None and (spec.weights.missing, spec.weights.unexpected) == (0, 0)
    built = spec.build(len(bands), 126).eval()
    filters = read_state(REAL)["patch_embed.proj.weight"]
    torch.testing.assert_close(built.patch_embed.proj.weight.detach(), mixed(filters, wavelength(bands, RGB)))
    with torch.no_grad():
        maps = built.forward_intermediates(
            pattern(len(bands), 126), indices=list(spec.levels), norm=False, intermediates_only=True
        )
    torch.testing.assert_close(corner(maps), torch.tensor(expected), rtol=1e-3, atol=1e-3)


@needs_real
def test_the_real_weights_under_timm_s_name():
    spec = get_backbone("timm:vit_small_patch14_dinov2", str(REAL))
    assert spec.weights is not None and (spec.weights.missing, spec.weights.unexpected) == (0, 0)


@needs_real
@pytest.mark.slow
@pytest.mark.skipif(not CHIPS.exists(), reason="needs the real chips")
@pytest.mark.parametrize("method", ["frozen", "lora", "linear-probe"])
def test_real_weights_on_real_chips(few_chips, tmp_path, method):
    record = short_run(method, "dinov2-small", REAL, few_chips, tmp_path / "runs", window=126)
    assert record.backbone.pretrained == "dinov2-lvd142m" and record.backbone.weights.matched == 1
