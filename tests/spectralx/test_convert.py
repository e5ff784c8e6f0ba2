"""Checkpoints of the release, as files: into ours and back, whole or not at all."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner
from write_release import FILES, LARGE, MINI, content, state_of, task_module, tree, write

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.converters import ConversionRequest
from spectralx.method_release import convert
from spectralx.released import load_converted, load_released, open_converted, open_file, read_file, to_released
from spectralx.released.convert import understand
from spectralx.released.files import ReleaseFile

torch.set_num_threads(1)

IDS = [f"{family}, stage {stage}" for stage, family in FILES]
EXCEPTIONS = ("model.norm.", "model.vit_backbone.head.", "model.vit_backbone.mask_token", "decoder_pos_embed",
              "model.vit_backbone.rope_embed.", "model.vit_backbone.local_cls_norm.", "model.mask_token")  # fmt: skip
"""What the way back leaves to the release: nothing calls it, or it is fixed, or comes with its own weights."""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Path]:
    folder = tmp_path_factory.mktemp("release")
    return {(stage, family): write(folder, stage, family) for stage, family in FILES}


@pytest.fixture(scope="session")
def converted(files, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Path]:
    folder = tmp_path_factory.mktemp("ours")
    found = {}
    for (stage, family), source in files.items():
        found[stage, family] = folder / f"{family}{stage}.safetensors"
        ours(source, found[stage, family])
    return found


def ours(source: Path, out: Path, **options: object) -> None:
    convert(ConversionRequest(source, out, "ours", **options))  # type: ignore[arg-type]


def changed(source: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """The file with another state_dict."""
    held = torch.load(source, weights_only=False)
    change(held["state_dict"])
    torch.save(held, target)
    return target


@pytest.mark.parametrize(("stage", "family"), FILES, ids=IDS)
def test_weights_only_refuses_such_files(files, stage: int, family: str):
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(files[stage, family], weights_only=True)


@pytest.mark.parametrize(("stage", "family"), FILES, ids=IDS)
def test_every_key_is_placed_or_ignored_for_a_reason(files, stage: int, family: str):
    done = understand(open_file(files[stage, family]))
    assert not done.problems and (done.sizes.stage, done.sizes.family) == (stage, family)
    accounted = {*done.report.loaded, *done.report.constants, *done.report.ignored}
    raw = {key for key in state_of(files[stage, family]) if not key.endswith("bias_mask")}
    assert {key.partition("[")[0] for key in accounted} == raw
    assert all(len(reason) > 10 for reason in done.report.ignored.values())
    sizes = done.sizes
    assert (sizes.bands, sizes.image_size, sizes.patch, sizes.width, sizes.depth) == (5, 32, 8, 128, 4)
    assert sizes.wavelengths == pytest.approx([0.45, 0.55, 0.65, 0.75, 0.85])
    assert sizes.classes == (6 if stage == 2 else None)


@pytest.mark.parametrize(("stage", "family"), FILES, ids=IDS)
def test_there_and_back(files, converted, tmp_path: Path, stage: int, family: str):
    source, back = files[stage, family], tmp_path / "back.ckpt"
    convert(ConversionRequest(converted[stage, family], back, "release"))
    before, after = state_of(source), state_of(back)
    assert {
        key for key in before.keys() - after.keys() if not key.startswith(EXCEPTIONS) and "pos_embed" not in key
    } == set()
    assert not after.keys() - before.keys()
    for key, value in after.items():
        if "conv_seg" not in key:
            assert value.shape == before[key].shape and torch.equal(value, before[key]), key
        else:
            assert value.shape == before[key].shape and torch.equal(value[1:], before[key][1:]), key
    # The release loads non-strictly, and would not say what is missing: here its own modules do.
    module = task_module(stage, family)
    missing, unexpected = module.load_state_dict(after, strict=False)
    assert not unexpected
    assert [key for key in missing if not key.startswith(EXCEPTIONS) and not key.endswith("decoder_pos_embed")] == []
    assert torch.load(back, weights_only=True)["hyper_parameters"]["in_channels"] == 5


@pytest.mark.parametrize("family", ["scalemae", "satmaepp", "dinov3"])
def test_the_model_of_a_file(files, converted, family: str):
    model = open_converted(converted[2, family])
    raw = state_of(files[2, family])
    assert torch.equal(model.are_adapter.refine_spatial[3].weight, raw["model.AreApt.refine_spa.3.weight"])
    assert torch.equal(model.decoder.head.classify.weight, raw["model.head.conv_seg.weight"][1:])
    block = "model.vit_backbone.blocks.2."
    expert = f"{block}mlp.fc1.blocks_MoA.MoA.experts.3.fc2.weight"
    assert torch.equal(model.adapters["2"].fc1.experts.fc2_weight[3], raw[expert])
    if family == "dinov3":
        assert torch.equal(model.backbone.reg_token, raw["model.vit_backbone.storage_tokens"])
        assert torch.equal(model.backbone.blocks[2].gamma_2, raw[f"{block}ls2.gamma"])
    torch.manual_seed(0)
    images = torch.randn(2, 5, 32, 32)
    logits = model(images)
    assert logits.shape == (2, 6, 32, 32) and bool(logits.isfinite().all())
    # Another way to the same model: keys into a model that was built by hand.
    other = open_converted(converted[2, family])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    report = load_released(other, read_file(files[2, family]), strict=True)
    assert report.without_void and torch.equal(other(images), logits)


def test_class_0_of_what_is_written_wins_no_pixel(converted):
    model = open_converted(converted[2, "scalemae"])
    written = to_released(model, stage=2)
    weight, bias = written["model.head.conv_seg.weight"], written["model.head.conv_seg.bias"]
    assert weight.shape == (7, 32, 1, 1) and bias.shape == (7,)
    features = 50 * torch.randn(4, 32, 16, 16)
    logits = nn.functional.conv2d(features, weight, bias)
    assert int((logits.argmax(1) == 0).sum()) == 0
    assert torch.equal(logits[:, 1:].argmax(1) + 1, logits.argmax(1))
    assert float(logits.softmax(1)[:, 0].max()) < 1e-30


def test_stage_1_has_the_decoder_under_the_agreed_names(files, converted):
    for family, own in {"scalemae": "fcn_low.pred.7.weight", "satmaepp": "up_block.res_norm.bias"}.items():
        state, raw = read_file(converted[1, family]), state_of(files[1, family])
        for name, key in {
            "embed.weight": "decoder_embed.linear.weight", "embed_adapter.scale": "decoder_embed.scaler",
            "embed_adapter.gate.noise": "decoder_embed.blocks_MoA.MoA.w_noise", own: own,
            "adapters.2.fc2.up.weight": "decoder_blocks.2.mlp.fc2.blocks_MoA.dimIncrease.weight",
            "blocks.2.mlp.fc1.bias": "decoder_blocks.2.mlp.fc1.linear.bias", "norm.weight": "decoder_norm.weight",
        }.items():  # fmt: skip
            assert torch.equal(state[f"reconstruction.{name}"], raw[f"model.{key}"]), name
        token = "mask_token_decoder" if family == "scalemae" else "mask_token"
        assert torch.equal(state["reconstruction.mask_token"], raw[f"model.{token}"].flatten())
        assert ("reconstruction.predict_adapter.scale" in state) == (family == "satmaepp")
        encoder = open_converted(converted[1, family])
        assert torch.equal(encoder.patch_path.scale, raw["model.patch_embed.proj.scaler"])


def test_a_stage_1_file_goes_into_a_model_of_stage_2(files, converted):
    model = open_converted(converted[2, "scalemae"])
    missing = load_converted(model, converted[1, "scalemae"])
    assert {name.split(".")[0] for name in missing} == {"are_adapter", "decoder"}
    raw = state_of(files[1, "scalemae"])
    assert torch.equal(model.hyper_tokenizer.match.query_spatial, raw["model.patch_embed.proj.proj.spa_query"])


REMOVED = [
    (1, "scalemae", "model.fpn.fpn2.0.weight", "reconstruction.fpn.fpn2.0.weight"),
    (1, "scalemae", "model.fcn_high.conv_blocks.1.convs.3.weight", "fcn_high.conv_blocks.1.convs.3.weight"),
    (1, "scalemae", "model.decoder_embed.scaler", "reconstruction.embed_adapter.scale"),
    (1, "scalemae", "model.decoder_blocks.1.attn.proj.bias", "reconstruction.blocks.1.attn.proj.bias"),
    (1, "satmaepp", "model.decoder_pred.blocks_MoA.MoA.experts.2.fc1.bias", "predict_adapter.experts.fc1_bias[2]"),
    (1, "satmaepp", "model.decoder_blocks.7.mlp.fc2.blocks_MoA.MoA.w_gate", "adapters.7.fc2.gate.gate"),
    (1, "satmaepp", "model.up_block.up_conv.weight", "reconstruction.up_block.up_conv.weight"),
    (1, "satmaepp", "model.patch_embed.proj.down.bias", "patch_path.down.bias"),
    (2, "scalemae", "model.AreApt.scale", "are_adapter.scale"),
    (2, "satmaepp", "model.vit_backbone.pos_embed", "backbone.pos_embed"),
    (2, "satmaepp", "model.vit_backbone.blocks.3.norm2.bias", "backbone.blocks.3.norm2.bias"),
    (2, "dinov3", "model.vit_backbone.blocks.1.ls1.gamma", "backbone.blocks.1.gamma_1"),
    (2, "dinov3", "model.head.psp_modules.2.1.bn.running_var", "decoder.head.pools.2.1.running_var"),
    (2, "dinov3", "model.neck.convs.3.conv.bias", "decoder.neck.smooth.3.bias"),
]


@pytest.mark.parametrize(("stage", "family", "key", "named"), REMOVED, ids=[row[2] for row in REMOVED])
def test_what_is_missing_is_named(files, stage, family, key, named):
    file = open_file(files[stage, family])
    tensors = {name: value for name, value in file.tensors.items() if name != key}
    problems = understand(replace(file, tensors=tensors)).problems
    assert len(tensors) < len(file.tensors) and [p for p in problems if p.startswith("missing: ") and p.endswith(named)]


def test_nothing_is_written_of_what_is_not_complete(files, tmp_path: Path):
    path = changed(files[2, "scalemae"], tmp_path / "cut.ckpt", lambda state: state.pop("model.AreApt.scale"))
    with pytest.raises(UserError, match=r"not a complete one of stage 2 [^:]*:\n    missing: are_adapter\.scale"):
        ours(path, tmp_path / "m.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cut.ckpt"]


def test_what_has_no_place_is_named(files, tmp_path: Path):
    def add(state: dict[str, Tensor]) -> None:
        state["model.vit_backbone.blocks.9.norm1.weight"] = torch.zeros(128)
        state["model.surprise.weight"] = torch.zeros(1)
        state["model.AreApt.norm.bias"] = torch.zeros(3)

    path = changed(files[2, "scalemae"], tmp_path / "more.ckpt", add)
    with pytest.raises(UserError) as caught:
        ours(path, tmp_path / "m.safetensors")
    text = str(caught.value)
    assert "not understood: model.surprise.weight" in text and "missing: backbone.blocks.4.norm1.weight" in text
    assert "are_adapter.norm.bias: expected (64,), found (3,)" in text and "more" in text


def test_ablations_are_named_by_the_user(files, tmp_path: Path):
    def drop(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.startswith("model.AreApt.")]:
            del state[key]

    path = changed(files[2, "scalemae"], tmp_path / "no-are.ckpt", drop)
    with pytest.raises(UserError, match=r"missing: are_adapter"):
        ours(path, tmp_path / "m.safetensors")
    ours(path, tmp_path / "m.safetensors", without=("are-adapter",))
    assert open_converted(tmp_path / "m.safetensors").are_adapter is None
    convert(ConversionRequest(tmp_path / "m.safetensors", tmp_path / "back.ckpt", "release"))
    with pytest.raises(UserError, match="hyper-tokenizer"):
        ours(path, tmp_path / "n.safetensors", without=("hypertokenizer",))


def test_the_other_stage_is_refused(files, tmp_path: Path):
    for (stage, family), path in files.items():
        with pytest.raises(UserError, match=f"is of stage {stage}, not {3 - stage}"):
            ours(path, tmp_path / f"{family}.safetensors", stage=3 - stage)
    assert not list(tmp_path.iterdir())


def test_facts_that_the_file_does_not_say_are_asked_for(files, tmp_path: Path):
    held = torch.load(files[2, "satmaepp"], weights_only=False)
    del held["hyper_parameters"]
    torch.save(held, tmp_path / "bare.ckpt")
    with pytest.raises(UserError, match="say of which family"):
        ours(tmp_path / "bare.ckpt", tmp_path / "m.safetensors")
    ours(tmp_path / "bare.ckpt", tmp_path / "m.safetensors", family="satmaepp")
    with pytest.raises(ValueError, match="wavelengths"):
        open_converted(tmp_path / "m.safetensors")
    assert open_converted(tmp_path / "m.safetensors", (0.4, 0.5, 0.6, 0.7, 0.8)).bands == 5
    held["hyper_parameters"] = {"model": "scalemae", "in_channels": 13}
    torch.save(held, tmp_path / "wrong.ckpt")
    with pytest.raises(UserError, match="in_channels=13, its tensors 5"):
        ours(tmp_path / "wrong.ckpt", tmp_path / "n.safetensors")


def test_biases_of_dinov3_that_are_not_zero_are_kept(files, tmp_path: Path):
    key = "model.vit_backbone.blocks.0.attn.qkv.bias"

    def set_bias(state: dict[str, Tensor]) -> None:
        state[key] = torch.arange(384.0)

    path = changed(files[2, "dinov3"], tmp_path / "bias.ckpt", set_bias)
    ours(path, tmp_path / "m.safetensors")
    attention = open_converted(tmp_path / "m.safetensors").backbone.blocks[0].attn
    assert torch.equal(attention.q_bias, torch.arange(128.0)) and torch.equal(
        attention.v_bias, torch.arange(256.0, 384)
    )
    convert(ConversionRequest(tmp_path / "m.safetensors", tmp_path / "back.ckpt", "release"))
    written = state_of(tmp_path / "back.ckpt")[key]
    assert torch.equal(written[:128], torch.arange(128.0)) and not written[128:256].any(), "the mask silences the keys"
    # and without a mask, a bias of the keys has no place
    unmasked = changed(path, tmp_path / "unmasked.ckpt", lambda state: state.pop(f"{key}_mask"))
    with pytest.raises(UserError, match=r"qkv\.bias\[k\]"):
        ours(unmasked, tmp_path / "n.safetensors")


def test_an_auxiliary_head_is_ignored(tmp_path: Path):
    path = write(tmp_path, 2, "scalemae", deepsup=True)
    report = understand(open_file(path)).report
    reasons = {report.ignored[key] for key in state_of(path) if key.startswith("model.aux_head.")}
    assert reasons == {"the auxiliary head, which serves training alone"}


class Release(pl.LightningModule):
    """As much of the release's module as Lightning saves."""

    def __init__(self, model: str, in_channels: int, wavelength: list[float], callbacks: tuple[object, ...]):
        super().__init__()
        self.save_hyperparameters()
        self.model = task_module(2, "scalemae").model

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return batch[0].sum() * self.model.AreApt.scale

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([self.model.AreApt.scale], lr=0.1)


def test_a_file_of_lightning_itself(tmp_path: Path):
    """Trained for a step, saved by Lightning's own callback, which also stands in hyper_parameters."""
    callbacks = (ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1),)
    module = Release("scalemae_large", 5, [0.5, 0.6], callbacks)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(1, 1)))
    trainer = pl.Trainer(
        max_steps=1, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        callbacks=list(callbacks), default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    ours(tmp_path / "last.ckpt", tmp_path / "m.safetensors")
    scale = open_converted(tmp_path / "m.safetensors").are_adapter.scale
    assert torch.equal(scale, module.model.AreApt.scale) and scale.item() != pytest.approx(0.01)


def command(*words: object) -> tuple[int, str]:
    from spectral_tl_bench.cli.main import app

    result = CliRunner().invoke(app, ["convert", *map(str, words)])
    error = "" if isinstance(result.exception, SystemExit | None) else str(result.exception)
    return (2 if isinstance(result.exception, UserError) else result.exit_code), result.output + error


def test_the_command(files, tmp_path: Path):
    source, out = files[2, "dinov3"], tmp_path / "m.safetensors"
    code, text = command(source)
    assert code == 0 and "nothing was written" in text and not list(tmp_path.iterdir())
    code, text = command(source, "--out", out)
    assert code == 0 and out.exists()
    for line in ("SpectralX, stage 2, dinov3: 5 bands, 6 classes, 32 px", "class 0:", "Are-adapter", "local_cls_norm"):
        assert line in text
    assert "AoMoA                              200     132,128" in text
    for words, reason in {
        (source, "--out", out): "of this name already",
        (source, "--out", tmp_path / "m.ckpt"): "no name for a file of ours",
        (source, "--out", tmp_path / "none" / "m.safetensors"): "no such folder",
        (tmp_path / "nowhere.ckpt",): "no such file",
        (source, "--to", "release", "--out", tmp_path / "b.ckpt"): "not a converted checkpoint",
        (out,): "one of ours already",
        (source, "--family", "clip"): "not known",
        (source, "--method", "spectralxx"): "no converter",
        (out, "--to", "release", "--stage", 1): "is of stage 2, not 1",
        (source, "--heads", 3): "3 heads do not divide",
    }.items():
        code, text = command(*words)
        assert code == 2 and reason in text, (words, text)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
    code, text = command(out, "--to", "release", "--out", tmp_path / "back.ckpt")
    assert code == 0 and "wins no pixel" in text and "rope_embed.periods" in text


def test_files_that_are_no_checkpoints_are_explained(tmp_path: Path):
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, tmp_path / "other.ckpt")
    torch.save(tree(a=nn.Linear(2, 2)), tmp_path / "module.ckpt")
    (tmp_path / "page.ckpt").write_text("<html>")
    for name, reason in {"other": "no transformer", "module": "expected a state_dict", "page": "torch.save"}.items():
        with pytest.raises(UserError, match=reason):
            ours(tmp_path / f"{name}.ckpt", tmp_path / "m.safetensors")


def test_a_header_that_was_changed_is_refused(converted, tmp_path: Path):
    path = tmp_path / "m.safetensors"
    state = load_file(converted[2, "scalemae"])
    for header in ("{", json.dumps({"sizes": {}}), json.dumps({"sizes": 3})):
        save_file(state, path, metadata={"spectralx_release": header})
        with pytest.raises(ValueError, match="header cannot be understood"):
            open_converted(path)
    save_file(state, path)
    with pytest.raises(ValueError, match="not a converted checkpoint"):
        open_converted(path)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "family"), FILES, ids=IDS)
def test_true_shapes(stage: int, family: str):
    """ViT-L at 224 px, 13 bands, nine classes: keys and shapes alone."""
    with torch.device("meta"):
        state = task_module(stage, family, LARGE).state_dict()
    # What is asked for its values has them.
    state = {
        key: torch.full(value.shape, 1.0 if key.endswith(("MoA.std", "bias_mask")) else 0.0)
        if key.endswith(("MoA.mean", "MoA.std", "attn.qkv.bias", "bias_mask", "_bias")) else value
        for key, value in state.items()
    }  # fmt: skip
    facts = {"model": family, "in_channels": 13, "patch_size": 16, "input_size": 224}
    done = understand(ReleaseFile(Path("meta"), state, facts))
    assert not done.problems and done.sizes.heads == 16 and done.sizes.options["attribute_cells"] == 2
    parts = {name: parameters for name, (_, parameters) in done.parts().items()}
    assert parts["low-rank patch path and scale"] == 267_536 and parts["AoMoA"] == 7_766_272
    assert parts["hyper tokenizer"] == 22_205_744
    if stage == 2:
        assert parts["Are-adapter"] == 3_671_665
        assert parts["neck"] == 41_951_232 and parts["head"] == 34_357_769


def test_the_writer_writes_what_it_says():
    held = content(2, "scalemae", task_module(2, "scalemae"), MINI)
    assert held["lr_scheduler_state_dict"] is None and held["trainer_state"].keys() == held["state_dict"].keys()
    assert type(held["hyper_parameters"]) is not dict, "the module's own, a dictionary of Lightning's kind"
    assert type(held["hyper_parameters"]["callbacks"][0]).__module__.startswith("lightning.")
