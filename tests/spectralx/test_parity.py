"""The ``released`` reading against outputs of the authors' code."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch
from shared import SHARED, needs_shared
from timm.models.vision_transformer import VisionTransformer

from spectralx import SpectralX, SpectralXConfig
from spectralx.released import evaluate, to_released

READER = SHARED / "parity" / "cases.py"

pytestmark = needs_shared(READER)

TOLERANCE = 1e-4
"""Largest difference, relative to the root mean square of the expected output."""


def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_cases", READER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def names() -> list[str]:
    cases = sorted(path.stem for path in READER.parent.glob("*.npz"))
    return [name for name in cases if name != "confusion_metric"]  # a rule of the suite, tested there


@pytest.mark.parametrize("name", names() if READER.is_file() else [])
def test_reproduces_the_release(name: str) -> None:
    case = reader().load(name)
    expected, case.expected = case.expected, None  # nothing to look up the answer in
    outputs = evaluate(case)
    case.expected = expected
    errors = case.compare(outputs)
    assert set(errors) == set(case.expected)
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("hypert_13", "model.vit_backbone.patch_embed.proj.proj."),
        ("are_adapter_eval", "model.AreApt."),
        ("aomoa_fc1_random_gate", "model.vit_backbone.blocks.5.mlp.fc1."),
    ],
)
def test_written_keys_and_shapes_are_those_of_the_release(name: str, prefix: str) -> None:
    with torch.device("meta"):
        backbone = VisionTransformer(
            img_size=224, patch_size=16, in_chans=13, embed_dim=1024, depth=24, num_heads=16, num_classes=0
        )
        model = SpectralX(backbone, [0.5] * 13, 9, 224, config=SpectralXConfig(reading="released"))
        written = to_released(model)
    part = {key.removeprefix(prefix): value.shape for key, value in written.items() if key.startswith(prefix)}
    assert part == {key: value.shape for key, value in reader().load(name).state_dict.items()}


def test_unknown_parts_are_named() -> None:
    case = reader().load("perceiver_attention")
    case.name = "something_else"
    with pytest.raises(KeyError, match="something_else"):
        evaluate(case)
