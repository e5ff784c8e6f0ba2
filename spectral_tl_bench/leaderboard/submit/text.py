"""Text and names from strangers: what may stand on the leaderboard, and how it is shown until that is known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

LONGEST_TEXT = 4_000
"""Characters of one text; the message of a failed run is cut to as many."""
LONGEST_NAME = 150
"""Characters of a folder's name; file systems allow 255 bytes, Windows 260 for a whole path."""

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}
_MARKUP = re.compile(r"<\s*[A-Za-z/!?]|javascript\s*:|data\s*:\s*text/|\]\(|&#", re.IGNORECASE)
_FORMULA = re.compile(r"[=+@-]")
_NAMES_OF_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "an invisible character (such as one that turns the direction of text)",
    "Cs": "half of a character",
    "Co": "a character of private use",
    "Cn": "a character that Unicode does not know",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def shown(value: object, limit: int = 120) -> str:
    """Any text on one line, cut, with everything escaped that a terminal or a log would act on."""
    text = " ".join(str(value)[: 4 * limit].split())
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def quoted(value: object, limit: int = 80) -> str:
    """As ``shown``, between quotation marks."""
    return f"'{shown(value, limit)}'"


def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a JSON value, keys too, each with the key that leads to it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{key}.{name}" if key else str(name), str(name)
            yield from strings(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from strings(item, f"{key}.{number}")
    elif isinstance(value, str):
        yield key, value


def text_problem(text: str, key: str) -> str | None:
    """Why a text of a record cannot be taken, or None.

    Boards and pages escape all text, so this is the second wall. The message of a failed run is free text with lines
    and angle brackets; everything else has no use for either.

    Args:
        key: Where it stands in the record.
    """
    if len(text) > LONGEST_TEXT:
        return f"key {quoted(key)} holds {len(text)} characters, at most {LONGEST_TEXT} are allowed"
    message = key == "error.message"
    for char in text:
        category = unicodedata.category(char)
        if category in _NAMES_OF_CATEGORIES and not (message and char in "\n\r\t"):
            return f"key {quoted(key)} holds {_NAMES_OF_CATEGORIES[category]} (U+{ord(char):04X}): {quoted(text)}"
    if not message and _MARKUP.search(text):
        return f"key {quoted(key)} holds markup or script: {quoted(text)}"
    if _FORMULA.match(text) and not key.startswith(("options", "objectives", "settings", "stages")):
        return f"key {quoted(key)} begins like a spreadsheet formula: {quoted(text)}"
    return None


def name_problem(name: str) -> str | None:
    """Why a name cannot be a folder on every system, or None.

    Args:
        name: A benchmark, method or fingerprint.
    """
    if not name.isascii():
        return f"the name {quoted(name)} has letters that are not ASCII and may look like others"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", name):
        return f"the name {quoted(name)} cannot be the name of one folder"
    if name.endswith(".") or ".." in name:
        return f"the name {quoted(name)} has dots that file systems treat differently"
    if name.partition(".")[0].lower() in _RESERVED:
        return f"the name {quoted(name)} is reserved on Windows"
    if len(name) > LONGEST_NAME:
        return f"the name {quoted(name)} has {len(name)} characters, at most {LONGEST_NAME} are allowed"
    return None
