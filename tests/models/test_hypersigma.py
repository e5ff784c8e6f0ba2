"""HyperSIGMA: published files, sparse attention one token at a time, and the fusion of both encoders."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_spectral_gpt import save
from tiny import make_task
from torch import Tensor
from torch.nn import functional

from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import Backbone, get_backbone
from spectral_tl_bench.models.backbones.assemble import fit_state
from spectral_tl_bench.models.backbones.hypersigma import SparseAttention
from spectral_tl_bench.models.backbones.spec import BackboneSpec
from spectral_tl_bench.runner.able import check_pair

State = dict[str, Tensor]
SMALL = {"width": 32, "depth": 8, "heads": 4}
BANDS = tuple(0.45 + 0.02 * band for band in range(7))


def published(kind: str, width: int, depth: int, device: str = "cpu") -> State:
    """Tensors with the names and shapes of the published files: ``spat`` or ``spec``."""
    generator = torch.Generator().manual_seed(len(kind) + (kind == "spec"))

    def drawn(*shape: int) -> Tensor:
        if device == "meta":
            return torch.empty(*shape, device="meta")
        return 0.2 * torch.randn(*shape, generator=generator)

    state = {
        "mask_token": drawn(1, 1, 16), "norm.weight": drawn(width), "norm.bias": drawn(width),
        "decoder_embed.weight": drawn(16, width), "decoder_blocks.0.attn.qkv.weight": drawn(48, 16),
    }  # fmt: skip
    if kind == "spat":
        state |= {
            "pos_embed": drawn(1, 64, width), "decoder_pos_embed": drawn(1, 64, 16),
            "patch_embed.proj.weight": drawn(width, 100, 8, 8), "patch_embed.proj.bias": drawn(width),
        }  # fmt: skip
    else:
        state |= {
            "pos_embed": drawn(1, 100, width), "decoder_pos_embed": drawn(1, 100, 16),
            "spat_map.weight": drawn(width, 4096), "spat_map.bias": drawn(width), "decoder_pred.weight": drawn(64, 16),
        }  # fmt: skip
    for number in range(depth):
        for name, shape in (
            ("norm1", (width,)), ("norm2", (width,)), ("attn.qkv", (3 * width, width)), ("attn.proj", (width, width)),
            ("mlp.fc1", (4 * width, width)), ("mlp.fc2", (width, 4 * width)),
        ):  # fmt: skip
            state[f"blocks.{number}.{name}.weight"] = drawn(*shape)
            state[f"blocks.{number}.{name}.bias"] = drawn(shape[0])
    return state


def small(name: str, *files: Path, **more: Any) -> Backbone:
    weights = "+".join(map(str, files)) or "none"
    return replace(get_backbone(name, weights, **{**SMALL, **more}), seed=3).for_sensor(BANDS, 10.0)


def maps_of(network: Any, spec: BackboneSpec, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return network.forward_intermediates(
            images, indices=sorted(set(spec.levels)), norm=False, output_fmt="NCHW", intermediates_only=True
        )


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def attend(state: State, name: str, x: Tensor, heads: int, grid: tuple[int, int]) -> Tensor:
    """Attention, sparse where the state has offsets."""
    q, k, v = (part.unflatten(2, (heads, -1)) for part in linear(state, f"{name}.qkv", x).chunk(3, dim=2))
    if f"{name}.sampling_offsets.weight" not in state:
        shares = (torch.einsum("bqhc,bkhc->bhqk", q, k) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return linear(state, f"{name}.proj", torch.einsum("bhqk,bkhc->bqhc", shares, v).flatten(2))
    offsets = linear(state, f"{name}.sampling_offsets", q.flatten(2)).reshape(*x.shape[:2], heads, -1, 2)
    return linear(state, f"{name}.proj", sampled(q, k, v, offsets, grid).flatten(2))


def sampled(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, grid: tuple[int, int]) -> Tensor:
    """One token, head and point at a time; q, k, v (B, N, heads, C), offsets (B, N, heads, points, x and y)."""
    rows, columns = grid
    out = torch.zeros_like(q)
    for image, token, head in itertools.product(range(q.shape[0]), range(q.shape[1]), range(q.shape[2])):
        keys, values = [], []
        for right, down in offsets[image, token, head].tolist():
            place = token % columns + right, token // columns + down  # in cells; its own centre without an offset
            left, top = math.floor(place[0]), math.floor(place[1])
            found = torch.zeros(2, q.shape[3])
            for x, y in itertools.product((left, left + 1), (top, top + 1)):
                if 0 <= x < columns and 0 <= y < rows:
                    share = (1 - abs(place[0] - x)) * (1 - abs(place[1] - y))
                    cell = y * columns + x
                    found += share * torch.stack([k[image, cell, head], v[image, cell, head]])
            keys.append(found[0])
            values.append(found[1])
        scores = torch.stack(keys) @ q[image, token, head] / math.sqrt(q.shape[3])
        out[image, token, head] = scores.softmax(dim=0) @ torch.stack(values)
    return out


def own_blocks(state: State, x: Tensor, count: int, grid: tuple[int, int], prefix: str = "") -> list[Tensor]:
    """Outputs of the first blocks."""
    outputs = []
    for number in range(count):
        name = f"{prefix}blocks.{number}"
        x = x + attend(state, f"{name}.attn", norm(state, f"{name}.norm1", x), 4, grid)
        hidden = functional.gelu(linear(state, f"{name}.mlp.fc1", norm(state, f"{name}.norm2", x)))
        x = x + linear(state, f"{name}.mlp.fc2", hidden)
        outputs.append(x)
    return outputs


def own_tokens(state: State, images: Tensor) -> Tensor:
    """Tokens of the patches, without positions."""
    patches = functional.unfold(images, 8, stride=8).transpose(1, 2)
    return patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]


@pytest.mark.parametrize(
    ("size", "blocks", "whole", "levels"),
    [
        ("base", 12, {2, 5, 8, 11}, (3, 5, 7, 11)),
        ("large", 24, {5, 11, 17, 23}, (7, 11, 15, 23)),
        ("huge", 32, {7, 15, 23, 31}, (10, 15, 20, 31)),
    ],
)
def test_true_sizes_of_the_files_fit(size, blocks, whole, levels):
    spec = get_backbone(f"hypersigma-{size}", "none").for_sensor(BANDS, 10.0)
    assert spec.levels == levels
    with torch.device("meta"):
        network = spec.build(7, 224)
    sparse = {number for number, block in enumerate(network.blocks) if isinstance(block.attn, SparseAttention)}
    assert sparse == set(range(blocks)) - whole
    assert network.blocks[0].attn.sampling_offsets.weight.shape == (spec.heads * 8 * 2, spec.width)
    fit = fit_state(spec, network, published("spat", spec.width, blocks, "meta"), 7)
    assert fit.unexpected == () and len(fit.missing) == 2 * len(sparse), "the offsets alone are new"
    assert all("sampling_offsets" in name for name in fit.missing)
    with torch.device("meta"):
        plain = get_backbone(f"hypersigma-{size}-global", "none").for_sensor(BANDS, 10.0).build(7, 64)
        both_spec = get_backbone(f"hypersigma-{size}-fused", "none").for_sensor(BANDS, 10.0)
        both = both_spec.build(7, 224)
    fit = fit_state(spec, plain, published("spat", spec.width, blocks, "meta"), 7)
    assert (fit.matched, fit.missing, fit.unexpected) == (1.0, (), ())
    spectral = {f"spectral.{name}": one for name, one in published("spec", spec.width, blocks, "meta").items()}
    fit = fit_state(both_spec, both, published("spat", spec.width, blocks, "meta") | spectral, 7)
    assert fit.unexpected == () and len(both.spectral.blocks) == levels[0] + 1
    new = ("sampling_offsets", "spectral.l1", "channel_weights")
    assert all(any(part in name for part in new) for name in fit.missing)


@pytest.mark.parametrize("form", ["-global", ""])
def test_the_file_s_own_layers_give_the_same_numbers(tmp_path, form):
    state = published("spat", 32, 8)
    spec = small(f"hypersigma-base{form}", save(state, tmp_path / "spat.pth", "module."))
    assert spec.weights is not None and (spec.weights.unexpected, spec.weights.missing) == (0, 0 if form else 8)
    assert spec.facts()["pretrained"] == "hypersigma-base" and spec.patch_embedding == "random"
    network, images = spec.build(7, 32).eval(), torch.randn(2, 7, 32, 32)
    own = dict(network.state_dict())
    assert all(torch.equal(own[name], state[name]) for name in state if name.startswith("blocks."))
    assert own["pos_embed"].shape == (1, 16, 32) and not own["pos_embed"].any(), "the file's table was never trained"
    with torch.no_grad():
        for name, value in own.items():
            if "sampling_offsets" in name:  # beyond the rim of the grid, too
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    outputs = own_blocks(own, own_tokens(own, images), 8, (4, 4))
    for level, one in zip(spec.levels, maps_of(network, spec, images), strict=True):
        torch.testing.assert_close(one.flatten(2).transpose(1, 2), outputs[level], rtol=1e-4, atol=1e-4)


def test_without_offsets_a_token_sees_itself():
    spec = small("hypersigma-base")
    network = spec.build(7, 32)
    attention = network.blocks[0].attn
    assert not attention.sampling_offsets.bias.any() and 0.01 < attention.sampling_offsets.weight.std() < 0.03
    tokens = torch.randn(2, 16, 32)
    with torch.no_grad():
        attention.sampling_offsets.weight.zero_()
        values = attention.qkv(tokens)[..., 64:]
        torch.testing.assert_close(attention(tokens), attention.proj(values))
    with pytest.raises(ValueError, match="got 15 tokens, expected a grid of 4 x 4"):
        attention(tokens[:, 1:])
    attention(tokens).square().mean().backward()
    assert attention.sampling_offsets.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("strategy", [None, "repeat", "mean"])
def test_filters_start_anew_unless_asked(tmp_path, strategy):
    state = published("spat", 32, 8)
    path = save(state, tmp_path / "spat.pth")
    spec = replace(get_backbone("hypersigma-base", str(path), strategy, **SMALL), seed=1).for_sensor(BANDS, 10.0)
    filters = spec.build(7, 32).patch_embed.proj.weight.detach()
    total = state["patch_embed.proj.weight"].sum(dim=1)
    assert torch.allclose(filters.sum(dim=1), total, atol=1e-4) == (strategy is not None)
    if strategy is None:
        assert torch.equal(filters, small("hypersigma-base").build(7, 32).patch_embed.proj.weight) is False
        assert filters.abs().max() < state["patch_embed.proj.weight"].abs().max()


@pytest.mark.parametrize("strategy", ["wavelength", "rgb", "lowrank"])
def test_wavelengths_of_its_bands_are_not_known(tmp_path, strategy):
    path = save(published("spat", 32, 8), tmp_path / "spat.pth")
    with pytest.raises(
        UserError, match=r"reads 100 bands, whose wavelengths are not known[\s\S]*repeat, mean or random"
    ):
        get_backbone("hypersigma-base", str(path), strategy, **SMALL)


def test_both_encoders_fused(tmp_path):
    spatial, spectral = published("spat", 32, 8), published("spec", 32, 8)
    first = save(spatial, tmp_path / "spat+1.pth", "module.")
    second = save(spectral, tmp_path / "spec.pth", "module.")
    spec = small("hypersigma-base-fused", first, second)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    assert spec.weights is not None and spec.weights.unexpected == 0
    assert spec.weights.digest not in digests and len(spec.weights.digest) == 64
    assert str(tmp_path) not in str(spec.facts())
    network, images = spec.build(7, 32).eval(), torch.randn(2, 7, 32, 32)
    own = dict(network.state_dict())
    assert torch.equal(own["spectral.blocks.1.mlp.fc1.weight"], spectral["blocks.1.mlp.fc1.weight"])
    assert torch.equal(own["blocks.1.mlp.fc1.weight"], spatial["blocks.1.mlp.fc1.weight"])
    assert "spectral.blocks.2.mlp.fc1.weight" not in own, "no block without a gradient is built"
    large = images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flatten(2)  # 32 px are 64 of half the size
    edges = [(math.floor(7 * band / 100), math.ceil(7 * (band + 1) / 100)) for band in range(100)]
    bands = torch.stack([large[:, start:end].mean(dim=1) for start, end in edges], dim=1)
    tokens = own_blocks(own, linear(own, "spectral.spat_map", bands), 2, (10, 10), "spectral.")[-1]
    numbers = linear(own, "spectral.l1", tokens).mean(dim=2)
    outputs = own_blocks(own, own_tokens(own, images), 8, (4, 4))
    for place, (level, one) in enumerate(zip(spec.levels, maps_of(network, spec, images), strict=True)):
        hidden = linear(own, f"channel_weights.{place}.0", numbers).relu()
        scale = 1 + linear(own, f"channel_weights.{place}.2", hidden).sigmoid()
        expected = outputs[level] * scale[:, None]
        torch.testing.assert_close(one.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-4)


def test_files_that_were_mixed_up(tmp_path):
    spat = save(published("spat", 32, 8), tmp_path / "spat.pth")
    spec = save(published("spec", 32, 8), tmp_path / "spec.pth")
    for name, files, message in (
        (
            "hypersigma-base",
            (spec,),
            r"the file holds the spectral encoder[\s\S]*where: \S*spec.pth[\s\S]*spat-vit-base",
        ),
        ("hypersigma-base-fused", (spec, spat), r"the file holds the spectral encoder[\s\S]*where: \S*spec.pth"),
        ("hypersigma-base-fused", (spat, spat), r"the second file does not hold the spectral encoder"),
        ("hypersigma-base-fused", (spat,), r"are in 2 files[\s\S]*spat-vit-base\S* and spec-vit-base[\s\S]*FILE\+FILE"),
        ("hypersigma-base-fused", (spat, tmp_path / "no.pth"), r"there are no weights[\s\S]*no.pth"),
    ):
        with pytest.raises(UserError, match=message):
            small(name, *files)
    with pytest.raises(UserError, match="there are no weights"):
        small("hypersigma-base", spat, spec)


@pytest.mark.parametrize("form", ["", "-global", "-fused"])
def test_everything_trains_in_full(form):
    spec = small(f"hypersigma-base{form}")
    task = replace(make_task(bands=7, window=32), wavelengths=BANDS, backbone=spec)
    module = make_method("full").build(task)
    images = torch.randn(2, 7, 32, 32)
    module(images).square().mean().backward()
    still = [name for name, one in module.named_parameters() if one.grad is None or not one.grad.any()]
    assert still == []


@pytest.mark.parametrize("method", ["spectralx", "vpt-deep", "vpt-shallow"])
def test_methods_that_need_another_sequence_name_the_form_that_has_it(method):
    task = replace(make_task(bands=7, window=32), wavelengths=BANDS, backbone=small("hypersigma-base"))
    with pytest.raises(MethodError, match=r"hypersigma-base[\s\S]*names that end in -global"):
        check_pair(method, make_method(method), task)
    plain = replace(task, backbone=small("hypersigma-base-global"))
    assert make_method(method).build(plain)(torch.randn(1, 7, 32, 32)).shape == (1, 3, 32, 32)


def test_maps_of_other_blocks_have_no_channel_weights():
    network = small("hypersigma-base-fused").build(7, 32)
    with pytest.raises(ValueError, match=r"maps after blocks \[1, 3, 5, 7\], not after \[0\]"):
        network.forward_intermediates(torch.randn(1, 7, 32, 32), indices=[0], intermediates_only=True)
