from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from spectral_tl_bench.methods.base import VOID, Budget, Task
from spectral_tl_bench.methods.registry import load_method, method_entries
from spectral_tl_bench.models.backbones import get_backbone
from spectralx.method import SpectralXMethod, segmentation_loss


def task(**budget: int) -> Task:
    return Task(
        benchmark="made-up",
        bands=("B2", "B3", "B4", "B8"),
        wavelengths=(0.49, 0.56, 0.665, 0.842),
        gsd=10.0,
        classes=("a", "b", "c"),
        domains=("here",),
        window=32,
        budget=Budget(**budget),
        backbone=get_backbone("compact"),
    )


def batch(labelled: bool = True) -> dict[str, torch.Tensor]:
    mask = torch.randint(0, 3, (2, 32, 32)) if labelled else torch.full((2, 32, 32), VOID)
    mask[:, :3] = VOID
    return {"image": torch.randn(2, 4, 32, 32), "mask": mask, "domain": torch.zeros(2, dtype=torch.long)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reading": "released"},
        {"decoder": "own", "decoder_channels": 24},
        {"are_adapter": False, "hyper_tokenizer": False},
        {"aomoa": False, "pretrain": False},
    ],
    ids=str,
)
def test_stages_train_what_they_say(options: dict) -> None:
    method, what = SpectralXMethod(**options), task(steps=7, pretrain_steps=3)
    module = method.build(what)
    stages = method.stages(what)
    assert [(s.name, s.steps, s.labelled) for s in stages] == [
        ("reconstruct", 3, False),
        ("segment", 7, True),
    ][0 if method.pretrain else 1 :]
    allowed = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    for stage in stages:
        assert stage.trainable is not None and stage.loss is not None
        chosen = {name for name, _ in module.named_parameters() if stage.trainable(name)}
        assert chosen and chosen <= allowed
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in chosen)
        module.zero_grad()
        loss = stage.loss(module, batch())
        loss.backward()
        assert loss.shape == () and loss.isfinite()
        assert all(p.grad is None for n, p in module.named_parameters() if n not in chosen)
    assert module.eval()(batch()["image"]).shape == (2, 3, 32, 32)


def test_void_does_not_count() -> None:
    module = SpectralXMethod(balance=0.0).build(task()).eval()
    some = batch()
    expected = torch.nn.functional.cross_entropy(module(some["image"]), some["mask"], ignore_index=VOID)
    torch.testing.assert_close(segmentation_loss(module, some), expected)


def test_only_void_gives_zero() -> None:
    module = SpectralXMethod().build(task())
    loss = segmentation_loss(module, batch(labelled=False))
    loss.backward()
    assert loss == 0
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_learns() -> None:
    torch.manual_seed(0)
    module, some = SpectralXMethod(pretrain=False).build(task()), batch()
    some["mask"] = torch.arange(32).div(11, rounding_mode="floor").expand(2, 32, 32).contiguous()
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(segmentation_loss(module, some))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.9 * losses[0]


def test_options_are_checked_and_recorded() -> None:
    with pytest.raises(ValidationError, match="hyper tokenizer"):
        SpectralXMethod(hyper_tokenizer=False)
    stage = SpectralXMethod(balance=0.5).stages(task())[-1]
    assert stage.options["balance"] == 0.5 and stage.options["matching"] == "hard"
    assert SpectralXMethod.family == "spectralx"


def test_pretrained_backbones_keep_their_positions() -> None:
    from dataclasses import replace

    compact = get_backbone("compact")
    for pretrained, expected in (("none", "mixed"), ("dino", "backbone"), ("scale-mae", "mixed")):
        assert SpectralXMethod().config(replace(compact, pretrained=pretrained)).positions == expected


def test_registered() -> None:
    if "spectralx" not in method_entries():
        pytest.skip("the distribution is not installed, so it has no entry points")
    assert load_method("spectralx") is SpectralXMethod
