"""Plans in YAML: what is to be run, in blocks, with what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from spectral_tl_bench.benchmarks.reading import OnceLoader, problems_of
from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.runner.blocks import Block

MOST_BYTES = 2**20
DEFAULTS, BLOCKS = "defaults", "blocks"
DEEPEST = 20
OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken,
           yaml.FlowSequenceStartToken)  # fmt: skip
CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
MERGED = ("options", "objective_options", "settings", "grid", "backbone_sizes")
"""Mappings that a block adds to those of the defaults, key by key."""

HEAD = "# A plan: `stbench run --plan FILE` runs it, `stbench plan --plan FILE` shows what is left of it.\n"


def read_plan(path: Path) -> list[Block]:
    """The blocks of a plan, each with the defaults entered.

    Raises:
        UserError: If the file cannot be read, is no YAML, or a key is missing, unknown, given twice or has an
            impossible value; file, key and line are named.
    """
    text = _text(path)
    try:
        _check_tokens(text, path)
        raw = yaml.load(text, Loader=OnceLoader)  # noqa: S506 - a subclass of the safe loader
        node = yaml.compose(text, Loader=OnceLoader)
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"the plan is not valid YAML: {reason}", where=path, fix="mend the line named above") from None
    if not isinstance(raw, dict):
        raise _wrong(path, ["the plan is no mapping of keys to values"])
    lines = dict(_lines(node))
    problems = [f"key {key!r} is not known: {nearest(str(key), (DEFAULTS, BLOCKS))}{_at(lines, (key,))}"
                for key in raw if key not in (DEFAULTS, BLOCKS)]  # fmt: skip
    defaults, blocks = raw.get(DEFAULTS) or {}, raw.get(BLOCKS)
    if not isinstance(defaults, dict):
        problems.append(f"key {DEFAULTS!r} is no mapping{_at(lines, (DEFAULTS,))}")
    if not isinstance(blocks, list) or not blocks or not all(isinstance(block, dict) for block in blocks):
        problems.append(f"key {BLOCKS!r} is no list of blocks{_at(lines, (BLOCKS,))}")
    if problems:
        raise _wrong(path, problems)
    read = []
    for number, block in enumerate(blocks or []):
        try:
            read.append(Block.model_validate(_merged(defaults, block)))
        except ValidationError as error:
            for item, problem in zip(error.errors(), problems_of(error, Block), strict=True):
                at = _line(lines, (BLOCKS, number), item["loc"]) or _line(lines, (DEFAULTS,), item["loc"])
                problems.append(f"block {number + 1}{at or _at(lines, (BLOCKS, number))}: {problem}")
    if problems:
        raise _wrong(path, list(dict.fromkeys(problems)))
    return read


def _check_tokens(text: str, path: Path) -> None:
    """Refuse what makes much of little: a file of a megabyte may name itself a million times over."""
    depth = 0
    for token in yaml.scan(text, Loader=OnceLoader):
        if isinstance(token, yaml.AliasToken):
            raise UserError(
                "the plan has a YAML alias (*name), which is not read", where=path,
                fix=f"write what blocks have in common under {DEFAULTS!r}",
            )  # fmt: skip
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        if depth > DEEPEST:
            raise UserError(f"the plan is nested more than {DEEPEST} deep", where=path)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"the plan cannot be read: {reason}", where=path, expected="a YAML file in UTF-8") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"the plan has more than {MOST_BYTES} bytes", where=path, expected="a plan written by hand")
    return text


def _merged(defaults: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    both = {**defaults, **block}
    for key in MERGED:
        parts = [part[key] for part in (defaults, block) if key in part]
        if len(parts) == 2 and all(isinstance(part, dict) for part in parts):
            both[key] = {**parts[0], **parts[1]}
    return both


def _wrong(path: Path, problems: Sequence[str]) -> UserError:
    more = f" (and {len(problems) - 6} more)" if len(problems) > 6 else ""
    return UserError(
        "this plan cannot be used:\n    " + "\n    ".join(problems[:6]) + more,
        where=path,
        fix="docs/plans.md tells what a plan may say; `stbench plan -m lora -b all --write FILE` writes one",
    )


def _lines(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The line (from 1) of everything in a YAML document, by its keys and numbers."""
    yield above, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*above, key.value), key.start_mark.line + 1
            yield from (one for one in _lines(value, (*above, key.value)) if one[0] != (*above, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _lines(value, (*above, number))


def _line(lines: dict[tuple[Any, ...], int], above: tuple[Any, ...], location: tuple[Any, ...]) -> str:
    """Where a key, or what it is in, stands; empty where it is not below."""
    for end in range(len(location), 0, -1):
        if (*above, *location[:end]) in lines:
            return _at(lines, (*above, *location[:end]))
    return ""


def _at(lines: dict[tuple[Any, ...], int], place: tuple[Any, ...]) -> str:
    return f" (line {lines[place]})" if place in lines else ""


def plan_text(blocks: Sequence[Block]) -> str:
    """A plan as YAML, which ``read_plan`` reads to the same blocks."""
    content = {BLOCKS: [block.model_dump(mode="json", exclude_defaults=True) for block in blocks]}
    return HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
