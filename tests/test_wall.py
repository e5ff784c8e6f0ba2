"""The wall: from nothing that training or a method holds does a way lead to a chip or label of the target.

What Python code in the same process can do beyond what it is given (reading files by path, walking through frames and
the garbage collector) cannot be prevented; ``stbench check-method`` finds it out: tests/authoring.
"""

from __future__ import annotations

import gc
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Pixelwise, fit, install, make_request, make_tree, open_tree
from walking import Target, reachable

from spectral_tl_bench.authoring.checks_run import Reading, watched
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, SourceData, TargetImages
from spectral_tl_bench.data.rasters import SpectralChips
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.methods.adapters_io import read_adapter
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import load_method
from spectral_tl_bench.runner import cell as cell_module
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import gradient as gradient_module
from spectral_tl_bench.training.hardware import Hardware


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("wall"))


@pytest.fixture(scope="module", params=["mts12-n2s", "mts12-id"])
def world(request, tree):
    one = open_tree(tree, request.param)
    split = make_split(one.benchmark, one.index, 0)
    settings = LoaderSettings(16, 8, 2)
    source = SourceData(one.benchmark, one.index, split, settings, 0)
    target = Target(
        one, split, EvaluationData(one.benchmark, one.index, split.chips("target"), settings, source.statistics)
    )
    return one, split, source, target


def test_the_walk_sees_what_it_looks_for(world):
    one, split, _, target = world
    for holder in (one.index, split, target.data.rows, [target.data], {"deep": (lambda: target.data,)}):
        assert any(hit.startswith("text") for hit in target.found_in(holder))
    chip = split.chips("target")[0]
    assert target.found_in([{"mask": torch.from_numpy(target.data.truth(chip))}]) == ["labels"]
    assert target.found_in(target.data.collection.datasets[0].index["chip"])
    assert not target.found_in(one.benchmark, Budget(), np.arange(5), "south", split.chips("train"))


def test_no_way_leads_from_training_to_the_target(world, tmp_path, monkeypatch):
    _, split, source, target = world
    tasks, batches = [], []

    class Caught(gradient_module.StageTask):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            tasks.append(self)

    def loss(module, batch):
        batches.append(batch)
        return segmentation_loss(module, batch)

    monkeypatch.setattr(gradient_module, "StageTask", Caught)
    stages = [
        Stage("first", 1, labelled=False, loss=lambda m, b: batches.append(b) or m(b["image"]).mean()),
        Stage("segment", 2, loss=loss),
    ]
    fitted = fit(
        Pixelwise(), stages, source, Budget(batch_size=2), 8, folder=tmp_path, validations=1,
    )  # fmt: skip
    assert len(tasks) == 2 and len(batches) == 3 and tasks[-1].trainer is not None
    assert sum(1 for _ in reachable(*tasks)) > 1_000, "the walk must not stop at the surface"
    assert target.found_in(source, fitted, stages, batches, *tasks) == []
    # What training did load is on this side of the wall, and it did load something.
    loaded = set(source.collection.datasets[0].chip_cache._kept)
    assert loaded and loaded <= {*split.chips("train"), *split.chips("validation")}
    assert [set(batch) for batch in batches] == [{"image", "domain"}, *[{"image", "domain", "mask"}] * 2]
    assert all(isinstance(value, torch.Tensor) for batch in batches for value in batch.values())


def test_a_stage_in_closed_form_reaches_the_target_no_more(world, tmp_path):
    _, split, source, target = world
    given = []

    def solve(module, batches):
        given.extend((module, batches, *batches))

    stage = Stage("segment", 1, fit=solve)
    fitted = fit(
        Pixelwise(), [stage], source, Budget(batch_size=2), 8, folder=tmp_path, validations=1,
    )  # fmt: skip
    assert sum(1 for _ in reachable(*given)) > 1_000, "the walk must not stop at the surface"
    assert target.found_in(source, fitted, stage, *given) == []
    names = {text for text in reachable(*given) if isinstance(text, str)}
    assert set(split.chips("train")) <= names, "the walk sees the chips that are there"


def test_no_target_name_is_in_the_bytes_either(world):
    _, split, source, target = world
    content = pickle.dumps(source)
    assert any(chip.encode() in content for chip in split.chips("train"))
    assert not [name for name in target.texts if name.encode() in content]
    assert any(name.encode() in pickle.dumps(target.data) for name in target.texts)


def test_validation_batches_hold_no_label(world):
    batch = next(iter(world[2].validation.loader()))
    assert set(batch) == {"image", "chip", "line", "column"}
    assert set(batch["chip"]) <= set(world[1].chips("validation"))


def test_training_pixels_are_those_of_training_chips_only(world):
    one, split, source, _ = world
    held = {row["chip"] for _, _, row in source.collection.chips()}
    assert held == set(split.chips("train")) and not held & set(split.chips("target"))
    frame = one.index.frame.loc[split.chips("train")]
    expected = np.sum(frame["band_sum"].tolist(), axis=0) / frame["valid_pixels"].sum()
    np.testing.assert_allclose(source.statistics.mean, expected)


HOSTILE = """
import gc, os
from pathlib import Path
import torch
from torch import nn
from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.rasters import SpectralChips
from spectral_tl_bench.methods.base import Method, Stage
from spectral_tl_bench.methods.losses import segmentation_loss

KEPT = {"tasks": [], "methods": [], "batches": [], "alive": [], "environment": [], "files": [], "order": []}
STORE = []
BEFORE = {}  # what the tests themselves hold, by id

class Network(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.layer = nn.Conv2d(task.num_bands, task.num_classes, 1)

    def forward(self, images):
        logits = self.layer(images)
        if not self.training:
            images.zero_()  # of no use to others
        return logits

class Hostile(Method):
    \"\"\"Takes whatever it can get hold of.\"\"\"
    first: bool = True

    def build(self, task):
        KEPT["tasks"].append(task)
        KEPT["methods"].append(self)
        self.look("build")
        return Network(task)

    def look(self, when):
        chips, cached, evaluated = set(), set(), set()
        for one in gc.get_objects():
            kind = type(one)  # isinstance would wake up what is lazy
            if id(one) in BEFORE:
                continue
            if issubclass(kind, SpectralChips):
                chips |= {row["chip"] for row in one.chip_rows()}
            elif kind is ChipCache:
                cached |= set(one._kept)
            elif issubclass(kind, EvaluationData):
                evaluated |= set(one.rows)
        KEPT["alive"].append((when, chips, cached, evaluated))
        KEPT["environment"].append(dict(os.environ))
        KEPT["files"] += [str(path.relative_to(root)) for root in STORE for path in Path(root).rglob("*")]

    def stages(self, task):
        def loss(module, batch):
            value = segmentation_loss(module, {name: tensor.clone() for name, tensor in batch.items()})
            KEPT["batches"].append(dict(batch))
            self.look("loss")
            return value

        def spoil(module, batch):
            value = loss(module, batch)
            for tensor in batch.values():
                tensor.zero_()
            return value

        unlabelled = Stage("look", 1, labelled=False, loss=lambda m, b: KEPT["batches"].append(dict(b)) or
                           m(b["image"].clone()).square().mean())
        return [unlabelled, Stage("segment", task.budget.steps, loss=loss if self.first else spoil)]

class Adapts(Hostile):
    target_images = True
"""


@pytest.fixture(scope="module", autouse=True)
def hostile(tmp_path_factory):
    """The method, installed under two names; and what it has kept."""
    with pytest.MonkeyPatch.context() as patch:
        entries = {"hostile": "hostile_method:Hostile", "hostile-adapts": "hostile_method:Adapts"}
        install(tmp_path_factory.mktemp("hostile") / "site", "hostile_method", HOSTILE, entries, patch)
        yield load_method("hostile").build.__globals__


@pytest.fixture(autouse=True)
def nothing_kept(hostile):
    """What earlier tests have left is away."""
    for kept in (*hostile["KEPT"].values(), hostile["STORE"]):
        kept.clear()
    gc.collect()


@pytest.fixture(scope="module")
def hidden(hostile, tree, tmp_path_factory):
    """A run of two cells in one process, the second of them hostile: it, its target, and what it has kept."""
    gc.collect()
    kinds = (SpectralChips, ChipCache, EvaluationData)
    hostile["BEFORE"].update({id(one): one for one in gc.get_objects() if issubclass(type(one), kinds)})
    hostile["STORE"].append(tmp_path_factory.mktemp("store"))
    cells, outcomes = run(tree, hostile["STORE"][0], "pixel-mlp", "hostile")
    return cells[1], outcomes[1], target_of(cells[1]), {name: list(kept) for name, kept in hostile["KEPT"].items()}


def run(tree, out, *methods, **more):
    cells, broken = plan(make_request(tree, *methods, backbone="compact", **more), lambda _: None)
    assert not broken, broken
    outcomes = execute(cells, out, Hardware("cpu"), 0, lambda _: None)
    assert all(outcome.state == "done" for outcome in outcomes), [outcome.message for outcome in outcomes]
    return cells, outcomes


def target_of(cell) -> Target:
    one, split = cell.opened, cell.split()
    statistics = SourceData(one.benchmark, one.index, split, LoaderSettings(16, 8, 2), 0).statistics
    chips = split.chips("target")
    return Target(one, split, EvaluationData(one.benchmark, one.index, chips, LoaderSettings(16, 8, 2), statistics))


def test_whatever_a_method_keeps_holds_nothing_of_the_target(hidden):
    cell, _, target, kept = hidden
    assert len(kept["batches"]) == 3 and len(kept["tasks"]) == len(kept["methods"]) == 1
    assert target.found_in(kept["batches"], kept["tasks"], kept["methods"], cell.method, cell.backbone) == []
    assert [set(batch) for batch in kept["batches"]] == [{"image", "domain"}, *[{"image", "domain", "mask"}] * 2]


def test_a_batch_is_a_copy_that_ends_where_it_ends(hidden):
    for batch in hidden[-1]["batches"]:
        for name, tensor in batch.items():
            assert tensor._base is None, f"{name} is a view of something larger"
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name
            assert not tensor.requires_grad and not tensor._backward_hooks


def test_spoiling_a_batch_spoils_nothing_else(hidden, tree, tmp_path):
    """Chips are kept in memory, for training and validation alike: nobody may write into them."""
    _, (outcome,) = run(tree, tmp_path / "runs", "hostile", options={"first": "false"})
    one, other = (
        read_adapter(path.with_name("selected.safetensors"))[1] for path in (outcome.record, hidden[1].record)
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_no_target_chip_is_open_anywhere_while_a_method_trains(hidden):
    """Not even to the garbage collector, though another cell of the process has just been tested on them."""
    cell, _, _, kept = hidden
    split = cell.split()
    assert [when for when, *_ in kept["alive"]] == ["build", "loss", "loss"]
    for when, chips, cached, evaluated in kept["alive"]:
        assert set(split.chips("train")) <= chips, "the search finds what is there"
        assert not set(split.chips("target")) & (chips | cached | evaluated), when


def test_the_environment_says_nothing(hidden, tree):
    texts = hidden[2].texts
    for seen in hidden[3]["environment"]:
        assert not [value for value in seen.values() if str(tree) in value or any(text in value for text in texts)]


def test_the_store_holds_no_label_and_no_score_of_a_cell_before_it_is_over(hostile, tree, tmp_path):
    hostile["STORE"].append(tmp_path / "runs")
    _, (outcome,) = run(tree, tmp_path / "runs", "hostile")
    during = hostile["KEPT"]["files"]
    assert not [name for name in during if any(part in name for part in ("pictures", "evidence", "record"))], during
    assert list(outcome.record.parent.glob("evidence-*")), "what was looked for comes afterwards"


def test_features_of_the_target_are_made_when_training_is_over(tree, tmp_path, monkeypatch):
    counts, plain = [], cell_module.train
    folder = tmp_path / "cache" / "features"
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))

    def train(*arguments: Any, **more: Any) -> Any:
        counts.append(len(list(folder.rglob("features.json"))))
        fitted = plain(*arguments, **more)
        counts.append(len(list(folder.rglob("features.json"))))
        return fitted

    monkeypatch.setattr(cell_module, "train", train)
    run(tree, tmp_path / "runs", "linear-probe", options={"cache": "true"})
    counts.append(len(list(folder.rglob("features.json"))))
    assert counts == [2, 2, 3], "training and validation; the target comes last"


def test_a_task_cannot_be_changed_and_is_made_anew(hostile, tree, tmp_path):
    (cell,), _ = run(tree, tmp_path / "runs", "hostile")
    (task,) = hostile["KEPT"]["tasks"]
    with pytest.raises(FrozenInstanceError):
        task.window = 8
    object.__setattr__(task, "window", 8)
    assert cell.task().window != 8


def guarded(cell, columns) -> Reading:
    reading = Reading("hostile_method")
    rows = cell.opened.index.frame.loc[cell.split().chips("target"), columns].to_numpy().ravel()
    reading.guard([cell.opened.index.root / name for name in rows])
    assert reading.guarded
    return reading


def test_no_file_of_the_target_is_opened_while_a_method_trains(hostile, tree, tmp_path):
    cells, _ = plan(make_request(tree, "hostile", backbone="compact"), lambda _: None)
    with watched(guarded(cells[0], ["label", "image"])) as reading:
        execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert reading.opened == []


def test_with_target_images_no_label_of_the_target_is_read(hostile, tree, tmp_path):
    cells, _ = plan(make_request(tree, "hostile-adapts", backbone="compact"), lambda _: None)
    with watched(guarded(cells[0], ["label"])) as labels, watched(guarded(cells[0], ["image"])) as images:
        (outcome,) = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message
    assert labels.opened == []
    assert images.opened and all("spectral_tl_bench.training" in one for one in images.opened), "these it may have"
    assert all(not key.startswith("target") or key == "target_image" for b in hostile["KEPT"]["batches"] for key in b)


def test_target_images_come_from_where_no_label_is_known(world):
    one, split, source, target = world
    chips = split.chips("target")
    images = TargetImages(one.benchmark, one.index, chips, LoaderSettings(16, 8, 2), source.statistics)
    loader = images.loader(3, seed=0)
    batches = list(loader)
    assert [set(batch) for batch in batches] == [{"image"}] * 3
    labels = set(one.index.frame.loc[chips, "label"])
    found = target.found_in(images, loader, batches)
    assert found and not [hit for hit in found if hit == "labels" or hit.removeprefix("text ") in labels]
    assert all(
        (one == 255).all() for chips in images.collection.datasets for _, one, _ in chips.chip_cache._kept.values()
    )
    assert not [row for chips in images.collection.datasets for row in chips.chip_rows() if "class_counts" in row]
