"""A fingerprint changes with everything that can change a result, and with nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
from tiny import SIZES, install, make_request, open_tree

import spectralx
from spectral_tl_bench.data import rasters
from spectral_tl_bench.data.normalisation import Normalise
from spectral_tl_bench.data.transforms import FlipsAndTurns
from spectral_tl_bench.data.windows import SlidingWindows
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation import evaluate
from spectral_tl_bench.evaluation.metrics import MeanIoU
from spectral_tl_bench.identity import backbone_inputs
from spectral_tl_bench.methods.baselines import Full
from spectral_tl_bench.methods.peft_methods import Lora
from spectral_tl_bench.methods.registry import distribution_of, load_method, method_entries
from spectral_tl_bench.models import decoders, patch_embedding
from spectral_tl_bench.models.backbones.entries import make_vit
from spectral_tl_bench.objectives.registry import make_objectives, objective_entries
from spectral_tl_bench.plugins import package_of
from spectral_tl_bench.protocol import numerics
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.cell import Cell
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import task
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.selection import BestOnSource

OURS = ("spectral_tl_bench", "spectralx")


def cell_of(tree: Path, method: str = "lora", **more) -> Cell:
    (cell,), broken = plan(make_request(tree, method, **more), lambda _: None)
    assert broken == []
    return cell


def print_of(cell: Cell) -> str:
    return cell.identity(cell.split()).fingerprint


@pytest.fixture(scope="module")
def base(tree) -> Cell:
    return cell_of(tree)


CHANGES = {
    "steps": {"steps": 3},
    "pretrain steps": {"pretrain_steps": 2},
    "learning rate": {"learning_rate": 0.5},
    "schedule": {"schedule": "constant"},
    "batch": {"batch_size": 3},
    "window": {"window": 24},
    "stride": {"stride": 8},
    "validations": {"validations": 1},
    "budget": {"budget": "paper"},
    "seed": {"seeds": (1,)},
    "options": {"options": {"rank": 3}},
    "method": {"method": "frozen"},
    "backbone": {"backbone": "vit-tiny", "backbone_sizes": SIZES},
    "width": {"backbone_sizes": SIZES | {"width": 64}},
    "depth": {"backbone_sizes": SIZES | {"depth": 3}},
    "heads": {"backbone_sizes": SIZES | {"heads": 4}},
    "patch": {"backbone_sizes": SIZES | {"patch": 4}},
    "benchmark": {"benchmarks": ("mts12-s2n",)},
}


def test_every_option_acts(tree, base):
    prints = {"base": print_of(base)} | {name: print_of(cell_of(tree, **change)) for name, change in CHANGES.items()}
    assert len(set(prints.values())) == len(CHANGES) + 1, "two different runs share a fingerprint"
    assert print_of(cell_of(tree)) == prints["base"]


def with_benchmark(cell: Cell, **update) -> Cell:
    benchmark = cell.opened.benchmark.model_copy(update=update)
    return replace(cell, opened=replace(cell.opened, benchmark=benchmark))


def test_the_benchmark_s_facts_count_and_its_texts_do_not(base):
    benchmark, same = base.opened.benchmark, print_of(base)
    texts = {
        "title": "x",
        "notes": ("y",),
        "citation": "z",
        "groups": (),
        "expected": {},
        "labels": benchmark.labels.model_copy(
            update={"classes": tuple(c.model_copy(update={"colour": "#000000"}) for c in benchmark.labels.classes)}
        ),
        "domains": tuple(
            d.model_copy(update={"name": "n", "chips": 1, "lon_lat": (0.0, 0.0)}) for d in benchmark.domains
        ),
    }
    for key, value in texts.items():
        assert print_of(with_benchmark(base, **{key: value})) == same, key
    bands = benchmark.sensor.bands
    facts = {
        "version": "1.1",
        "id": "other",
        "labels": benchmark.labels.model_copy(update={"classes": benchmark.labels.classes[::-1]}),
        "sensor": benchmark.sensor.model_copy(
            update={"bands": (bands[0].model_copy(update={"wavelength": 0.5}), *bands[1:])}
        ),
        "nodata": "error",
    }
    changed = {key: print_of(with_benchmark(base, **{key: value})) for key, value in facts.items()}
    assert len({same, *changed.values()}) == len(facts) + 1


def test_what_only_says_where_things_are_or_who_computes_does_not_count(tree, base, tmp_path):
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(tree / "MTS12", moved / "mts12")  # another folder, other file dates, another accepted name
    assert print_of(cell_of(moved)) == print_of(base)
    assert print_of(cell_of(moved / "mts12")) == print_of(base)
    assert print_of(replace(base, oracle=True)) == print_of(base)
    assert print_of(replace(base, opened=replace(base.opened, notes=("a note",)))) == print_of(base)


@pytest.mark.parametrize("side", ["train", "target"])
def test_one_pixel_counts(tree, base, tmp_path, side):
    shutil.copytree(tree / "MTS12", tmp_path / "MTS12")
    chip = base.split().chips(side)[0]
    row = base.opened.index.frame.loc[chip]
    with rasterio.open(tmp_path / "MTS12" / row["image"], "r+") as file:
        image = file.read()
        image[3, 5, 7] += 1
        file.write(image)
    assert print_of(cell_of(tmp_path)) != print_of(base)


def test_a_missing_chip_counts(tree, base, tmp_path):
    shutil.copytree(tree / "MTS12", tmp_path / "MTS12")
    row = base.opened.index.frame.loc[base.split().chips("target")[0]]
    for name in (row["image"], row["label"]):
        (tmp_path / "MTS12" / name).unlink()
    assert print_of(cell_of(tmp_path)) != print_of(base)


def test_the_split_counts(base):
    split = base.split()
    assert replace(base, seed=1).identity(split) != base.identity(split), "the seed counts by itself, too"
    role = split.role.copy()
    chips = split.chips("train")
    role[chips[0]] = "buffer"
    assert base.identity(replace(split, role=role)) != base.identity(split)
    assert base.identity(replace(split, notes=("said otherwise",))) == base.identity(split)


# ---------------------------------------------------------------------------------------------- code


def test_every_component_that_takes_part_is_named(tree):
    common = {"data", "training", "evaluation", "normalisation", "augmentation", "windows", "metric", "selection"}
    network = {"patch embedding", "decoder", "backbone vit"}
    assert set(cell_of(tree).numerics()) == {*common, *network, "method lora"}
    assert set(cell_of(tree, "pixel-mlp").numerics()) == {*common, "method pixel-mlp"}
    kept = cell_of(tree, "frozen+erm", options={"train_patch_embed": False})
    assert set(kept.numerics()) == {*common, *network, "method frozen", "objective erm"}
    kept = cell_of(tree, "frozen", options={"train_patch_embed": False, "cache": True})
    assert set(kept.numerics()) == {*common, *network, "method frozen", "kept features"}
    assert cell_of(tree, "spectralx@released").numerics()["method spectralx"] == str(spectralx.NUMERICS_VERSION)


WHERE = {
    "data": (rasters, "NUMERICS_VERSION"),
    "training": (task, "NUMERICS_VERSION"),
    "evaluation": (evaluate, "NUMERICS_VERSION"),
    "normalisation": (Normalise, "numerics_version"),
    "augmentation": (FlipsAndTurns, "numerics_version"),
    "windows": (SlidingWindows, "numerics_version"),
    "metric": (MeanIoU, "numerics_version"),
    "selection": (BestOnSource, "numerics_version"),
    "patch embedding": (patch_embedding, "NUMERICS_VERSION"),
    "decoder": (decoders, "NUMERICS_VERSION"),
    "backbone vit": (make_vit, "numerics_version"),
    "method lora": (Lora, "numerics_version"),
}


@pytest.mark.parametrize("component", WHERE)
def test_a_version_that_is_raised_changes_the_identity_of_those_that_take_part(tree, base, component, monkeypatch):
    before, other = base.identity(base.split()), cell_of(tree, "unet")
    unrelated = other.identity(other.split())
    owner, name = WHERE[component]
    monkeypatch.setattr(owner, name, 2)
    after = base.identity(base.split())
    assert before.differences(after) == {f"numerics.{component}": ("1", "2")}
    assert before.fingerprint != after.fingerprint
    takes_part = component in unrelated.numerics
    assert (other.identity(other.split()).fingerprint != unrelated.fingerprint) is takes_part


def test_every_method_and_objective_of_the_suite_declares_its_own_version():
    kinds = {f"method {name}": load_method(name) for name in method_entries()}
    kinds |= {f"objective {name}": type(make_objectives(f"x+{name}", {})[name]) for name in objective_entries()}
    own = {name for name, kind in kinds.items() if kind.__module__.partition(".")[0] in OURS}
    assert {name for name in own if "numerics_version" not in vars(kinds[name])} == set()
    assert len(own) >= 35


def test_the_version_of_the_suite_does_not_count(tree, monkeypatch):
    cell = cell_of(tree, "lora+spectralaug")
    now = print_of(cell)
    monkeypatch.setattr(numerics, "distribution_of", lambda name: (distribution_of(name)[0], "99.0"))
    monkeypatch.setattr(numerics, "package_of", lambda entry: (package_of(entry)[0], "99.0"))
    assert print_of(replace(cell)) == now


def test_a_renamed_and_moved_class_keeps_the_identity(base):
    """Where code stands and what it is called is nothing that a number depends on."""
    kind = type(base.method)
    moved = type("SomethingElse", (kind.__mro__[1],), {**vars(kind), "__module__": "elsewhere.entirely"})
    same = replace(base, method=moved(**base.method.model_dump()))
    assert same.identity(same.split()) == base.identity(base.split())


METHOD = """
from torch import nn
from spectral_tl_bench.methods.baselines import Full
from spectral_tl_bench.methods.base import Method

class One(Method):
    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

class Declares(One):
    numerics_version = "b"

class Inherits(Declares):
    pass

class OnOurs(Full):
    pass
"""


def test_a_plug_in_brings_the_version_of_its_package_unless_it_declares_one(tree, tmp_path, monkeypatch):
    names = {"one": "One", "declares": "Declares", "inherits": "Inherits", "on-ours": "OnOurs"}
    install(tmp_path, "tiny_versions", METHOD, {n: f"tiny_versions:{kind}" for n, kind in names.items()}, monkeypatch)
    said = {name: cell_of(tree, name).numerics()[f"method {name}"] for name in names}
    assert said == {
        "one": "tiny_versions 1.2",
        "declares": "b",
        "inherits": "tiny_versions 1.2",
        "on-ours": f"tiny_versions 1.2 on {Full.numerics_version}",
    }


def test_where_weights_come_from_and_what_they_are_called_does_not_count():
    facts = {"name": "x", "width": 8, "patch_embedding": "rgb", "pretrained": "file-ab",
             "weights": {"source": "file", "digest": "ab", "matched": 1.0, "missing": 0, "unexpected": 0}}  # fmt: skip
    moved = {**facts, "pretrained": "timm:x", "weights": {**facts["weights"], "source": "hub:x"}}
    assert backbone_inputs(facts) == backbone_inputs(moved)
    assert backbone_inputs(facts) != backbone_inputs({**facts, "weights": {**facts["weights"], "digest": "cd"}})
    assert backbone_inputs(facts) != backbone_inputs({**facts, "weights": None})
    assert backbone_inputs(None) is None


def test_every_field_is_in_the_fingerprint(base):
    identity = base.identity(base.split())
    values = {"seed": 99, "options": {}, "objectives": {"x": {}}, "settings": {}, "numerics": {}, "backbone": None}
    changed = {
        name: identity.model_copy(update={name: values.get(name, "other")}) for name in type(identity).model_fields
    }
    assert len({one.fingerprint for one in changed.values()} | {identity.fingerprint}) == len(changed) + 1
    assert all(name.partition(".")[0] == field for field, one in changed.items() for name in identity.differences(one))


def test_a_record_knows_its_identity_again(tree, base, tmp_path):
    (outcome,) = execute([base], tmp_path, Hardware("cpu"), 0, lambda _: None)
    record = read_record(outcome.record)
    assert record.identity() == base.identity(base.split()) and record.fingerprint == print_of(base)
    text = outcome.record.read_text()
    for old, new in (
        ('"steps": 2', '"steps": 3'),
        ('"seed": 0', '"seed": 1'),
        ('"method lora": "1"', '"method lora": "2"'),
    ):
        assert old in text
        outcome.record.write_text(text.replace(old, new))
        with pytest.raises(RecordError, match="edited after the run"):
            read_record(outcome.record)


def test_an_index_says_where_it_is_but_its_manifest_does_not(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "copy")
    one, other = open_tree(tree), open_tree(tmp_path / "copy")
    assert one.index.root != other.index.root and one.index.manifest == other.index.manifest
