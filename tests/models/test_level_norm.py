"""Feature levels normalised before a decoder: by whose rule, for which methods, and what a record says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_request, make_task, make_tree, quiet
from torch import nn
from torch.nn import functional

from spectral_tl_bench.authoring.recompute import _backbone
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.segmenter import NormedSegmenter, build_segmenter, plain_norm
from spectral_tl_bench.results.schema import BackboneFacts
from spectral_tl_bench.runner.planning import plan

SMALL = {"width": 64, "depth": 4, "heads": 4}


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("dinov2-small", "final"), ("dinov3-large-sat", "final"), ("timm:vit_small_patch14_reg4_dinov2", "final"),
        ("timm:vit_small_patch16_dinov3", "final"), ("timm:vit_small_patch16_224", "none"), ("vit-large", "none"),
        ("rgb-mini", "none"), ("scalemae-large", "none"), ("galileo-nano", "none"), ("resnet50", "none"),
    ],
)  # fmt: skip
def test_by_default_levels_are_normalised_as_the_authors_do(name: str, norm: str):
    spec = get_backbone(name, "none")
    assert spec.level_norm == norm == get_backbone(name, "none", None, "auto").level_norm
    assert ("level_norm" in spec.facts()) == (norm != "none")
    assert get_backbone(name, "none", None, "none").level_norm == "none"
    facts = BackboneFacts.model_validate(spec.facts())
    assert facts.model_dump(mode="json") == spec.facts() and _backbone(facts)["level_norm"] == norm


def test_what_is_no_norm_is_refused_and_a_pyramid_has_no_last_one():
    with pytest.raises(UserError, match="no level norm 'finall'") as caught:
        get_backbone("compact", "none", None, "finall")
    assert "final" in str(caught.value)
    with pytest.raises(UserError, match="no last norm") as caught:
        get_backbone("resnet50", "none", None, "final")
    assert "--level-norm plain" in str(caught.value)


def _task(norm: str, name: str = "dinov2-small", **sizes: int) -> Task:
    task = make_task(window=56, steps=2, pretrain_steps=2)
    spec = get_backbone(name, "none", None, norm, **(sizes or SMALL if name != "resnet50" else {}))
    return replace(task, window=64 if name == "resnet50" else 56, backbone=replace(spec, seed=0))


def _features(module: nn.Module, task: Task) -> list[torch.Tensor]:
    images = torch.randn(2, 4, task.window, task.window, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return module.eval().features(images)  # type: ignore[operator]


def test_maps_pass_the_last_norm_or_a_plain_one():
    tasks = {norm: _task(norm) for norm in ("none", "final", "plain")}
    modules: dict[str, Any] = {norm: build_segmenter(task, "fcn") for norm, task in tasks.items()}
    with torch.no_grad():
        modules["final"].backbone.norm.weight.mul_(2).add_(0.1)
    maps = {norm: _features(modules[norm], tasks[norm]) for norm in modules}
    assert isinstance(modules["plain"].backbone.norm, nn.Identity)
    norm = modules["final"].backbone.norm
    for plain, final, usual in zip(maps["plain"], maps["final"], maps["none"], strict=True):
        assert torch.allclose(plain, plain_norm(usual), atol=1e-6)
        assert torch.allclose(plain.mean(1), torch.zeros(2, 4, 4), atol=1e-5)
        assert torch.allclose(final, norm(usual.movedim(1, -1)).movedim(-1, 1), atol=1e-5)
        assert not torch.allclose(usual, plain, atol=0.1)


def test_maps_of_a_pyramid_can_be_normalised_plainly():
    task = _task("plain", "resnet50")
    for one in _features(build_segmenter(task, "fpn"), task):
        assert torch.allclose(one.mean(1), torch.zeros_like(one.mean(1)), atol=1e-4)


def test_a_linear_probe_reads_the_same_last_map_as_ever():
    final, none = (build_segmenter(_task(norm), "linear", normed=True) for norm in ("final", "none"))
    assert isinstance(none, NormedSegmenter) and not isinstance(final, NormedSegmenter)
    assert torch.allclose(_features(final, _task("final"))[-1], _features(none, _task("none"))[-1], atol=1e-5)


@pytest.mark.parametrize("name", ["full", "vpt-shallow", "lora", "ssf", "slr", "self-training", "lora-biased"])
def test_the_last_norm_gets_a_gradient_where_levels_pass_it(name: str):
    task = _task("final")
    method: Any = make_method(name, {})
    module = method.build(task)
    stage = method.stages(task)[-1]
    assert not any("backbone.norm" in key for key in stage.unreached)
    module(torch.randn(2, 4, 56, 56)).square().mean().backward()
    names = ("backbone.norm.", "backbone.vit.norm.")
    norms = [p for key, p in module.named_parameters() if key.startswith(names) and p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in norms)
    assert norms or name in ("vpt-shallow", "lora")


@pytest.mark.parametrize(("norm", "said"), [("final", "all"), ("plain", "plain"), ("none", "none")])
def test_spectralx_takes_it_where_its_own_option_says_nothing(norm: str, said: str):
    task = _task(norm)
    module: Any = make_method("spectralx@paper", {}).build(task).eval()
    assert module.config.final_norm == said
    assert make_method("spectralx@paper", {"final_norm": "none"}).build(task).config.final_norm == "none"
    seen: list[torch.Tensor] = []
    module.decoder.register_forward_pre_hook(lambda _decoder, inputs: seen.extend(inputs[0]))
    with torch.no_grad():
        module(torch.randn(1, 4, 56, 56))
    normed = [torch.allclose(one, functional.layer_norm(one.movedim(1, -1), (64,)).movedim(-1, 1), atol=1e-3)
              for one in seen]  # fmt: skip
    assert normed == [norm != "none"] * 4


def test_the_flag_reaches_the_identity(tmp_path: Path):
    root = make_tree(tmp_path)
    (plain,), _ = plan(make_request(root), quiet)
    (auto,), _ = plan(make_request(root, level_norm="auto"), quiet)
    (final,), _ = plan(make_request(root, level_norm="final"), quiet)
    assert plain.fingerprint() == auto.fingerprint() != final.fingerprint()
    assert final.identity(final.split()).backbone["level_norm"] == "final"  # type: ignore[index]
