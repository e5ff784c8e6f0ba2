"""Backbones of other packages, what a backbone says about itself, and the command that shows it."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny import SIZES, make_task, run_main

from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import Backbone, backbone_entries, get_backbone, load_backbone
from spectral_tl_bench.results.schema import BackboneFacts
from spectral_tl_bench.runner.able import check_pair

ENTRIES = "spectral_tl_bench.models.backbones.entries"

STRANGER = """
from spectral_tl_bench.models.backbones import Backbone, Card
from spectral_tl_bench.models.backbones.entries import make_vit

MINE = Backbone("another name", width=32, depth=2, heads=2, patch=8, make=make_vit, tag="mine",
                bundled="{package}:weights.safetensors",
                card=Card(data="my images", licence="MIT", bands=(0.66, 0.56, 0.49), image_size=48))
NOTHING = 3
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A package with a backbone that brings its weights."""
    package, info = tmp_path / "strange", tmp_path / "strange-1.2.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text(STRANGER.format(package="strange"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[spectral_tl_bench.backbones]\nmine = strange:MINE\nbroken = strange:NOTHING\nabsent = nowhere:X\n"
    )
    torch.manual_seed(3)
    state = get_backbone("compact", **SIZES).build(3, 48).state_dict()
    save_file(state, package / "weights.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield state
    sys.modules.pop("strange", None)


def test_a_stranger_s_backbone_with_its_weights(stranger):
    assert backbone_entries()["mine"].value == "strange:MINE"
    spec = get_backbone("mine")
    assert spec.name == "mine" and spec.pretrained == "mine" and spec.patch_embedding == "wavelength"
    assert spec.weights is not None and spec.weights.source == "bundled"
    built = spec.for_sensor((0.66, 0.56, 0.49), None).build(3, 48)
    assert torch.equal(built.blocks[1].mlp.fc1.weight, stranger["blocks.1.mlp.fc1.weight"])
    assert get_backbone("mine", "none").weights is None


def test_what_is_no_backbone(stranger):
    with pytest.raises(UserError, match=r"is not a spectral_tl_bench.models.backbones.Backbone"):
        get_backbone("broken")
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError"):
        get_backbone("absent")


def test_a_broken_package_does_not_stop_the_list(stranger, monkeypatch, capsys):
    assert run_main(monkeypatch, ["backbones", "--no-count"]) == 0
    printed = capsys.readouterr().out
    assert "broken backbone: broken of " in printed and "my images" in printed


OURS = [name for name, entry in backbone_entries().items() if entry.value.startswith(ENTRIES)]


@pytest.mark.parametrize("name", OURS)
def test_every_entry_says_what_one_must_know(name):
    spec = load_backbone(name)
    assert spec.name == name
    assert spec.card.licence and spec.card.normalisation and spec.card.how
    assert len(spec.levels) == len(spec.widths) == 4 and spec.widths[-1] == spec.width
    assert spec.named_weights <= bool(spec.card.citation and spec.tag)
    assert spec.reads_wavelengths == (spec.patch_embedding == "hypernetwork")
    assert spec.card.bands or spec.reads_wavelengths or spec.card.reading, "what it reads is said"
    chosen = get_backbone(name, "none")
    BackboneFacts.model_validate(chosen.facts())
    assert pickle.loads(pickle.dumps(chosen)) == chosen, "cells travel to other processes"  # noqa: S301


@pytest.mark.parametrize("name", sorted(backbone_entries()))
def test_every_entry_builds_for_other_bands_and_gives_its_maps(name):
    spec = load_backbone(name)
    sizes = {"width": 32, "depth": 4, "heads": 4} if spec.sizes else {}
    if name == "panopticon":
        sizes = {"width": 48, "depth": 4, "heads": 4}  # its attention over channels has 16 heads
    spec = get_backbone(name, "none", **sizes).for_sensor((0.45, 0.55, 0.65, 0.85, 1.6), 10.0)
    side = max(1, 64 // spec.patch) * spec.patch
    network = spec.build(5, side).eval()
    with torch.no_grad():
        maps = network.forward_intermediates(
            torch.randn(1, 5, side, side),
            indices=list(spec.levels),
            norm=False,
            output_fmt="NCHW",
            intermediates_only=True,
        )
    strides = (4, 8, 16, 32) if spec.kind == "pyramid" else (spec.patch,) * 4
    expected = [(1, width, side // stride, side // stride) for width, stride in zip(spec.widths, strides, strict=True)]
    assert [tuple(one.shape) for one in maps] == expected


def test_any_network_of_timm():
    vit, pyramid = get_backbone("timm:test_vit", "none"), get_backbone("timm:test_convnext", "none")
    assert (vit.kind, vit.width, vit.patch) == ("vit", 64, 16)
    assert pyramid.kind == "pyramid" and pyramid.build(4, 64)(torch.randn(1, 4, 64, 64)).shape[1] == pyramid.width
    small = get_backbone("timm:test_vit", "none", depth=2, width=32)
    assert len(small.build(4, 32).blocks) == 2
    with pytest.raises(UserError, match="neither a vision transformer nor a network with maps"):
        get_backbone("timm:mixer_s32_224", "none")


def test_pyramids_take_part_of_the_output():
    network = get_backbone("resnet50").build(3, 64).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        every = network.forward_intermediates(images)
        some = network.forward_intermediates(images, indices=[3, 1])
    assert torch.equal(some[0], every[1]) and torch.equal(some[1], every[3])
    with pytest.raises(ValueError, match="NCHW"):
        network.forward_intermediates(images, norm=True)


def pair(method: str, backbone: str, **options: str) -> None:
    task = make_task(window=64)
    spec = get_backbone(backbone, "none", **options).for_sensor(task.wavelengths, task.gsd)
    check_pair(method, make_method(method), replace(task, backbone=spec))


@pytest.mark.parametrize(("method", "backbone"), [("full", "resnet50"), ("frozen", "swin-tiny"), ("lora", "swin-tiny")])
def test_pairs_that_work(method, backbone):
    pair(method, backbone)


@pytest.mark.parametrize(
    ("method", "backbone"), [("spectralx", "resnet50"), ("lora", "resnet50"), ("slr", "resnet50"), ("slr", "swin-tiny")]
)
def test_pairs_that_do_not_work_say_which_would(method, backbone):
    with pytest.raises(
        MethodError, match=rf"{method}[\s\S]*{backbone}[\s\S]*vision transformer: compact,[\s\S]*vit-large"
    ):
        pair(method, backbone)


def test_lowrank_beside_a_method_with_a_path_of_its_own_is_refused():
    with pytest.raises(MethodError, match=r"lowrank[\s\S]*leave out --patch-embedding"):
        pair("slr", "vit-tiny", patch_embedding="lowrank")
    pair("frozen", "vit-tiny", patch_embedding="lowrank")


def test_lowrank_needs_patches():
    with pytest.raises(UserError, match="needs a convolution over patches"):
        pair("full", "resnet50", patch_embedding="lowrank")


def test_the_command_shows_everything(monkeypatch, capsys):
    assert run_main(monkeypatch, ["backbones", "show", "ssl4eo-small"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "21,665,664 parameters",
        "SSL4EO-S12",
        "13 at 0.443",
        "CC BY 4.0",
        "SENTINEL2_ALL_MOCO",
        "wavelength:",
    ):
        assert part in printed
    assert "hypernetwork" not in printed
    assert run_main(monkeypatch, ["backbones", "show", "vit-bas"]) == 2
    assert "did you mean vit-base" in capsys.readouterr().err


def test_facts_leave_out_what_belongs_to_the_run():
    spec = get_backbone("compact")
    assert replace(spec, seed=5).for_sensor((0.5, 0.6), 3.0).facts() == spec.facts()
    assert spec.for_sensor((0.5,), 3.0) == spec
    assert isinstance(spec, Backbone) and hash(spec) == hash(get_backbone("compact"))
