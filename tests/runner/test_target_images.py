"""Methods that say that they need the target's images get them, without labels, and stand apart."""

from __future__ import annotations

import pytest
import torch
from tiny import install, make_request

from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.methods.registry import load_method
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

ADAPTS = '''
import torch
from torch import nn
from spectral_tl_bench.methods.base import KeptFeatures, Method, Shared, Stage
from spectral_tl_bench.methods.losses import segmentation_loss

SEEN = []

class Adapts(Method):
    """Matches the mean prediction on target images to that on source images."""
    target_images = True
    weight: float = 1.0
    shares: bool = False
    cached: bool = False

    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

    def kept_features(self):
        return KeptFeatures() if self.cached else None

    def stages(self, task):
        def loss(module, batch):
            SEEN.append({name: value.clone() for name, value in batch.items()})
            gap = module(batch["target_image"]).mean((0, 2, 3)) - module(batch["image"]).mean((0, 2, 3))
            return segmentation_loss(module, batch) + self.weight * gap.square().sum()

        def look(module, batch):
            return module(batch["image" if self.shares else "target_image"]).square().mean()

        shared = Shared(self, lambda name: True, lambda name: False) if self.shares else None
        first = Stage("look", 2, labelled=False, loss=look, shared=shared)
        return [first, Stage("segment", task.budget.steps, loss=loss)]

class Blind(Adapts):
    """The same class, without the declaration."""
    target_images = False
'''


@pytest.fixture
def adapting(tmp_path, monkeypatch):
    """Two methods, installed."""
    entries = {"adapts": "adapting:Adapts", "adapts-blind": "adapting:Blind"}
    install(tmp_path / "site", "adapting", ADAPTS, entries, monkeypatch)


def run(tree, tmp_path, name, **more):
    cells, broken = plan(make_request(tree, name, **more), lambda _: None)
    assert not broken, broken
    return cells[0], execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)[0]


def test_they_get_images_of_the_target_and_nothing_else_of_it(adapting, tree, tmp_path):
    cell, outcome = run(tree, tmp_path, "adapts")
    assert outcome.state == "done", outcome.message
    seen = load_method("adapts").build.__globals__["SEEN"]
    assert len(seen) == 2
    for batch in seen:
        assert set(batch) == {"image", "domain", "mask", "target_image"}
        assert batch["target_image"].shape == batch["image"].shape
        assert batch["target_image"].dtype == torch.float32
    # Their pixels are the target's: of a benchmark whose target chips are all zero, they would be constant.
    statistics = cell.opened.index.frame.loc[cell.split().chips("target")]
    assert len(statistics) and not torch.equal(seen[0]["target_image"], seen[0]["image"])
    assert not torch.equal(seen[0]["target_image"], seen[1]["target_image"])


def test_their_results_stand_apart(adapting, tree, tmp_path):
    _, outcome = run(tree, tmp_path, "adapts")
    _, other = run(tree, tmp_path, "full")
    records = [read_record(outcome.record), read_record(other.record)]
    assert [record.target_images for record in records] == [True, False]
    boards = make_boards(records)
    assert set(boards) == {"partial", "partial-unlabelled-target"}
    assert set(boards["partial-unlabelled-target"].rows["method"]) == {"adapts", "majority class"}


def test_who_does_not_declare_it_gets_none(adapting, tree, tmp_path):
    _, outcome = run(tree, tmp_path, "adapts-blind")
    assert outcome.state == "failed" and "target_image" in outcome.message


@pytest.mark.parametrize(("option", "message"), [("cached", "kept features"), ("shares", "shares a stage")])
def test_what_other_runs_share_does_not_see_the_target(adapting, tree, option, message):
    cells, broken = plan(make_request(tree, "adapts", options={option: True}), lambda _: None)
    assert not cells and message in str(broken[0][1])
