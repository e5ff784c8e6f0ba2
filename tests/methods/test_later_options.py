"""An option that came later leaves the results before it what they were."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from torch import nn

from spectral_tl_bench.later_options import as_recorded
from spectral_tl_bench.methods.base import Method
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
