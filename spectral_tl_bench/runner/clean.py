"""What may be removed from a store of runs, by name, and its removal; finished records only where they are named."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.runner.cell_log import EARLIER_LOG_FILE, LOG_FILE
from spectral_tl_bench.runner.lease import Lease
from spectral_tl_bench.runner.standing import FOLDER
from spectral_tl_bench.runner.status import JOBS, CellStatus
from spectral_tl_bench.storage.place import paths_in, remove_whole, size_of
from spectral_tl_bench.storage.signs import LOST


@dataclass(frozen=True)
class Wishes:
    """What a user wants removed.

    Attributes:
        failed: Failed cells, whole.
        stale: Checkpoints and leases of cells that were stopped, and files that were being written.
        checkpoints: Checkpoints of all cells that do not run.
        jobs: Notes about batch jobs that are over.
        whole: Named cells, with all that they have.
    """

    failed: bool = False
    stale: bool = False
    checkpoints: bool = False
    logs: bool = False
    jobs: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Removal:
    """Something to be removed.

    Attributes:
        size: Bytes.
        cell: The folder of its cell, whose lease is taken while it goes; None where it belongs to none.
    """

    path: Path
    size: int
    cell: Path | None


def to_remove(root: Path, cells: Sequence[CellStatus], wishes: Wishes) -> tuple[list[Removal], list[str]]:
    """What goes, and in words what stays although it was meant."""
    going: dict[Path, Removal] = {}
    staying: list[str] = []
    for cell in cells:
        paths = [path for path in _wanted(root, cell, wishes) if path.exists() or path.is_symlink()]
        if not paths:
            continue
        if cell.state == "running":
            staying.append(f"{cell.key}  {cell.name}: {cell.detail}")
            continue
        if cell.folder is None and any(_is_fresh(path) for path in paths):
            staying.append(f"{cell.key}: it was written a moment ago, and nobody knows by whom")
            continue
        for path in paths:
            if path.is_symlink() or path.parent.is_symlink():
                staying.append(f"{path}: it is a link, or behind one")
            elif not any(parent in going for parent in path.parents):
                going[path] = Removal(path, size_of(path), cell.folder)
    return list(going.values()), staying


def stages_to_remove(root: Path, cells: Sequence[CellStatus]) -> tuple[list[Removal], list[str]]:
    """The same for the checkpoints of first stages that cells share: they stay as long as any cell runs."""
    folder = root / FOLDER
    found = [path for path in paths_in(folder) if path.name.startswith("stage-") and not path.is_symlink()]
    if folder.is_symlink():
        found = []
    busy = any(cell.state == "running" for cell in cells)
    staying = [f"{path}: a run may be using it" for path in found if busy or _is_fresh(path)]
    going = [Removal(path, size_of(path), None) for path in found if not busy and not _is_fresh(path)]
    return going, staying


def remove(removals: Sequence[Removal]) -> list[str]:
    """Remove; what a process has begun to use meanwhile stays.

    Returns:
        In words, what is still there.
    """
    left = []
    for removal in removals:
        if removal.cell is None:
            remove_whole(removal.path)
        else:
            with Lease(removal.cell) as lease:
                if not lease.take():
                    left.append(f"{removal.path}: a run has begun to use it")
                    continue
                remove_whole(removal.path)
        if removal.path.exists() and removal.path.suffix != ".claim":
            left.append(f"{removal.path}: it cannot be removed")
    return left


def check_named(cells: Sequence[CellStatus], finished: bool) -> None:
    """Refuse named cells that must not go.

    Raises:
        UserError: If one runs, or is finished or queued and that was not said.
    """
    for cell in cells:
        if cell.state == "running":
            raise UserError(f"cell {cell.key} ({cell.name}) runs: {cell.detail}", fix="stop it first")
        if cell.state == "done" and not finished:
            raise UserError(
                f"cell {cell.key} ({cell.name}) is finished: {cell.detail}",
                fix="add --finished to remove its record, or an option such as --logs for a part of it",
            )
        if cell.state == "queued":
            raise UserError(f"cell {cell.key} ({cell.name}) is queued: {cell.detail}", fix="cancel its job first")


def _wanted(root: Path, cell: CellStatus, wishes: Wishes) -> Iterator[Path]:
    """The paths of a cell that are meant, whether they are there or not; folders before what is in them."""
    folder, checkpoints = cell.folder, root / FOLDER / cell.key
    dead = cell.state in ("stopped", "failed", "done")
    whole = wishes.whole or (wishes.failed and cell.state == "failed")
    if whole and folder is not None:
        yield folder
    if whole or wishes.checkpoints or (wishes.stale and dead):
        yield checkpoints
    if folder is not None and (whole or (wishes.stale and dead)):
        yield folder.parent / f".{folder.name}.claim"
        yield from (path for path in paths_in(folder) if path.name.startswith("."))  # half-written
    if folder is not None and wishes.logs:
        yield from (folder / LOG_FILE, folder / EARLIER_LOG_FILE)
    if whole or (wishes.jobs and (dead or cell.state == "paused")):
        yield root / JOBS / f"{cell.key}.json"


def _is_fresh(path: Path) -> bool:
    """Whether something in it was touched not long ago."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return any(time.time() - one.lstat().st_mtime < LOST for one in paths)
