"""Settings: defaults for the data at hand, overrides one by one, and refusals that say why."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Budget, Plateau, Recipe
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.protocol.published import AS_PUBLISHED
from spectral_tl_bench.protocol.settings import Overrides, RunSettings, make_settings
from spectral_tl_bench.protocol.strict import STRICT

BENCHMARK = builtin_benchmarks()["mts12-n2s"]


def make(chip: int = 500, small: bool = False, backbone: str = "vit-large", sizes=None, **overrides) -> RunSettings:
    return make_settings(
        BENCHMARK, chip, small, get_backbone(backbone, **(sizes or {})), Overrides(**overrides), STRICT
    )


def test_published_data_get_the_published_budget():
    settings = make()
    assert settings.protocol == "strict" and (settings.window, settings.stride) == (224, 112)
    assert settings.budget == STRICT.budgets["paper"][0] == Budget()
    budget = settings.budget
    assert (budget.steps, budget.pretrain_steps, budget.batch_size) == (45_000, 25_000, 32)
    assert (budget.learning_rate, budget.weight_decay, budget.schedule) == (1e-4, 1e-4, "constant")


def test_the_sample_gets_its_own():
    settings = make(96, small=True, backbone="compact")
    assert (settings.budget, settings.validations) == STRICT.budgets["small"]
    assert settings.budget.learning_rate is None, "rates are the methods'"
    assert (settings.window, settings.stride) == (64, 32)
    assert settings.budget.steps < 1_000 < make().budget.steps


@pytest.mark.parametrize(
    ("chip", "backbone", "window"),
    [(512, "vit-large", 224), (256, "vit-base", 224), (100, "vit-base", 96), (100, "compact", 96), (32, "compact", 32)],
)
def test_the_window_is_the_largest_that_fits(chip, backbone, window):
    assert make(chip, backbone=backbone).window == window


def test_overrides_act_one_by_one():
    base = make()
    for key, value in {
        "steps": 7,
        "pretrain_steps": 0,
        "batch_size": 3,
        "learning_rate": 0.5,
        "schedule": "cosine",
    }.items():
        changed = make(**{key: value})
        assert changed == base.model_copy(update={"budget": base.budget.model_copy(update={key: value})}) != base
    assert make(window=64) == base.model_copy(update={"window": 64, "stride": 32})
    assert make(stride=224) == base.model_copy(update={"stride": 224})
    assert make(validations=3) == base.model_copy(update={"validations": 3})
    assert make(budget="small") == base.model_copy(
        update=dict(zip(("budget", "validations"), STRICT.budgets["small"], strict=True))
    )
    assert make(96, small=True, backbone="compact", budget="paper").budget == Budget()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 100}, r"a window of 100 px[\s\S]*a multiple of 16 from 16 to 496[\s\S]*--window 96"),
        ({"window": 512}, "chips are 500 px"),
        ({"window": 8}, "the patch of vit-large is 16 px"),
        ({"chip": 12}, r"no window suits[\s\S]*chips are 12 px[\s\S]*16 px or more[\s\S]*smaller patches"),
        ({"chip": 128, "window": 128, "sizes": {"patch": 14}}, r"of 14 from 14 to 126[\s\S]*--window 126"),
        ({"chip": 128, "window": 8, "sizes": {"patch": 14}}, "--window 14, or leave it out"),
        ({"chip": 8, "backbone": "compact", "sizes": {"patch": 6}}, "chips are 8 px"),
        ({"stride": 225}, r"a stride of 225 px skips pixels[\s\S]*--stride"),
        ({"window": 32, "stride": 33}, "a stride of 33 px"),
    ],
)
def test_what_does_not_fit_is_explained(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0}, {"schedule": "linear"}, {"window": 7},
     {"stride": 0}, {"validations": 0}, {"pretrain_steps": -1}, {"stepps": 3}, {"patience": 0},
     {"validate_every": 0}, {"pretrained_rate": 0}, {"pretrained_rate": 1.1}, {"warmup_share": 1},
     {"weight_decay": -1}],
)  # fmt: skip
def test_impossible_overrides_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Overrides(**wrong)


def test_stored_settings_are_checked_when_they_come_back():
    settings = make()
    assert RunSettings.model_validate(settings.model_dump(mode="json")) == settings
    with pytest.raises(ValidationError, match="pixels would be skipped"):
        RunSettings(budget=Budget(), window=32, stride=33)
    with pytest.raises(ValidationError, match="frozen"):
        settings.window = 8


def test_a_protocol_names_its_budgets():
    with pytest.raises(UserError, match="--budget 'huge'") as caught:
        make(budget="huge")
    assert "paper, small" in str(caught.value.expected)


# ---------------------------------------------------------------------------------------------- rates by recipe

SLOW_BACKBONE = Recipe(rate=1e-3, pretrained=0.1, weight_decay=0.05, warmup=0.1)


def small(**overrides) -> RunSettings:
    return make(96, small=True, backbone="compact", **overrides)


@pytest.mark.parametrize(
    ("steps", "rate"),
    [(1, 4e-3), (60, 4e-3), (62, 4e-3), (63, 3.98e-3), (250, 2e-3), (999, 1e-3), (1_000, 1e-3), (45_000, 1e-3)],
)
def test_a_short_training_gets_a_larger_rate(steps, rate):
    assert small(steps=steps).by(SLOW_BACKBONE, pretrained=False).budget.learning_rate == pytest.approx(rate, rel=1e-9)


def test_what_a_budget_leaves_open_comes_from_the_recipe():
    budget = small().by(SLOW_BACKBONE, pretrained=True).budget
    assert (budget.learning_rate, budget.pretrained_rate, budget.weight_decay, budget.warmup_share) == (
        4e-3,
        0.1,
        0.05,
        0.1,
    )
    assert small().by(SLOW_BACKBONE, pretrained=False).budget.pretrained_rate == 1.0, "random weights need the whole"
    assert make().by(SLOW_BACKBONE, pretrained=True).budget == Budget(), "the published budget is the same for all"


def test_a_number_of_the_user_is_for_all():
    budget = small(learning_rate=2e-3).by(SLOW_BACKBONE, pretrained=True).budget
    assert (budget.learning_rate, budget.pretrained_rate, budget.weight_decay) == (2e-3, 1.0, 0.05)
    given = {"learning_rate": 2e-3, "pretrained_rate": 0.5, "weight_decay": 0.0, "warmup_share": 0.0}
    assert {**small(**given).by(SLOW_BACKBONE, pretrained=True).budget.model_dump(), **given} == small(**given).by(
        SLOW_BACKBONE, pretrained=True
    ).budget.model_dump()


def test_what_came_later_is_written_where_it_differs():
    """Records of before have a budget without these, and keep their identity."""
    plain = small(learning_rate=2e-3).by(Recipe(), pretrained=True).model_dump(mode="json")["budget"]
    assert plain.keys() == {"steps", "pretrain_steps", "batch_size", "learning_rate", "weight_decay", "schedule"}
    assert plain["weight_decay"] == 1e-4
    other = small().by(SLOW_BACKBONE, pretrained=True).model_dump(mode="json")["budget"]
    assert (other["pretrained_rate"], other["warmup_share"]) == (0.1, 0.1)
    assert "plateau" in small(until_plateau=True).by(Recipe(), True).model_dump(mode="json")["budget"]


def test_a_budget_without_rates_trains_nothing():
    budget = STRICT.budgets["small"][0]
    with pytest.raises(ValueError, match=r"Budget.by\(recipe\)"):
        _ = budget.rate
    with pytest.raises(ValueError, match=r"Budget.by\(recipe\)"):
        _ = budget.decay


# ---------------------------------------------------------------------------------------------- until a plateau


def test_until_a_plateau_has_steps_of_its_own():
    few, many = small(until_plateau=True), make(until_plateau=True)
    assert (few.budget.steps, few.budget.pretrain_steps, few.budget.batch_size) == (3_000, 1_000, 8)
    assert (many.budget.steps, many.budget.pretrain_steps, many.budget.batch_size) == (20_000, 20_000, 32)
    assert few.budget.plateau == many.budget.plateau == Plateau()
    assert (few.validations, many.validations) == (30, 200), "the most"
    for settings in (few, many):
        assert settings.budget.schedule == "constant" and settings.budget.learning_rate is None
        budget = settings.by(SLOW_BACKBONE, pretrained=True).budget
        assert (budget.learning_rate, budget.pretrained_rate) == (1e-3, 0.1), "nobody knows how short it will be"
        assert RunSettings.model_validate(settings.model_dump(mode="json")) == settings
    changed = small(until_plateau=True, steps=500, pretrain_steps=0, validate_every=50, patience=3, learning_rate=0.1)
    assert (changed.budget.steps, changed.budget.pretrain_steps, changed.budget.learning_rate) == (500, 0, 0.1)
    assert changed.budget.plateau == Plateau(validate_every=50, patience=3) and changed.validations == 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"until_plateau": True, "schedule": "cosine"}, r"--schedule cosine does not go with --until-plateau"),
        ({"until_plateau": True, "validations": 3}, r"--validations does not go with[\s\S]*--validate-every"),
        ({"validate_every": 10}, r"--validate-every says how[\s\S]*add --until-plateau"),
        ({"patience": 10}, r"--patience says how[\s\S]*add --until-plateau"),
    ],
)
def test_what_contradicts_a_plateau_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        small(**overrides)


def test_a_protocol_that_looks_at_the_target_has_no_plateau():
    with pytest.raises(UserError, match="as-published does not select on source validation"):
        make_settings(BENCHMARK, 500, False, get_backbone("vit-large"), Overrides(until_plateau=True), AS_PUBLISHED)
