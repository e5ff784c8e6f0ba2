"""Pixels normalised before a backbone alone: by window, or as pictures of reflectance."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SIZES, make_request, make_task, make_tree, quiet
from torch import Tensor

from spectral_tl_bench.authoring.recompute import _backbone
from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone, load_backbone
from spectral_tl_bench.models.backbones.input_norm import ReflectanceNorm, input_norm
from spectral_tl_bench.models.backbones.spec import IMAGENET_PIXELS
from spectral_tl_bench.models.segmenter import build_segmenter
from spectral_tl_bench.results.schema import BackboneFacts
from spectral_tl_bench.runner.able import check_pair
from spectral_tl_bench.runner.planning import plan

WAVES = (0.49, 0.56, 0.665, 0.865)
STATISTICS = ((0.05, 0.08, 0.1, 0.25), (0.02, 0.03, 0.0, 0.1))


def _task(norm: str, embedding: str = "wavelength", statistics: Any = STATISTICS) -> Task:
    spec = get_backbone("rgb-mini", None, embedding)
    task = make_task(bands=4, window=32, steps=2, pretrain_steps=2)
    spec = replace(spec, input_norm=norm, statistics=statistics if norm == "reflectance" else ())  # type: ignore[arg-type]
    return replace(task, wavelengths=WAVES, backbone=spec.for_sensor(WAVES, 10.0))


def _images(files: Tensor) -> Tensor:
    """As training has them: standardised by the source's statistics in reflectance x 10000."""
    mean, std = (np.asarray(part) * 10_000 for part in STATISTICS)
    return Normalise(BandStatistics(mean, std))(files)


def test_reflectances_become_pictures_whatever_the_source():
    files = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 4000
    files[:, 2] = 1000  # a constant band, as its statistics say
    norm = input_norm(_task("reflectance").backbone)
    assert isinstance(norm, ReflectanceNorm)
    shown = (files / 10_000 / 0.3).clamp(0, 1)
    colours = [2, 1, 0, 0]  # blue, green, red, and what is nearest to red
    mean, std = (torch.tensor(part)[colours][:, None, None] for part in IMAGENET_PIXELS)
    assert torch.allclose(norm(_images(files)), (shown - mean) / std, atol=1e-4)
    assert (shown == 1).any(), "bright pixels are cut"
    assert not norm.state_dict(), "no checkpoint gets another name"


def test_of_composites_each_place_has_its_colour():
    task = _task("reflectance", "composites")
    assert task.backbone.composites == ((2, 1, 0), (3, 3, 3))
    norm: Any = input_norm(task.backbone)
    assert norm.mean.flatten().tolist() == pytest.approx([0.1, 0.08, 0.05, 0.25, 0.25, 0.25])
    assert norm.expected_mean.flatten().tolist() == pytest.approx([*IMAGENET_PIXELS[0], *IMAGENET_PIXELS[0]])
    images = _images(torch.rand(2, 4, 32, 32) * 3000)
    segmenter = build_segmenter(task).eval()
    seen: list[Tensor] = []
    segmenter.backbone.patch_embed.register_forward_pre_hook(lambda _embed, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    assert segmenter(images).shape == (2, 3, 32, 32)
    assert seen[0].shape == (4, 3, 32, 32)
    assert torch.allclose(seen[0][1], norm(images[:1, [2, 1, 0, 3, 3, 3]])[0, 3:], atol=1e-6)


def test_by_window_brightness_and_contrast_of_a_window_do_not_matter():
    segmenter = build_segmenter(_task("window")).eval()
    images = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = segmenter.features(images), segmenter.features(images * 3 + 0.7)
        usual = build_segmenter(_task("source")).eval()
        for a, b, plain in zip(one, other, usual.features(images * 3 + 0.7), strict=True):
            assert torch.allclose(a, b, atol=1e-3) and not torch.allclose(a, plain, atol=1e-2)
        flat = images.clone()
        flat[:, 1] = 4.0
        assert all(one.isfinite().all() for one in segmenter.features(flat))


@pytest.mark.parametrize("name", ["frozen", "lora", "vpt-shallow", "linear-probe", "self-training", "entropy-min"])
@pytest.mark.parametrize("norm", ["window", "reflectance"])
def test_methods_on_the_segmenter_take_it_and_can_be_copied(name: str, norm: str):
    module: Any = make_method(name, {}).build(_task(norm)).eval()
    images = torch.randn(2, 4, 32, 32)
    assert torch.equal(copy.deepcopy(module)(images), module(images))
    assert module.reading is not None
    usual: Any = make_method(name, {}).build(_task("source")).eval()
    assert module.state_dict().keys() == usual.state_dict().keys()


@pytest.mark.parametrize("name", ["spectralx", "slr", "lora-biased"])
def test_methods_that_build_their_network_themselves_are_refused_before_training(name: str):
    with pytest.raises((MethodError, UserError), match="input norm 'window' is for what rgb-mini alone sees"):
        check_pair(name, make_method(name, {}), _task("window"))


def test_every_backbone_on_pictures_says_what_it_expects():
    assert load_backbone("dinov2-small").card.pixels == IMAGENET_PIXELS
    assert load_backbone("satmaepp-large").card.pixels[0] == (0.418, 0.421, 0.399)
    assert load_backbone("timm:vit_base_patch16_224.augreg_in21k").card.pixels == ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UserError, match="needs the statistics of the source"):
        input_norm(_task("reflectance", statistics=()).backbone)


def test_a_plan_names_it_and_gives_the_sources_statistics_alone(tmp_path: Path):
    root = make_tree(tmp_path)
    (usual,), _ = plan(make_request(root), quiet)
    cells = {norm: plan(make_request(root, input_norm=norm), quiet)[0][0] for norm in ("window", "reflectance")}
    prints = {cell.fingerprint() for cell in (usual, *cells.values())}
    assert len(prints) == 3 and plan(make_request(root, input_norm="source"), quiet)[0][0].fingerprint() in prints
    facts = BackboneFacts.model_validate(cells["window"].backbone.facts())
    assert facts.model_dump(mode="json")["input_norm"] == "window" == _backbone(facts)["input_norm"]
    cell = cells["reflectance"]
    found = cell.opened.statistics(0)
    mean, std = cell.task().backbone.statistics
    scale = cell.opened.benchmark.sensor.scale
    assert mean == pytest.approx(found.mean * scale) and std == pytest.approx(found.std * scale)
    assert 0 < min(mean) < max(mean) < 1 and usual.task().backbone.statistics == ()
    module = cell.method.build(cell.task())
    assert module(torch.randn(2, cell.task().num_bands, 32, 32)).isfinite().all()


def test_what_cannot_be_is_refused_with_what_can(tmp_path: Path):
    root = make_tree(tmp_path)
    with pytest.raises(UserError, match="no input norm 'windows'") as caught:
        plan(make_request(root, input_norm="windows"), quiet)
    assert "window" in str(caught.value)
    with pytest.raises(UserError, match="needs bands by the source's statistics, and protocol published"):
        plan(make_request(root, input_norm="reflectance", protocol="published"), quiet)
    with pytest.raises(UserError, match="was not trained on such"):
        plan(make_request(root, backbone="ssl4eo-small", weights="none", input_norm="reflectance",
                          backbone_sizes=SIZES), quiet)  # fmt: skip
