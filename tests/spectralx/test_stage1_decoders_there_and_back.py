"""Stage 1 with the decoder of the weights, written as the release would and read again: not one number is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrained import NAMES, with_decoder
from tiny import make_task
from torch import nn

from spectralx.method import SpectralXMethod
from spectralx.model import SpectralX
from spectralx.released import load_converted, open_file, to_released
from spectralx.released.convert import save_ours, understand
from spectralx.released.transfer import is_idle


def model_of(kind: str, folder: Path, seed: int) -> SpectralX:
    """A model with the decoder of a weights file, every parameter moved a little."""
    task = make_task(bands=4, pretrain_steps=1)
    backbone = with_decoder(kind, folder / f"{kind}.pth")
    torch.manual_seed(seed)
    module = SpectralXMethod().build(replace(task, backbone=backbone.for_sensor(task.wavelengths, 10.0)))
    assert isinstance(module, SpectralX) and isinstance(module.reconstruction, nn.Module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("kind", list(NAMES))
def test_a_file_of_the_release_and_back(kind: str, tmp_path: Path) -> None:
    first, second = model_of(kind, tmp_path, 1), model_of(kind, tmp_path, 2)
    written = to_released(first, stage=1)
    assert "model.decoder_embed.blocks_MoA.MoA.w_gate" in written and "model.decoder_embed.weight" not in written
    facts = {"in_channels": 4, "input_size": 32, "patch_size": 8, "wavelength": [500.0, 600.0, 700.0, 800.0]}
    torch.save({"epoch": 1, "global_step": 2, "state_dict": written, "hyper_parameters": facts}, tmp_path / "last.ckpt")
    conversion = understand(open_file(tmp_path / "last.ckpt"), heads=4)
    assert conversion.problems == [] and conversion.sizes.stage == 1
    save_ours(conversion, tmp_path / "ours.safetensors", "a test")

    names = [name for name in first.state_dict() if name.startswith("reconstruction.")]
    before = second.state_dict()
    assert any(not torch.equal(first.state_dict()[name], before[name]) for name in names)
    left = load_converted(second, tmp_path / "ours.safetensors")
    assert not [name for name in left if not name.startswith(("decoder.", "are_adapter."))]
    for name, value in first.state_dict().items():
        if not name.startswith(("decoder.", "are_adapter.")) and not is_idle(first, name):
            assert torch.equal(second.state_dict()[name], value), name
