"""Records from random confusion matrices, and a tree of small chips."""

from __future__ import annotations

from pathlib import Path

import pytest
from random_records import fail, fields, frame, store
from tiny import make_tree

__all__ = ["fail", "fields", "frame", "store"]


@pytest.fixture(scope="package")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small MTS12."""
    return make_tree(tmp_path_factory.mktemp("data"))
