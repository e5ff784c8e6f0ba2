"""An option that came later leaves the results before it what they were."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from torch import nn

from spectral_tl_bench.later_options import as_recorded
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.registry import load_method
from spectral_tl_bench.objectives.base import Objective


class Before(Method):
    width: int = 8

    def build(self, task: Any) -> nn.Module:
        raise NotImplementedError


class After(Before):
    later: ClassVar[dict[str, Any]] = {"norms": False}
    norms: bool = True


class Weighted(Objective):
    later: ClassVar[dict[str, Any]] = {"mean_term": False}
    mean_term: bool = True


def test_what_a_record_of_before_says_is_what_is_made_of_it():
    recorded = Before(width=4).model_dump(mode="json")
    again = After(**as_recorded(After, recorded))
    assert not again.norms
    assert again.model_dump(mode="json") == recorded == {"width": 4}


@pytest.mark.parametrize("kind, name", [(After, "norms"), (Weighted, "mean_term")])
def test_another_value_is_said_and_comes_back(kind, name):
    said = kind().model_dump(mode="json")
    assert said[name] is True
    assert getattr(kind(**as_recorded(kind, said)), name) is True
    assert name not in kind(**{name: False}).model_dump(mode="json")


PEFT = {"decoder": "upernet", "train_norms": False, "train_patch_embed": True}
BEFORE = {
    "adaptformer": {"bottleneck": 64, "dropout": 0.0, "scale": 0.1, **PEFT},
    "earth-adapter": {"bottleneck": 64, "cutoff": 0.3, "early": 3, "scale": 0.1, **PEFT},
    "land-moe": {"frequencies": 8, "ranks": [4, 8, 16], "scale": 0.001, "tokens": 100, **PEFT},
    "bitfit": {"decoder": "upernet", "train_patch_embed": True},
    "slr": {"rank": 16, "reading": "paper"},
    "lora-biased": {"rank": 16, "reading": "paper"},
}
"""Defaults of methods of ours before they got more options, as records have them."""


@pytest.mark.parametrize("name", BEFORE)
def test_the_options_of_our_records_of_before_are_still_whole(name):
    kind = load_method(name)
    assert kind.later and set(kind.model_fields) == {*BEFORE[name], *kind.later}
    assert kind(**as_recorded(kind, BEFORE[name])).model_dump(mode="json") == BEFORE[name]
