"""The ``released`` reading against outputs of the authors' code."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from spectralx.released import PARTS, evaluate

SHARED = Path(os.environ.get("STBENCH_TEST_SHARED") or Path(__file__).parents[2].parent / "shared")
READER = SHARED / "parity" / "cases.py"

pytestmark = pytest.mark.skipif(not READER.is_file(), reason="no reference cases: set STBENCH_TEST_SHARED")

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
    return [name for name in cases if name.startswith(tuple(PARTS))]


@pytest.mark.parametrize("name", names() if READER.is_file() else [])
def test_reproduces_the_release(name: str) -> None:
    case = reader().load(name)
    errors = case.compare(evaluate(case))
    assert set(errors) == set(case.expected)
    assert max(errors.values()) < TOLERANCE, errors


def test_unknown_parts_are_named() -> None:
    case = reader().load("perceiver_attention")
    case.name = "something_else"
    with pytest.raises(KeyError, match="something_else"):
        evaluate(case)
