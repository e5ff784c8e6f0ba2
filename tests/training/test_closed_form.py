"""Stages in closed form: they get every training pixel once, change what they name, and are validated and kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_train import BUDGET, CLASSES, Parts, load_state, module_of, states_equal, train, validation_miou
from tiny import Pixelwise, make_source, make_task, open_tree
from torch import nn

from spectral_tl_bench.data.loaders import LoaderSettings, Normalise, SourceData
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.base import VOID, Shared, Stage
from spectral_tl_bench.methods.floors import Majority
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.training.closed_form import Sweep, solve_stage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tree):
    return make_source(tree)


def nothing(module, batches):
    """Leaves the module as it is."""


# ---------------------------------------------------------------------------------------------- what it is given


@pytest.mark.parametrize("window", [8, 12, 16, 24, 31, 32])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_every_labelled_training_pixel_comes_exactly_once(tree, window, batch_size):
    one = open_tree(tree)
    split = make_split(one.benchmark, one.index, 0)
    source = SourceData(one.benchmark, one.index, split, LoaderSettings(window, window, batch_size), 0)
    sums, counts = np.zeros((CLASSES, 24)), np.zeros(CLASSES, dtype=np.int64)
    expected_sums, seen = np.zeros((CLASSES, 24)), []
    for batch in source.sweep_loader(True):
        assert batch["image"].shape[2:] == batch["mask"].shape[1:] == (window, window)
        seen.append(len(batch["image"]))
        for label in range(CLASSES):
            chosen = batch["image"].movedim(1, -1)[batch["mask"] == label].double().numpy()
            sums[label] += chosen.sum(axis=0)
            counts[label] += len(chosen)
    for dataset, number, row in source.collection.chips():
        sample = source.collection.datasets[dataset].read_window(number, 0, 0, row["height"], row["width"])
        for label in range(CLASSES):
            expected_sums[label] += sample["image"][:, sample["mask"] == label].double().numpy().sum(axis=1)
    assert counts.tolist() == source.class_pixels.tolist()
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-9)
    assert sum(seen) == len(split.chips("train")) * (-(-32 // window)) ** 2 and max(seen) <= batch_size


def test_batches_are_normalised_and_not_augmented_and_can_be_gone_through_again(source):
    sweep = Sweep(source, True, CPU)
    first, again = list(sweep), list(sweep)
    assert len(first) == len(sweep) > 1
    for one, other, raw in zip(first, again, source.sweep_loader(True), strict=True):
        assert states_equal(one, other) and set(one) == {"image", "mask", "domain"}
        assert torch.equal(one["image"], Normalise(source.statistics)(raw["image"]))
        assert torch.equal(one["mask"], raw["mask"])


def test_an_unlabelled_stage_sees_no_label(tmp_path, source):
    seen = []

    def fit(module, batches):
        seen.extend(set(batch) for batch in batches)

    train(tmp_path, source, module_of(), [Stage("first", 1, labelled=False, fit=fit), Stage("segment", 2)])
    assert seen and all(keys == {"image", "domain"} for keys in seen)


def test_it_runs_in_evaluation_mode_without_gradients(tmp_path, source):
    seen = []

    def fit(module, batches):
        seen.append((module.training, torch.is_grad_enabled(), torch.rand(3)))

    for seed in (0, 0, 1):
        train(tmp_path, source, module_of().train(), [Stage("segment", 1, fit=fit)], weight_seed=seed)
    assert [modes[:2] for modes in seen] == [(False, False)] * 3
    assert torch.equal(seen[0][2], seen[1][2]) and not torch.equal(seen[0][2], seen[2][2])


# ---------------------------------------------------------------------------------------------- what it leaves


def test_a_closed_form_is_validated_and_kept_as_others_are(tmp_path, source):
    def fit(module, batches):
        module.body[3].bias.copy_(torch.arange(CLASSES))

    lines: list[str] = []
    stage = Stage("segment", 1, trainable=lambda name: name == "body.3.bias", fit=fit, options={"a": 1})
    fitted = train(tmp_path, source, module_of(), [stage], validations=7, keep_all=True, say=lines.append)
    fresh = module_of()
    load_state(fresh, fitted.selected[1])
    miou = validation_miou(fresh, source)
    assert fitted.trace == [(1, miou)] and fitted.selected[0] == fitted.last[0] == 1
    assert set(fitted.selected[1]) == {"body.3.bias"} and states_equal(fitted.selected[1], fitted.last[1])
    assert states_equal(fresh.state_dict(), fitted.module.state_dict()) and list(fitted.all_states()) == []
    (summary,) = fitted.stages
    assert (summary.name, summary.steps, summary.trainable) == ("segment", 1, CLASSES)
    assert summary.options == {"a": 1, "closed_form": True}
    assert len(lines) == 2 and all(line.startswith("a title | segment") for line in lines)
    assert lines[1].endswith(f"source-validation mIoU {100 * miou:.2f} %")


def test_stages_of_both_kinds_follow_each_other(tmp_path, source):
    def early(module, batches):
        module.early.weight.fill_(0.125)

    def late(module, batches):
        module.late.bias.fill_(0.5)

    def only(prefix):
        return lambda name: name.startswith(prefix)

    module = module_of(Parts)
    stages = [
        Stage("skipped", 0, fit=early),
        Stage("one", 1, trainable=only("early.weight"), fit=early),
        Stage("two", 3, trainable=only("late")),
        Stage("three", 1, trainable=only("late.bias"), fit=late),
    ]
    fitted = train(tmp_path, source, module, stages)
    assert [(one.name, one.trainable) for one in fitted.stages] == [("one", 144), ("two", 56), ("three", 8)]
    assert set(fitted.selected[1]) == {"early.weight", "late.weight", "late.bias"}
    fresh = module_of(Parts)
    load_state(fresh, fitted.selected[1])
    assert states_equal(fresh.state_dict(), module.state_dict())
    assert bool((fresh.early.weight == 0.125).all()) and bool((fresh.late.bias == 0.5).all())

    ends_trained = train(tmp_path, source, module_of(Parts), stages[:3])
    assert set(ends_trained.selected[1]) == {"early.weight", "late.weight", "late.bias"}
    assert bool((ends_trained.last[1]["early.weight"] == 0.125).all())


def test_what_a_stage_does_not_name_it_must_not_change(tmp_path, source):
    def fit(module, batches):
        module.late.bias.add_(1)
        module.never.bias.data += 1

    stage = Stage("segment", 1, trainable=lambda name: name.startswith("late"), fit=fit)
    with pytest.raises(MethodError, match="stage 'segment' changed parameters that it does not name"):
        train(tmp_path, source, module_of(Parts), [stage])


def test_a_module_without_parameters_is_fine_in_closed_form_only(tmp_path, source):
    task = make_task(bands=24, classes=CLASSES)
    fitted = train(tmp_path, source, Majority().build(task), Majority().stages(task))
    assert set(fitted.selected[1]) == {"counts"} and fitted.stages[0].trainable == 0
    with pytest.raises(ValueError, match="trains no parameter"):
        train(tmp_path, source, Majority().build(task), [Stage("segment", 1, loss=segmentation_loss)])


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 2}, "has 1 step, or 0, not 2"),
        ({"loss": segmentation_loss}, "loss has no meaning"),
        ({"outputs": lambda module, batch: (module(batch["image"]), None)}, "outputs has no meaning"),
        ({"after_step": lambda module, step, steps: None}, "after_step has no meaning"),
        ({"learning_rate": 0.1}, "learning_rate has no meaning"),
        ({"shared": Shared(Majority(), str.isupper, str.isupper), "labelled": False}, "shared has no meaning"),
        ({"pictures": lambda module, images: {}}, "pictures has no meaning"),
    ],
)
def test_a_closed_form_has_nothing_of_an_optimiser(change, message):
    with pytest.raises(ValueError, match=message):
        Stage(**{"name": "one", "steps": 1, "fit": nothing, **change})


def test_no_objective_acts_on_a_closed_form(tmp_path, source):
    chosen = {"groupdro": object()}  # it is refused before it is used
    with pytest.raises(UserError, match=r"no objective can act on a method in closed form.*groupdro"):
        train(tmp_path, source, module_of(), [Stage("segment", 1, fit=nothing)], objectives=chosen)


def test_only_closed_forms_are_solved(source):
    with pytest.raises(ValueError, match="not in closed form"):
        solve_stage(
            Pixelwise(), Stage("segment", 1), source, set(), seed=0, device=CPU, say=lambda _: None, title="a title"
        )


def test_an_error_of_the_method_arrives(tmp_path, source):
    def fit(module, batches):
        raise RuntimeError("singular matrix")

    with pytest.raises(RuntimeError, match="singular matrix"):
        train(tmp_path, source, module_of(), [Stage("segment", 1, fit=fit)], budget=BUDGET)


def test_a_result_that_is_no_number_is_refused(tmp_path, source):
    def fit(module, batches):
        nn.init.constant_(module.body[3].bias, float("nan"))

    with pytest.raises(ValueError, match="NaN"):
        train(tmp_path, source, module_of(), [Stage("segment", 1, fit=fit)])


def test_void_is_not_a_class(source):
    masks = torch.cat([batch["mask"].flatten() for batch in source.sweep_loader(True)])
    assert set(masks.unique().tolist()) <= {*range(CLASSES), VOID}
