"""SpectralGPT: tokens in groups of three bands, published files, and the same numbers as their own layers give."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SIZES, make_request, make_task, make_tree, run_main
from torch import Tensor
from torch.nn import functional

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.features.modules import check_parts
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import Backbone, get_backbone, load_backbone
from spectral_tl_bench.models.backbones.assemble import fit_state
from spectral_tl_bench.models.backbones.entries_spectral import WITHOUT_CIRRUS
from spectral_tl_bench.models.patch_embedding import SENTINEL2, bands_in_groups
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

State = dict[str, Tensor]
PLUS = "spectralgpt-plus"
SMALL = {"width": 32, "depth": 4, "heads": 4}


def published(width: int, depth: int, side: int, device: str = "cpu") -> State:
    """Tensors with the names and shapes of the published files, for images of ``side`` px and 12 bands."""
    generator = torch.Generator().manual_seed(7)

    def drawn(*shape: int) -> Tensor:
        if device == "meta":
            return torch.empty(*shape, device="meta")
        return 0.2 * torch.randn(*shape, generator=generator)

    places = (side // 8) ** 2
    state = {
        "mask_token": drawn(1, 1, 16), "pos_embed_spatial": drawn(1, places, width),
        "pos_embed_temporal": drawn(1, 4, width), "decoder_pos_embed_spatial": drawn(1, places, 16),
        "patch_embed.proj.weight": drawn(width, 1, 3, 8, 8), "patch_embed.proj.bias": drawn(width),
        "norm.weight": drawn(width), "norm.bias": drawn(width), "decoder_embed.weight": drawn(16, width),
        "decoder_blocks.0.attn.q.weight": drawn(16, 16), "decoder_pred.weight": drawn(192, 16),
    }  # fmt: skip
    for number in range(depth):
        for name, shape in (
            ("norm1", (width,)), ("norm2", (width,)), ("attn.q", (width, width)), ("attn.k", (width, width)),
            ("attn.v", (width, width)), ("attn.proj", (width, width)), ("mlp.fc1", (4 * width, width)),
            ("mlp.fc2", (width, 4 * width)),
        ):  # fmt: skip
            state[f"blocks.{number}.{name}.weight"] = drawn(*shape)
            state[f"blocks.{number}.{name}.bias"] = drawn(shape[0])
    return state


def save(state: State, path: Path, prefix: str = "") -> Path:
    """As MAE's training program does, with the optimiser inside."""
    weights = {prefix + name: value for name, value in state.items()}
    optimiser = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4}]}
    args = argparse.Namespace(lr=1e-4, output_dir="somewhere", betas=(0.9, 0.95), resume=None)
    content = {"model": weights, "optimizer": optimiser, "epoch": 199, "scaler": {"scale": 65536.0}, "args": args}
    torch.save(content, path)
    return path


def own_forward(state: State, images: Tensor, heads: int, groups: int) -> list[Tensor]:
    """Outputs (B, t, L, D) of all blocks, from the file's tensors alone: three layers for queries, keys and values."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    height, width_px = images.shape[-2:]
    filters, places = state["patch_embed.proj.weight"], (height // 8) * (width_px // 8)
    parts = [  # one group of three bands at a time, one patch at a time
        functional.unfold(images[:, 3 * group : 3 * group + 3], 8, stride=8).transpose(1, 2) @ filters.flatten(1).T
        for group in range(groups)
    ]
    x = torch.cat(parts, dim=1) + state["patch_embed.proj.bias"]
    tables = state["pos_embed_spatial"].repeat(1, groups, 1), state["pos_embed_temporal"].repeat_interleave(places, 1)
    x = x + tables[0] + tables[1]
    outputs = []
    for block in range(sum(name.endswith("attn.q.weight") and name.startswith("blocks.") for name in state)):
        name, y = f"blocks.{block}", norm(f"blocks.{block}.norm1", x)
        q, k, v = (
            linear(f"{name}.attn.{part}", y).unflatten(2, (heads, -1)).transpose(1, 2) for part in ("q", "k", "v")
        )
        shares = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)
        x = x + linear(f"{name}.attn.proj", (shares @ v).transpose(1, 2).flatten(2))
        x = x + linear(f"{name}.mlp.fc2", functional.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x))))
        outputs.append(x.unflatten(1, (groups, places)))
    return outputs


def maps_of(network: Any, spec: Backbone, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return network.forward_intermediates(
            images, indices=list(spec.levels), norm=False, output_fmt="NCHW", intermediates_only=True
        )


@pytest.mark.parametrize(
    ("name", "side", "parameters", "tokens"),
    [(PLUS, 128, 85_403_904, 1024), ("spectralgpt", 96, 85_317_888, 576)],
)
def test_the_published_sizes(name, side, parameters, tokens):
    spec = get_backbone(name, "none").for_sensor(WITHOUT_CIRRUS, 10.0)
    assert spec.card.image_size == side
    with torch.device("meta"):
        network = spec.build(12, side)
        assert network.patch_embed(torch.empty(1, 12, side, side)).shape == (1, tokens, 768)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("name", "side"), [(PLUS, 128), ("spectralgpt", 96)])
def test_true_sizes_of_the_files_fit(name, side):
    spec = get_backbone(name, "none").for_sensor(WITHOUT_CIRRUS, 10.0)
    with torch.device("meta"):
        network = spec.build(12, 224)
    fit = fit_state(spec, network, published(768, 12, side, "meta"), 12)
    assert (fit.matched, fit.missing, fit.unexpected) == (1.0, (), ())
    assert fit.state["blocks.11.attn.qkv.weight"].shape == (2304, 768)
    assert fit.state["pos_embed_spatial"].shape == (1, 784, 768)


@pytest.mark.parametrize(("prefix", "cirrus"), [("", False), ("module.", True)])
def test_the_file_s_own_layers_give_the_same_numbers(tmp_path, prefix, cirrus):
    state = published(32, 4, 128)
    spec = get_backbone(PLUS, str(save(state, tmp_path / "plus.pth", prefix)), **SMALL)
    facts = spec.facts()
    assert facts["weights"] | {"digest": ""} == {
        "source": "file", "digest": "", "matched": 1.0, "missing": 0, "unexpected": 0,
    }  # fmt: skip
    assert facts["pretrained"] == "spectralgpt-plus-fmow-bigearthnet" and facts["patch_embedding"] == "groups"
    spec = spec.for_sensor(SENTINEL2 if cirrus else WITHOUT_CIRRUS, 10.0)
    images = torch.randn(1, len(spec.wavelengths), 128, 128)
    network = spec.build(len(spec.wavelengths), 128).eval()
    read = torch.cat([images[:, :10], images[:, 11:]], dim=1) if cirrus else images
    for level, one in zip(spec.levels, maps_of(network, spec, images), strict=True):
        expected = own_forward(state, read, 4, 4)[level].mean(dim=1)
        torch.testing.assert_close(one.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


def test_cirrus_is_not_read():
    spec = replace(get_backbone(PLUS, "none", **SMALL), seed=1).for_sensor(SENTINEL2, 10.0)
    network, images = spec.build(13, 32).eval(), torch.randn(1, 13, 32, 32)
    before, changed = maps_of(network, spec, images)[3], images.clone()
    changed[:, 10] += 5
    assert torch.equal(maps_of(network, spec, changed)[3], before)
    changed[:, 9] += 5
    assert not torch.allclose(maps_of(network, spec, changed)[3], before)


def test_positions_are_resized_in_both_directions(tmp_path):
    state = published(32, 4, 96)
    path = save(state, tmp_path / "gpt.pth")
    spec = get_backbone("spectralgpt", str(path), **SMALL)
    bands = tuple(0.45 + 0.015 * band for band in range(32))
    network = spec.for_sensor(bands, 10.0).build(32, 160)
    grid = state["pos_embed_spatial"].reshape(1, 12, 12, 32).permute(0, 3, 1, 2)
    wanted = functional.interpolate(grid, (20, 20), mode="bicubic", antialias=True)
    torch.testing.assert_close(network.pos_embed_spatial.detach(), wanted.flatten(2).transpose(1, 2))
    rows = functional.interpolate(state["pos_embed_temporal"].transpose(1, 2), 11, mode="linear")
    torch.testing.assert_close(network.pos_embed_temporal.detach(), rows.transpose(1, 2))
    same = spec.for_sensor(WITHOUT_CIRRUS, 10.0).build(12, 96)
    assert torch.equal(same.pos_embed_spatial, state["pos_embed_spatial"])
    assert torch.equal(same.pos_embed_temporal, state["pos_embed_temporal"])


HYPERSPECTRAL = tuple(round(0.401 + 0.01 * band, 3) for band in range(210))


@pytest.mark.parametrize(
    ("wavelengths", "read"),
    [
        (SENTINEL2, [*range(10), 11, 12]),
        (tuple(reversed(SENTINEL2)), [12 - band for band in range(13) if band != 10]),
        (tuple(centre + 0.015 for centre in WITHOUT_CIRRUS), list(range(12))),
        (WITHOUT_CIRRUS * 2, list(range(24))),
        (HYPERSPECTRAL, [4, 9, 16, 26, 30, 34, 38, 44, 46, 54, 121, 179]),
        ((0.49, 0.56, 0.665, 0.842), [0, 1, 2, 3, 3, 3]),
        ((0.49, 0.56, 0.665), [0, 1, 2]),
        ((0.6,), [0, 0, 0]),
    ],
)
def test_the_pretrained_bands_where_they_are_and_all_of_them_elsewhere(wavelengths, read):
    assert bands_in_groups(wavelengths, WITHOUT_CIRRUS, always_nearest=False) == read


@pytest.mark.parametrize(
    ("benchmark", "groups", "nearest"), [("dfc2020-spring", 4, 4), ("whuohs-s2t", 11, 4), ("mts12-n2s", 8, 4)]
)
def test_the_benchmarks_of_table_one(benchmark, groups, nearest):
    sensor = builtin_benchmarks()[benchmark].sensor
    bands = len(sensor.wavelengths)
    task = make_task(bands=bands, window=32)
    for strategy, expected in ((None, groups), ("nearest", nearest)):
        spec = get_backbone(PLUS, "none", strategy, **SMALL).for_sensor(sensor.wavelengths, sensor.gsd)
        module = make_method("full").build(replace(task, wavelengths=sensor.wavelengths, backbone=spec))
        assert module.backbone.patch_embed.groups == expected
        assert module.backbone.patch_embed(torch.randn(1, bands, 32, 32)).shape == (1, expected * 16, 32)
        module(torch.randn(2, bands, 32, 32)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_what_is_said_of_other_choices(tmp_path):
    with pytest.raises(UserError, match=r"cannot have the patch embedding 'mean'[\s\S]*groups or nearest, its own"):
        get_backbone(PLUS, "none", "mean")
    with pytest.raises(UserError, match=r"cannot have the patch embedding 'groups'[\s\S]*one of random, repeat"):
        get_backbone("compact", "none", "groups")
    with pytest.raises(UserError, match="0 are given for 12 bands"):
        get_backbone(PLUS, "none", **SMALL).build(12, 32)
    with pytest.raises(UserError, match="pos_embed_temporal: expected 1 x 4 x 32, found 1 x 4 x 64"):
        get_backbone(PLUS, str(save(published(64, 4, 128), tmp_path / "wide.pth")), **SMALL)
    with pytest.raises(UserError, match="which weights for spectralgpt-plus"):
        get_backbone(PLUS)
    lacking = {name: value for name, value in published(32, 4, 128).items() if ".attn.k." not in name}
    spec = get_backbone(PLUS, str(save(lacking, tmp_path / "lacking.pth")), **SMALL)
    assert spec.weights is not None and spec.weights.missing == 8
    assert spec.weights.examples[0] == "missing blocks.0.attn.qkv.weight"


def test_features_can_be_kept():
    spec = get_backbone(PLUS, "none", **SMALL).for_sensor(WITHOUT_CIRRUS, 10.0)
    task = replace(make_task(bands=12, window=32), wavelengths=WITHOUT_CIRRUS, backbone=spec)
    module = make_method("frozen", {"train_patch_embed": False}).build(task)
    maps, used = check_parts(module, torch.randn(2, 12, 32, 32), "frozen")
    assert [tuple(one.shape) for one in maps] == [(2, 32, 4, 4)] * 4 and used == (0, 1, 2, 3)


def test_adapters_between_blocks_see_one_map_per_group():
    spec = get_backbone(PLUS, "none", **SMALL).for_sensor(WITHOUT_CIRRUS, 10.0)
    task = replace(make_task(bands=12, window=32), wavelengths=WITHOUT_CIRRUS, backbone=spec)
    module = make_method("earth-adapter").build(task)
    seen: list[tuple[Any, ...]] = []
    module.backbone.adapter.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs))
    outputs: list[Tensor] = []
    module.backbone.blocks[1].register_forward_pre_hook(lambda _module, inputs: outputs.append(inputs[0]))
    module(torch.randn(2, 12, 32, 32))
    assert seen[0][0].shape == (8, 16, 32) and seen[0][2] == (4, 4)
    torch.testing.assert_close(outputs[0], seen[0][0].reshape(2, 64, 32))  # untrained, it adds nothing


@pytest.mark.parametrize("method", ["vpt-shallow", "vpt-deep"])
def test_prompts_leave_the_maps_free_of_them(method):
    spec = replace(get_backbone(PLUS, "none", **SMALL), seed=2).for_sensor(WITHOUT_CIRRUS, 10.0)
    task = replace(make_task(bands=12, window=32), wavelengths=WITHOUT_CIRRUS, backbone=spec)
    module = make_method(method, {"prompts": 5}).build(task).eval()
    images, lengths = torch.randn(1, 12, 32, 32), []
    inner = getattr(module.backbone, "vit", module.backbone)
    inner.blocks[-1].attn.register_forward_pre_hook(lambda _module, inputs: lengths.append(inputs[0].shape[1]))
    maps = module.features(images)
    assert lengths == [64 + 5] and [tuple(one.shape) for one in maps] == [(1, 32, 4, 4)] * 4
    with torch.no_grad():
        tokens = inner._pos_embed(inner.patch_embed(images))
        for block in inner.blocks:
            tokens = block(tokens)  # hooks put the prompts in
    last = tokens[:, -64:].unflatten(1, (4, 16)).mean(dim=1)
    torch.testing.assert_close(maps[3].flatten(2).transpose(1, 2), last)


def test_the_row_of_table_one_runs(tmp_path, monkeypatch, capsys):
    root = make_tree(tmp_path / "data")
    assert run_main(monkeypatch, ["backbones", "show", PLUS]) == 0
    printed = capsys.readouterr().out
    assert "85,403,904 parameters for 12 bands" in printed and "three by three" in printed and "GPL-3.0" in printed
    for name, sizes in ((PLUS, SIZES), ("hypersigma-large", SIZES | {"depth": 8})):
        request = make_request(root, "full", backbone=name, weights="none", backbone_sizes=sizes)
        cells, broken = plan(request, lambda _line: None)
        assert not broken
        outcome = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _line: None)[0]
        assert outcome.state == "done", outcome.message
        assert outcome.record is not None
        facts = read_record(outcome.record).backbone
        assert facts is not None and facts.name == name
        assert facts.patch_embedding == ("groups" if name == PLUS else "random")


def test_published_levels_belong_to_the_published_depth():
    assert load_backbone("hypersigma-huge").levels == (10, 15, 20, 31)
    assert get_backbone("hypersigma-huge", "none", depth=8).levels == (1, 3, 5, 7)
    assert load_backbone(PLUS).levels == (2, 5, 8, 11)
