"""The key of features changes with everything that changes them, and with nothing of the head."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from tiny import SIZES, make_request, open_tree

from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.features import identity as identity_module
from spectral_tl_bench.features.identity import Identify, code_of
from spectral_tl_bench.features.store import FeatureIdentity
from spectral_tl_bench.protocol.numerics import feature_versions
from spectral_tl_bench.runner.run import plan
from spectral_tl_bench.runner.seeds import order_seed

FROZEN = {"train_patch_embed": False, "cache": True}


def build(cell):
    split, one = cell.split(), cell.opened
    loading = LoaderSettings(cell.settings.window, cell.settings.stride, 2)
    source = SourceData(one.benchmark, one.index, split, loading, order_seed(one.benchmark.id, cell.seed))
    torch.manual_seed(5)
    return source, cell.method.build(cell.task())


def cell_of(tree, method="frozen", options=None, **more):
    (cell,), broken = plan(make_request(tree, method, options={**FROZEN, **(options or {})}, **more), lambda _: None)
    assert broken == []
    return cell


def identity_of(cell, stride=16, device="cpu", change=lambda source, module: None) -> FeatureIdentity:
    source, module = build(cell)
    change(source, module)
    wanted = cell.method.kept_features()
    one = cell.opened.benchmark
    identify = Identify(
        cell.task(), module, wanted, source.statistics, one.dataset, one.nodata, torch.device(device),
        feature_versions(cell.numerics()),
    )  # fmt: skip
    return identify(source.collection, stride, wanted.copies, (0, 1, 2, 3))


@pytest.fixture(scope="module")
def base(tree) -> FeatureIdentity:
    return identity_of(cell_of(tree))


HEADS = {
    "decoder": {"options": {"decoder": "linear"}},
    "learning rate": {"learning_rate": 0.5},
    "schedule": {"schedule": "constant"},
    "steps": {"steps": 7},
    "batch": {"batch_size": 3},
    "validations": {"validations": 1},
    "head seed": {"options": {"head_seed": 4}},
    "precision": {"precision": "bf16-mixed"},
    "stride of the evaluation": {"stride": 4},
}


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS.keys())
def test_a_second_head_has_the_same_features(tree, base, change):
    assert identity_of(cell_of(tree, **change)).key == base.key


RUNS = {
    "seed": {"seeds": (1,)},
    "backbone": {"backbone": "vit-tiny", "backbone_sizes": SIZES},
    "width": {"backbone_sizes": SIZES | {"width": 64}},
    "depth": {"backbone_sizes": SIZES | {"depth": 3}},
    "heads": {"backbone_sizes": SIZES | {"heads": 4}},
    "patch": {"backbone_sizes": SIZES | {"patch": 4}},
    "window": {"window": 24},
    "benchmark": {"benchmarks": ("mts12-s2n",)},
    "copies": {"options": {"cache_copies": 8}},
    "dtype": {"options": {"cache_dtype": "float16"}},
    "norm": {"method": "linear-probe"},
}


@pytest.mark.parametrize("change", RUNS.values(), ids=RUNS.keys())
def test_another_backbone_window_or_source_has_others(tree, base, change):
    assert identity_of(cell_of(tree, **change)).key != base.key


def nudge(name):
    def change(_source, module):
        with torch.no_grad():
            module.get_parameter(name).view(-1)[0] += 1e-3

    return change


@pytest.mark.parametrize("name", ["backbone.blocks.1.mlp.fc2.weight", "backbone.patch_embed.proj.weight"])
def test_one_weight_changes_the_key(tree, base, name):
    assert identity_of(cell_of(tree), change=nudge(name)).weights != base.weights
    assert identity_of(cell_of(tree), change=nudge("decoder.classifier.weight")).key == base.key


def test_statistics_chips_and_levels_change_the_key(tree, base):
    def other_levels(_source, module):
        module.levels = [0, 0, 0, 1]

    def other_mean(source, _module):
        source.statistics = replace(source.statistics, mean=source.statistics.mean + 1)

    def other_content(source, _module):
        source.collection.datasets[0].chip_rows()[0]["content"] = "f" * 64

    keys = {identity_of(cell_of(tree), change=one).key for one in (other_levels, other_mean, other_content)}
    assert len(keys | {base.key}) == 4


def test_stride_device_and_kept_levels_change_the_key(tree, base):
    cell = cell_of(tree)
    assert len({base.key, identity_of(cell, stride=8).key, identity_of(cell, device="cuda").key}) == 3
    assert base.model_copy(update={"kept": (3,)}).key != base.key


def test_every_field_is_in_the_key(base):
    changed = {
        "backbone": {"name": "x"}, "seed": 99, "levels": (9,), "kept": (1,), "copies": 3, "window": 1, "stride": 1,
        "gsd": 1.5, "bands": ("x",), "wavelengths": (1.0,), "mean": (1.0,), "std": (2.0,), "chips": (), "code": {},
        "numerics": {},
    }  # fmt: skip
    keys = {
        base.model_copy(update={name: changed.get(name, "other")}).key for name in FeatureIdentity.model_fields
    }  # fmt: skip
    assert len(keys | {base.key}) == len(FeatureIdentity.model_fields) + 1


def test_versions_and_libraries_are_in_the_key(tree, base, monkeypatch):
    assert {"data", "normalisation", "windows", "kept features", "patch embedding", "backbone vit"} == set(
        base.numerics
    )
    _, module = build(cell_of(tree))
    code = code_of(module)
    assert set(code) == {"torch", "timm"} and code["torch"] == version("torch")
    monkeypatch.setattr(identity_module, "versions_of", lambda names: dict.fromkeys(names, "0.0"))
    assert code_of(module)["timm"] == "0.0"


def test_the_code_of_a_plug_in_counts_for_its_backbone_and_not_for_its_decoder(tree, monkeypatch):
    _, module = build(cell_of(tree))
    monkeypatch.setattr(identity_module, "package_code", lambda name: f"code of {name}")
    own = type("Own", (torch.nn.Identity,), {"__module__": "somebodys.package"})
    module.decoder.extra = own()
    assert "somebodys" not in code_of(module)
    module.backbone.extra = own()
    assert code_of(module)["somebodys"] == "code of somebodys"


def test_random_weights_follow_the_seed_of_the_backbone(tree):
    one, other = cell_of(tree), cell_of(tree, seeds=(1,))
    assert identity_of(one).weights == identity_of(one).weights != identity_of(other).weights
    assert open_tree(tree).benchmark.dataset == identity_of(one).dataset
