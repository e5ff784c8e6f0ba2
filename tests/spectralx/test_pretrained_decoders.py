"""Stage 1 with the decoder that comes with a backbone's weights: Scale-MAE's and SatMAE++'s, in their files' format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained import INNER, NAMES, SIZES, decoder_shapes, whole_state, with_decoder
from safetensors.torch import save_file
from tiny import make_task
from torch.nn import functional

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.models.backbones import Backbone, get_backbone
from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.training.pretrain import shared_stage
from spectral_tl_bench.training.stage_store import misfits
from spectralx import SpectralX
from spectralx.masked import hidden_pixels, patchify
from spectralx.method import SpectralXMethod, reconstruction_loss
from spectralx.pretrained_decoders import DecoderWeights, frequencies
from spectralx.reconstructions import reconstruct

KINDS = list(NAMES)
DRAWN = {
    "scale-mae": {"fcn_high.pred.7", "fcn_low.pred.7"},
    "satmae++": {
        "predict", "proj_up_conv", "proj_up_norm", "up_block.up_conv", "up_block.up_norm", "up_block.res_block.conv1",
        "up_block.res_block.conv2", "up_block.res_norm", "up_block.proj_out",
    },
}  # fmt: skip
"""Layers whose shape depends on the number of bands."""


def task_on(backbone: Backbone, bands: int = 4, **budget: Any) -> Task:
    task = make_task(bands=bands, **budget)
    return replace(task, backbone=replace(backbone, seed=3).for_sensor(task.wavelengths, 10.0))


def owners(names: set[str]) -> set[str]:
    """Modules of parameters in the reconstruction decoder, without the experts."""
    inner = {name.removeprefix("reconstruction.").rpartition(".")[0] for name in names}
    return {name for name in inner if "adapter" not in name}


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_of_the_weights_is_there_and_frozen(kind: str, bands: int, tmp_path: Path) -> None:
    task = task_on(with_decoder(kind, tmp_path / "whole.pth"), bands)
    method = SpectralXMethod()
    stage, segment = method.stages(task)
    assert stage.options["reconstruction_decoder"] == kind and stage.trainable is not None
    module = method.build(task)
    own = DecoderWeights.find(whole_state(kind))
    assert own is not None and own.bands == 3
    state = module.state_dict()
    decoder = {name: value for name, value in state.items() if name.startswith("reconstruction.")}
    experts = ("adapters.", "embed_adapter.", "predict_adapter.")
    plain = {name for name in decoder if not name.removeprefix("reconstruction.").startswith(experts)}
    assert {name.removeprefix("reconstruction.") for name in plain} == set(own.tensors) & {
        name.removeprefix("reconstruction.") for name in decoder
    }
    drawn = DRAWN[kind] if bands != 3 else set()
    trained = {name for name in plain if stage.trainable(name)}
    assert owners(trained) == drawn
    for name in plain - trained:
        assert torch.equal(state[name], own.tensors[name.removeprefix("reconstruction.")]), name
    assert {name for name in decoder if name not in plain} <= {n for n in decoder if stage.trainable(n)}
    assert not any(segment.trainable(name) for name in decoder)  # type: ignore[misc]

    before = {name: value.clone() for name, value in state.items()}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(stage.trainable(name))
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-3)
    generator, images = torch.Generator().manual_seed(1), torch.randn(2, bands, 32, 32)
    for _ in range(2):
        optimiser.zero_grad()
        loss = module.forward_reconstruction(images, generator)
        loss.backward()
        optimiser.step()
    assert loss.isfinite()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if name in plain} == trained
    beside = {name.split(".")[1] for name in changed if name.startswith("reconstruction.")}
    assert beside >= {"adapters", "embed_adapter"} | ({"predict_adapter"} if kind == "satmae++" else set())


def test_scale_mae_has_experts_in_three_blocks_and_satmaepp_in_eight(tmp_path: Path) -> None:
    for kind, count in (("scale-mae", 3), ("satmae++", 8)):
        module = SpectralXMethod().build(task_on(with_decoder(kind, tmp_path / f"{count}.pth")))
        assert module.reconstruction is not None
        assert len(module.reconstruction.blocks) == len(module.reconstruction.adapters) == count
        assert {float(b.norm1.eps) for b in module.reconstruction.blocks} == {1e-6}
        assert hasattr(module.reconstruction, "predict") == (kind == "satmae++")
        without = SpectralXMethod(aomoa=False).build(task_on(with_decoder(kind, tmp_path / f"{count}.pth")))
        assert not any("reconstruction" in n and "adapter" in n for n, _ in without.named_parameters())
        assert without.forward_reconstruction(torch.randn(1, 4, 32, 32)).isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_heads_and_positions(kind: str) -> None:
    """512 wide as published: 16 heads; positions in metres for Scale-MAE, in cells for SatMAE++."""
    weights = whole_state(kind)
    found = DecoderWeights.find(weights)
    assert found is not None
    decoder = found.build(3, 8, (4, 4), 10.0, None)
    assert decoder.blocks[0].attn.num_heads == INNER // 32
    cells = 10.0 if kind == "scale-mae" else 1.0
    angle = decoder.position[1, 0]  # the first cell to the east, the fastest frequency
    torch.testing.assert_close(angle, torch.tensor(cells).sin())


@pytest.mark.parametrize("prefix", ["", "module.", "model.student."])
def test_any_wrapping_of_the_file(prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: value.contiguous() for name, value in whole_state("scale-mae").items()}
    save_file(state, tmp_path / "whole.safetensors")
    backbone = get_backbone("scalemae-large", str(tmp_path / "whole.safetensors"), **SIZES)
    wanted = decoder_shapes("scale-mae", SIZES["width"], SIZES["patch"])
    for device in ("cpu", "meta"):
        found = backbone.decoder_tensors(device)
        assert {name: tuple(value.shape) for name, value in found.items()} == wanted
        assert {str(value.device) for value in found.values()} == {device}


@pytest.mark.parametrize("left_out", ["decoder_embed", "fcn_", "decoder_"])
def test_weights_without_a_whole_decoder_get_the_light_one(left_out: str, tmp_path: Path) -> None:
    state = {name: value for name, value in whole_state("scale-mae").items() if not name.startswith(left_out)}
    torch.save({"model": state}, tmp_path / "encoder.pth")
    task = task_on(get_backbone("scalemae-large", str(tmp_path / "encoder.pth"), **SIZES))
    method = SpectralXMethod()
    assert method.stages(task)[0].options["reconstruction_decoder"] == "light"
    assert len(method.build(task).reconstruction.blocks) == 2
    with pytest.raises(MethodError, match="bring no decoder") as caught:
        SpectralXMethod(reconstruction_decoder="pretrained").build(task)
    assert "reconstruction_decoder=light" in str(caught.value) and "encoder.pth" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_light_decoder_serves_where_it_is_asked_for(kind: str, tmp_path: Path) -> None:
    task = task_on(with_decoder(kind, tmp_path / "whole.pth"))
    for options in ({"reading": "paper"}, {"reconstruction_decoder": "light"}):
        method = SpectralXMethod(**options)
        assert method.stages(task)[0].options["reconstruction_decoder"] == "light"
        assert len(method.build(task).reconstruction.blocks) == 2


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("scale-mae", "fcn_low.proj.weight", None),
        ("scale-mae", "fpn.fpn2.0.weight", None),
        ("scale-mae", "decoder_blocks.1.mlp.fc1.weight", (7, 7)),
        ("satmae++", "decoder_norm.bias", None),
        ("satmae++", "up_block.res_norm.weight", (5,)),
    ],
)
def test_a_damaged_decoder_is_named(kind: str, name: str, shape: tuple[int, ...] | None, tmp_path: Path) -> None:
    state = whole_state(kind)
    del state[name]
    if shape is not None:
        state[name] = torch.zeros(shape)
    torch.save({"model": state}, tmp_path / "broken.pth")
    task = task_on(get_backbone(NAMES[kind], str(tmp_path / "broken.pth"), **SIZES), bands=3)
    with pytest.raises(MethodError, match="the decoder of") as caught:
        SpectralXMethod().build(task)
    assert name.removeprefix("decoder_").rpartition(".")[0] in str(caught.value)
    assert "reconstruction_decoder=light" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_knows_the_decoder_that_it_was_trained_with(kind: str, tmp_path: Path) -> None:
    """The same encoder with another decoder is another stage; frozen weights are not stored with it."""
    modules, shareds = [], []
    for seed in (1, 2):
        backbone = with_decoder(kind, tmp_path / f"{seed}.pth", seed)
        found = shared_stage(SpectralXMethod(), task_on(backbone))
        assert found is not None
        plain, _, shared = found
        torch.manual_seed(0)
        modules.append(shared.method.build(plain))
        shareds.append((backbone, shared))
    (one, first), (other, second) = shareds
    assert first.method == second.method and one.facts() != other.facts()
    encoder = [{n: v for n, v in m.state_dict().items() if n.startswith("backbone.")} for m in modules]
    assert all(torch.equal(value, encoder[1][name]) for name, value in encoder[0].items())
    assert weights_digest(modules[0], first.relies_on) != weights_digest(modules[1], second.relies_on)
    carried = {name for name in modules[0].state_dict() if first.carries(name)}
    assert not any(name.startswith("reconstruction.blocks.") for name in carried)
    assert any(name.startswith("reconstruction.embed_adapter.") for name in carried)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_stage_carries_is_all_that_another_module_needs(kind: str, tmp_path: Path) -> None:
    task = task_on(with_decoder(kind, tmp_path / "whole.pth"))
    found = shared_stage(SpectralXMethod(), task)
    assert found is not None
    plain, stage, shared = found
    torch.manual_seed(0)
    trained = shared.method.build(plain).eval()
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if stage.trainable(name):  # type: ignore[misc]
                parameter.add_(torch.randn_like(parameter) * 0.05)
    torch.manual_seed(1)
    other = SpectralXMethod(decoder="own", decoder_channels=16).build(task).eval()
    state = {name: value for name, value in trained.state_dict().items() if shared.carries(name)}
    assert misfits(other, state, shared.carries) == []
    assert weights_digest(other, shared.relies_on) == weights_digest(trained, shared.relies_on)
    images = torch.randn(2, 4, 32, 32)
    other.load_state_dict(state, strict=False)
    with torch.no_grad():
        losses = [m.forward_reconstruction(images, torch.Generator().manual_seed(0)) for m in (trained, other)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(32, 32), (16, 40)], ids=str)
def test_pictures_and_images_of_other_sizes(kind: str, shape: tuple[int, int], tmp_path: Path) -> None:
    module: SpectralX = SpectralXMethod().build(task_on(with_decoder(kind, tmp_path / "whole.pth"))).eval()
    images = torch.randn(2, 4, *shape)
    shown = reconstruct(module, images, torch.Generator().manual_seed(0))
    assert shown.reconstruction.shape == images.shape and shown.reconstruction.isfinite().all()
    visible = shown.masked != 0
    assert torch.equal(shown.reconstruction[visible], images[visible])
    assert not torch.equal(shown.reconstruction, images)
    assert reconstruction_loss(module, {"image": images}).isfinite()


def test_satmaepp_is_judged_on_hidden_patches_and_at_twice_the_size() -> None:
    found = DecoderWeights.find(whole_state("satmae++"))
    assert found is not None
    decoder, images = found.build(3, 8, (4, 4), 10.0, None), torch.randn(2, 3, 32, 32)
    larger = functional.interpolate(images, scale_factor=2, mode="bilinear", antialias=True)
    hidden = torch.zeros(2, 16)
    hidden[:, :4] = 1
    assert decoder.error((images, larger), images, hidden) == 0
    torch.testing.assert_close(decoder.error((images + 2, larger), images, hidden), torch.tensor(0.6 * 4))
    torch.testing.assert_close(decoder.error((images, larger - 3), images, hidden), torch.tensor(0.4 * 3))
    elsewhere = images + 7 * (1 - hidden_pixels(hidden, (32, 32), 8))
    assert decoder.error((elsewhere, larger), images, hidden) == 0


def test_values_of_a_patch_have_the_channel_fastest() -> None:
    found = DecoderWeights.find(whole_state("satmae++"))
    assert found is not None
    decoder = found.build(3, 8, (4, 4), 10.0, None)
    with torch.no_grad():
        decoder.predict.weight.zero_()
        decoder.predict.bias.copy_(torch.arange(192.0))
    from spectralx.masked import draw_mask

    mask = draw_mask(1, 16, 0.75, torch.device("cpu"))
    (image, larger), _ = decoder(torch.randn(1, 1 + mask.visible.shape[1], 48), mask, 1)
    assert image.shape == (1, 3, 32, 32) and larger.shape == (1, 3, 64, 64)
    for place in ((0, 0), (8, 16)):  # every patch alike
        assert image[0, :, place[0], place[1]].tolist() == [0, 1, 2]
        assert image[0, 0, place[0], place[1] : place[1] + 3].tolist() == [0, 3, 6]
        assert image[0, 0, place[0] + 1, place[1]].tolist() == 24


def test_scale_mae_is_judged_on_two_frequencies() -> None:
    found = DecoderWeights.find(whole_state("scale-mae"))
    assert found is not None
    decoder, images = found.build(3, 8, (4, 4), 10.0, None), torch.randn(2, 3, 32, 32)
    hidden = torch.zeros(2, 16)
    hidden[:, 3:9] = 1
    low, _ = frequencies(images, (64, 64), 8)
    _, high = frequencies(images, (128, 128), 8)
    assert decoder.error((low, high), images, hidden) == 0
    torch.testing.assert_close(decoder.error((low + 2, high), images, hidden), torch.tensor(4.0))
    torch.testing.assert_close(decoder.error((low, high - 3), images, hidden), torch.tensor(3.0))
    assert decoder.error((low + (1 - hidden_pixels(hidden, (64, 64), 16)), high), images, hidden) == 0


def test_frequencies_are_the_image_in_two() -> None:
    images = torch.randn(2, 3, 32, 32)
    low, high = frequencies(images, (32, 32), 8)
    torch.testing.assert_close(low + high, images)
    flat = torch.randn(2, 3, 1, 1).expand(2, 3, 32, 32)
    assert frequencies(flat, (32, 32), 8)[1].abs().max() < 1e-6
    assert patchify(low, 8).var(dim=-1).mean() < 0.1 * patchify(images, 8).var(dim=-1).mean()
