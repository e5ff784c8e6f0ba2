"""SLR's stage without labels: what it sees, what it trains, what it leaves, and that it is found again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny import CPU, make_request, make_task, make_tree, quiet
from torch import nn

from spectral_tl_bench.authoring.watching import train_a_little
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.inspect.describe import describe
from spectral_tl_bench.later_options import as_recorded
from spectral_tl_bench.methods.base import Budget, Task
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.results.store import evidence, read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.pretrain import shared_stage
from spectral_tl_bench.training.stage_store import misfits
from spectralx.masked import masked_error, patchify
from spectralx.method_low_rank import LoraBiased, Reconstructing, Slr, reconstruction_loss

WITHOUT = {"pretrain": False}


def build(method: Slr | LoraBiased, task: Task | None = None) -> nn.Module:
    torch.manual_seed(0)
    return method.build(task or make_task())


def stir(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def test_slr_has_the_stage_and_lora_biased_has_not():
    task = make_task(steps=5, pretrain_steps=7)
    first, second = Slr().stages(task)
    assert (first.name, first.labelled, first.steps) == ("reconstruct", False, 7)
    assert (second.name, second.labelled, second.steps) == ("segment", True, 5)
    assert [len(method.stages(task)) for method in (Slr(pretrain=False), LoraBiased())] == [1, 1]
    short = make_task(steps=5, pretrain_steps=0)
    assert len(Slr().stages(short)) == 1
    assert not isinstance(build(Slr(), short), Reconstructing), "what no stage trains is not built"


def test_a_record_of_before_means_one_stage():
    recorded = {"rank": 16, "reading": "paper"}
    for kind in (Slr, LoraBiased):
        again = kind(**as_recorded(kind, recorded))
        assert again.train_norms and again.model_dump(mode="json") == recorded
        assert len(again.stages(make_task())) == 1
    assert Slr().model_dump(mode="json") == {**recorded, "pretrain": True, "decoder": "auto"}


def test_without_the_stage_the_start_is_that_of_before():
    """The decoder of the stage is drawn last, so that it moves no other weight."""
    one, other = build(Slr()).state_dict(), build(Slr(pretrain=False)).state_dict()
    assert {name for name in one if name not in other} == {name for name in one if name.startswith("reconstruction.")}
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_only_visible_patches_are_seen():
    module, images = stir(build(Slr())).eval(), torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        predicted, mask = module.reconstruct(images, torch.Generator().manual_seed(4))
        assert mask.hidden.sum(dim=1).tolist() == [12.0, 12.0], "75 % of 16"
        hidden = mask.hidden.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).bool()
        elsewhere = torch.where(hidden, torch.randn_like(images), images)
        again, _ = module.reconstruct(elsewhere, torch.Generator().manual_seed(4))
        assert torch.equal(predicted, again)
        visible = torch.where(hidden, images, images + 1)
        assert not torch.allclose(predicted, module.reconstruct(visible, torch.Generator().manual_seed(4))[0])


def test_the_encoder_is_the_backbone_on_some_of_its_tokens():
    """With timm's own forward pass, block by block, on the visible tokens."""
    module, images = stir(build(Slr())).eval(), torch.randn(2, 4, 32, 32)
    vit: VisionTransformer = module.backbone
    with torch.no_grad():
        predicted, mask = module.reconstruct(images, torch.Generator().manual_seed(1))
        tokens = vit._pos_embed(vit.patch_embed(images))
        encoded = []
        for image, chosen in zip(tokens, mask.visible, strict=True):
            kept = vit.blocks(vit.norm_pre(image[None, [0, *(chosen + 1).tolist()]]))
            encoded.append(vit.norm(kept))
        expected, _ = module.reconstruction(torch.cat(encoded), mask, 1, (4, 4))
        torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_error_on_hidden_patches():
    module, images = build(Slr()), torch.randn(2, 4, 32, 32)
    torch.manual_seed(9)
    loss = reconstruction_loss(module, {"image": images})
    torch.manual_seed(9)
    predicted, mask = module.reconstruct(images)
    patches = patchify(images, 8).double().numpy()
    target = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, keepdims=True) + 1e-6)
    error = ((predicted.detach().double().numpy() - target) ** 2).mean(-1)[mask.hidden.numpy() > 0]
    assert loss.item() == pytest.approx(error.mean(), rel=1e-5)
    assert loss.item() == pytest.approx(masked_error(predicted, images, mask.hidden, 8).item())


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("reading", ["paper", "released"])
def test_what_each_stage_moves(reading, norms):
    task = make_task(steps=3, pretrain_steps=3)
    task = replace(task, backbone=replace(task.backbone, depth=8))
    method = Slr(reading=reading, train_norms=norms)
    module = build(method, task)
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    adapters = {name for name in declared if re.search(r"\.(down|up)\.|_scaler$|path\.scale$", name)}
    adapters = {name for name in adapters if name.startswith("backbone.")}
    lns = {name for name in declared if re.search(r"^backbone\..*norm[12]?\.(weight|bias)$", name)}
    assert len({name.split(".")[2] for name in adapters if ".blocks." in name}) == (8 if reading == "paper" else 4)
    assert bool(lns) is norms
    first, second = method.stages(task)
    changed = train_a_little(module, first, 4, 3, declared=declared).changed
    assert changed == adapters | lns | {name for name in declared if name.startswith("reconstruction.")}
    changed = train_a_little(module, second, 4, 3, declared=declared).changed & declared
    decoder = {name for name in declared if name.startswith("decoder.")}
    assert changed == adapters | {name for name in lns if not name.startswith("backbone.norm.")} | decoder


def test_it_learns_to_fill_in_images():
    torch.manual_seed(0)
    module, images = build(Slr(rank=4, mask_ratio=0.5)), torch.rand(8, 4, 1, 32).cumsum(-1).expand(-1, -1, 32, -1)
    chosen = [parameter for name, parameter in module.named_parameters() if Slr()._learns_first(name)]
    optimiser = torch.optim.AdamW(chosen, lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        losses.append(reconstruction_loss(module, {"image": images}))
        losses[-1].backward()
        optimiser.step()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("options", [{}, {"reading": "released"}, {"train_norms": False}, {"rank": 3}], ids=str)
def test_a_checkpoint_holds_all_that_the_stage_computes_with(options):
    task = make_task(bands=5)
    task = replace(task, backbone=replace(task.backbone, seed=3))
    method = Slr(**options)
    plain, stage, shared = shared_stage(method, task)
    trained = build(shared.method, plain).eval()
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if stage.trainable(name):
                parameter.add_(0.05 * torch.randn_like(parameter))
    torch.manual_seed(1)
    other = method.build(task).eval()
    state = {name: value for name, value in trained.state_dict().items() if shared.carries(name)}
    assert misfits(other, state, shared.carries) == []
    assert weights_digest(other, shared.relies_on) == weights_digest(trained, shared.relies_on)
    other.load_state_dict(state, strict=False)
    images = torch.randn(2, 5, 32, 32)
    with torch.no_grad():
        one, _ = trained.reconstruct(images, torch.Generator().manual_seed(0))
        same, _ = other.reconstruct(images, torch.Generator().manual_seed(0))
    assert torch.equal(one, same)


def test_counts_of_before_hold_and_leave_the_decoder_out():
    for name, expected in (("slr", 7_275_280), ("lora-biased", 6_881_040)):
        found = describe(name, {}, get_backbone("vit-large"), {"long": Budget()})
        assert found.sums["trainable_published"] == expected
    found = describe("slr", {}, get_backbone("vit-large"), {"long": Budget()})
    (part,) = [part for part in found.parts if part.name == "reconstruction decoder"]
    assert part.kind == "decoder" and part.stages == ("reconstruct",) and part.trainable > 1_000_000


@pytest.mark.parametrize("kind", [Slr, LoraBiased])
def test_norms_stay_if_asked_to(kind):
    task = make_task(pretrain_steps=0)
    frozen = build(kind(train_norms=False), task)
    assert not [n for n, p in frozen.named_parameters() if p.requires_grad and re.search(r"^backbone.*norm", n)]
    (stage,) = kind(train_norms=False).stages(task)
    assert not stage.unreached


def test_a_backbone_that_cannot_run_on_some_patches_is_refused(monkeypatch):
    def refuse(_):
        raise TypeError("rotary positions of its own in every block")

    monkeypatch.setattr("spectralx.method_low_rank.check_backbone", refuse)
    with pytest.raises(MethodError, match=r"cannot run on the patches that are not hidden[\s\S]*pretrain=false"):
        Slr().build(make_task())
    assert Slr(pretrain=False).build(make_task()) is not None


def test_runs_share_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run of more steps with labels finds it; one of another rank does not."""
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    tree = make_tree(tmp_path / "data")

    def run(steps: int, **options: int):
        said: list[str] = []
        cells, broken = plan(make_request(tree, "slr", options=options, pretrain_steps=3, steps=steps), quiet)
        assert broken == []
        (outcome,) = execute(cells, tmp_path / "runs", CPU, 0, said.append)
        assert outcome.state == "done", outcome.message
        return read_record(outcome.record), any("reusing stage" in line for line in said)

    first, reused = run(2)
    assert [(stage.name, stage.steps) for stage in first.stages] == [("reconstruct", 3), ("segment", 2)]
    assert first.options["pretrain"] is True and len(evidence(first)["matrix"]) > 0 and not reused
    assert run(3)[1] is True and run(2, rank=4)[1] is False
