"""What a result depends on, as a hash: finished work is found again, and wrong work is not reused."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import spectral_tl_bench

RESULT_PARTS = (
    "benchmarks.py", "sensors.py", "files.py", "data", "features", "models", "methods", "objectives", "training",
    "evaluation", "runner/seeds.py",
)  # fmt: skip
"""The parts of the suite that can change a number. The sample generator is left out: the data manifest covers it."""


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


def _hash_files(folder: Path, files: list[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + _bare_source(path).encode() + b"\0")
    return total.hexdigest()[:16]


@functools.cache
def suite_code() -> str:
    """A hash of the suite's code that can change a result; comments and docstrings do not count."""
    folder = Path(spectral_tl_bench.__file__).parent
    files: list[Path] = []
    for part in RESULT_PARTS:
        path = folder / part
        files += (
            [path] if path.is_file() else [f for f in path.rglob("*.py") if "sample" not in f.relative_to(path).parts]
        )
    return _hash_files(folder, files)


@functools.cache
def package_code(module: str) -> str:
    """A hash of the code of the top-level package that ``module`` belongs to; empty for the suite itself."""
    top = module.partition(".")[0]
    if top == "spectral_tl_bench":
        return ""
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return "unknown"
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return _hash_files(origin.parent, [origin])
    return _hash_files(origin.parent, list(origin.parent.rglob("*.py")))


def benchmark_facts(definition: dict[str, Any]) -> dict[str, Any]:
    """The parts of a benchmark's definition that can change a number on it: not its title, colours or notes."""
    texts = {"title", "citation", "notes", "groups", "layout", "expected"}
    facts = {key: value for key, value in definition.items() if key not in texts}
    facts["labels"] = {
        **definition["labels"],
        "classes": [{key: cover[key] for key in ("name", "raw")} for cover in definition["labels"]["classes"]],
    }
    facts["domains"] = [domain["id"] for domain in definition["domains"]]
    facts["sensor"] = {key: definition["sensor"][key] for key in ("gsd", "bands")}
    return facts
