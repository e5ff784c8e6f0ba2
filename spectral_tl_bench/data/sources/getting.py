"""From a listing to an unpacked data set: one archive at a time, and every step can be gone on from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from spectral_tl_bench.data.sources.catalogue import Dataset
from spectral_tl_bench.data.sources.fetching import NOTES, PART, fetch
from spectral_tl_bench.data.sources.joining import is_joined, join
from spectral_tl_bench.data.sources.listing import Listing, SourceFile
from spectral_tl_bench.data.sources.placing import Presence, merge, on_disk, plan_moves
from spectral_tl_bench.data.sources.progress import Say
from spectral_tl_bench.data.sources.unpacking import unpack
from spectral_tl_bench.errors import DataError, StorageError, UserError
from spectral_tl_bench.files import digest, fsync_folder, write_json
from spectral_tl_bench.storage import in_words
from spectral_tl_bench.storage.place import size_of

WORK = ".stbench-get"
"""Folder in a data root for what is not finished, and for receipts."""


@dataclass
class Work:
    """What is known of one data set from one source in a data root.

    Attributes:
        folder: Its own folder.
        done: Version of each file that is unpacked, or in its place if it is no archive.
    """

    folder: Path
    done: dict[str, str] = field(default_factory=dict)

    @property
    def receipt(self) -> Path:
        """Written when the data set is in its place."""
        return self.folder / "receipt.json"

    def archive(self, file: SourceFile) -> Path:
        """Where an archive is while it is needed."""
        return file.local or self.folder / "archives" / file.name

    def tree(self, file: SourceFile) -> Path:
        """Where a file is unpacked to, by itself."""
        return self.folder / "trees" / digest(file.name)[:12]

    def note(self, file: SourceFile) -> None:
        """Remember that a file is done."""
        self.done[file.name] = file.version
        with (self.folder / "done.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([file.name, file.version]) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def open_work(root: Path, dataset: Dataset, listing: Listing) -> Work:
    """What an earlier start has left, if there was one; nothing is written."""
    work = Work(root / WORK / f"{dataset.id}-{digest(listing.label)[:8]}")
    try:
        lines = (work.folder / "done.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return work
    for line in lines:
        try:
            name, version = json.loads(line)
        except ValueError:  # a line that a crash has cut
            continue
        work.done[name] = version
    return work


def is_finished(dataset: Dataset, work: Work, listing: Listing, root: Path) -> bool:
    """Whether just this is in its place already.

    Raises:
        DataError: If another content of it is, or only a part of it is left.
    """
    try:
        receipt = json.loads(work.receipt.read_text(encoding="utf-8"))
        there = all((root / path).exists() for path in receipt["placed"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if not there:  # somebody has removed it: it is got again
        return False
    if receipt["files"] == {file.name: file.version for file in listing.files}:
        if _chips(here := on_disk(dataset, root)) < receipt.get("chips", 0):
            now = "; ".join(f"{one.layout}: {one.words}" for one in here if one.chips or one.problem) or "none"
            raise DataError(
                f"what was put here is not whole any more: {receipt['chips']} chips then, now {now}",
                where=root / dataset.folder,
                fix=f"move {' and '.join(receipt['placed'])} away and start again: it is then got anew",
            )  # fmt: skip
        return True
    raise DataError(
        "the source has other files now than those that are here", where=root / receipt["placed"][0],
        expected="; ".join(receipt["notes"]) or None,
        fix="keep what is here, or move it away and start again: it is then got anew",
    )  # fmt: skip


def _chips(here: Sequence[Presence]) -> int:
    return sum(one.chips for one in here)


def room_needed(listing: Listing, work: Work, keep: bool) -> int:
    """Bytes that are needed at least: content as large as its archive, and one archive beside it."""
    todo = [file for file in listing.files if work.done.get(file.name) != file.version]
    sizes = [file.size or 0 for file in todo]
    here = sum(size_of(path) for file in todo for path in _traces(work, file) if path.exists())
    archives = [
        (file.size or 0) * (1 + any(piece.local is None for piece in file.pieces))  # pieces, and what they become
        for file in todo if file.local is None and file.packed
    ]  # fmt: skip
    return max(0, sum(sizes) + (sum(archives) if keep else max(archives, default=0)) - here)


def _traces(work: Work, file: SourceFile) -> Sequence[Path]:
    """What an earlier start may have left of a file."""
    path = work.archive(file)
    own = (work.tree(file), *(() if file.local else (path, path.with_name(path.name + PART))))
    return (*own, *(trace for piece in file.pieces for trace in _traces(work, piece)))


def check_room(root: Path, listing: Listing, work: Work, keep: bool) -> None:
    """Free space is looked at before anything is written.

    Raises:
        StorageError: If there is too little.
    """
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, room_needed(listing, work, keep)
    if needed > free:
        raise StorageError(
            f"there is no room: at least {in_words(needed)} are needed, the disk has {in_words(free)}", where=root,
            fix="make room, or choose another disk with --data-root",
        )  # fmt: skip


def get(dataset: Dataset, listing: Listing, work: Work, root: Path, keep: bool, say: Say) -> bool:
    """Fetch, check, unpack and put into place what is not there yet.

    Args:
        dataset: The data set.
        listing: Its files.
        work: What an earlier start has left.
        root: The data root.
        keep: Whether archives stay after unpacking.
        say: Prints one line.

    Returns:
        Whether a layout of the data set knows what was unpacked.

    Raises:
        UserError: If that cannot be done; a later start goes on from there, but for what was wrong.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    with _alone(work):
        work.done = open_work(root, dataset, listing).done  # another start may have ended meanwhile
        _drop_changed(listing, work, say)
        moves = work.folder / "moves.json"
        if not moves.exists():
            for number, file in enumerate(listing.files, 1):
                if work.done.get(file.name) != file.version or not file.version:
                    size = "size not known" if file.size is None else in_words(file.size)
                    say(f"file {number} of {len(listing.files)}: {file.name} ({size})")
                    (_get_archive if file.packed else _get_plain)(file, work, keep, say)
            tree = work.folder / "tree"
            for file in listing.files:
                if work.tree(file).exists():
                    merge(work.tree(file), tree)
            if not tree.exists():
                raise DataError("nothing was in it", where=listing.label, fix="choose other files with --files")
            known, pairs = plan_moves(dataset, tree, root)
            # The data root may have another name, or be reached from another folder, when this is gone on with
            write_json(moves, [known, [[os.path.relpath(path, root) for path in pair] for pair in pairs]])
        known, pairs = json.loads(moves.read_text(encoding="utf-8"))
        for old, new in pairs:
            if (root / old).exists():  # else it was moved before an interruption
                (root / new).parent.mkdir(exist_ok=True)
                (root / old).rename(root / new)
            elif not (root / new).exists():
                raise DataError(
                    "what was unpacked is neither where it was nor in its place", where=root / old,
                    expected=f"it there, or at {root / new}", fix=f"remove {work.folder} and start again",
                )  # fmt: skip
        placed = [Path(os.path.relpath(root / new, root)).as_posix() for _, new in pairs]
        for name in sorted({path.partition("/")[0] for path in placed}):
            fsync_folder(root / name)
            if name != dataset.folder:
                say(f"{name} was in it as well, and is in {root / name} now")
        left = [path for path in (work.folder / "tree").rglob("*") if path.is_file()]
        if left:
            say(f"{len(left)} files beside the data set are not kept, such as {left[0].name}")
        files = {file.name: file.version for file in listing.files}
        facts = {"source": listing.label, "notes": list(listing.notes), "files": files, "placed": placed,
                 "chips": _chips(on_disk(dataset, root))}  # fmt: skip
        write_json(work.receipt, facts)
        _clear(work, keep)
        return bool(known)


@contextlib.contextmanager
def _alone(work: Work) -> Iterator[None]:
    """No other start works on the same meanwhile; a disk that knows no locks has to do without.

    Raises:
        UserError: If one does.
    """
    with (work.folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another start is getting the same here", where=work.folder, fix="wait for it") from None
        except OSError:
            pass
        yield


def _drop_changed(listing: Listing, work: Work, say: Say) -> None:
    """What was unpacked of another version would be mixed with the new one: all of it goes."""
    now = {file.name: file.version for file in listing.files}
    changed = [name for name, version in work.done.items() if now.get(name) != version or not version]
    placed = work.receipt.exists() and not (work.folder / "moves.json").exists()
    if changed and not placed:
        say(f"{changed[0]} has changed at the source since it was unpacked: all is unpacked anew")
    if changed or placed:
        for name in ("trees", "tree"):
            shutil.rmtree(work.folder / name, ignore_errors=True)
        for name in ("done.jsonl", "receipt.json", "moves.json"):
            (work.folder / name).unlink(missing_ok=True)
        work.done.clear()


def _get_archive(file: SourceFile, work: Work, keep: bool, say: Say) -> None:
    archive, tree = work.archive(file), work.tree(file)
    if file.pieces and not is_joined(file, archive):
        for piece in file.pieces:
            if piece.local is None:
                fetch(piece, work.archive(piece), say)
        join(file, archive, work.archive, say)
    elif not file.pieces and file.local is None:
        fetch(file, archive, say)
    begun = work.folder / "unpacking.json"
    mark = json.dumps([file.name, file.version])
    resume = bool(file.version) and begun.exists() and begun.read_text(encoding="utf-8") == mark
    if not resume:
        shutil.rmtree(tree, ignore_errors=True)
    begun.write_text(mark, encoding="utf-8")
    say(f"{file.name}: {'unpacking goes on' if resume else 'unpacking'}")
    try:
        unpacked = unpack(archive, tree / PurePosixPath(file.name).parent, resume=resume, say=say)
    except DataError:  # damaged or hostile: nothing of it is of use
        shutil.rmtree(tree, ignore_errors=True)
        if file.local is None:
            archive.unlink(missing_ok=True)
        raise
    if unpacked.links:
        say(f"{file.name}: {unpacked.links} links were left out")
    say(f"{file.name}: {unpacked.files} files, {in_words(unpacked.size)}")
    work.note(file)
    if file.local is None and not keep:
        archive.unlink()
        archive.with_name(archive.name + NOTES).unlink(missing_ok=True)


def _get_plain(file: SourceFile, work: Work, keep: bool, say: Say) -> None:  # noqa: ARG001 - as the other one
    archive, target = work.archive(file), work.tree(file) / file.name
    fetch(file, archive, say)
    target.parent.mkdir(parents=True, exist_ok=True)
    archive.replace(target)
    archive.with_name(archive.name + NOTES).unlink(missing_ok=True)
    work.note(file)


def _clear(work: Work, keep: bool) -> None:
    """Remove what only an unfinished start needs."""
    for name in ("trees", "tree"):
        shutil.rmtree(work.folder / name, ignore_errors=True)
    if not keep:
        shutil.rmtree(work.folder / "archives", ignore_errors=True)
    for name in ("done.jsonl", "unpacking.json", "moves.json"):
        (work.folder / name).unlink(missing_ok=True)
