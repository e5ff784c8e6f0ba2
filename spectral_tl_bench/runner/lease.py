"""The lease of a cell: two runs of the same cell, on one machine or on two that share a disk, share the work.

Whoever runs a cell holds a claim beside its folder, ``.<folder>.claim``. It frees itself: at once when its process is
gone and this is the same machine, otherwise when it was not touched for a minute while somebody waited for it, or for
ten minutes by the clock of the file system. It needs no locks, only that a file cannot be created twice. A process that
could not touch it for so long (suspended, or its disk did not answer) loses it, and may then do the work of another one
again: to the same result, which is written whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from spectral_tl_bench.storage.place import remove_whole
from spectral_tl_bench.storage.signs import Claim, holder_of

BUSY = "busy"
"""State of the outcome of a cell that another run has, and that is to be looked at again later."""


class Lease:
    """The right to run a cell, given back at the end of the block.

    Args:
        folder: The cell's folder in the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._claim = folder, Claim(folder)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._claim.release()

    def take(self) -> bool:
        """Take it, unless a living process has it; true as well where nothing can be written."""
        taken = True
        for _ in range(3):  # another run may remove the folder as empty before the claim is in it
            with contextlib.suppress(OSError):
                self._folder.parent.mkdir(parents=True, exist_ok=True)
            taken = self._claim.take()
            if not taken or self._claim.path.exists():
                break
        return taken

    def take_patiently(self, waiting: Callable[[], None]) -> None:
        """Take it, and wait for that as long as another process has it; ``waiting`` is called once before."""
        announced = False
        while not self.take():
            if not announced:
                waiting()
            announced = True
            self._claim.wait(lambda: False)

    def is_held(self) -> bool:
        """Whether another process has it, and goes on to show signs of life."""
        return self._claim.is_held()


def who_has(folder: Path) -> str:
    """In words, who runs the cell of a folder."""
    from spectral_tl_bench.runner.standing import Standing

    holder = holder_of(folder)
    if holder is None:
        return "another run"
    standing = Standing.read(folder.parents[2], folder.name)
    job = f", job {standing.job}" if standing and standing.job and standing.pid == holder.pid else ""
    return f"process {holder.pid} on {holder.host}{job}"


def free_if_dead(folder: Path) -> None:
    """Take away the lease of a process that is known to have ended without giving it back."""
    found = holder_of(folder)
    if found is not None and not found.lives:
        remove_whole(Claim(folder).path)
