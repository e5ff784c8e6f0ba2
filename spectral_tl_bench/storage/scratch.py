"""Folders for what a process needs while it works, and for the removal of those whose process was killed.

Each holds a file that its process keeps locked: the system lets go of the lock when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spectral_tl_bench.storage.place import paths_in
from spectral_tl_bench.storage.signs import host

PREFIX = "stbench-"
LOCK = ".in-use"
LONGEST = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of a temporary folder in which Python's processes can have their sockets: an address has at most 107."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder below the system's temporary folder, gone afterwards with all that is left in it."""
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}new-"))
    folder = new.with_name(f"{_prefix()}{os.getpid()}~{new.name[-8:]}")
    try:
        with (new / LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: nobody else can take it either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(folder)  # only now does it look like one that may be removed
            inner = folder / "work"
            inner.mkdir()
            yield inner
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def make_room_for_sockets() -> None:
    """Let this process and those it starts meet in ``/tmp`` where the temporary folder has too long a path for sockets.

    Batch systems give such folders. Reader processes would lose each batch there, and the run would wait for it for
    ever.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= LONGEST:
        return
    before = tempfile.tempdir
    try:
        tempfile.tempdir = "/tmp"  # noqa: S108 - below it a folder is made that is the user's alone
        multiprocessing.util.get_temp_dir()  # which is kept, and handed on to forks
    finally:
        tempfile.tempdir = before


def sweep_scratch() -> list[Path]:
    """Remove this user's folders whose processes, on this machine, have ended without doing so; and name them."""
    removed = []
    for folder in paths_in(Path(tempfile.gettempdir())):
        if folder.name.startswith(_prefix()) and _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _prefix() -> str:
    return f"{PREFIX}{host()}~"


def _is_abandoned(folder: Path) -> bool:
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return False
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its process lives, or nothing can be known
        return False
    return True
