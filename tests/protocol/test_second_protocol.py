"""A second protocol is a second object in somebody's package: nothing in the loop asks which one it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import install, make_request, make_tree
from torch.nn import functional

from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.results.store import evidence, read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

SIDE, CHIP = 24, 40

CODE = f"""
import torch
from torch import nn
from torch.nn import functional

from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.samplers import GridCollectionWindows
from spectral_tl_bench.data.windows import ChipStitcher, SlidingWindows
from spectral_tl_bench.evaluation.metrics import MeanIoU, score
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.training.selection import BestOnSource


class MinMax(nn.Module):
    name = "each chip and band from its minimum to its maximum"
    numerics_version = 7

    def __init__(self, statistics):
        super().__init__()

    def forward(self, image):
        low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
        return torch.where(high > low, (image - low) / (high - low + 1e-8), image)


def nothing(seed):
    return None


class WholeChips(SlidingWindows):
    name = "whole chips, resized"
    numerics_version = 3

    def training(self, collection, window, length, seed, balanced):
        return super().training(collection, self._side(collection), length, seed, balanced)

    def evaluation(self, collection, window, stride):
        return GridCollectionWindows(collection, self._side(collection), self._side(collection))

    def _side(self, collection):
        return next(row["height"] for _, _, row in collection.chips())

    def largest(self, chip_size):
        return 10_000

    def count(self, height, width, window, stride):
        return 1

    def prepare(self, sample):
        image = functional.interpolate(sample["image"][None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]
        mask = sample["mask"][None, None].float()
        return {{**sample, "image": image, "mask": functional.interpolate(mask, (SIDE, SIDE))[0, 0].long()}}

    def stitcher(self, num_classes, height, width, window, device):
        return ChipStitcher(num_classes, SIDE, SIDE, SIDE, device=device)


class Accuracy(MeanIoU):
    numerics_version = 2

    def value(self, matrix):
        return score(matrix).oa


SIDE = {SIDE}
WHOLE = Protocol(
    name="whole", about="as a release does it", pixels=PixelRules(MinMax, nothing, WholeChips()), metric=Accuracy(),
    selection=BestOnSource(Accuracy()), budgets={{"only": (Budget(steps=3, pretrain_steps=1, batch_size=2), 2)}},
    usual_budget="only", window={SIDE}, small_window={SIDE},
)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("whole"), chip=CHIP)


@pytest.fixture
def whole(tmp_path, monkeypatch) -> Protocol:
    install(tmp_path / "site", "tiny_protocol", CODE, {"whole": "tiny_protocol:WHOLE"}, monkeypatch, "protocols")
    return get_protocol("whole")


def cells_of(tree, *methods, **more):
    return plan(make_request(tree, *methods, protocol="whole", budget="only", batch_size=2, **more), lambda _: None)


@pytest.mark.parametrize("method", ["full", "spectralx", "nearest-mean", "lora+swad"])
def test_a_run_under_a_second_protocol(tree, tmp_path, whole, method):
    cells, broken = cells_of(tree, method)
    assert broken == [] and len(cells) == 1
    (outcome,) = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message
    record = read_record(outcome.record)
    assert (record.protocol, record.settings["protocol"], record.settings["augment"]) == ("whole", "whole", "none")
    assert record.settings["window"] == SIDE, "what the method is told, not the side of a chip"
    versions = {"normalisation": "7", "windows": "3", "metric": "2", "selection": "1"}
    assert {name: record.numerics[name] for name in versions} == versions
    assert record.numerics["augmentation"] == "tiny_protocol 1.2", "it says nothing of itself: its package speaks"
    for matrix in evidence(record)["matrix"]:
        assert matrix.sum() <= SIDE * SIDE, "chips are measured as they were resized"


def test_what_training_sees(tree, whole):
    (cell,), _ = cells_of(tree, "full")
    one = cell.opened
    settings = LoaderSettings(SIDE, SIDE, 2, rules=whole.pixels)
    source = SourceData(one.benchmark, one.index, cell.split(), settings, 0)
    batch = next(iter(source.train_loader(1, True, "segment")))
    assert batch["image"].shape[-2:] == batch["mask"].shape[-2:] == (SIDE, SIDE)
    normalised = source.normaliser()(batch["image"])
    assert normalised.amin() == 0 and 0.99 < normalised.amax() <= 1
    assert source.augmentation("segment") is None
    chip = next(iter(source.validation.rows))
    whole_chip = torch.from_numpy(source.validation.image(chip))
    assert whole_chip.shape[-2:] == (CHIP, CHIP)
    batches = list(source.validation.loader())
    (window,) = [b["image"][number] for b in batches for number, name in enumerate(b["chip"]) if name == chip]
    resized = functional.interpolate(whole_chip[None], (SIDE, SIDE), mode="bilinear", antialias=True)[0]
    assert torch.equal(window, resized) and source.validation.truth(chip).shape == (SIDE, SIDE)


def test_results_of_two_protocols_are_two_results(tree, whole):
    (cell,), _ = cells_of(tree, "full")
    (other,), _ = plan(make_request(tree, "full", window=SIDE, batch_size=2, steps=3), lambda _: None)
    differences = set(cell.identity(cell.split()).differences(other.identity(other.split())))
    assert {"settings.protocol", "settings.augment", "numerics.normalisation", "numerics.windows"} <= differences


def test_kept_features_are_refused(tree, whole):
    cells, broken = cells_of(tree, "linear-probe", options={"cache": True})
    assert cells == [] and "sliding windows" in str(broken[0][1])


def test_the_selected_checkpoint_is_that_of_the_protocol_s_metric(whole):
    matrix = np.array([[9, 0], [1, 0]])
    assert whole.selection.value(matrix) == 0.9 != STRICT.selection.value(matrix)
    assert whole.selection.value(np.zeros((2, 2), np.int64)) == 0


def test_a_protocol_has_a_version(whole):
    parts = [(name, part.numerics_version) for name, part in STRICT.parts().items()]
    assert STRICT.version == ", ".join(f"{name} {version}" for name, version in parts) and len(parts) == 5
    assert whole.version == "normalisation 7, augmentation tiny_protocol 1.2, windows 3, metric 2, selection 1"


def test_unknown_names(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no protocol 'stric'") as caught:
        get_protocol("stric")
    assert "strict" in str(caught.value.expected)
    install(tmp_path, "tiny_odd", "ODD = 1", {"odd": "tiny_odd:ODD"}, monkeypatch, "protocols")
    with pytest.raises(UserError, match="is not a"):
        get_protocol("odd")
