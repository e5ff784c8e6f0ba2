"""Imports point down and never in a circle: what may import what, read from the source."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE, MODEL = ROOT / "spectral_tl_bench", ROOT / "spectralx"

LAYERS = (
    {"cli", "api"},
    {"authoring"},
    {"inspect", "leaderboard", "maps", "runner"},
    {"results", "protocol"},
    {"training", "features"},
    {"evaluation"},
    {"methods", "objectives"},
    {"models", "data", "sample"},
    {
        "benchmarks",
        "sensors",
        "plugins",
        "storage",
        "identity",
        "provenance",
        "later_options",
        "files",
        "errors",
        "defaults",
        "console",
        "cores",
        "endings",
        "trial",
        "pulse",
        "pause",
    },
)
"""From the top; the packages of one line stand beside each other and may meet, as long as no circle comes of it."""

NEVER = {
    "leaderboard": {"runner", "training", "features", "maps"},
    "runner": {"leaderboard", "inspect", "authoring", "maps"},
    "results": {"runner", "leaderboard"},
}
"""Arrows that layers alone would allow: the leaderboard reads results, whoever wrote them."""

SAMPLE = {
    "spectral_tl_bench.data.sample_source": "the door for everybody else",
    "spectral_tl_bench.authoring.checks_run": "writes a small tree for `check-method`",
    "spectral_tl_bench.models.miniature.landscapes": "a script that made the bundled weights, run by nobody else",
}
"""Who may import the generator of the invented scenes, and why."""


@functools.cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """Modules that a file imports when it runs, with the line; names that are modules are followed."""
    return tuple(_read_imports(path))


def _read_imports(path: Path) -> Iterator[tuple[str, int]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []  # names for the type checker alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if name in MODULES]
            yield from ((name, node.lineno) for name in modules)
            if len(modules) < len(names):
                yield node.module, node.lineno


def module_name(path: Path) -> str:
    """The dotted name of a file; a package's is that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for folder in (SUITE, MODEL) for path in folder.rglob("*.py")}


def layer_of(module: str) -> int | None:
    """The number of a module's layer; None for what is in no layer."""
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(LAYERS) if part in names), None)


def offending_arrows() -> list[str]:
    """Every import that leads up, or between parts that must not know each other."""
    found = []
    for module, path in MODULES.items():
        for other, line in imports(path):
            if not module.startswith("spectral_tl_bench.") or other not in MODULES:
                continue
            here, there = layer_of(module), layer_of(other)
            part, target = module.split(".")[1], other.split(".")[1] if "." in other else ""
            up = here is not None and there is not None and there < here
            if up or target in NEVER.get(part, ()):
                found.append(f"{path.relative_to(ROOT)}:{line} -> {other}")
    return sorted(set(found))


def circles() -> list[str]:
    """Modules that import each other in a loop, whether at the top of a file or inside a function."""
    arrows = {
        module: {other for other, _ in imports(path) if other in MODULES and other != module}
        for module, path in MODULES.items()
    }
    reach: dict[str, set[str]] = {}
    for module in MODULES:
        seen: set[str] = set()
        open_ends = list(arrows[module])
        while open_ends:
            current = open_ends.pop()
            if current not in seen:
                seen.add(current)
                open_ends += arrows[current]
        reach[module] = seen
    rings = {frozenset(other for other in reach if module in reach[other] and other in reach[module])
             for module in reach if module in reach[module]}  # fmt: skip
    return sorted(f"{module} -> {other}" for ring in rings for module in ring for other in arrows[module] & ring)


def test_imports_point_down_and_in_no_circle():
    arrows, rings = offending_arrows(), circles()
    assert not arrows, "these imports lead up, or to a neighbour that must not be known:\n" + "\n".join(arrows)
    assert not rings, "these imports make circles:\n" + "\n".join(rings)


def test_the_sample_has_one_door():
    arrows = {
        module: f"{path.relative_to(ROOT)}:{line} -> {other}"
        for module, path in MODULES.items()
        for other, line in imports(path)
        if f"{other}.".startswith("spectral_tl_bench.sample.") and not module.startswith("spectral_tl_bench.sample")
    }
    wrong = sorted(arrow for module, arrow in arrows.items() if module not in SAMPLE)
    assert not wrong, "use spectral_tl_bench.data.sample_source instead of these imports:\n" + "\n".join(wrong)
    assert set(arrows) == set(SAMPLE), "an exception that nobody needs any more"


def test_every_part_has_a_place_among_the_layers():
    parts = {path.name.removesuffix(".py") for path in SUITE.iterdir() if path.suffix == ".py" or path.is_dir()}
    placed = set().union(*LAYERS) - {"storage"}
    assert parts - {"__init__", "__pycache__"} - placed <= {"storage"}


def test_the_suite_meets_spectralx_through_entry_points_only():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for module, path in MODULES.items()
        if module.startswith("spectral_tl_bench")
        for other, line in imports(path)
        if other.partition(".")[0] == "spectralx"
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
