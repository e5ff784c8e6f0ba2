"""Methods that train on unlabelled target images, in training and in whole runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import rasterio
import torch
from scipy.io import loadmat, savemat
from tiny import CPU, fit, make_request, make_source, open_tree, quiet
from torch import nn

from spectral_tl_bench.data.loaders import Normalise, TargetImages
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.methods.adapters_io import read_adapter
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.methods.uda.adabn import adapt
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.trained import load_state

NAMES = ("adabn@small", "entropy-min", "self-training")


class Tracking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(24), nn.Conv2d(24, 8, 1)

    def forward(self, images):
        return self.head(self.norm(images))


def test_statistics_of_the_selected_network_are_those_of_target_windows(tree, tmp_path):
    source, budget = make_source(tree), Budget(steps=6, batch_size=2, learning_rate=0.3)
    one = open_tree(tree)
    chips = make_split(one.benchmark, one.index, 0).chips("target")
    stages = [Stage("segment", 6), Stage("statistics", 1, fit=adapt, trainable=lambda _: False)]

    def trained(number):
        torch.manual_seed(0)
        return fit(Tracking(), stages[:number], source, budget, 8, folder=tmp_path / str(number), validations=6)

    plain = trained(1)
    source.target_images = TargetImages(one.benchmark, one.index, chips, source.settings, source.statistics)
    adapted = trained(2)
    assert plain.selected[0] < 6, "the last is not the best here, or nothing could be told"
    assert adapted.stages[0].options["selected"] == {"step": plain.selected[0], "value": plain.selected_value}
    assert adapted.last[1].keys() == adapted.selected[1].keys() == plain.selected[1].keys()
    assert torch.equal(adapted.selected[1]["head.weight"], plain.selected[1]["head.weight"])
    assert not torch.allclose(adapted.selected[1]["norm.running_mean"], plain.selected[1]["norm.running_mean"])
    windows = source.target_loader(len(source.sweep_loader(True)), "statistics")
    images = [Normalise(source.statistics)(batch["image"]) for batch in windows]
    torch.testing.assert_close(
        adapted.selected[1]["norm.running_mean"], torch.stack([one.mean(dim=(0, 2, 3)) for one in images]).mean(dim=0),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    fresh = Tracking()
    load_state(fresh, adapted.selected[1])
    assert fresh.norm.momentum == 0.1 and len(adapted.trace) == 1


def with_changed_target(tree: Path, folder: Path, what: str) -> Path:
    """A copy of a data root in which labels or images of the target chips are others."""
    shutil.copytree(tree, folder)
    one = open_tree(tree)
    for name in one.index.frame.loc[make_split(one.benchmark, one.index, 0).chips("target"), what]:
        path = folder / Path(one.index.root).relative_to(tree) / name
        if path.suffix == ".mat":
            savemat(path, {"label": loadmat(path)["label"][::-1, ::-1]})
            continue
        with rasterio.open(path, "r+") as file:
            file.write(file.read()[::-1])
    return folder


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in NAMES[:2]] + [NAMES[2]])
def test_images_of_the_target_matter_and_labels_do_not(tree, tmp_path, name):
    weights, records = {}, {}
    for what in ("", "label", "image"):
        root = with_changed_target(tree, tmp_path / f"tree-{what}", what) if what else tree
        options = {"weight": 10} if name == "entropy-min" else {}
        if name == "self-training":
            options = {"threshold": 0}
        cells, broken = plan(make_request(root, name, steps=3, learning_rate=1e-2, options=options), quiet)
        assert broken == []
        (outcome,) = execute(cells, tmp_path / f"runs-{what}", CPU, 0, quiet)
        assert outcome.state == "done", outcome.message
        records[what] = read_record(outcome.record)
        weights[what] = read_adapter(outcome.record.with_name("selected.safetensors"))[1]
    for what, alike in {"label": True, "image": False}.items():
        assert all(torch.equal(weights[what][key], value) for key, value in weights[""].items()) is alike, what
    assert records[""].target_images and records[""].board.endswith("-unlabelled-target")
    assert records[""].selection == records["label"].selection
