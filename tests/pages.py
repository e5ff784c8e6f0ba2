"""The pages of the documentation, and the commands in their blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shared import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "leaderboard/README.md", ".github/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.M | re.S)
COMMENT = re.compile(r"(?:^|\s+)#(?:\s.*)?$")


def content(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    return FENCE.sub("", content(page))


@dataclass(frozen=True)
class Command:
    """A line of the shell that a page shows.

    Attributes:
        page: Where it stands.
        line: Number of its first line.
        text: The line, without its comment, with single spaces.
        shown: What the page says that it prints, line by line.
    """

    page: str
    line: int
    text: str
    shown: tuple[str, ...] = ()


def commands(page: str) -> Iterator[Command]:
    """The commands of a page's blocks, in their order.

    A block of ``sh`` holds commands; in one without a language they stand behind ``$``, and what follows is printed.
    """
    text = content(page)
    for block in FENCE.finditer(text):
        console = block[1] not in ("sh", "bash")
        if console and (block[1] not in ("", "text", "console") or not block[2].startswith("$ ")):
            continue
        number = text.count("\n", 0, block.start(2)) + 1
        lines = block[2].splitlines()
        while lines:
            first, line = number, lines.pop(0)
            while line.endswith("\\"):
                line = line[:-1] + lines.pop(0)
                number += 1
            number += 1
            shown: list[str] = []
            while console and lines and not lines[0].startswith("$ "):
                shown.append(lines.pop(0))
                number += 1
            words = " ".join(COMMENT.sub("", line.strip().removeprefix("$ ")).split())
            if words:
                yield Command(page, first, words, tuple(shown))
