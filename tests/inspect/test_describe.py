"""What is said about a method: options, stages, and counts that agree with the module itself."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field
from tiny import SIZES
from torch import nn

from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.inspect.describe import Description, count_parts, describe
from spectral_tl_bench.methods import registry
from spectral_tl_bench.methods.base import Budget, Method, Part, Stage, Task
from spectral_tl_bench.models.backbones import get_backbone

BUDGETS = {"long": Budget(steps=90, pretrain_steps=40), "short": Budget(steps=9, pretrain_steps=0)}


class Plain(Method):
    """Says nothing about its parts.

    And more.
    """

    family = "floor"
    reference = "nobody"
    hidden: int = Field(3, ge=1, le=9, description="inner channels")
    mode: str | None = None

    def build(self, task: Task) -> nn.Module:
        frozen = nn.Conv2d(task.num_bands, self.hidden, 1).requires_grad_(False)
        return nn.ModuleDict({"stem": frozen, "neck": nn.Sequential(nn.Conv2d(self.hidden, 2, 1), nn.LayerNorm(2)),
                              "decoder": nn.Conv2d(2, task.num_classes, 1)})  # fmt: skip

    def stages(self, task: Task) -> list[Stage]:
        warm = Stage("warm", task.budget.pretrain_steps, labelled=False, trainable=lambda name: "neck.0" in name)
        last = Stage("segment", task.budget.steps, trainable=lambda name: "decoder" in name or "neck.0" in name)
        return [warm, last] if task.budget.pretrain_steps else [last]


class Looks(Plain):
    """Cannot be built without numbers."""

    def build(self, task: Task) -> nn.Module:
        assert float(torch.ones(3).sum()) == 3
        return super().build(task)


class Broken(Plain):
    """Cannot be built at all."""

    def build(self, task: Task) -> nn.Module:
        raise KeyError("where is it")


@pytest.fixture
def shown(monkeypatch):
    """Describes a class of this file, as if it were installed under its own name."""

    def run(kind: type[Method], **more) -> Description:
        monkeypatch.setattr("spectral_tl_bench.inspect.describe.make_method", lambda _name, options: kind(**options))
        monkeypatch.setattr("spectral_tl_bench.inspect.describe.distribution_of", lambda _name: ("mine", "1.0"))
        fields = {"options": {}, "backbone": get_backbone("compact"), "bands": 5, "classes": 4, **more}
        return describe(kind.__name__, fields.pop("options"), fields.pop("backbone"), BUDGETS, **fields)

    return run


@pytest.mark.parametrize("kind", [Plain, Looks])
def test_any_method_gets_a_table(shown, kind):
    found = shown(kind, options={"hidden": 2})
    rows = {part.name: (part.kind, part.trainable, part.frozen, part.total, part.stages) for part in found.parts}
    assert rows == {
        "stem": ("encoder", 0, 12, 12, ()),
        "neck.0": ("encoder", 6, 0, 6, ("warm", "segment")),
        "neck.1": ("encoder", 0, 4, 4, ()),
        "decoder": ("decoder", 12, 0, 12, ("segment",)),
    }
    assert found.sums == {
        "total": 34, "trainable": 18, "trainable_decoders": 12, "trainable_without_decoders": 6,
        "trainable_published": 6,
    }  # fmt: skip
    assert [(s.name, s.labelled, dict(s.steps), s.trainable) for s in found.stages] == [
        ("warm", False, {"long": 40, "short": 0}, 6), ("segment", True, {"long": 90, "short": 9}, 18),
    ]  # fmt: skip


def test_options_are_told_with_types_limits_and_values(shown):
    found = shown(Plain, options={"hidden": 2})
    hidden, mode = found.options
    assert (hidden.type, hidden.default, hidden.value) == ("int, >= 1, <= 9", "3", "2")
    assert (hidden.description, mode.type, mode.default) == ("inner channels", "text | none", "none")
    assert (found.summary, found.family, found.reference) == ("Says nothing about its parts.", "floor", "nobody")


def test_choices_are_written_out():
    found = describe("spectralx", {}, get_backbone("compact", **SIZES), BUDGETS, window=32)
    types = {option.name: option.type for option in found.options}
    assert (types["reading"], types["pretrain"]) == ("paper | released", "true | false")


def test_parts_are_as_a_method_groups_them():
    module = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b", "c")})
    parts = [
        Part("weights of b", lambda name: name == "b.weight", counted=False),
        Part("a and b", lambda name: name[0] in "ab"),
        Part("nothing", lambda name: False),
    ]
    found = count_parts(module, parts, {"one": {"b.weight", "c.bias"}})
    assert [(part.name, part.trainable, part.total, part.published) for part in found] == [
        ("weights of b", 4, 4, 0), ("a and b", 0, 8, 0), ("c.weight", 0, 4, 0), ("c.bias", 2, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["full", "frozen", "lora", "spectralx", "spectralx@released", "spectralx@full"])
def test_counts_on_meta_are_those_of_the_module(name):
    backbone = get_backbone("compact", **SIZES)
    found = describe(name, {}, backbone, BUDGETS, bands=4, classes=3, window=32)
    task = Task("none", tuple("abcd"), (0.5, 0.6, 0.7, 0.8), 10.0, tuple("xyz"), ("s",), 32, BUDGETS["long"], backbone)
    module = registry.make_method(name).build(task)
    assert found.sums["total"] == sum(p.numel() for p in module.parameters())
    assert found.sums["trainable"] == sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_everything_that_is_installed_can_be_described():
    for name in registry.method_entries():
        found = describe(name, {}, get_backbone("compact", **SIZES), BUDGETS, bands=3, classes=2)
        assert found.window == 224 and found.stages[-1].labelled
        assert found.sums["trainable"] > 0 or all(stage.closed_form for stage in found.stages)


def test_mistakes_are_told(shown):
    with pytest.raises(UserError, match=r"30 px is not a multiple of the patch of compact \(8 px\)[\s\S]*--window 24"):
        shown(Plain, window=30)
    with pytest.raises(MethodError, match=r"'Broken' cannot be built: KeyError: 'where is it'"):
        shown(Broken)
    assert shown(Plain, backbone=get_backbone("compact", patch=500)).window == 500
