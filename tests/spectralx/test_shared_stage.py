"""What stage 1 leaves behind is all that another module needs to go on from there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import make_task

from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.training.pretrain import shared_stage
from spectral_tl_bench.training.stage_store import misfits
from spectralx.method import SpectralXMethod


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reading": "released"},
        {"aomoa": False},
        {"hyper_tokenizer": False, "are_adapter": False},
        {"backbone_trains": "none"},
        {"backbone_trains": "all"},
        {"positions": "mixed", "decoder": "own", "decoder_channels": 16},
        {"positions": "backbone"},
    ],
    ids=str,
)
def test_a_checkpoint_holds_all_that_stage_1_computes_with(options: dict) -> None:
    task = make_task(bands=5)
    task = replace(task, backbone=replace(task.backbone, seed=3))
    method = SpectralXMethod(**options)
    found = shared_stage(method, task)
    assert found is not None
    plain, stage, shared = found
    torch.manual_seed(0)
    trained = shared.method.build(plain).eval()
    with torch.no_grad():  # as training would: parameters, and statistics where there are any
        for name, parameter in trained.named_parameters():
            if stage.trainable(name):
                parameter.add_(torch.randn_like(parameter) * 0.05)
        for name, buffer in trained.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    torch.manual_seed(1)
    other = method.build(task).eval()
    state = {name: value for name, value in trained.state_dict().items() if shared.carries(name)}
    assert misfits(other, state, shared.carries) == []
    assert weights_digest(other, shared.relies_on) == weights_digest(trained, shared.relies_on)
    images = torch.randn(2, 5, 32, 32)

    def loss(module: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return module.forward_reconstruction(images, torch.Generator().manual_seed(0))

    assert loss(other) != loss(trained)
    other.load_state_dict(state, strict=False)
    assert loss(other) == loss(trained)


def test_the_options_of_the_shared_method_are_settled() -> None:
    """One value for each option that does not act in stage 1, whatever the run says; applied twice, nothing changes."""
    task = make_task()
    for options in ({}, {"matching": "hard", "decoder": "own", "decoder_channels": 8}, {"are_adapter": False}):
        shared = SpectralXMethod(**options).stages(task)[0].shared
        again = shared.method.stages(task)[0].shared
        assert again.method == shared.method == SpectralXMethod().stages(task)[0].shared.method
    assert shared.free == {"mask_ratio", "balance"} <= set(SpectralXMethod.model_fields)
