"""Floors: the closed forms are those of others, the majority class is the board's, and a pixel sees only itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from tiny import make_request, make_source, make_task, make_tree
from torch import nn

from spectral_tl_bench.data.loaders import Normalise, SourceData
from spectral_tl_bench.leaderboard.board import FLOOR, make_boards
from spectral_tl_bench.methods.base import VOID
from spectral_tl_bench.methods.floors import Majority, NearestMean, PixelMLP, solve
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.results.store import read_record, verify
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.closed_form import Sweep
from spectral_tl_bench.training.hardware import Hardware

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("floors"))


@pytest.fixture(scope="module")
def source(tree) -> SourceData:
    return make_source(tree)


def run(tree, out, *methods, **more):
    cells, broken = plan(make_request(tree, *methods, **more), lambda _: None)
    outcomes = execute(cells, out, Hardware("cpu"), 0, lambda _: None)
    assert not broken and [one.state for one in outcomes] == ["done"] * len(methods), [one.message for one in outcomes]
    records = [read_record(one.record) for one in outcomes]
    for record in records:
        verify(record)
    return records


def training_pixels(source: SourceData) -> tuple[np.ndarray, np.ndarray]:
    """Standardised spectra (N, C) and classes (N,) of all labelled training pixels, chip by chip."""
    normalise, spectra, classes = Normalise(source.statistics), [], []
    for dataset, number, row in source.collection.chips():
        sample = source.collection.datasets[dataset].read_window(number, 0, 0, row["height"], row["width"])
        labelled = sample["mask"] != VOID
        spectra.append(normalise(sample["image"][None])[0].movedim(0, -1)[labelled])
        classes.append(sample["mask"][labelled])
    return torch.cat(spectra).numpy(), torch.cat(classes).numpy()


# ---------------------------------------------------------------------------------------------- nearest mean


def test_nearest_mean_is_scikit_learns_nearest_centroid(source):
    spectra, classes = training_pixels(source)
    assert len(np.unique(classes)) > 2
    expected = NearestCentroid().fit(spectra.astype(np.float64), classes)

    module = NearestMean().build(make_task(bands=24, classes=8))
    solve(module, Sweep(source, True, CPU))
    np.testing.assert_allclose(module.means[expected.classes_].numpy(), expected.centroids_, rtol=1e-5, atol=1e-6)
    assert module.counts.tolist() == np.bincount(classes, minlength=8).tolist()

    rng = np.random.default_rng(0)
    for seen in (spectra[:4096], rng.normal(0, 2, (4096, 24)).astype(np.float32)):
        image = torch.from_numpy(seen.T.reshape(24, 64, 64).copy())[None]
        found = module(image).argmax(1).reshape(-1).numpy()
        assert np.array_equal(found, expected.predict(seen.astype(np.float64))) and len(np.unique(found)) > 1


def test_a_class_without_training_pixels_is_never_said():
    module = NearestMean().build(make_task(bands=2, classes=3))
    image = torch.tensor([[[[4.0, 0.0]], [[0.0, 4.0]]]])
    solve(module, [{"image": image, "mask": torch.tensor([[[2, 1]]]), "domain": torch.zeros(1)}])
    logits = module(torch.zeros(1, 2, 5, 7))  # the mean of class 0 would be the nearest
    assert logits.isfinite().all() and set(logits.argmax(1).unique().tolist()) <= {1, 2}
    assert module(image).argmax(1).tolist() == [[[2, 1]]]


def test_solving_again_starts_again(source):
    one = NearestMean().build(make_task(bands=24, classes=8))
    solve(one, Sweep(source, True, CPU))
    before = {name: value.clone() for name, value in one.state_dict().items()}
    solve(one, Sweep(source, True, CPU))
    assert all(torch.equal(before[name], value) for name, value in one.state_dict().items())


# ---------------------------------------------------------------------------------------------- majority


@pytest.mark.parametrize("name", ["mts12-n2s", "mts12-s2n", "mts12-id"])
def test_the_method_majority_is_the_boards_row(tree, tmp_path, name):
    (record,) = run(tree, tmp_path, "majority", benchmarks=(name,))
    board = make_boards([record])[record.track]
    rows = board.rows.set_index("method")
    entries = board.entries[board.entries["benchmark"] == name].set_index("row")["miou"]
    measured, constant = (entries[rows.loc[method, "row"]] for method in ("majority", FLOOR))
    assert np.isfinite(measured) and measured == constant and rows.loc["majority", "family"] == "floor"
    if name != "mts12-id":
        assert rows.loc["majority", "mean"] == rows.loc[FLOOR, "mean"]


def test_majority_counts_what_the_index_counts(source):
    module = Majority().build(make_task(bands=24, classes=8))
    solve(module, Sweep(source, True, CPU))
    assert module.counts.tolist() == source.class_pixels.tolist()
    assert module(torch.randn(2, 24, 3, 5)).argmax(1).unique().tolist() == [source.majority_class]


def test_of_equal_classes_the_first_is_said():
    module = Majority().build(make_task(classes=4))
    mask = torch.tensor([[[3, 3, 1, 1, 0, VOID, VOID, VOID]]])
    solve(module, [{"image": torch.zeros(1, 4, 1, 8), "mask": mask, "domain": torch.zeros(1)}])
    assert module(torch.zeros(1, 4, 2, 2)).argmax(1).unique().tolist() == [1]


def test_no_option_of_a_run_changes_a_closed_form(tree, tmp_path):
    def state(**more):
        (record,) = run(tree, tmp_path / str(len(list(tmp_path.iterdir()))), "nearest-mean", **more)
        return record.scores.selected, record.selection.value

    assert state() == state(steps=5, batch_size=3) == state(window=24, stride=8)


def test_the_record_of_a_closed_form(tree, tmp_path):
    for record in run(tree, tmp_path, "majority", "nearest-mean", oracle=True):
        assert (record.family, record.parameters.total, record.parameters.trainable) == ("floor", 0, 0)
        assert [(one.name, one.steps, one.trainable, one.options) for one in record.stages] == [
            ("segment", 1, 0, {"closed_form": True})
        ]
        assert record.selection.step == 1 and record.selection.trace == ((1, record.selection.value),)
        assert record.scores.selected == record.scores.last == record.scores.oracle
        assert (record.path.parent / "selected.safetensors").is_file()


# ---------------------------------------------------------------------------------------------- spectral MLP


@pytest.mark.parametrize("method", [PixelMLP(), PixelMLP(depth=0), PixelMLP(hidden=5, depth=3)], ids=repr)
def test_a_pixel_sees_only_itself(method):
    torch.manual_seed(0)
    module, image = method.build(make_task(bands=6, classes=4)), torch.randn(1, 6, 5, 7, requires_grad=True)
    module(image)[0, :, 2, 3].sum().backward()
    seen = image.grad[0].abs().sum(0) > 0
    assert seen[2, 3] and int(seen.sum()) == 1
    order = torch.randperm(35)
    shuffled = image.detach().flatten(2)[..., order].reshape(1, 6, 5, 7)
    expected = module(image).flatten(2)[..., order].reshape(1, 4, 5, 7)
    torch.testing.assert_close(module(shuffled), expected)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [({}, [6, 64, 64, 4]), ({"depth": 0}, [6, 4]), ({"hidden": "5", "depth": "3"}, [6, 5, 5, 5, 4])],
)
def test_sizes_of_the_spectral_mlp(options, sizes):
    module = make_method("pixel-mlp", options).build(make_task(bands=6, classes=4))
    layers = [layer for layer in module if isinstance(layer, nn.Conv2d)]
    assert [layers[0].in_channels, *(layer.out_channels for layer in layers)] == sizes
    assert sum(p.numel() for p in module.parameters()) == sum(a * b + b for a, b in itertools.pairwise(sizes))


def test_a_linear_spectral_mlp_learns_what_a_line_can_tell():
    torch.manual_seed(0)
    method, task = PixelMLP(depth=0), make_task(bands=3, classes=2)
    module = method.build(task)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    images = torch.randn(4, 3, 8, 8)
    mask = (images[:, 0] > images[:, 2]).long()
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(images), mask).backward()
        optimiser.step()
    assert (module(images).argmax(1) == mask).float().mean() > 0.97


@pytest.mark.parametrize("name", ["majority", "nearest-mean"])
def test_closed_forms_have_no_options(name):
    assert not type(make_method(name)).model_fields
