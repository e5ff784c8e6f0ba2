"""Training: stages train what they name, selection finds the true best, and seeds mean something."""

from __future__ import annotations

import hashlib
import itertools
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import Pixelwise, fit, make_source
from torch import nn

from spectral_tl_bench.data.loaders import Normalise
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.base import VOID, Budget, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.training.progress import clock
from spectral_tl_bench.training.task import StageTask, warm_up
from spectral_tl_bench.training.trained import load_state

CLASSES = 8
BUDGET = Budget(steps=4, batch_size=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def source(tree):
    return make_source(tree)


def module_of(kind=Pixelwise, **options) -> nn.Module:
    torch.manual_seed(5)
    return kind(**options)


def train(tmp_path, source, module, stages, *, validations=2, weight_seed=0, budget=BUDGET, **more):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    return fit(
        module, stages, source, budget, CLASSES, folder=folder, validations=validations, weight_seed=weight_seed,
        **more,
    )  # fmt: skip


def states_equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def validation_miou(module, source) -> float:
    table = evaluate(module, Normalise(source.statistics), source.validation, CLASSES, torch.device("cpu"))
    return score(np.sum(table["matrix"].to_list(), axis=0)).miou


# ---------------------------------------------------------------------------------------------- selection


class Scripted(nn.Module):
    """Predicts one class everywhere; which one is told by a weight that every step raises by 1."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order, self.weight = order, nn.Parameter(torch.zeros(()))

    def forward(self, images):
        chosen = self.order[min(len(self.order), round(self.weight.item())) - 1] if self.weight > 0.5 else self.order[0]
        logits = torch.zeros(len(images), CLASSES, *images.shape[-2:])
        logits[:, chosen] = 1
        return logits + 0 * self.weight


UPHILL = Stage("segment", 5, loss=lambda module, batch: -module.weight)
ONE_PER_STEP = Budget(learning_rate=1.0, weight_decay=0.0)


@pytest.mark.parametrize("keep_all", [False, True])
def test_the_selected_checkpoint_is_the_peak_and_the_last_is_the_last(tmp_path, source, keep_all):
    names = source.validation.rows
    counts = np.sum([np.bincount(source.validation.truth(c).ravel(), minlength=256)[:CLASSES] for c in names], axis=0)
    ranked = [int(c) for c in np.argsort(counts) if counts[c]]
    assert len(ranked) >= 3 and len(set(counts[ranked][-3:])) == 3
    rare, middle, common = ranked[-3:]
    order = [rare, middle, common, middle, rare]
    fitted = train(
        tmp_path,
        source,
        module_of(Scripted, order=order),
        [UPHILL],
        validations=5,
        budget=ONE_PER_STEP,
        keep_all=keep_all,
    )
    values = dict(fitted.trace)
    assert list(values) == [1, 2, 3, 4, 5]
    assert values[1] < values[2] < values[3] > values[4] > values[5]
    assert values[1] == pytest.approx(values[5]) and values[2] == pytest.approx(values[4]), (
        "an old matrix was counted in"
    )

    step, weights = fitted.selected
    assert step == 3 and weights["weight"].item() == pytest.approx(3, abs=1e-3)
    step, weights = fitted.last
    assert step == 5 and weights["weight"].item() == pytest.approx(5, abs=1e-3)
    kept = {step: state["weight"].item() for step, state in fitted.all_states()}
    assert kept == (pytest.approx({n: n for n in range(1, 6)}, abs=1e-3) if keep_all else {})

    for step, value in values.items():  # each validation by itself, from nothing
        alone = Scripted(order)
        load_state(alone, {"weight": torch.tensor(float(step))})
        assert validation_miou(alone, source) == pytest.approx(value, abs=1e-6)


def test_of_equal_checkpoints_the_first_is_selected(tmp_path, source):
    fitted = train(tmp_path, source, Scripted([0] * 5), [UPHILL], validations=5, budget=ONE_PER_STEP)
    assert len({value for _, value in fitted.trace}) == 1 and fitted.selected[0] == 1


def test_steps_that_validations_do_not_divide(tmp_path, source):
    fitted = train(tmp_path, source, module_of(), [Stage("segment", 5)], validations=2)
    assert [step for step, _ in fitted.trace] == [2, 4]
    assert fitted.last[0] == 5 and fitted.selected[0] in (2, 4)
    many = train(tmp_path, source, module_of(), [Stage("segment", 2)], validations=99)
    assert [step for step, _ in many.trace] == [1, 2]


def test_a_checkpoint_gives_back_its_validation_score(tmp_path, source):
    fitted = train(tmp_path, source, module_of(), [Stage("segment", 4)], validations=4)
    fresh = module_of()
    load_state(fresh, fitted.selected[1])
    assert validation_miou(fresh, source) == pytest.approx(max(value for _, value in fitted.trace), abs=1e-6)
    with pytest.raises(RuntimeError, match="unknown weights"):
        load_state(fresh, {"not.there": torch.zeros(1)})


# ---------------------------------------------------------------------------------------------- seeds


def test_one_seed_one_result(tmp_path, source, tree):
    def run(weight_seed=0, order_seed=0):
        data = source if order_seed == 0 else make_source(tree, order_seed=order_seed)
        torch.manual_seed(77 + len(list(tmp_path.iterdir())))  # what came before must not matter
        module = module_of()
        return train(tmp_path, data, module, [Stage("segment", 4)], weight_seed=weight_seed)

    first, again = run(), run()
    assert first.trace == again.trace
    assert states_equal(first.last[1], again.last[1]) and states_equal(first.selected[1], again.selected[1])
    assert not states_equal(first.last[1], run(weight_seed=1).last[1]), "dropout must follow the weight seed"
    assert not states_equal(first.last[1], run(order_seed=1).last[1]), "windows must follow the order seed"


def test_validating_more_often_or_keeping_all_does_not_change_what_is_selected(tmp_path, source):
    kept, not_kept = (
        train(tmp_path, source, module_of(), [Stage("segment", 4)], validations=4, keep_all=keep)
        for keep in (True, False)
    )
    assert kept.trace == not_kept.trace and kept.selected[0] == not_kept.selected[0]
    assert states_equal(kept.selected[1], not_kept.selected[1])


def test_methods_are_paired_by_windows_and_augmentations(tmp_path, source, tree):
    def hashes(data, name, greedy, weight_seed):
        seen = []

        def loss(module, batch):
            torch.rand(greedy)  # methods take different amounts of random numbers
            content = (
                batch["image"].numpy().tobytes() + batch["mask"].numpy().tobytes() + batch["domain"].numpy().tobytes()
            )
            seen.append(hashlib.sha256(content).hexdigest())
            return segmentation_loss(module, batch)

        train(tmp_path, data, Pixelwise(dropout=greedy / 10), [Stage(name, 4, loss=loss)], weight_seed=weight_seed)
        return seen

    one, other = hashes(source, "segment", 0, 1), hashes(source, "a name of its own", 7, 2)
    assert one == other and len(set(one)) == 4
    assert not set(one) & set(hashes(make_source(tree, order_seed=1), "segment", 0, 1))


# ---------------------------------------------------------------------------------------------- stages


class Parts(nn.Module):
    """Three layers, of which the last is nobody's."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late, self.never = (nn.Conv2d(i, o, 1) for i, o in ((24, 6), (6, CLASSES), (CLASSES, CLASSES)))

    def forward(self, images):
        return self.never(self.late(torch.tanh(self.early(images))))


def test_each_stage_trains_what_it_names(tmp_path, source):
    seen: dict[str, list] = {"reconstruct": [], "segment": []}

    def record(name, loss):
        def wrapped(module, batch):
            seen[name].append((set(batch), {key: value.clone() for key, value in module.state_dict().items()}))
            return loss(module, batch)

        return wrapped

    stages = [
        Stage("skipped", 0, trainable=lambda name: name.startswith("never")),
        Stage(
            "reconstruct", 3, labelled=False, trainable=lambda name: name.startswith("early"),
            loss=record("reconstruct", lambda module, batch: module(batch["image"]).square().mean()),
        ),
        Stage("segment", 2, trainable=lambda name: name.startswith("late"), loss=record("segment", segmentation_loss)),
    ]  # fmt: skip
    module = module_of(Parts)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    fitted = train(tmp_path, source, module, stages)
    assert [(stage.name, stage.steps, stage.trainable) for stage in fitted.stages] == [
        ("reconstruct", 3, 24 * 6 + 6),
        ("segment", 2, 6 * 8 + 8),
    ]
    assert len(seen["reconstruct"]) == 3 and all(keys == {"image", "domain"} for keys, _ in seen["reconstruct"])
    assert len(seen["segment"]) == 2 and all(keys == {"image", "domain", "mask"} for keys, _ in seen["segment"])

    def moved(before, after):
        return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}

    between, end = seen["segment"][0][1], module.state_dict()
    assert moved(start, between) == {"early"} and moved(between, end) == {"late"}
    # A checkpoint is complete: with the weights of the start it gives the trained module, early stages included.
    for _, state in (fitted.selected, fitted.last):
        assert {name.partition(".")[0] for name in state} == {"early", "late"}
    fresh = module_of(Parts)
    load_state(fresh, fitted.last[1])
    assert states_equal(fresh.state_dict(), end)


def test_by_default_a_stage_trains_what_the_method_left_free(tmp_path, source):
    module = module_of(Parts)
    module.never.requires_grad_(False)
    before = module.never.weight.clone()
    fitted = train(tmp_path, source, module, [Stage("segment", 3)])
    assert torch.equal(module.never.weight, before) and "never.weight" not in fitted.last[1]
    assert fitted.stages[0].trainable == 24 * 6 + 6 + 6 * 8 + 8


class Normalised(nn.Module):
    """Two batch normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.BatchNorm2d(24), nn.BatchNorm2d(24)
        self.head = nn.Conv2d(24, CLASSES, 1)

    def forward(self, images):
        return self.head(self.one(images) + self.other(images))


def test_batch_statistics_of_frozen_layers_do_not_drift(tmp_path, source):
    module = module_of(Normalised)
    middle: list[torch.Tensor] = []

    def second(m, batch):
        middle.append(m.one.running_mean.clone())
        return segmentation_loss(m, batch)

    stages = [
        Stage("first", 3, trainable=lambda name: name.startswith(("one", "head"))),
        Stage("second", 4, trainable=lambda name: name.startswith(("other", "head")), loss=second),
    ]
    fitted = train(tmp_path, source, module, stages)
    assert middle[0].abs().sum() > 0, "the statistics of a trained layer follow the data"
    assert torch.equal(module.one.running_mean, middle[0]) and int(module.one.num_batches_tracked) == 3
    assert int(module.other.num_batches_tracked) == 4
    assert torch.equal(fitted.last[1]["other.running_mean"], module.other.running_mean)


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [Stage("segment", 2, labelled=False, loss=lambda m, b: m(b["image"]).mean())],
        [Stage("segment", 2), Stage("more", 2, labelled=False, loss=lambda m, b: m(b["image"]).mean())],
        [Stage("segment", 2), Stage("more", 0)],
    ],
    ids=["none", "unlabelled", "ends unlabelled", "ends without steps"],
)
def test_the_last_stage_must_lead_to_a_checkpoint(tmp_path, source, stages):
    with pytest.raises(UserError, match="last stage of a method must be labelled and have at least one step") as error:
        train(tmp_path, source, module_of(), stages)
    assert "a title" in str(error.value)


def test_a_stage_without_parameters_says_so(tmp_path, source):
    with pytest.raises(ValueError, match="stage 'segment' trains no parameter"):
        train(tmp_path, source, module_of(), [Stage("segment", 2, trainable=lambda name: name == "bodi.0.weight")])
    frozen = module_of().requires_grad_(False)
    with pytest.raises(ValueError, match="stage 'segment' trains no parameter"):
        train(tmp_path, source, frozen, [Stage("segment", 2)])


# ---------------------------------------------------------------------------------------------- single steps


def task_of(module, source, stage, budget=BUDGET) -> StageTask:
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return StageTask(module, Normalise(source.statistics), stage, budget, declared, None, None, CLASSES)


def test_a_batch_of_nothing_but_void_gives_zero_and_no_step(source):
    module = module_of(dropout=0.0)
    batch = next(iter(source.train_loader(1, True, "segment")))
    batch["mask"] = torch.full_like(batch["mask"], VOID)
    loss = task_of(module, source, Stage("segment", 1)).training_step(batch, 0)
    loss.backward()
    assert loss.item() == 0 and all(p.grad.abs().sum() == 0 for p in module.parameters())


def test_void_pixels_do_not_weigh(source):
    module = module_of(dropout=0.0)
    batch = next(iter(source.train_loader(1, True, "segment")))
    batch["mask"] = batch["mask"].clone()
    batch["mask"][:, ::2] = VOID
    logits = module(batch["image"]).permute(0, 2, 3, 1)[batch["mask"] != VOID]
    expected = nn.functional.cross_entropy(logits, batch["mask"][batch["mask"] != VOID])
    torch.testing.assert_close(segmentation_loss(module, batch), expected)


def test_learning_rates(source):
    def rates(stage, **budget):
        made = task_of(module_of(), source, stage, BUDGET.model_copy(update=budget)).configure_optimizers()
        if not isinstance(made, dict):
            return made.param_groups[0]["lr"], made
        optimiser, scheduler, found = made["optimizer"], made["lr_scheduler"]["scheduler"], []
        for _ in range(stage.steps):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
        return found, optimiser

    rate, optimiser = rates(Stage("segment", 40))
    assert rate == BUDGET.learning_rate and optimiser.defaults["betas"] == (0.9, 0.95)
    assert optimiser.defaults["weight_decay"] == BUDGET.weight_decay
    assert rates(Stage("segment", 40, learning_rate=0.5))[0] == 0.5
    cosine, _ = rates(Stage("segment", 40), schedule="cosine")
    assert cosine[:3] == pytest.approx([0.005, 0.01, 0.01]) and cosine[21] == pytest.approx(0.005, rel=1e-6)
    assert all(a >= b for a, b in itertools.pairwise(cosine[1:])) and 0 < cosine[-1] < 2e-4
    slow, _ = rates(Stage("segment", 40), schedule="cosine", warmup_share=0.1)
    assert slow[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    unlabelled, _ = rates(Stage("first", 40, labelled=False), schedule="cosine", warmup_share=0.1)
    assert unlabelled == cosine, "what a shared stage is must not depend on the recipe of who asks for it"


def test_the_usual_warm_up_is_what_it_was():
    """A twentieth of the steps, rounded down: shares are no binary fractions."""
    for steps in (*range(1, 2_000), 45_000, 25_000, 19_999):
        assert warm_up(Stage("segment", steps), Budget()) == max(1, steps // 20), steps


class WithBackbone(nn.Module):
    """A pretrained part and a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.decoder = nn.Conv2d(24, 4, 1), nn.Conv2d(4, CLASSES, 1)

    def forward(self, images):
        return self.decoder(self.backbone(images))


def test_pretrained_weights_have_a_share_of_the_rate(source, tmp_path):
    def groups(stage=None, **budget):
        made = task_of(WithBackbone(), source, stage or Stage("segment", 4), BUDGET.model_copy(update=budget))
        return [
            (group["lr"], sum(p.numel() for p in group["params"])) for group in made.configure_optimizers().param_groups
        ]

    slow, new = 24 * 4 + 4, 4 * CLASSES + CLASSES
    assert groups() == [(1e-2, slow + new)]
    assert groups(pretrained_rate=0.1) == [(1e-2, new), (pytest.approx(1e-3), slow)]
    alone = Stage("segment", 4, trainable=lambda name: name.startswith("backbone."))
    assert groups(alone, pretrained_rate=0.1) == [(pytest.approx(1e-3), slow)]
    assert groups(Stage("first", 4, labelled=False), pretrained_rate=0.1) == [(1e-2, slow + new)]
    torch.manual_seed(5)
    module, budget = WithBackbone(), BUDGET.model_copy(update={"pretrained_rate": 1e-9, "weight_decay": 0.0})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(tmp_path, source, module, [Stage("segment", 2)], budget=budget)
    moved = {name for name, value in module.state_dict().items() if not torch.allclose(value, before[name], atol=1e-7)}
    assert moved == {"decoder.weight", "decoder.bias"}


# ---------------------------------------------------------------------------------------------- the person in front


def test_an_interruption_arrives_as_one_and_the_signal_still_works(tmp_path, source):
    handler = signal.getsignal(signal.SIGINT)

    def loss(module, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, source, module_of(), [Stage("segment", 2, loss=loss)])
    assert signal.getsignal(signal.SIGINT) is handler


def test_progress_lines_say_where_it_stands(tmp_path, source):
    lines: list[str] = []
    fitted = train(tmp_path, source, module_of(), [Stage("segment", 4)], say=lines.append)
    assert len(lines) == 2
    for line, (step, value) in zip(lines, fitted.trace, strict=True):
        assert (
            line.startswith(f"a title | segment {step}/4 | loss ")
            and f"source-validation mIoU {100 * value:.2f} %" in line
        )
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]


def test_stage_seeds_differ(tmp_path, source):
    drawn = []
    stage = Stage("one", 1, loss=lambda m, b: drawn.append(torch.rand(3)) or segmentation_loss(m, b))
    train(tmp_path, source, module_of(), [stage, replace(stage, name="two")])
    assert not torch.equal(*drawn)
    assert seed_from("train", 0, 0) != seed_from("train", 0, 1)
