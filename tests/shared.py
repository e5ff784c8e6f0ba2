"""Reference data that are not in the repository, the tests that need them, and cases that only CI runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "STBENCH_TEST_SHARED"
REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get(VARIABLE) or REPOSITORY.parent / "shared")
"""The folder with ``parity/`` and ``data/``; by default beside the repository."""


def needs_shared(path: Path) -> pytest.MarkDecorator:
    """Skip where a file or folder below ``SHARED`` is missing."""
    return pytest.mark.skipif(
        not path.exists(), reason=f"needs {path.relative_to(SHARED)} in the folder that {VARIABLE} names"
    )


def slow_but(often: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """Cases of ``parametrize``, slow but for some: one thing looked at through many of a kind."""
    return [pytest.param(value, marks=() if often(value) else pytest.mark.slow) for value in values]
