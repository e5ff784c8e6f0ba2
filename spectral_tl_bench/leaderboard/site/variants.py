"""In what a row differs from its like, in few words."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.site.names import setting
from spectral_tl_bench.leaderboard.text import as_json

MOST_PARTS = 3
"""Properties that are named, unless more are needed to tell a row from the others."""

_LONGEST = 60
_Kind = tuple[str, str]
"""A group of properties, and the name of one."""
_Properties = dict[_Kind, str]
"""Values as JSON."""
_ABSENT = ""
"""The value, no JSON, of an option or setting that other rows of the method have."""
_Counts = dict[_Kind, Counter[str]]


def variants(rows: Sequence[Fields]) -> list[str]:
    """What is unusual about each row; nothing where nothing is.

    Usual is the value that most rows of the same method have (of the same backbone, for its weights and what reaches
    its filters). Where values are equally frequent the board decides, and where it cannot, all rows name theirs. What
    tells a row from the others of its method and backbone comes first. Random weights are named with the backbone.

    Args:
        rows: All rows of a board, ``options`` and ``settings`` as mappings.
    """
    like: dict[tuple[str, ...], list[_Properties]] = defaultdict(list)
    values = [_properties(row) for row in rows]
    for row, mine in zip(rows, values, strict=True):
        for group in _groups(row):
            like[group].append(mine)
    for (kind, *_), some in like.items():
        if kind == "method":
            _complete(some)
    of_board = _usual(_counts(values))
    counts = {group: _counts(some) for group, some in like.items()}
    usual = {group: of_board | _usual(one) for group, one in counts.items()}
    texts = []
    for row, mine in zip(rows, values, strict=True):
        method, backbone, both = _groups(row)
        held = {kind: usual[backbone if kind[0] == "backbone" else method].get(kind) for kind in mine}
        unusual = {
            kind: value for kind, value in mine.items() if held[kind] != value and not _said_by_another(kind, mine)
        }
        texts.append(_said(unusual, like[both], counts[both]))
    return texts


def _groups(row: Fields) -> tuple[tuple[str, ...], ...]:
    method, backbone = row["method"], row["backbone"] or ""
    return ("method", method), ("backbone", backbone), ("both", method, backbone, row["pretrained"])


def _properties(row: Fields) -> _Properties:
    """Facts of the backbone, options and settings by group and name."""
    found: dict[_Kind, object] = {}
    if row["backbone"]:
        embedding, *said = row["patch_embedding"].split(", ")
        scales = {"input scale": "1.0", "level norm": "none"} | dict(part.rsplit(" ", 1) for part in said)
        weights = {} if row["pretrained"] == "none" else {"pretrained": row["pretrained"]}
        facts = {**weights, "patch embedding": embedding, **scales}
        found |= {("backbone", name): value for name, value in facts.items()}
    found |= {("option", name): value for name, value in _flat(row["options"]).items()}
    found |= {("setting", name): value for name, value in _flat(row["settings"]).items()}
    found["setting", "protocol"] = row["protocol"]
    return {kind: as_json(value) for kind, value in found.items()}


def _complete(rows: Sequence[_Properties]) -> None:
    """Give each row the options and settings that it lacks."""
    kinds = sorted({kind for row in rows for kind in row if kind[0] != "backbone"})
    for row in rows:
        for kind in kinds:
            row.setdefault(kind, _ABSENT)


def _said_by_another(kind: _Kind, row: _Properties) -> bool:
    """Whether a property is absent because parts of it are there, or because the whole that it is part of is not so."""
    group, name = kind
    return row[kind] == _ABSENT and any(
        name.startswith(f"{other} ") or (value != _ABSENT and other.startswith(f"{name} "))
        for (of, other), value in row.items()
        if of == group
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> Fields:
    """Settings with those of nested ones among them; those of the training budget have names of their own."""
    flat: Fields = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, prefix if name == "budget" else f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _counts(some: Iterable[_Properties]) -> _Counts:
    counts: _Counts = defaultdict(Counter)
    for one in some:
        for kind, value in one.items():
            counts[kind][value] += 1
    return counts


def _usual(counts: _Counts) -> _Properties:
    """The most frequent value of each property, where there is one."""
    ranked = {kind: counter.most_common(2) for kind, counter in counts.items()}
    return {kind: top[0][0] for kind, top in ranked.items() if len(top) == 1 or top[0][1] > top[1][1]}


def _said(unusual: _Properties, rows: Sequence[_Properties], counts: _Counts) -> str:
    """In words, as much as it takes; ``rows`` are all of the method and backbone, with this one."""
    left, shown = dict(unusual), list[str]()
    while left and (len(rows) > 1 or len(shown) < MOST_PARTS):
        kind = min(left, key=lambda one: counts[one][left[one]])
        if len(shown) >= MOST_PARTS and counts[kind][left[kind]] == len(rows):
            break
        value = left.pop(kind)
        shown.append(_text(kind[1], value))
        rows = [row for row in rows if row.get(kind) == value]
        counts = _counts(rows)
    return ", ".join([*shown, *(["…"] if left else [])])


def _text(name: str, value: str) -> str:
    text = f"no {name}" if value == _ABSENT else f"{name} {setting(json.loads(value))}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
