"""Published weights in the forms that they are published in, and files that are not what they should be."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import SIZES, make_task
from torch import nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone, hub, load_backbone
from spectral_tl_bench.models.patch_embedding import RGB, mixed, repeat, wavelength

SENSOR = (0.490, 0.560, 0.665, 0.842, 1.610)
LARGE = "satmaepp-large"


def trained(bands: int = 3, side: int = 48, **sizes: int) -> dict[str, torch.Tensor]:
    """The state of a small network that somebody has trained."""
    torch.manual_seed(1)
    network = get_backbone("compact", **{**SIZES, **sizes}).build(bands, side)
    return {name: torch.randn_like(value) for name, value in network.state_dict().items()}


def mae(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """As the authors of MAE, SatMAE++ and Scale-MAE store it."""
    extra = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.attn.qkv.weight": torch.zeros(3, 3)}
    return {"model": state | extra, "optimizer": {"state": {}}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


WRAPPERS = {
    "plain": lambda state: state,
    "mae": mae,
    "data-parallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "model.backbone."), "hyper_parameters": {"lr": 1.0}},
    "dino": lambda state: {
        "student": prefixed({name: value + 1 for name, value in state.items()}, "module.backbone."),
        "teacher": prefixed(state, "backbone.") | {"head.mlp.0.weight": torch.zeros(2, 2)},
    },
    "both": lambda state: (
        prefixed({name: value + 1 for name, value in state.items()}, "student.") | prefixed(state, "teacher.")
    ),
}


def loaded(name: str, path: Path, side: int = 48, bands: tuple[float, ...] = RGB, **options: Any) -> nn.Module:
    spec = get_backbone(name, str(path), **{**SIZES, **options}).for_sensor(bands, 10.0)
    return spec.build(len(bands), side)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_is_taken_off(tmp_path, wrapper):
    state, path = trained(), tmp_path / "weights.pth"
    torch.save(WRAPPERS[wrapper](state), path)
    found = loaded(LARGE, path).state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_safetensors_and_facts_without_a_path(tmp_path):
    state, path = trained(), tmp_path / "weights.safetensors"
    save_file(state, path)
    spec = get_backbone(LARGE, str(path), **SIZES)
    facts = spec.facts()
    assert facts["weights"] == {
        "source": "file",
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "matched": 1.0,
        "missing": 0,
        "unexpected": 0,
    }
    assert facts["pretrained"] == "satmaepp-fmow-rgb" and facts["patch_embedding"] == "wavelength"
    assert str(tmp_path) not in str(facts)
    moved = path.rename(tmp_path / "moved.safetensors")
    assert get_backbone(LARGE, str(moved), **SIZES).facts() == facts, "where a file lies is no fact"
    size_family = get_backbone("compact", str(moved), **SIZES)
    assert size_family.pretrained == f"file:{facts['weights']['digest'][:12]}"


def test_random_on_purpose_is_recorded_as_none():
    facts = get_backbone(LARGE, "none", **SIZES).facts()
    assert (facts["pretrained"], facts["weights"], facts["patch_embedding"]) == ("none", None, "random")


def test_positions_are_interpolated_to_another_grid(tmp_path):
    state, path = trained(side=48), tmp_path / "weights.pth"
    ramp = torch.arange(6.0).repeat(6, 1)  # grows from west to east, in every channel
    state["pos_embed"] = torch.cat([torch.full((1, 1, 32), 7.0), ramp.reshape(1, 36, 1).expand(-1, -1, 32)], dim=1)
    torch.save(state, path)
    table = loaded(LARGE, path, side=96).pos_embed
    assert table.shape == (1, 1 + 144, 32) and torch.equal(table[:, :1], state["pos_embed"][:, :1])
    rows = table[0, 1:, 0].reshape(12, 12)
    torch.testing.assert_close(rows, rows[:1].expand(12, -1))
    assert (rows[0].diff() > 0).all() and rows.min() < 0.5 and rows.max() > 4.5


@pytest.mark.parametrize(
    ("strategy", "matrix"),
    [("wavelength", wavelength(SENSOR, RGB)), ("repeat", repeat(5, 3)), (None, wavelength(SENSOR, RGB))],
)
def test_other_bands_by_strategy(tmp_path, strategy, matrix):
    state, path = trained(), tmp_path / "weights.pth"
    torch.save(state, path)
    network = loaded(LARGE, path, bands=SENSOR, patch_embedding=strategy)
    torch.testing.assert_close(network.patch_embed.proj.weight, mixed(state["patch_embed.proj.weight"], matrix))
    assert torch.equal(network.patch_embed.proj.bias, state["patch_embed.proj.bias"])


def test_random_keeps_all_but_the_filters(tmp_path):
    state, path = trained(), tmp_path / "weights.pth"
    torch.save(state, path)
    spec = get_backbone(LARGE, str(path), "random", **SIZES)
    found = spec.for_sensor(SENSOR, 10.0).build(5, 48)
    assert found.patch_embed.proj.weight.shape == (32, 5, 8, 8)
    assert torch.equal(found.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert spec.weights is not None and spec.weights.missing == 0


def test_lowrank_cannot_be_trained_away(tmp_path):
    state, path = trained(), tmp_path / "weights.pth"
    torch.save(state, path)
    network = loaded(LARGE, path, bands=SENSOR, patch_embedding="lowrank")
    network.patch_embed.requires_grad_(True)
    trainable = {name for name, one in network.patch_embed.named_parameters() if one.requires_grad}
    assert all(name.startswith("proj.path.") for name in trainable) and len(trainable) == 4
    filters = network.patch_embed.proj.frozen.weight
    assert torch.equal(filters[:, 2], state["patch_embed.proj.weight"][:, 0]) and filters[:, 3:].abs().sum() == 0


def test_strategies_on_random_filters_follow_their_seed():
    spec = get_backbone("compact", patch_embedding="mean", **SIZES).for_sensor(SENSOR, 10.0)
    network = spec.build(5, 48)
    weight = network.patch_embed.proj.weight
    assert torch.equal(weight, weight[:, :1].expand(-1, 5, -1, -1)) and weight.abs().sum() > 0


def test_missing_and_unexpected_tensors_are_counted(tmp_path):
    state, path = trained(), tmp_path / "weights.pth"
    del state["norm.weight"], state["norm.bias"]
    torch.save(state | {"decoder_pred.weight": torch.zeros(2), "channel_gate": torch.zeros(2)}, path)
    weights = get_backbone(LARGE, str(path), **SIZES).weights
    assert weights is not None
    assert (weights.missing, weights.unexpected) == (2, 1), "what belongs to the pretraining is not counted"
    assert weights.examples == ("missing norm.weight", "missing norm.bias", "unexpected channel_gate")
    assert 0.95 < weights.matched < 1


class Trap:
    """Would run a program when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("trap-was-run"),))


def write_trap(path: Path) -> None:
    torch.save({"model": trained(), "extra": Trap()}, path)


def truncate(path: Path) -> None:
    torch.save(trained(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def grouped(path: Path) -> None:
    state = {name: value for name, value in trained().items() if not name.startswith("patch_embed")}
    torch.save({"model": state | {"patch_embed.0.proj.weight": torch.zeros(32, 4, 8, 8)}}, path)


def old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": [1, 2]}))


def half(path: Path) -> None:
    torch.save({name: value for name, value in trained().items() if "blocks.1" in name}, path)


def unknown_bands(path: Path) -> None:
    torch.save(trained(bands=7), path)


def wider(path: Path) -> None:
    torch.save(trained(width=64), path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_trap, "Python objects besides numbers"),
        (truncate, "weights cannot be read"),
        (grouped, "grouped channels"),
        (old_pickle, "Python objects besides numbers"),
        (half, r"not those of satmaepp-large: they have \d+% of its parameters"),
        (unknown_bands, "reads 7 bands, whose wavelengths are not known"),
        (wider, r"cls_token: expected 1 x 1 x 32, found 1 x 1 x 64"),
        (lambda path: path.write_bytes(b"<html>404</html>"), r"neither .safetensors nor of torch.save"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no weights"),
        (lambda path: None, "there are no weights"),
    ],
)
def test_files_that_are_refused(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(UserError, match=message) as caught:
        get_backbone(LARGE, str(path), **SIZES)
    assert path.name in str(caught.value) and not (tmp_path / "trap-was-run").exists()


def test_a_damaged_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(trained(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        get_backbone(LARGE, str(path), **SIZES)


@pytest.mark.parametrize("name", ["dinov3-large-sat", "scalemae-large", "dofa-base"])
def test_without_a_network_there_is_an_answer(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be fetched[\s\S]*--weights FILE"):
        get_backbone(name, "hub")


def test_a_broken_connection_is_no_traceback(monkeypatch, tmp_path):
    def refuse(*_args: object, **_options: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"ConnectionError: no route[\s\S]*model.safetensors"):
        get_backbone("resnet50", "hub")


def test_the_hub_file_is_loaded_like_any_other(monkeypatch, tmp_path):
    import timm

    network = timm.create_model("test_vit", pretrained=False)
    path = tmp_path / "model.safetensors"
    save_file(network.state_dict(), path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_args, **_options: str(path))
    spec = get_backbone("timm:test_vit", "hub")
    assert spec.weights is not None and spec.weights.source.startswith("hub:r") and spec.weights.missing == 0
    assert spec.pretrained == "timm:test_vit"
    found = spec.for_sensor(RGB, None).build(3, 160)
    assert torch.equal(found.blocks[0].attn.qkv.weight, network.blocks[0].attn.qkv.weight)
    again = get_backbone("timm:test_vit", spec.weights.source)
    assert again.facts() == spec.facts(), "a record's source finds the same weights"


def test_downloads_follow_the_suites_cache_where_that_alone_was_moved(monkeypatch, tmp_path):
    asked: list[Path | None] = []

    def download(repository: str, file: str, *, cache_dir: Path | None, local_files_only: bool) -> str:
        asked.append(cache_dir)
        raise ConnectionError("no route to host")

    def folder_asked_for() -> Path | None:
        with pytest.raises(UserError, match="no route"):
            get_backbone("timm:test_vit", "hub")
        return asked.pop()

    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path))
    assert folder_asked_for() == tmp_path / "weights"
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        assert folder_asked_for() is None, "who has moved the library's cache has said where"
    with monkeypatch.context() as patch:
        patch.delenv("STBENCH_CACHE")
        assert folder_asked_for() is None
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "there"))
    assert folder_asked_for() is None, "it is in the library's cache already"


def test_torchgeos_files_follow_it_too(monkeypatch, tmp_path):
    fetched: list[str] = []

    def fetch(self: object, *, model_dir: str, **_options: object) -> None:
        fetched.append(model_dir)

    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fetch)
    monkeypatch.setattr(hub, "offline", lambda: False)
    _, path = hub.locate_hub(load_backbone("dofa-base"), "")
    assert path.parent == tmp_path / "cache" / "weights" and fetched == [str(path.parent)]
    own = tmp_path / "hub" / "checkpoints" / path.name
    own.parent.mkdir(parents=True)
    own.touch()
    assert hub.locate_hub(load_backbone("dofa-base"), "")[1] == own and len(fetched) == 1
    own.unlink()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert hub.locate_hub(load_backbone("dofa-base"), "")[1] == own and fetched[1:] == [str(own.parent)]


def test_names_of_weights_that_do_not_exist():
    with pytest.raises(UserError, match="did you mean SENTINEL2_ALL_MOCO"):
        get_backbone("ssl4eo-small", "hub:SENTINEL2_ALL_MOC")
    with pytest.raises(UserError, match="no weights 'nothing'"):
        get_backbone("dinov3-large-sat", "hub:nothing")
    with pytest.raises(UserError, match="no library publishes"):
        get_backbone(LARGE, "hub")
    with pytest.raises(UserError, match="comes without weights"):
        get_backbone(LARGE, "bundled")


@pytest.mark.parametrize("name", [LARGE, "scalemae-large", "dofa-large", "timm:test_vit"])
def test_a_pretraining_in_the_name_has_no_default(name):
    with pytest.raises(UserError, match=r"which weights[\s\S]*--weights none"):
        get_backbone(name)


def test_meta_s_names_of_dinov3(tmp_path):
    sizes = {"width": 32, "depth": 2, "heads": 2}
    spec = get_backbone("dinov3-large-sat", "none", **sizes)
    network = spec.build(3, 64)
    published = {}
    for name, value in network.state_dict().items():
        new = (
            name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens")
        )
        published[new] = torch.randn_like(value)
    published |= {
        "rope_embed.periods": torch.ones(4),
        "blocks.0.attn.qkv.bias": torch.zeros(96),
        "mask_token": torch.zeros(1),
    }
    path = tmp_path / "dinov3.pth"
    torch.save(published, path)
    found = get_backbone("dinov3-large-sat", str(path), **sizes)
    assert found.weights is not None and (found.weights.missing, found.weights.unexpected) == (0, 0)
    built = found.for_sensor(RGB, None).build(3, 64)
    assert torch.equal(built.reg_token, published["storage_tokens"])
    assert torch.equal(built.blocks[1].gamma_2, published["blocks.1.ls2.gamma"])


def test_a_pyramid_s_first_convolution(tmp_path):
    import timm

    network = timm.create_model("resnet50", pretrained=False)
    path = tmp_path / "resnet.pth"
    torch.save(network.state_dict(), path)
    spec = get_backbone("resnet50", str(path))
    assert spec.weights is not None and (spec.weights.missing, spec.weights.unexpected) == (0, 0)
    built = spec.for_sensor(SENSOR, 10.0).build(5, 64)
    expected = mixed(network.conv1.weight.detach(), wavelength(SENSOR, RGB))
    torch.testing.assert_close(built.patch_embed.weight.detach(), expected)
    assert torch.equal(built.body.layer3[0].conv2.weight, network.layer3[0].conv2.weight)


def test_swin_tables_of_another_window(tmp_path):
    import timm

    network = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False)
    path = tmp_path / "swin.pth"
    torch.save({"model": network.state_dict()}, path)
    spec = get_backbone("swin-tiny", str(path))
    built = spec.for_sensor(RGB, None).build(3, 64)
    assert torch.equal(built.body.layers[0].blocks[0].attn.qkv.weight, network.layers[0].blocks[0].attn.qkv.weight)
    assert built(torch.randn(1, 3, 64, 64)).shape == (1, 768, 2, 2)


def test_spectralx_recognises_scale_mae_by_its_weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(mae(trained()), path)
    positions = {
        name: make_method("spectralx@paper").config(get_backbone(name, str(path), **SIZES)).positions
        for name in ("scalemae-large", LARGE)
    }
    assert positions == {"scalemae-large": "resolution", LARGE: "backbone"}


@pytest.mark.parametrize("method", ["frozen", "lora", "slr", "spectralx"])
def test_methods_work_on_rotary_positions(method):
    task = make_task(window=64)
    spec = get_backbone("dinov3-large-sat", "none", width=32, depth=4, heads=2)
    task = replace(task, backbone=spec.for_sensor(task.wavelengths, task.gsd))
    module = make_method(method).build(task)
    assert module(torch.randn(1, task.num_bands, 64, 64)).shape == (1, task.num_classes, 64, 64)
