"""Imports point down only: what may import what, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUITE, MODEL = ROOT / "spectral_tl_bench", ROOT / "spectralx"

LAYERS = (
    {"cli", "cli_*", "authoring"},
    {"runner"},
    {"features"},
    {"training"},
    {"evaluation"},
    {"methods", "objectives"},
    {"models", "data"},
    {"benchmarks", "sensors", "plugins", "files", "errors", "defaults", "console", "fingerprint"},
)
"""From the top. ``leaderboard`` stands beside: it reads what the runner wrote, and may look at everything below it."""


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports when it runs, with the line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []  # names for the type checker alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno


def layer_of(name: str) -> int | None:
    """The number of a part's layer; None for what is in no layer."""
    for number, names in enumerate(LAYERS):
        if name in names or (name.startswith("cli_") and "cli_*" in names):
            return number
    return None


def test_the_suite_meets_spectralx_through_entry_points_only():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SUITE.rglob("*.py")
        for module, line in imports(path)
        if module.partition(".")[0] == "spectralx"
    ]
    assert not found


def test_spectralx_needs_torch_and_timm_only():
    allowed = {"torch", "timm", "spectralx", "safetensors", *sys.stdlib_module_names}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in MODEL.rglob("*.py")
        if not path.name.startswith("method")
        for module, line in imports(path)
        if module.partition(".")[0] not in allowed
    ]
    assert not found


@pytest.mark.parametrize("path", sorted(SUITE.rglob("*.py")), ids=lambda path: str(path.relative_to(SUITE)))
def test_imports_point_down(path):
    part = path.relative_to(SUITE).parts[0].removesuffix(".py")
    here = layer_of(part)
    if here is None:
        return
    for module, line in imports(path):
        package, _, rest = module.partition(".")
        if package != "spectral_tl_bench" or not rest:
            continue
        other = layer_of(rest.partition(".")[0])
        assert other is None or other >= here, f"line {line}: {module} stands above {part}"
