"""Whether a data set is on this disk, and putting an unpacked one where the benchmarks look for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts import FolderLayout, layout_of
from spectral_tl_bench.data.sources.catalogue import Dataset, datasets
from spectral_tl_bench.errors import DataError, UserError
from spectral_tl_bench.files import fsync_folder

DEEPEST = 4
"""Levels of folders below which a data set is looked for in what was unpacked."""


@dataclass(frozen=True)
class Presence:
    """What a data root holds of one layout of a data set.

    Attributes:
        layout: Name of the layout.
        benchmarks: The benchmarks that read it.
        published: Chips that were published; 0 where that is not known.
        chips: Chips that are here.
        problem: Why they cannot be listed, although the data set's folders are here.
    """

    layout: str
    benchmarks: tuple[str, ...]
    published: int
    chips: int = 0
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether every chip is known to be here."""
        return 0 < self.published == self.chips

    @property
    def words(self) -> str:
        """How much is here."""
        if self.problem:
            return f"cannot be read: {self.problem}"
        if self.complete:
            return f"complete ({self.chips} chips)"
        if self.chips and not self.published:
            return f"{self.chips} chips"
        return f"{self.chips} of {self.published} chips" if self.chips else "no"


def by_layout(dataset: Dataset) -> dict[str, list[Benchmark]]:
    """The benchmarks of a data set by the name of their layout."""
    found: dict[str, list[Benchmark]] = {}
    for benchmark in dataset.benchmarks:
        found.setdefault(benchmark.layout.kind, []).append(benchmark)
    return found


def on_disk(dataset: Dataset, root: Path) -> list[Presence]:
    """What a data root holds of a data set, for each of its layouts; names are read, no file is opened."""
    return [_presence(kind, benchmarks, root) for kind, benchmarks in by_layout(dataset).items()]


def _presence(kind: str, benchmarks: list[Benchmark], root: Path) -> Presence:
    published = max(sum(benchmark.expected.values()) for benchmark in benchmarks)
    nothing = Presence(kind, tuple(benchmark.id for benchmark in benchmarks), published)
    layout, first = layout_of(benchmarks[0]), benchmarks[0]
    try:
        base = layout.base(root, first)
    except (UserError, OSError):
        return nothing
    try:
        chips = layout.chips(base, first)
    except (UserError, OSError) as error:
        problem = error.what if isinstance(error, UserError) else error.strerror or str(error)
        return Presence(kind, nothing.benchmarks, published, problem=problem)
    # A name that tells no domain may be of any: that is found when the chip is opened
    wanted = {"", *(domain for benchmark in benchmarks for domain in (*benchmark.source, *benchmark.target))}
    return Presence(kind, nothing.benchmarks, published, sum(chip.domain in wanted for chip in chips))


def bases(dataset: Dataset, tree: Path, *, readable: bool = False) -> list[Path]:
    """The folders of a tree that layouts of a data set start from, one for each, the deepest first.

    Args:
        dataset: The data set.
        tree: What was unpacked.
        readable: Whether only those count from which a layout reads chips; otherwise the first one that looks right
            does, if there are none of these.
    """
    found, alike = set(), set()
    for benchmarks in by_layout(dataset).values():
        layout = layout_of(benchmarks[0])
        if not isinstance(layout, FolderLayout):
            continue
        marked = [folder for folder in _folders(tree) if layout.mark(folder) is not None]
        alike |= set(marked[:1])
        # Layouts are told apart by their chips: those for transfer may have folders of the official names inside
        found |= set(itertools.islice((folder for folder in marked if _has_chips(layout, folder, benchmarks[0])), 1))
    return sorted(found or (set() if readable else alike), key=lambda folder: (-len(folder.parts), folder))


def _has_chips(layout: FolderLayout, folder: Path, benchmark: Benchmark) -> bool:
    try:
        return bool(layout.chips(folder, benchmark))
    except (UserError, OSError):
        return False


def _folders(tree: Path) -> Iterator[Path]:
    """The folders of a tree, level by level."""
    level = [tree]
    for _ in range(DEEPEST + 1):
        yield from level
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())


def merge(tree: Path, target: Path) -> None:
    """Move all that is in a tree below another folder, by renaming; the tree is gone afterwards.

    Raises:
        DataError: If a file is there already; what was moved before stays moved, so that it can go on.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        tree.rename(target)
        fsync_folder(target.parent)
        return
    for entry in sorted(tree.iterdir()):
        there = target / entry.name
        if there.is_dir() and entry.is_dir():
            merge(entry, there)
        elif there.exists():
            raise DataError(
                "two files for one place", where=there, expected=f"one; the other is {entry}", fix="remove one of them"
            )
        else:
            entry.rename(there)
    tree.rmdir()


def plan_moves(dataset: Dataset, tree: Path, root: Path) -> tuple[bool, list[tuple[str, str]]]:
    """How an unpacked tree gets where the benchmarks look for it; nothing is moved.

    Other data sets that are in the same tree get their places as well, unless they are there already.

    Args:
        dataset: The data set.
        tree: What was unpacked.
        root: The data root.

    Returns:
        Whether a layout of the data set knows it, and what is to be renamed, from and to, in this order. Files whose
        names are taken are not among them.

    Raises:
        DataError: If folders of the data set are there already.
    """
    own = bases(dataset, tree)
    found = dict.fromkeys(own or [tree], root / dataset.folder)
    for other in datasets().values():
        if other != dataset and not (root / other.folder).exists():
            found = dict.fromkeys(bases(other, tree, readable=True), root / other.folder) | found
    moves: dict[Path, Path] = {}
    for base, target in found.items():
        for entry in sorted(base.iterdir()):
            to = target / entry.name
            if entry in moves or any(entry == one or entry in one.parents for one in found):
                continue  # has its place, or holds what has
            if not to.exists() and to not in moves.values():
                moves[entry] = to
            elif entry.is_dir():
                raise DataError(
                    f"{dataset.dataset} would be put where there is something already", where=to,
                    expected=f"nothing of the name {to.name} there",
                    fix=f"move it away and start again: what was unpacked is kept in {tree}",
                )  # fmt: skip
    return bool(own), [(str(entry), str(to)) for entry, to in moves.items()]
