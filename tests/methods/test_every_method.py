"""What a method says it trains, it trains: for every installed method and every value of its on-off options."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError
from tiny import make_task
from watching import Watched, batch_of, every_value, train_a_little, trained_norms

from spectral_tl_bench.methods.base import Method, Stage
from spectral_tl_bench.methods.registry import load_method, method_entries

UNREACHED: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    (
        "spectralx",
        {"matching": "hard"},
        "hard matching takes no more of an attention than the place of its largest entry, and adds no linear map",
        tuple(f"are_adapter.{side}.{part}." for side in ("spatial", "spectral") for part in ("attend", "direct")),
    ),
    *(
        (name, {}, "the decoder takes block outputs; published counts hold the last LayerNorm", ("backbone.norm.",))
        for name in ("lora-biased", "slr")
    ),
]
"""Trained parameters that cannot have a gradient: method, options of its stage, why, and beginnings of their names."""


def values(annotation: Any) -> Iterator[Any]:
    """All values that an option can have, if they are few: truth values and words."""
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from values(part)
    elif annotation is bool:
        yield from (True, False)
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)


def variants(kind: type[Method]) -> Iterator[dict[str, Any]]:
    """The defaults, the presets, and every single change of an option with few values; impossible ones are left out."""
    changes = [
        {name: value} for name, field in kind.model_fields.items() for value in values(field.annotation)
        if value != field.default
    ]  # fmt: skip
    for options in ({}, *map(dict, kind.presets.values()), *changes):
        try:
            kind(**options)
        except ValidationError:
            continue
        yield options


def cases() -> list[Any]:
    unique = {
        f"{name} {options}": (name, options) for name in method_entries() for options in variants(load_method(name))
    }
    return [pytest.param(*case, id=title) for title, case in unique.items()]


@pytest.mark.parametrize(("name", "options"), cases())
def test_exactly_what_is_declared_trains(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    task = make_task(steps=3, pretrain_steps=3)
    method = load_method(name)(**options)
    module = method.build(task)
    declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    trained: set[str] = set()
    for stage in method.stages(task):
        if stage.fit is not None:
            trained |= solved(module, stage, declared)
            continue
        seen = train_a_little(module, stage, task.num_bands, task.num_classes, task.window, declared=declared)
        expected = declared if stage.trainable is None else {n for n in seen.parameters if stage.trainable(n)}
        assert seen.chosen == expected <= declared, stage.name
        exempt = unreached(name, stage.options, seen)
        assert seen.reached == expected - exempt, stage.name
        assert seen.touched <= expected, stage.name
        assert seen.changed & seen.parameters == expected - exempt, stage.name
        assert trained_norms(seen) <= seen.moved, stage.name
        if not stage.options.get("drifting_statistics"):
            assert seen.moved <= trained_norms(seen), stage.name
        assert not seen.odd, stage.name
        trained |= expected
    assert trained == declared, "what no stage trains must not require a gradient"


def solved(module: torch.nn.Module, stage: Stage, declared: set[str]) -> set[str]:
    """Runs a stage in closed form on one batch; what it names is what it changes."""
    task = make_task()
    expected = declared if stage.trainable is None else {n for n, _ in module.named_parameters() if stage.trainable(n)}
    before = every_value(module)
    assert stage.fit is not None
    with torch.no_grad():
        stage.fit(module, [batch_of(torch.randn(2, task.num_bands, task.window, task.window), task.num_classes)])
    changed = {name for name, value in every_value(module).items() if not torch.equal(value, before[name])}
    assert changed and changed & {name for name, _ in module.named_parameters()} == expected <= declared
    return expected


def unreached(name: str, options: Any, seen: Watched) -> set[str]:
    rows = [
        beginnings
        for method, needed, _, beginnings in UNREACHED
        if method == name and all(options.get(key) == value for key, value in needed.items())
    ]
    return {parameter for parameter in seen.chosen if any(parameter.startswith(row) for row in rows)}


def test_the_options_of_our_methods_are_found() -> None:
    found = {name: list(variants(load_method(name))) for name in method_entries()}
    assert all(options[0] == {} for options in found.values())
    assert {"train_patch_embed": False} in found["frozen"] and {"train_norms": False} in found["lora"]
    assert {"reading": "paper"} in found["spectralx"] and {"matching": "soft"} in found["spectralx"]
    assert {"hyper_tokenizer": False} not in found["spectralx"], "it is impossible alone"
