"""Composites: bands three by three through the filters for red, green and blue."""

from __future__ import annotations

import copy
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_request, make_task, make_tree, quiet
from torch import Tensor

from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.base import Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.backbones.lines import input_lines
from spectral_tl_bench.models.patch_embedding import RGB, SENTINEL2, in_composites
from spectral_tl_bench.models.segmenter import build_segmenter
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.results.schema import BackboneFacts
from spectral_tl_bench.runner.able import check_pair
from spectral_tl_bench.runner.planning import on_sensor, plan
from spectral_tl_bench.sensors import Sensor

HLS = (0.443, 0.482, 0.561, 0.655, 0.865, 1.609, 2.201)
SIZES = {"width": 32, "depth": 2, "heads": 2, "patch": 8}


@pytest.mark.parametrize(
    ("wavelengths", "groups"),
    [
        (HLS, ((3, 2, 1), (4, 5, 3), (0, 6, 6))), (RGB, ((0, 1, 2),)), (tuple(reversed(RGB)), ((2, 1, 0),)),
        ((0.49, 0.56, 0.665, 0.842), ((2, 1, 0), (3, 3, 3))), ((0.665,), ((0, 0, 0),)),
        (SENTINEL2, ((3, 2, 1), (8, 11, 3), (0, 4, 5), (6, 7, 9), (10, 12, 12))),
        (RGB + RGB, ((0, 1, 2), (3, 4, 5))),
        ((0.49, 0.56, 0.665, 0.86, 1.61) * 2, ((2, 1, 0), (3, 4, 2), (7, 6, 5), (8, 9, 7))),
    ],
)  # fmt: skip
def test_by_the_rule_every_band_is_read(wavelengths: tuple[float, ...], groups: tuple[tuple[int, ...], ...]):
    assert in_composites(wavelengths) == groups
    assert {band for group in groups for band in group} == set(range(len(wavelengths)))


def _task(name: str = "compact", wavelengths: tuple[float, ...] = HLS, **more: Any) -> Task:
    sizes = SIZES if name == "compact" else {}
    spec = replace(get_backbone(name, more.pop("weights", "none"), "composites", **sizes), seed=0)
    task = make_task(bands=len(wavelengths), window=32, steps=2, pretrain_steps=2)
    return replace(task, wavelengths=wavelengths, backbone=spec.for_sensor(wavelengths, 10.0))


def _images(bands: int = 7) -> Tensor:
    return torch.randn(2, bands, 32, 32, generator=torch.Generator().manual_seed(0))


def test_maps_are_those_of_each_composite_side_by_side():
    task = _task("rgb-mini", weights="bundled")
    module = build_segmenter(task).eval()
    images = _images()
    usual = build_segmenter(
        replace(task, wavelengths=RGB, bands=("r", "g", "b"),
                backbone=get_backbone("rgb-mini").for_sensor(RGB, 10.0))
    ).eval()  # fmt: skip
    with torch.no_grad():
        found = module.features(images)
        parts = [usual.features(images[:, list(group)]) for group in task.backbone.composites]
    assert [one.shape for one in found] == [(2, 3 * 96, 4, 4)] * 4
    for level, one in enumerate(found):
        assert torch.allclose(one, torch.cat([part[level] for part in parts], dim=1), atol=1e-5)
    with torch.no_grad():
        assert module(images).shape == (2, 3, 32, 32)


def test_a_pyramid_reads_composites():
    task = replace(_task("resnet50"), window=64)
    with torch.no_grad():
        maps = build_segmenter(task, "fpn").eval().features(torch.randn(1, 7, 64, 64))
    assert [one.shape[1] for one in maps] == [3 * width for width in (256, 512, 1024, 2048)]


METHODS = ("frozen", "lora", "rein", "vpt-shallow", "vpt-deep", "ssf", "linear-probe", "adaptformer", "self-training")


@pytest.mark.parametrize("name", METHODS)
def test_methods_in_blocks_work_unchanged_and_train(name: str):
    task = _task()
    method: Any = make_method(name, {})
    module: Any = method.build(task)
    assert module(_images()).shape == (2, 3, 32, 32)
    module(_images()).square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert torch.equal(copy.deepcopy(module).eval()(_images()), module.eval()(_images()))


@pytest.mark.parametrize("name", ["spectralx", "slr", "lora-biased"])
def test_methods_that_build_their_network_themselves_are_refused_before_training(name: str):
    with pytest.raises((MethodError, UserError), match="three bands at a time, and this method builds") as caught:
        check_pair(name, make_method(name, {}), _task())
    assert "--patch-embedding" in str(caught.value)


def test_backbones_that_read_other_bands_are_refused():
    with pytest.raises(UserError, match="reads bands as red, green and blue"):
        get_backbone("ssl4eo-small", "none", "composites")
    with pytest.raises(UserError, match="cannot have the patch embedding 'composites'"):
        get_backbone("galileo-nano", "none", "composites")


SENSOR = {"name": "S", "gsd": 30, "unit": "reflectance", "bands": [
    {"name": name, "wavelength": at}
    for name, at in zip(("coastal", "blue", "green", "red", "nir", "swir1", "swir2"), HLS, strict=True)
]}  # fmt: skip


def test_a_benchmark_can_name_its_composites():
    named = Sensor.model_validate({**SENSOR, "composites": [["red", "green", "blue"], ["nir", "swir1", "red"]]})
    spec = on_sensor(get_backbone("compact", "none", "composites"), named, STRICT)
    assert spec.composites == ((3, 2, 1), (4, 5, 3)) and spec.widths == (192,) * 4
    assert spec.for_sensor(named.wavelengths, 30.0).composites == spec.composites, "the name wins over the rule"
    by_rule = on_sensor(get_backbone("compact", "none", "composites"), Sensor.model_validate(SENSOR), STRICT)
    assert by_rule.composites == in_composites(HLS)
    assert on_sensor(get_backbone("compact", "none"), named, STRICT).composites == ()
    (_, line) = input_lines(spec, 64, 30.0, named.band_names)
    assert "reads 2 composites of three bands, for 2 times the operations" in line and line.endswith(
        ": red-green-blue, nir-swir1-red"
    )
    assert input_lines(spec, 64)[1].endswith(": 3-2-1, 4-5-3")
    with pytest.raises(ValueError, match="composites name band 'swir3', which is none of coastal, blue"):
        Sensor.model_validate({**SENSOR, "composites": [["red", "green", "swir3"]]})
    for wrong in ([["red", "green"]], []):
        with pytest.raises(ValueError, match="composites"):
            Sensor.model_validate({**SENSOR, "composites": wrong})


def test_a_record_names_the_composites():
    spec = _task().backbone
    facts = BackboneFacts.model_validate(spec.facts())
    assert facts.model_dump(mode="json") == spec.facts()
    assert spec.facts()["composites"] == [[3, 2, 1], [4, 5, 3], [0, 6, 6]] and facts.composites == spec.composites
    assert "composites" not in BackboneFacts.model_validate(get_backbone("compact").facts()).model_dump(mode="json")


def test_composites_of_a_plan_are_part_of_the_identity(tmp_path: Path):
    root = make_tree(tmp_path)
    (cell,), _ = plan(make_request(root, patch_embedding="composites"), quiet)
    (usual,), _ = plan(make_request(root), quiet)
    identity, other = (one.identity(one.split()) for one in (cell, usual))
    assert identity.backbone and len(identity.backbone["composites"]) >= 4  # type: ignore[arg-type]
    assert identity.numerics["backbone reading"] == "1" and "backbone reading" not in other.numerics
    _, broken = plan(make_request(root, "spectralx", patch_embedding="composites"), quiet)
    assert len(broken) == 1 and "builds its network" in textwrap.dedent(str(broken[0][1]))
