"""What a method says it trains, it trains: for every installed method and every value of its on-off options.

By default as it is without options; presets and single changes are slow.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError
from tiny import make_task

from spectral_tl_bench.authoring.watching import batch_of, contradictions, solved, train_a_little
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.registry import load_method, method_entries


def values(annotation: Any) -> Iterator[Any]:
    """All values that an option can have, if they are few: truth values and words."""
    if get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from values(part)
    elif annotation is bool:
        yield from (True, False)
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)


NEED_WEIGHTS = ({"reconstruction_decoder": "pretrained"},)
"""Refused, with a reason, on the random weights of these tests; see tests/spectralx/test_pretrained_decoders.py."""


def variants(kind: type[Method]) -> Iterator[dict[str, Any]]:
    """The defaults, the presets, and every single change of an option with few values; impossible ones are left out."""
    changes = [
        {name: value} for name, field in kind.model_fields.items() for value in values(field.annotation)
        if value != field.default
    ]  # fmt: skip
    for options in ({}, *map(dict, kind.presets.values()), *changes):
        if options in NEED_WEIGHTS:
            continue
        try:
            kind(**options)
        except ValidationError:
            continue
        yield options


def cases() -> list[Any]:
    unique = {
        f"{name} {options}": (name, options) for name in method_entries() for options in variants(load_method(name))
    }
    return [pytest.param(*case, id=title, marks=pytest.mark.slow if case[1] else ()) for title, case in unique.items()]


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
            pixels = [batch_of(torch.randn(2, task.num_bands, task.window, task.window), task.num_classes)]
            if method.target_images:
                pixels[0]["target_image"] = torch.randn(2, task.num_bands, task.window, task.window)
            named, wrong = solved(module, stage, declared, pixels)
            assert wrong == []
            trained |= named
            continue
        seen = train_a_little(
            module, stage, task.num_bands, task.num_classes, task.window, declared=declared,
            target_images=method.target_images,
        )  # fmt: skip
        assert list(contradictions(module, stage, seen, declared)) == []
        assert not seen.odd, stage.name
        trained |= seen.chosen
    assert trained == declared, "what no stage trains must not require a gradient"


def test_the_options_of_our_methods_are_found() -> None:
    found = {name: list(variants(load_method(name))) for name in method_entries()}
    assert all(options[0] == {} for options in found.values())
    assert {"train_patch_embed": False} in found["frozen"] and {"train_norms": False} in found["lora"]
    assert {"reading": "paper"} in found["spectralx"] and {"matching": "soft"} in found["spectralx"]
    assert {"hyper_tokenizer": False} not in found["spectralx"], "it is impossible alone"
