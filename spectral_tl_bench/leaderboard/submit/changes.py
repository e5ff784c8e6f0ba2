"""What a pull request changes among the results, as git tells it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.text import quoted

RECORD_DEPTH = 4
"""Track, benchmark, method and fingerprint lead to a record's folder."""


@dataclass(frozen=True)
class Changes:
    """Files below the results that differ from another commit; paths are relative to the results.

    Attributes:
        folders: Folders of records in which something was added or changed.
        touched: Files that were there already and were changed or removed.
    """

    folders: frozenset[str]
    touched: tuple[str, ...]


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
    states = dict(zip(tracked[1::2], tracked[::2], strict=True))
    added = _git(results, "ls-files", "--others", "--exclude-standard", "-z")
    states |= dict.fromkeys(added, "A")
    folders = {"/".join(Path(name).parts[:RECORD_DEPTH]) for name in states if len(Path(name).parts) > RECORD_DEPTH}
    touched = [name for name, state in states.items() if state != "A" and len(Path(name).parts) > RECORD_DEPTH]
    return Changes(frozenset(folders), tuple(sorted(touched)))


def _git(folder: Path, *arguments: str) -> list[str]:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"git cannot be asked what changed: {error}", where=folder) from None
    if done.returncode:
        message = quoted(done.stderr.decode("utf-8", "replace"), 300)
        raise UserError(f"git cannot say what changed: {message}", where=folder, fix="name a commit that was fetched")
    return [part.decode("utf-8", "surrogateescape") for part in done.stdout.split(b"\0") if part]
