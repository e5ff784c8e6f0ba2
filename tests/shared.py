"""Reference data that are not in the repository: where they are, and the tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

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
