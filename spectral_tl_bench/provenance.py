"""Where a result was made: versions of libraries and hashes of code. Shown, and never part of its identity."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spectral_tl_bench import __version__

LIBRARIES = ("torch", "torchgeo", "lightning", "timm", "peft", "rasterio", "kornia")


def environment(package: str, package_version: str, module: str) -> dict[str, str]:
    """Versions of what a result is made with.

    Args:
        module: Module of the method's class, whose package's code is hashed.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.system().lower(),
        "spectral-tl-bench": __version__,
        f"method package {package}": package_version,
        "suite code": package_code("spectral_tl_bench"),
        "method code": package_code(module),
        **versions_of(LIBRARIES),
    }


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Versions of installed distributions, by name."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def package_code(module: str) -> str:
    """A hash of the code of the top-level package of a module; comments, docstrings and layout do not count."""
    return _code_of(module.partition(".")[0])


@functools.cache
def _code_of(top: str) -> str:
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return "unknown"
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
    total = hashlib.sha256()
    for path in files:
        name = path.relative_to(origin.parent).as_posix()
        total.update(name.encode() + b"\0" + _bare_source(path).encode() + b"\0")
    return total.hexdigest()[:16]


def _bare_source(path: Path) -> str:
    """The code of a file without comments, docstrings and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Bare strings are documentation, of attributes too; a body must keep one statement.
            node.body = [item for item in node.body if not _is_text(item)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(item: ast.stmt) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
