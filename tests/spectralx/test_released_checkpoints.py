"""Whole checkpoints in the release's keys: found under any prefix, brought in, written back."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spectralx import SpectralX
from spectralx.released import Place, load_released, read_checkpoint, read_file, to_released
from spectralx.released.keys import (
    AOMOA_KEYS,
    ARE_KEYS,
    BLOCK_KEYS,
    HEAD_KEYS,
    HYPER_KEYS,
    NECK_KEYS,
    PATCH_KEYS,
    RECONSTRUCTION_KEYS,
    rename,
    rename_back,
)

torch.set_num_threads(1)

Make = Callable[..., SpectralX]

TABLES = (AOMOA_KEYS, ARE_KEYS, BLOCK_KEYS, HEAD_KEYS, HYPER_KEYS, NECK_KEYS, PATCH_KEYS, RECONSTRUCTION_KEYS)


@pytest.fixture
def trained(make: Make, shake: Callable[[nn.Module], None]) -> SpectralX:
    """A model in which no two tensors are alike."""
    model = make(reading="released")
    shake(model)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.add_(torch.rand_like(buffer))
    return model.eval()


def other(make: Make, **options: object) -> SpectralX:
    """A model of the same kind with other weights."""
    model = make(reading="released", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table[0][0])
def test_tables_read_both_ways(table):
    for theirs, ours in table:
        leaf = "weight" if theirs.endswith(".") else ""
        assert rename(theirs + leaf, table) == ours + leaf
        assert rename_back(ours + leaf, table) == theirs + leaf
    assert rename("scaler_of_something", table) is None


@pytest.mark.parametrize("prefix", ["", "model.encoder.", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "anything"])
def test_there_and_back(make: Make, trained: SpectralX, prefix: str, wrapper: str | None):
    written = under(prefix, to_released(trained))
    content = written if wrapper is None else {"epoch": 3, wrapper: written, "optimizer": {}}
    model = other(make)
    report = load_released(model, content, strict=True)
    assert report.complete and set(report.loaded) | set(report.constants) == set(written)
    images = torch.randn(2, 5, 32, 32)
    assert torch.equal(model.segment(images).logits, trained.segment(images).logits)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(*(one.forward_reconstruction(images, g) for one, g in zip((model, trained), generators)))  # noqa: B905
    for like in (report, written, list(written)):
        again = to_released(model, like)
        assert set(again) == set(written)
        for key, value in written.items():
            assert again[key].shape == value.shape and bytes_of(again[key]) == bytes_of(value), key


def test_written_keys_are_those_of_the_release(trained: SpectralX):
    written = to_released(trained)
    expert = "model.vit_backbone.blocks.2.mlp.fc1.blocks_MoA.MoA.experts.3.fc2.weight"
    assert torch.equal(written[expert], trained.adapters["2"].fc1.experts.fc2_weight[3])
    for key, value in {
        "model.vit_backbone.blocks.0.mlp.fc2.linear.weight": trained.backbone.blocks[0].mlp.fc2.weight,
        "model.vit_backbone.blocks.0.attn.qkv.weight": trained.backbone.blocks[0].attn.qkv.weight,
        "model.vit_backbone.blocks.0.mlp.fc1.scaler": trained.adapters["0"].fc1.scale,
        "model.vit_backbone.patch_embed.proj.proj.spa_query": trained.hyper_tokenizer.match.query_spatial,
        "model.vit_backbone.patch_embed.proj.scaler": trained.patch_path.scale,
        "model.AreApt.refine_spa.3.weight": trained.are_adapter.refine_spatial[3].weight,
        "model.neck.lateral_convs.2.conv.bias": trained.decoder.neck.lateral[2].bias,
        "model.head.psp_modules.1.1.bn.running_var": trained.decoder.head.pools[1][1].running_var,
    }.items():
        assert torch.equal(written[key], value), key
    assert written["model.vit_backbone.mask_token"].shape[:2] == (1, 1)
    assert written["model.vit_backbone.blocks.0.mlp.fc1.blocks_MoA.MoA.mean"].tolist() == [0.0]
    assert written["model.vit_backbone.blocks.0.mlp.fc1.blocks_MoA.MoA.std"].tolist() == [1.0]
    assert not [key for key in written if key.startswith("model.vit_backbone.patch_embed.proj.proj.weight")]
    written[expert].zero_()
    assert trained.adapters["2"].fc1.experts.fc2_weight[3].any(), "what is written is a copy"


def test_parts_may_stand_anywhere(make: Make, trained: SpectralX):
    moved = {}
    for key, value in to_released(trained).items():
        for begin, instead in (
            ("model.vit_backbone.patch_embed.proj.proj.", "net.tokens.hyper."),
            ("model.vit_backbone.patch_embed.proj.", "net.tokens."),
            ("model.AreApt.", "refine."),
            ("model.vit_backbone.decoder_", "pretrain.decoder_"),
            ("model.vit_backbone.mask_token", "pretrain.mask_token"),
            ("model.head.", "head.uper."),
            ("model.vit_backbone.", "net.vit."),
        ):
            if key.startswith(begin):
                key = instead + key.removeprefix(begin)  # noqa: PLW2901
                break
        moved[key] = value
    model = other(make)
    assert load_released(model, moved, strict=True).complete
    images = torch.randn(1, 5, 32, 32)
    assert torch.equal(model(images), trained(images))
    assert set(to_released(model, moved)) == set(moved)


def test_a_mutilated_checkpoint_is_reported_precisely(make: Make, trained: SpectralX):
    broken = to_released(trained)
    layer = "model.vit_backbone.blocks.1.mlp.fc2."
    del broken["model.vit_backbone.blocks.3.norm2.bias"], broken[f"{layer}blocks_MoA.MoA.experts.2.fc1.bias"]
    broken[f"{layer}scaler"] = torch.zeros(7)
    broken[f"{layer}blocks_MoA.MoA.experts.9.fc1.bias"] = torch.zeros(3)
    broken["model.vit_backbone.blocks.8.norm1.weight"] = torch.zeros(48)
    broken["model.vit_backbone.blocks.0.attn.qkv.down.weight"] = torch.zeros(2, 48)
    broken["model.aux_head.conv_seg.weight"] = torch.zeros(5)
    broken["auxiliary_head.conv_seg.weight"] = torch.zeros(5)
    broken["model.vit_backbone.decoder_pos_embed"] = torch.zeros(1, 17, 16)
    broken["model.vit_backbone.blocks.0.mlp.fc1.blocks_MoA.MoA.std"] = torch.full((1,), 2.0)
    model = other(make)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_released(model, broken)
    assert not report.complete
    assert report.missing == (
        "backbone.blocks.3.norm2.bias",
        "adapters.1.fc2.scale",
        "adapters.1.fc2.experts.fc1_bias[2]",
    )
    assert [(m.path, m.name, m.expected, m.shape) for m in report.mismatched] == [
        (f"{layer}scaler", "adapters.1.fc2.scale", (48,), (7,))
    ]
    assert report.unknown == ("auxiliary_head.conv_seg.weight",)
    assert set(report.ignored) == {"model.aux_head.conv_seg.weight", "model.vit_backbone.decoder_pos_embed"}
    assert set(report.unplaced) == {
        f"{layer}blocks_MoA.MoA.experts.9.fc1.bias",
        "model.vit_backbone.blocks.8.norm1.weight",
        "model.vit_backbone.blocks.0.attn.qkv.down.weight",
        "model.vit_backbone.blocks.0.mlp.fc1.blocks_MoA.MoA.std",
    }
    # every key is in one group, and only one
    groups = [*report.loaded, *report.constants, *report.unknown, *report.unplaced, *report.ignored]
    assert sorted([*groups, *(m.path for m in report.mismatched)]) == sorted(broken)
    for name in ("backbone.blocks.3.norm2.bias", "adapters.1.fc2.scale"):
        assert torch.equal(model.state_dict()[name], before[name])
    assert torch.equal(model.adapters["1"].fc2.experts.fc1_bias[3], trained.adapters["1"].fc2.experts.fc1_bias[3])
    assert "expected (48,), found (7,)" in str(report) and "auxiliary_head.conv_seg.weight" in str(report)
    with pytest.raises(ValueError, match="holds nothing for 4 keys"):
        to_released(model, broken)
    assert set(to_released(model, report)) == set(report.loaded) | set(report.constants)
    with pytest.raises(ValueError, match="does not fit completely"):
        load_released(other(make), broken, strict=True)


def test_almost_nothing_is_refused_and_changes_nothing(make: Make, trained: SpectralX):
    foreign = {f"layer{i}.conv.weight": torch.zeros(3, 3) for i in range(30)}
    wide = {key: torch.zeros([2 * n for n in value.shape]) for key, value in to_released(trained).items()}
    few = foreign | {"cls_token": torch.zeros(1, 1, 48), "blocks.0.norm1.weight": torch.zeros(48)}
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    for strange in (foreign, wide, few):
        with pytest.raises(ValueError, match="almost nothing"):
            load_released(trained, strange)
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())
    for nothing in ({}, {"state_dict": {}}, {"a": 1}):
        with pytest.raises(ValueError, match="expected a state_dict"):
            load_released(trained, nothing)


def test_a_plain_backbone_fills_the_backbone_only(make: Make):
    source = make(reading="released").backbone
    model = other(make)
    report = load_released(model, {"model": dict(source.state_dict())})
    assert torch.equal(model.backbone.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)
    assert not report.unknown and not report.mismatched
    assert {name.split(".")[0] for name in report.missing} == {
        "hyper_tokenizer", "patch_path", "adapters", "are_adapter", "decoder", "reconstruction",
    }  # fmt: skip


def test_a_single_part_is_enough(make: Make, trained: SpectralX):
    part = {k: v for k, v in to_released(trained).items() if k.startswith("model.AreApt.")}
    model = other(make)
    report = load_released(model, part)
    assert not report.unknown and len(report.loaded) == len(part)
    assert torch.equal(model.are_adapter.scale, trained.are_adapter.scale)


def test_a_model_without_hyper_tokenizer_has_a_patch_convolution(make: Make, shake: Callable[[nn.Module], None]):
    options = {"hyper_tokenizer": False, "are_adapter": False, "reconstruction": False}
    model = make(reading="released", **options)
    shake(model)
    written = to_released(model.eval())
    assert torch.equal(
        written["model.vit_backbone.patch_embed.proj.proj.weight"], model.backbone.patch_embed.proj.weight
    )
    again = other(make, **options)
    assert load_released(again, written, strict=True).complete
    images = torch.randn(1, 5, 32, 32)
    assert torch.equal(again(images), model(images))


def test_another_decoder_is_kept_under_its_own_names(make: Make):
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classify = nn.Conv2d(48, 5, 1)

        def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> Tensor:
            return nn.functional.interpolate(self.classify(features[-1]), image_size)

    models = [SpectralX(make().backbone, [0.5] * 5, 5, 32, decoder=Last()) for _ in range(2)]
    written = to_released(models[0])
    assert "spectralx_extra.decoder.classify.weight" in written
    assert load_released(models[1], under("module.", written), strict=True).complete
    assert torch.equal(models[1].decoder.classify.weight, models[0].decoder.classify.weight)


def test_a_part_that_occurs_twice_is_refused(trained: SpectralX):
    written = to_released(trained)
    twice = under("student.", written) | under("teacher.", written)
    with pytest.raises(ValueError, match="expected it once"):
        read_checkpoint(twice)
    clash = {"blocks.0.norm1.weight": torch.zeros(1), "blocks.0.mlp.fc1.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"several keys mean backbone\.blocks\.0\.mlp\.fc1\.weight"):
        read_checkpoint(clash | {"blocks.0.mlp.fc1.linear.weight": torch.zeros(1)})


def test_the_deepest_transformer_is_the_backbone():
    keys = [f"student.blocks.{i}.norm1.weight" for i in range(3)] + ["decoder.blocks.0.norm1.weight"]
    checkpoint = read_checkpoint(keys)
    assert checkpoint.roots["backbone"] == "student."
    assert checkpoint.unknown == ("decoder.blocks.0.norm1.weight",)
    assert checkpoint.places["student.blocks.2.norm1.weight"] == Place("backbone.blocks.2.norm1.weight")


@pytest.mark.parametrize("name", ["stage2.safetensors", "stage2.pth"])
def test_files(tmp_path, make: Make, trained: SpectralX, name: str):
    written = to_released(trained)
    if name.endswith("safetensors"):
        from safetensors.torch import save_file

        save_file(written, tmp_path / name)
    else:
        torch.save({"model": written, "epoch": 4, "args": argparse.Namespace(lr=1e-4)}, tmp_path / name)
    tensors = read_file(tmp_path / name)
    assert set(tensors) == set(written)
    assert load_released(other(make), tensors, strict=True).complete


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_bad_files_are_explained_and_never_run(tmp_path, capsys):
    torch.save({"model": {"a": torch.ones(1)}, "hook": Evil()}, tmp_path / "evil.pth")
    assert read_file(tmp_path / "evil.pth")["a"].tolist() == [1.0]
    for name, content in (("text.pth", b"not a checkpoint"), ("empty.pth", b""), ("text.safetensors", b"no")):
        (tmp_path / name).write_bytes(content)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name, message in {
        "text.pth": "text.pth",
        "empty.pth": "empty.pth",
        "text.safetensors": "not a safetensors file",
        "list.pth": "expected a state_dict",
        "nowhere.pth": "no such file",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_file(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out
