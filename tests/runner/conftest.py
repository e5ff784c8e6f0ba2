"""One small tree for all tests of the runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("runner"))
