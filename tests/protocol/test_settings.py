"""Settings: defaults for the data at hand, overrides one by one, and refusals that say why."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.models.backbones import get_backbone
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
     {"stride": 0}, {"validations": 0}, {"pretrain_steps": -1}, {"stepps": 3}],
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
