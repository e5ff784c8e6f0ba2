"""Checkpoints on disk from which training that was cut off goes on: whole, for this very work, or not used at all."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

from spectral_tl_bench.files import atomic_path, file_digest

FORMAT = 1
"""Raised whenever an older checkpoint could not be read as it was meant."""

LAST, ASIDE, FILES = "last.ckpt", "set-aside.ckpt", "files"
OURS = "stbench"
"""What is ours in a file that is otherwise Lightning's."""

WORTH = 30.0
"""Seconds of work for which a checkpoint is written where one may be, but the rhythm asks for none."""

Say = Callable[[str], None]
Places = Mapping[str, Path]
"""Folders whose files a checkpoint needs, by a name that stays the same from run to run."""


@dataclass(frozen=True)
class Rhythm:
    """How often a checkpoint is written.

    Attributes:
        seconds: Time between two.
        steps: Steps between two, in place of a time; 0 for none.
    """

    seconds: float = 600.0
    steps: int = 0


class CheckpointStore:
    """The folder with the last checkpoint of one piece of work.

    It holds ``last.ckpt``, and below ``files`` what the checkpoint needs beside it, called after its content: files are
    never written over, and removed only when no checkpoint needs them any more. No path in it is absolute.

    Args:
        folder: The folder; it is made when there is something to be kept.
        work: What must be the same for a checkpoint to be used, by name; shown where it is not.
        rhythm: How often one is written.
        title: What is running, for the lines.
    """

    def __init__(self, folder: Path, work: Mapping[str, str], rhythm: Rhythm, say: Say, title: str) -> None:
        self.folder, self.rhythm, self.title = folder, rhythm, title
        self._say = say
        versions = {
            "checkpoint format": str(FORMAT),
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
        }
        self._work = {**versions, **work}
        self._last = time.monotonic()
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}
        self._told: set[str] = set()

    @property
    def path(self) -> Path:
        """The last checkpoint."""
        return self.folder / LAST

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint after so many steps."""
        if self.rhythm.steps:
            return step % self.rhythm.steps == 0
        return time.monotonic() - self._last >= self.rhythm.seconds

    def is_worth_it(self) -> bool:
        """Whether enough has been done for a checkpoint at the end of a stage; short runs are as quick to repeat."""
        return bool(self.rhythm.steps) or time.monotonic() - self._last >= min(WORTH, self.rhythm.seconds)

    def read(self, places: Places) -> dict[str, Any] | None:
        """What was kept, with its files put back; None where there is nothing that can be used.

        Args:
            places: Where files go.
        """
        if not self.path.exists():
            return None
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)[OURS]
            theirs = kept["work"]
            others = [
                f"{name} is {mine}, there it was {theirs.get(name)}"
                for name, mine in self._work.items()
                if theirs.get(name) != mine
            ]
            if not others:
                self._put_back(kept["files"], places)
        except Exception as error:  # whatever a torn file, or one that somebody else has made, leads to
            self.set_aside(f"it cannot be read ({type(error).__name__})")
            return None
        if others:
            self.set_aside("; ".join(others))
            return None
        return dict(kept)

    def save(self, own: Mapping[str, Any], places: Places, write: Callable[[Path, dict[str, Any]], None]) -> bool:
        """Write a checkpoint in place of the last one, which stays until the new one is whole.

        Args:
            own: What is ours in it: tensors, and plain values in plain containers.
            places: Folders whose files belong to it.
            write: Writes a file that holds the mapping it is given.

        Returns:
            Whether it was written. Where there is no room work goes on without.
        """
        try:
            files = {label: self._keep(folder) for label, folder in places.items()}
            for left in self.folder.glob(f".{Path(LAST).stem}-*"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            with atomic_path(self.path) as temporary:
                write(temporary, {OURS: {**own, "work": self._work, "files": files}})
            needed = {name for kept in files.values() for name in kept.values()}
            for path in (self.folder / FILES).glob("*"):
                if path.name not in needed:
                    path.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # PyTorch's for a full disk
            self.say_once("no checkpoint could be written, and training goes on without", f": {error}")
            return False
        finally:
            self._last = time.monotonic()
        return True

    def set_aside(self, reason: str) -> None:
        """Have the last checkpoint not be used again, and say why."""
        aside = self.folder / ASIDE
        with contextlib.suppress(OSError):
            self.path.replace(aside)
        self._say(f"{self.title} | its checkpoint is set aside, and it starts again: {reason} ({aside})")

    def say_once(self, text: str, more: str = "") -> None:
        """Say a line, if it has not been said with this beginning."""
        if text not in self._told:
            self._told.add(text)
            self._say(f"{self.title} | {text}{more}")

    def remove(self) -> None:
        """Remove all: the work is done, or is to begin anew."""
        remove_checkpoints(self.folder)

    def _keep(self, place: Path) -> dict[str, str]:
        """Copy the files below a folder; gives their names here by their paths there."""
        kept = {}
        for path in sorted(place.rglob("*")) if place.is_dir() else ():
            if not path.is_file():
                continue
            status = path.stat()
            sign = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._known.get(path, (None, ""))[0] != sign:
                self._known[path] = sign, file_digest(path) + path.suffix
            name = self._known[path][1]
            if not (self.folder / FILES / name).exists():
                with atomic_path(self.folder / FILES / name) as temporary:
                    shutil.copyfile(path, temporary)
            kept[path.relative_to(place).as_posix()] = name
        return kept

    def _put_back(self, files: Mapping[str, Mapping[str, str]], places: Places) -> None:
        for label, kept in files.items():
            for relative, name in kept.items():
                if ".." in Path(relative).parts or Path(relative).is_absolute() or Path(name).name != name:
                    raise ValueError("it names files outside its folders")
                source, target = self.folder / FILES / name, places[label] / relative
                if file_digest(source) != source.stem:
                    raise ValueError(f"{name} is damaged")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def remove_checkpoints(folder: Path) -> None:
    """Remove the folder of a store, and the one above it if nothing else is in that."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
