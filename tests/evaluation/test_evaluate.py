"""Evaluation counts every labelled pixel of every chip once, with the class that the whole chip would have got."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import make_tree, open_tree
from torch import nn

from spectral_tl_bench.data.loaders import BandStatistics, EvaluationData, LoaderSettings, Normalise
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.evaluation.evaluate import ChipEvaluator, evaluate
from spectral_tl_bench.evaluation.metrics import confusion
from spectral_tl_bench.methods.base import VOID

CLASSES, CPU = 8, torch.device("cpu")
NARROW = LoaderSettings(window=16, stride=12, batch_size=2, eval_batch_size=5)  # 40 = 12 + 12 + 16: overlaps by 4


class ByBrightness(nn.Module):
    """The class is told by the pixel's own mean: nothing depends on where a window lies."""

    def forward(self, images):
        rank = (images.mean(dim=1) * 2 + CLASSES / 2).long().clamp(0, CLASSES - 1)
        return nn.functional.one_hot(rank, CLASSES).permute(0, 3, 1, 2).float()


class Returns(nn.Module):
    """Whatever it was told."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def forward(self, images):
        return self.make(images)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    one = open_tree(make_tree(tmp_path_factory.mktemp("evaluation"), chip=40, north=4, south=3))
    split = make_split(one.benchmark, one.index, 0)
    return one, split.chips("target"), BandStatistics.of(one.index, split.chips("train"))


@pytest.fixture
def open_data(world):
    one, chips, statistics = world
    return lambda settings=NARROW: EvaluationData(one.benchmark, one.index, chips, settings, statistics)


def whole_chips(data, statistics, module) -> dict[str, np.ndarray]:
    """Confusion of each chip, predicted in one piece."""
    found = {}
    for dataset, number, row in data.collection.chips():
        sample = data.collection.datasets[dataset].read_window(number, 0, 0, row["height"], row["width"])
        with torch.no_grad():
            prediction = module(Normalise(statistics)(sample["image"][None]))[0].argmax(dim=0)
        found[row["chip"]] = confusion(sample["mask"].numpy(), prediction.numpy(), CLASSES)
    return found


@pytest.mark.parametrize(("window", "stride"), [(16, 12), (16, 16), (24, 7), (40, 20)])
def test_windows_leave_no_trace(world, open_data, window, stride):
    data = open_data(LoaderSettings(window, stride, 2, eval_batch_size=3))
    table = evaluate(ByBrightness(), Normalise(world[2]), data, CLASSES, CPU)
    expected = whole_chips(data, world[2], ByBrightness())
    assert table["chip"].tolist() == sorted(expected) == world[1]
    for chip, matrix in zip(table["chip"], table["matrix"], strict=True):
        assert matrix.dtype == np.int64
        np.testing.assert_array_equal(matrix, expected[chip])
    total = np.sum(table["matrix"].to_list(), axis=0)
    assert (total.sum(axis=0) > 0).sum() >= 4, "the predictor must not be trivial"


def test_rows_are_the_label_counts_and_void_is_never_counted(world, open_data):
    data = open_data()
    table = evaluate(ByBrightness(), Normalise(world[2]), data, CLASSES, CPU)
    frame, void = world[0].index.frame, 0
    for chip, matrix in zip(table["chip"], table["matrix"], strict=True):
        assert matrix.sum(axis=1).tolist() == list(frame.loc[chip, "class_counts"])
        truth = data.truth(chip)
        assert matrix.sum() == (truth != VOID).sum()
        void += int((truth == VOID).sum())
    assert void > 0, "this test needs chips with void pixels"
    assert set(table["domain"]) == {"south"} and (table["site"] != "").all()


def test_batches_of_windows_do_not_matter(world, open_data):
    tables = []
    for batch in (1, 4, 1000):
        data = open_data(LoaderSettings(16, 12, 2, eval_batch_size=batch))
        tables.append(evaluate(ByBrightness(), Normalise(world[2]), data, CLASSES, CPU))
    for table in tables[1:]:
        for one, other in zip(tables[0]["matrix"], table["matrix"], strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_module_is_put_into_evaluation_mode_and_counted_on(world, open_data):
    module, data, calls = nn.Sequential(nn.Dropout(0.9), ByBrightness()).train(), open_data(), []
    table = evaluate(
        module, Normalise(world[2]), data, CLASSES, CPU, on_batch=lambda done, of: calls.append((done, of))
    )
    expected = whole_chips(data, world[2], ByBrightness())
    assert all((m == expected[c]).all() for c, m in zip(table["chip"], table["matrix"], strict=True))
    batches = -(-3 * 9 // 5)
    assert calls == [(number, batches) for number in range(1, batches + 1)]


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda x: torch.zeros(len(x), CLASSES + 1, 16, 16), r"\(5, 9, 16, 16\)"),
        (lambda x: torch.zeros(len(x), CLASSES, 8, 8), r"\(5, 8, 8, 8\)"),
        (lambda x: torch.zeros(len(x), 16, 16), r"\(5, 16, 16\)"),
        (lambda x: torch.zeros(1, CLASSES, 16, 16), r"\(1, 8, 16, 16\)"),
        (lambda x: {"out": x}, "dict"),
    ],
)
def test_logits_of_another_shape_are_refused(world, open_data, make, got):
    with pytest.raises(ValueError, match=rf"logits of shape {got}, expected \(5, 8, 16, 16\) \(B, K, H, W\)"):
        evaluate(Returns(make), Normalise(world[2]), open_data(), CLASSES, CPU)


def test_logits_that_are_no_numbers_are_refused(world, open_data):
    diverged = Returns(lambda x: torch.full((len(x), CLASSES, 16, 16), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        evaluate(diverged, Normalise(world[2]), open_data(), CLASSES, CPU)


def test_every_pass_starts_from_nothing(open_data):
    data = open_data()
    batches = list(data.loader())

    def one_pass():
        evaluator = ChipEvaluator(data, CLASSES)
        for batch in batches:
            evaluator.add(ByBrightness()(batch["image"] / 1000), batch)
        return evaluator.matrix()

    first = one_pass()
    np.testing.assert_array_equal(one_pass(), first)
    labelled = sum(int((data.truth(chip) != VOID).sum()) for chip in data.rows)
    assert first.sum() == labelled


def test_what_was_not_covered_or_comes_twice_is_an_error(open_data):
    data = open_data()
    batches = list(data.loader())
    evaluator = ChipEvaluator(data, CLASSES)
    evaluator.add(ByBrightness()(batches[0]["image"]), batches[0])
    with pytest.raises(RuntimeError, match="3 chips were not covered"):
        evaluator.table()
    with pytest.raises(ValueError, match="come already"):
        evaluator.add(ByBrightness()(batches[0]["image"]), batches[0])
