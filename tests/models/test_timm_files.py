"""Any network of timm by name, with a local file as timm publishes it: with its head, and for RGB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import make_request, make_task, make_tree, run_main

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.patch_embedding import RGB, SENTINEL2, mixed, wavelength
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

NETWORKS = {
    "vit_tiny_patch16_224": "patch_embed.proj.weight",
    "convnext_atto": "stem.0.weight",
    "swin_tiny_patch4_window7_224": "patch_embed.proj.weight",
}
"""And the name of the layer that reads the bands."""


def write(name: str, path: Path) -> dict[str, torch.Tensor]:
    """What timm publishes of a network: its whole state, with the head."""
    torch.manual_seed(5)
    state = timm.create_model(name, pretrained=False).state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return state


@pytest.mark.parametrize(
    ("name", "ending"), [*((name, ".safetensors") for name in NETWORKS), ("vit_tiny_patch16_224", ".pth")]
)
def test_the_file_is_taken_whole(tmp_path, name, ending):
    path = tmp_path / f"model{ending}"
    state = write(name, path)
    spec = get_backbone(f"timm:{name}", str(path)).for_sensor(SENTINEL2, 10.0)
    assert spec.weights is not None
    assert (spec.weights.matched, spec.weights.missing, spec.weights.unexpected) == (1.0, 0, 0)
    task = replace(make_task(bands=13, window=64), wavelengths=SENTINEL2, backbone=spec)
    module = make_method("linear-probe", {"train_patch_embed": True}).build(task)
    module(torch.randn(2, 13, 64, 64)).mean().backward()
    assert module.backbone.patch_embed is not None
    found = module.backbone.state_dict()
    stem = next(key for key in found if key.endswith(NETWORKS[name]))
    torch.testing.assert_close(found[stem], mixed(state[NETWORKS[name]], wavelength(SENTINEL2, RGB)))
    last = [key for key in state if "blocks" in key and key.endswith("mlp.fc2.weight")][-1]
    assert torch.equal(next(value for key, value in found.items() if key.endswith(last)), state[last])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if "convnext" in name else pytest.mark.slow) for name in NETWORKS],
)
def test_it_trains_on_chips(tmp_path, name):
    path = tmp_path / "model.safetensors"
    write(name, path)
    root = make_tree(tmp_path / "data", chip=32)
    said: list[str] = []
    request = make_request(
        root, "linear-probe", backbone=f"timm:{name}", backbone_sizes={}, weights=str(path), window=32, validations=1
    )
    cells, broken = plan(request, said.append)
    assert not broken
    assert any(f"weights of timm:{name}: file" in line and "; licence: " in line for line in said)
    (outcome,) = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tinny", "did you mean convnext_tiny"),
        ("vit_small_patch14_dino2", "did you mean vit_small_patch14_dinov2"),
        ("vit_base_patch16_224.augreg_in2k", r"no weights 'augreg_in2k'[\s\S]*did you mean augreg_in21k"),
        ("swin_tiny_patch4_window7_224.nothing", r"has no weights 'nothing'[\s\S]*timm:swin_tiny_patch4_window7_224"),
        ("mixer_b16_224", "neither a vision transformer nor a network with maps at strides of 4, 8, 16, 32 px"),
        ("", "has no network ''"),
    ],
)
def test_names_that_do_not_do(name, message, monkeypatch, capsys):
    with pytest.raises(UserError, match=message):
        get_backbone(f"timm:{name}", "none")
    assert run_main(monkeypatch, ["backbones", "show", f"timm:{name}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_file_of_another_network(tmp_path):
    write("convnext_atto", tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="do not have the shapes of timm:vit_tiny_patch16_224"):
        get_backbone("timm:vit_tiny_patch16_224", str(tmp_path / "model.safetensors"))
