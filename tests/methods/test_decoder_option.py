"""The decoder is an option of every method that decodes a backbone: ``auto``, names, and the pixel path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import install, make_request, make_task, make_tree

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters_io import card_of
from spectral_tl_bench.methods.options import WithDecoder
from spectral_tl_bench.methods.registry import load_method, make_method, method_entries
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.decoders import UPerNet, WithPixels
from spectral_tl_bench.objectives.base import Setting
from spectral_tl_bench.objectives.registry import make_objectives
from spectral_tl_bench.runner.run import plan

DECODED = sorted(name for name in method_entries() if issubclass(load_method(name), WithDecoder))
SOME = ("frozen", "lora", "slr", "spectralx")
UPERNET = {"spectralx": "shared", "slr": None, "lora-biased": None}
"""How records write ``upernet`` where they did so, or did not, before there was a choice."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"))


def of_backbone(name: str, **budget):
    return replace(make_task(**budget), backbone=get_backbone(name, "none"))


def test_every_method_on_a_backbone_has_the_option():
    """But for the probe, which is one linear map by name."""
    on_backbone = {name for name in method_entries() if load_method(name).uses_backbone}
    assert on_backbone - set(DECODED) == {"linear-probe"}
    assert {load_method(name).model_fields["decoder"].default for name in DECODED} == {"auto"}


@pytest.mark.parametrize("name", DECODED)
def test_auto_becomes_a_name_before_it_is_written(name):
    method = make_method(name)
    assert method.resolved(of_backbone("vit-large", steps=60)).decoder == "light"
    wide = method.resolved(of_backbone("vit-large"))
    assert wide.model_dump(mode="json").get("decoder") == UPERNET.get(name, "upernet")
    assert wide.resolved(of_backbone("compact")) is wide, "a name is not chosen again"
    light = method.resolved(make_task())
    assert light.model_dump(mode="json")["decoder"] == "light" and card_of(name, method, make_task()).options == (
        light.model_dump(mode="json")
    )


@pytest.mark.parametrize("name", SOME)
def test_auto_builds_what_it_stands_for(name):
    built = []
    for method in (make_method(name), make_method(name, {"decoder": "light"})):
        torch.manual_seed(5)
        built.append(method.build(make_task()).state_dict())
    torch.testing.assert_close(*built, rtol=0, atol=0)


@pytest.mark.parametrize("name", SOME)
def test_the_pixel_path_trains_beside_any_method(name):
    task = make_task(bands=5)
    torch.manual_seed(6)
    module = make_method(name, {"decoder": "light+pixels"}).build(task)
    trains = {key for key, value in module.named_parameters() if value.requires_grad}
    assert {"decoder.pixels.0.weight", "decoder.maps.classifier.weight"} <= trains
    images = torch.randn(2, 5, 32, 32)
    module.eval()
    with torch.no_grad():
        whole, alone = module(images), module.decoder.pixels(images)
        module.decoder.pixels = torch.nn.Identity()
        module.decoder.forward = lambda features, size: module.decoder.maps(features[:-1], size)
        torch.testing.assert_close(whole - module(images), alone, atol=1e-5, rtol=1e-4)


def test_the_probe_has_a_pixel_path_too():
    plain = make_method("linear-probe")
    assert "pixels" not in plain.model_dump(mode="json")
    module = make_method("linear-probe", {"pixels": "true"}).build(make_task(bands=5))
    assert isinstance(module.decoder, WithPixels)
    trains = {key.split(".")[1] for key, value in module.named_parameters() if value.requires_grad}
    assert trains == {"maps", "pixels"}
    features = module.eval().features(torch.randn(1, 5, 32, 32))
    assert len(features) == 5 and features[-1].shape == (1, 5, 32, 32)
    torch.testing.assert_close(features[3].mean(1), torch.zeros_like(features[3].mean(1)), atol=1e-5, rtol=0)


def test_the_preset_is_a_frozen_backbone_with_a_pixel_path():
    method = make_method("frozen@pixels")
    assert (method.decoder, method.train_patch_embed) == ("light+pixels", False)
    trains = {key for key, value in method.build(make_task()).named_parameters() if value.requires_grad}
    assert all(key.startswith("decoder.") for key in trains)
    assert make_method("frozen@pixels", {"cache": True}).kept_features() is not None


def test_coral_aligns_features_of_the_maps():
    module = make_method("full", {"decoder": "light+pixels"}).build(make_task(bands=5))
    (coral,) = make_objectives("full+coral", {}).values()
    names = ("a", "b")
    coral.begin(Setting(names, (0.5,) * 5, (0.0,) * 5, (1.0,) * 5, num_classes=3, steps=1, seed=0))
    batch = {"image": torch.randn(2, 5, 32, 32), "domain": torch.tensor([0, 1])}
    with coral.wrap(module, batch):
        module(batch["image"])
    assert coral._used == "decoder.maps.classifier"


# ---------------------------------------------------------------------------------------------- SpectralX


def test_upernet_of_spectralx_is_what_it_was():
    shared, upernet = (make_method("spectralx", {"decoder": name}) for name in ("shared", "upernet"))
    assert shared == upernet and upernet.model_dump(mode="json")["decoder"] == "shared"
    assert isinstance(upernet.build(make_task()).decoder, UPerNet)
    assert make_method("spectralx@released").resolved(make_task()).decoder == "own"


@pytest.mark.parametrize("name", ["spectralx", "slr"])
def test_decoders_share_the_first_stage(name):
    task = make_task(pretrain_steps=2)
    firsts = {
        make_method(name, {"decoder": decoder}).stages(task)[0].shared.method.model_dump_json()
        for decoder in ("light", "upernet", "fpn+pixels", "auto")
    }
    assert len(firsts) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spectralx", {"decoder": "own+pixels"}, r"own decoder has no \+pixels[\s\S]*upernet\+pixels"),
        ("spectralx", {"decoder": "ownn"}, r"no decoder 'ownn'[\s\S]*did you mean own"),
        ("spectralx", {"decoder": "shared+pixels"}, "there is no decoder"),
        ("spectralx", {"decoder": "linear+pixels", "decoder_channels": 8}, r"no inner channels[\s\S]*leave out"),
        ("adaptformer", {"decoder": "upernett"}, "did you mean upernet"),
        ("slr", {"decoder": "light+pixel"}, r"no decoder 'light\+pixel'[\s\S]*\+pixels"),
        ("frozen", {"decoder": "own"}, "there is no decoder 'own'"),
    ],
)
def test_what_is_no_decoder_is_refused(name, options, message):
    with pytest.raises(MethodError, match=message):
        make_method(name, options)


def test_inner_channels_reach_a_light_decoder():
    module = make_method("spectralx", {"decoder": "light", "decoder_channels": 24}).build(make_task())
    assert module.decoder.classifier.in_channels == 24


# ---------------------------------------------------------------------------------------------- runs


def cell_of(tree, name="lora", options=None, **more):
    (cell,), broken = plan(make_request(tree, name, options=options or {}, **more), lambda _: None)
    assert not broken
    return cell


def test_the_identity_holds_the_name_and_not_auto(tree):
    auto, light, upernet = (cell_of(tree, options={"decoder": name}) for name in ("auto", "light", "upernet"))
    assert auto.fingerprint() == light.fingerprint() != upernet.fingerprint()
    assert auto.method.decoder == "light" and cell_of(tree).fingerprint() == light.fingerprint()


def test_what_was_published_is_upernet(tree):
    for name, written in (("lora", "upernet"), ("spectralx", "shared"), ("spectralx@released", "own")):
        cell = cell_of(tree, name, protocol="published")
        assert cell.method.model_dump(mode="json")["decoder"] == written
    assert cell_of(tree, options={"decoder": "fpn"}, protocol="published").method.decoder == "fpn"


FOREIGN = '''
from typing import Literal
from torch import nn
from spectral_tl_bench.methods.base import Method

class Net(Method):
    """One convolution."""
    decoder: Literal["a", "auto"] = "auto"

    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)
'''


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_a_foreign_option_of_that_name_is_left_alone(tree, tmp_path, monkeypatch, protocol):
    install(tmp_path / "site", "tiny_decoder_net", FOREIGN, {"net": "tiny_decoder_net:Net"}, monkeypatch)
    assert cell_of(tree, "net", protocol=protocol).method.decoder == "auto"
