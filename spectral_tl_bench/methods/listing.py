"""What installed methods and objectives are, for lists and for groups of them: read from source, nothing is imported.

Importing the classes would take seconds of PyTorch for a list of names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.methods.registry import GROUP, load_method
from spectral_tl_bench.objectives.registry import SEPARATOR, split_objectives
from spectral_tl_bench.plugins import listed

ALL = "all"
FAMILY = "family:"
_YEAR = re.compile(r"\b(?:19|20)\d\d\b(?!\.)")
_DEEPEST = 8


@dataclass(frozen=True)
class Listing:
    """What a class says of itself.

    Attributes:
        summary: First line of its docstring.
        family: Group on the board; empty where its source does not say.
        reference: Paper or source.
        presets: Names of its sets of options.
    """

    summary: str = ""
    family: str = ""
    reference: str = ""
    presets: tuple[str, ...] = ()

    @property
    def year(self) -> str:
        """That of the source; empty where none is written there."""
        years = _YEAR.findall(self.reference)
        return years[0] if years else ""


def listing_of(entry: EntryPoint) -> Listing:
    """What the class of an entry point says of itself, or inherits.

    What is not written out in a class body is not seen.
    """
    values: dict[str, ast.expr] = {}
    bodies = list(_bodies(entry.module, entry.attr))
    for body, _ in reversed(bodies):
        values |= body
    summary = bodies[0][1].partition("\n")[0].replace("``", "") if bodies else ""
    presets = values.get("presets")
    keys = presets.keys if isinstance(presets, ast.Dict) else []
    names = tuple(key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
    return Listing(summary, _text(values.get("family")), _text(values.get("reference")), names)


def methods_named(names: Iterable[str]) -> tuple[str, ...]:
    """Names of methods, with ``all`` and ``family:FAMILY`` in place of those that they stand for.

    Objectives behind a group go to each of its methods: ``family:peft+vrex``.

    Raises:
        MethodError: If no method is of such a family; it names the closest ones.
    """
    found: list[str] = []
    for name in names:
        group, objectives = split_objectives(name)
        members = _members(group)
        found += [name] if members is None else [SEPARATOR.join((member, *objectives)) for member in members]
    return tuple(dict.fromkeys(found))


def _members(group: str) -> list[str] | None:
    if group != ALL and not group.startswith(FAMILY):
        return None
    usable, _ = listed(GROUP, load_method)
    if group == ALL:
        return [ALL] if ALL in usable else list(usable)
    families: dict[str, list[str]] = {}
    for name, entry in usable.items():
        families.setdefault(listing_of(entry).family or load_method(name).family, []).append(name)
    wanted = group.removeprefix(FAMILY)
    if wanted not in families:
        raise MethodError(f"there is no family of methods {wanted!r}", expected=nearest(wanted, families))
    return families[wanted]


def _text(value: ast.expr | None) -> str:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _bodies(module: str, name: str, depth: int = 0) -> Iterator[tuple[dict[str, ast.expr], str]]:
    """The values that a class assigns, with its docstring; then those of what it inherits from."""
    path = _source_of(module)
    if path is None or depth > _DEEPEST:
        return
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return
    kind = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    if kind is None:  # what a package hands on from another module
        if name in imported:
            yield from _bodies(*imported[name], depth + 1)
        return
    yield dict(_assigned(kind)), ast.get_docstring(kind) or ""
    for base in kind.bases:
        if isinstance(base, ast.Name):
            yield from _bodies(*imported.get(base.id, (module, base.id)), depth + 1)


def _assigned(kind: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for node in kind.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                yield target.id, value


def _source_of(module: str) -> Path | None:
    """The file of a module; neither it nor the packages around it are imported."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
        for part in inner:
            if spec is None:
                return None
            spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
