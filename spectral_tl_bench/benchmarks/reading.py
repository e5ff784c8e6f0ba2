"""Definitions of benchmarks in YAML files: reading them, and saying what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from spectral_tl_bench.benchmarks.definition import Benchmark
from spectral_tl_bench.errors import BenchmarkError, nearest
from spectral_tl_bench.plugins import imported, offered

LAYOUTS = "spectral_tl_bench.layouts"
"""The entry-point group of the layouts."""


class OnceLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice, which plain YAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises ``ConstructorError`` naming a repeated key and its line."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # refused further down, with the line
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_benchmark(path: Path) -> Benchmark:
    """Read and check one benchmark definition.

    A published dataset's shared facts (sensor, classes, domains) stand once in a file of their own, which a
    definition names under ``extends`` (a path relative to itself); its own keys take precedence.

    Args:
        path: A YAML file.

    Returns:
        The benchmark.

    Raises:
        BenchmarkError: If the file is missing, is no YAML, or a key is missing, misspelt or contradicts another; also
            if no installed package has the layout, or the layout does not have the options.
    """
    raw = read_definition(path)
    return validated(raw, path, _layout_problems(raw))


def read_definition(path: Path) -> dict[str, Any]:
    """The content of a YAML file, over that of the file it extends.

    Raises:
        BenchmarkError: If one of them is missing or no mapping.
    """
    raw = _read_yaml(path)
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise BenchmarkError("'extends' must name a file", where=path, expected="extends: _facts.yaml")
    return {**_read_yaml(path.parent / base), **raw}


def validated(raw: dict[str, Any], path: Path, layout_problems: Sequence[str] = ()) -> Benchmark:
    """The benchmark that a definition describes.

    Args:
        raw: What the file says.
        path: The file, for messages.
        layout_problems: What its layout says to its options.

    Raises:
        BenchmarkError: If a key is missing, misspelt or contradicts another; up to six are named.
    """
    try:
        benchmark, problems = Benchmark.model_validate(raw), list(layout_problems)
    except ValidationError as error:
        benchmark, problems = None, [*problems_of(error, Benchmark), *layout_problems]
    if benchmark is not None and not problems:
        return benchmark
    more = f" (and {len(problems) - 6} more)" if len(problems) > 6 else ""
    what = "this benchmark definition has " + ("a mistake" if len(problems) == 1 else f"{len(problems)} mistakes")
    raise BenchmarkError(
        what + ":\n    " + "\n    ".join(problems[:6]) + more,
        where=f"{path} (id {raw.get('id', 'missing')!r})",
        fix="compare with a definition that ships with the suite: `stbench benchmarks show mts12-n2s --yaml`",
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchmarkError(f"the benchmark definition cannot be read: {reason}", where=path) from None
    try:
        raw = yaml.load(text, Loader=OnceLoader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise BenchmarkError(f"this is not valid YAML: {error}", where=path, fix="mend the line named above") from None
    if not isinstance(raw, dict):
        raise BenchmarkError("a benchmark definition is a mapping of keys to values", where=path)
    return raw


def problems_of(error: ValidationError, model: type[BaseModel], *above: str) -> list[str]:
    """What is wrong, a line for each key; ``above`` are the keys that lead to the model's own."""
    problems = []
    for item in error.errors():
        location = [*above, *(str(part) for part in item["loc"])]
        key = ".".join(location) or "the file as a whole"
        if item["type"] == "missing":
            problems.append(f"key {key!r} is missing")
        elif item["type"] == "extra_forbidden":
            problems.append(f"key {key!r} is not known: {nearest(location[-1], _known_keys(model, item['loc']))}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f", got {item['input']!r:.80}"
            problems.append(f"key {key!r}: {message[0].lower()}{message[1:]}{shown}")
    return problems


def _layout_problems(raw: dict[str, Any]) -> list[str]:
    """What an installed layout says to its options, without a look at any data."""
    layout, split = raw.get("layout"), raw.get("split")
    if not isinstance(layout, dict) or not isinstance(layout.get("kind"), str):
        return []  # said already
    kind = layout["kind"]
    try:
        entry = offered(kind, LAYOUTS, "layout", BenchmarkError)
    except BenchmarkError as error:
        return [f"key 'layout.kind': {error.what}: {error.expected or error.where} ({error.fix})"]
    model = imported(entry, f"layout {kind!r}", BenchmarkError)
    if not (isinstance(model, type) and issubclass(model, BaseModel)) or inspect.isabstract(model):
        return []  # said when the data are opened, by those who know what a layout is
    problems = []
    if isinstance(split, dict) and split.get("place") == "site" and not getattr(model, "sites", False):
        problems.append(f"key 'split': split.place: site needs a table with sites; layout {kind} has none, use grid")
    elif isinstance(split, dict) and split.get("place") == "site" and _lacks_site(model, layout):
        problems.append("key 'layout.site' is missing: split.place: site needs the column that names the sites")
    try:
        model.model_validate({key: value for key, value in layout.items() if key != "kind"})
    except ValidationError as error:
        problems += problems_of(error, model, "layout")
    return problems


def _lacks_site(model: type[BaseModel], layout: dict[str, Any]) -> bool:
    """Whether sites come from a column that is not named."""
    return "site" in model.model_fields and not layout.get("site")


def _known_keys(model: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        if isinstance(part, int) or model is None:
            continue
        field = model.model_fields.get(part)
        model = _model_in(field.annotation) if field else None
    return list(model.model_fields) if model is not None and hasattr(model, "model_fields") else []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        model = _model_in(part)
        if model is not None:
            return model
    return None
