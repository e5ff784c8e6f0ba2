"""The rows of the ablation: what is built, and what exactly each stage of them trains."""

from __future__ import annotations

import pytest
import torch
from tiny import make_task
from torch import nn

from spectral_tl_bench.authoring.watching import train_a_little
from spectral_tl_bench.methods.registry import make_method
from spectralx.method import SpectralXMethod
from spectralx.model import SpectralX

BUILT = {
    "freeze": set(),
    "full": set(),
    "hypert": {"HyperT"},
    "hypert-aomoa": {"HyperT", "AoMoA"},
    "hypert-aomoa-are": {"HyperT", "AoMoA", "Are-adapter"},
    "hypert-no-stage1": {"HyperT"},
    "hypert-aomoa-no-stage1": {"HyperT", "AoMoA"},
    "no-stage1": {"HyperT", "AoMoA", "Are-adapter"},
    "paper": {"HyperT", "AoMoA", "Are-adapter"},
    "released": {"HyperT", "AoMoA", "Are-adapter"},
    "tuned": {"AoMoA"},
}
ONE_STAGE = {"freeze", "full", "hypert-no-stage1", "hypert-aomoa-no-stage1", "no-stage1", "tuned"}


def expected(module: SpectralX, preset: str, reading: str, stage: str) -> set[str]:
    """What a stage trains, told from the modules."""
    backbone = module.backbone
    parts: list[nn.Module | nn.Parameter | None] = [module.patch_path, module.adapters]
    if reading == "paper":
        parts.append(module.hyper_tokenizer)
    parts += [module.reconstruction] if stage == "reconstruct" else [module.decoder]
    if stage == "segment" and module.are_adapter is not None:
        adapter, unmatched = module.are_adapter, reading == "released"
        parts += [adapter.norm, adapter.refine_spatial, adapter.refine_spectral, adapter.scale]
        parts += [] if unmatched else [adapter.spatial, adapter.spectral]
    if preset == "full":
        parts += [backbone.cls_token, backbone.patch_embed, backbone.blocks]
    elif preset != "freeze":
        parts += [norm for block in backbone.blocks for norm in (block.norm1, block.norm2)]
        parts += [backbone.norm] if stage == "reconstruct" else []
    wanted = set()
    for part in parts:
        if part is not None:
            wanted |= {id(part)} if isinstance(part, nn.Parameter) else {id(one) for one in part.parameters()}
    return {name for name, parameter in module.named_parameters() if id(parameter) in wanted}


def test_every_preset_is_expected_here():
    assert set(SpectralXMethod.presets) == set(BUILT)


@pytest.mark.parametrize(
    ("preset", "options"),
    [(preset, {}) for preset in BUILT] + [(preset, {"reading": "paper"}) for preset in BUILT if preset != "released"],
)
def test_a_preset_trains_exactly_what_it_says(preset, options):
    torch.manual_seed(0)
    method, task = make_method(f"spectralx@{preset}", options), make_task(steps=3, pretrain_steps=2)
    reading = "paper" if preset == "paper" else options.get("reading", "released")
    assert method.reading == reading
    module, stages = method.build(task), method.stages(task)
    found = {"HyperT": module.hyper_tokenizer, "AoMoA": len(module.adapters) or None, "Are-adapter": module.are_adapter}
    assert {name for name, part in found.items() if part is not None} == BUILT[preset]
    names = ["segment"] if preset in ONE_STAGE else ["reconstruct", "segment"]
    assert [stage.name for stage in stages] == names and (module.reconstruction is None) == (preset in ONE_STAGE)
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert declared == set().union(*(expected(module, preset, reading, stage) for stage in names))
    for stage in stages:
        seen = train_a_little(module, stage, task.num_bands, task.num_classes, declared=declared)
        assert seen.chosen == expected(module, preset, reading, stage.name)
        assert seen.reached == seen.chosen, "nothing counts as trained that no forward pass uses"
        assert seen.changed & seen.parameters == seen.chosen


def test_without_steps_there_is_nothing_of_the_first_stage():
    task = make_task(steps=3, pretrain_steps=0)
    module = SpectralXMethod().build(task)
    assert module.reconstruction is None and not module.backbone.norm.weight.requires_grad
    assert [stage.name for stage in SpectralXMethod().stages(task)] == ["segment"]


def test_the_backbone_option_is_checked():
    from spectralx import SpectralXConfig

    with pytest.raises(ValueError, match="backbone_trains is 'some'"):
        SpectralXConfig(backbone_trains="some")
