"""Where the reading ``released`` does what the authors' code does, and ``paper`` what it did before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny import make_task
from torch import Tensor, nn

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone, load_backbone
from spectralx import READINGS, SpectralX, SpectralXConfig
from spectralx.aomoa import AoMoA
from spectralx.method import SpectralXMethod

Make = Callable[..., SpectralX]


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize(("inputs", "outputs"), [(1024, 4096), (4096, 1024)], ids=["fc1", "fc2"])
@pytest.mark.parametrize("training", [True, False])
def test_experts_add_a_tenth_at_the_start(inputs: int, outputs: int, training: bool) -> None:
    """10 to 14 % of the frozen layer's output at ViT-L widths, which starts as timm's does."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    experts = AoMoA(inputs, outputs, start="xavier", ties="topk").train(training)
    tokens = torch.randn(2, 197, inputs)
    with torch.no_grad():
        share = rms(experts(tokens)[0]) / rms(layer(tokens))
    assert 0.09 < share < 0.16


def test_both_maps_are_drawn_by_the_sum_of_their_widths() -> None:
    torch.manual_seed(0)
    drawn, zero = (AoMoA(256, 512, start=start) for start in ("xavier", "zero"))
    for layer in (drawn.down, drawn.up):
        limit = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.98 * limit < layer.weight.abs().max() <= limit
    assert not zero.up.weight.any()
    assert zero.down.weight.abs().max() <= zero.down.in_features**-0.5  # that of nn.Linear


def test_the_start_of_the_paper_is_drawn_as_before() -> None:
    """What comes after the experts' maps gets the same numbers, whatever their start."""
    states = []
    for options in ({}, {"start": "zero"}):
        torch.manual_seed(0)
        states.append(AoMoA(48, 64, **options).state_dict())  # type: ignore[arg-type]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("reading", READINGS)
def test_what_stage_1_sees(make: Make, reading: str) -> None:
    """``released``: attributes see hidden pixels, and their tokens are dropped after; ``paper``: nothing sees them."""
    model = make(reading=reading).eval()
    assert model.reconstruction is not None and model.hyper_tokenizer is not None
    seen: list[Tensor] = []
    model.hyper_tokenizer.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    lengths: list[int] = []
    model.backbone.blocks[0].norm1.register_forward_hook(lambda _m, inputs, _o: lengths.append(inputs[0].shape[1]))
    images = torch.randn(2, 5, 32, 32)
    with torch.no_grad():
        model.forward_reconstruction(images, torch.Generator().manual_seed(0))
    assert torch.equal(seen[0], images) == (reading == "released")
    assert (seen[0] == 0).float().mean() == (0 if reading == "released" else 0.75)
    assert lengths == [1 + 4]  # the class token and a quarter of 16 patches


def rotary_task(bands: int = 4) -> Task:
    task = make_task(bands=bands)
    spec = get_backbone("dinov3-large-sat", "none", width=48, depth=4, heads=2)
    return replace(task, backbone=replace(spec, seed=1).for_sensor(task.wavelengths, 10.0))


def test_a_rotary_backbone_has_no_first_stage() -> None:
    task = rotary_task()
    for options, names in (
        ({}, ["segment"]),
        ({"reading": "paper"}, ["reconstruct", "segment"]),
        ({"stage1_rotary": True}, ["reconstruct", "segment"]),
        ({"reading": "paper", "stage1_rotary": False}, ["segment"]),
    ):
        method = SpectralXMethod(**options)
        assert [stage.name for stage in method.stages(task)] == names
        assert (method.build(task).reconstruction is not None) == (len(names) == 2)
    assert [stage.name for stage in SpectralXMethod().stages(make_task())] == ["reconstruct", "segment"]


@pytest.mark.parametrize(
    ("options", "normed"),
    [
        ({}, True),
        ({"final_norm": "none"}, False),
        ({"reading": "paper"}, False),
        ({"reading": "paper", "final_norm": "all"}, True),
        ({"reading": "paper", "final_norm": "rotary"}, True),
    ],
    ids=str,
)
def test_maps_of_a_rotary_backbone_pass_the_last_norm(options: dict[str, Any], normed: bool) -> None:
    """Where the run says nothing of levels (``--level-norm none``); by default those of DINOv3 pass it in any case."""
    task, maps = rotary_task(), []
    task = replace(task, backbone=replace(task.backbone, level_norm="none"))
    method = SpectralXMethod(**options)
    module = method.build(task).eval()
    module.decoder.register_forward_pre_hook(lambda _m, inputs: maps.extend(inputs[0]))
    with torch.no_grad():
        module(3 * torch.randn(1, 4, 32, 32))
    spread = [float(one.flatten(2).std(dim=1, correction=0).mean()) for one in maps]
    assert all(0.97 < one < 1.01 for one in spread) == normed
    # What the maps pass is trained with them.
    trained = method.stages(task)[-1].trainable
    assert trained is not None
    assert trained("backbone.norm.weight") == normed
    assert method.stages(task)[-1].options["final_norm"] == ("all" if normed else "none")


def test_maps_of_other_backbones_do_not(make: Make) -> None:
    for reading in READINGS:
        assert make(reading=reading).config.final_norm == "none"
    assert make(final_norm="all").config.final_norm == "all"


def test_which_backbones_say_that_they_are_rotary() -> None:
    assert load_backbone("dinov3-large-sat").rotary
    assert load_backbone("timm:eva02_tiny_patch14_224").rotary
    assert not load_backbone("timm:vit_tiny_patch16_224").rotary
    task = rotary_task()
    assert getattr(task.backbone.build(4, 32), "rope", None) is not None


def test_the_own_head_has_its_epsilon(make: Make) -> None:
    for reading, epsilon in (("released", 1e-6), ("paper", 1e-5)):
        model = make(reading=reading)
        norms = [m for m in model.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms and {m.eps for m in norms} == {epsilon}
        assert [m.p for m in model.decoder.modules() if isinstance(m, nn.Dropout2d)] == [0.1]


def test_the_preset_is_the_release_to_the_last() -> None:
    method = make_method("spectralx@released", {})
    module = method.build(make_task())
    assert [name for name, _ in module.decoder.named_children()] == ["neck", "head"]
    sensor = builtin_benchmarks()["whuohs-s2t"].sensor.wavelengths
    given = SpectralXMethod(wavelengths="whu-ohs")._wavelengths(make_task())
    printed = method._wavelengths(make_task())  # type: ignore[attr-defined]
    assert given == sensor and len(printed) == 32
    assert [(i, a, b) for i, (a, b) in enumerate(zip(sensor, printed, strict=True)) if a != b] == [(8, 0.596, 0.569)]


@pytest.mark.parametrize("wavelengths", ["whu-ohs", "whu-ohs-as-released"])
def test_foreign_wavelengths_need_a_reading_that_takes_any(wavelengths: str) -> None:
    with pytest.raises(ValidationError, match=f"wavelengths={wavelengths} are those of another sensor"):
        SpectralXMethod(reading="paper", wavelengths=wavelengths)
    assert SpectralXMethod(reading="paper", strict_wavelengths=False, wavelengths=wavelengths)


def test_earlier_results_keep_their_options() -> None:
    """What a record does not name is what it was made with: none of the differences that were closed later."""
    added = set(SpectralXMethod.later)
    assert added == {
        "adapter_start", "stage1_image", "stage1_rotary", "reconstruction_decoder", "final_norm", "head_eps"
    }  # fmt: skip
    assert all(READINGS["paper"][name] == SpectralXMethod.later[name] for name in added)
    dumped = SpectralXMethod(**SpectralXMethod.later).model_dump(mode="json")
    assert not added & dumped.keys()
    assert added <= SpectralXMethod().model_dump(mode="json").keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("adapter_start", "ones"), ("stage1_image", "half"), ("reconstruction_decoder", "own"), ("final_norm", "some")],
)
def test_unknown_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}'"):
        SpectralXConfig(**{name: value})
    with pytest.raises(ValidationError):
        SpectralXMethod(**{name: value})
