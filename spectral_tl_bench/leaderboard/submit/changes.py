"""What a pull request changes among the results, as git tells it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.text import quoted
from spectral_tl_bench.results.published import LINES, ROWS, is_pair


@dataclass(frozen=True)
class Changes:
    """Pairs of published files that differ from another commit.

    Attributes:
        before: The lines that each had there, by the path of its file of lines relative to the results; none where the
            file is new.
    """

    before: Mapping[str, tuple[bytes, ...]]


def changes_since(reference: str, results: Path) -> Changes:
    """What differs between a commit and the working tree.

    Args:
        reference: A commit, branch or tag.
        results: Root of the results, inside a git repository.

    Raises:
        UserError: If git cannot tell.
    """
    if not reference or reference.startswith("-"):
        raise UserError(f"--changed-from {quoted(reference)} is not a commit")
    tracked = _git(
        results, "diff", "--name-status", "--no-renames", "--no-ext-diff", "--no-textconv", "--relative", "-z",
        "--end-of-options", reference, "--", ".",
    )  # fmt: skip
    parts = _names(tracked)
    states = dict(zip(parts[1::2], parts[::2], strict=True))
    states |= dict.fromkeys(_names(_git(results, "ls-files", "--others", "--exclude-standard", "-z")), "A")
    before: dict[str, tuple[bytes, ...]] = {}
    for name in states:
        lines = name.removesuffix(ROWS) + LINES if name.endswith(ROWS) else name
        if is_pair(Path(lines)) and states.get(lines) != "A":
            before[lines] = tuple(_git(results, "cat-file", "blob", f"{reference}:./{lines}").splitlines())
        elif is_pair(Path(lines)):
            before[lines] = ()
    return Changes(before)


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"git cannot be asked what changed: {error}", where=folder) from None
    if done.returncode:
        message = quoted(done.stderr.decode("utf-8", "replace"), 300)
        raise UserError(f"git cannot say what changed: {message}", where=folder, fix="name a commit that was fetched")
    return done.stdout


def _names(output: bytes) -> list[str]:
    return [part.decode("utf-8", "surrogateescape") for part in output.split(b"\0") if part]
