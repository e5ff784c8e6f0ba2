"""Where everything is kept that can be made again: a cache folder, in it one per kind, in that an entry per key."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from spectral_tl_bench.errors import StorageError

CACHE_VARIABLE = "STBENCH_CACHE"


def cache_folder() -> Path:
    """The cache folder: ``STBENCH_CACHE``, else ``stbench`` where the platform keeps a user's caches.

    A user without a home, or with one that holds no such folder and cannot be written, gets a private folder below the
    system's temporary folder.

    Raises:
        StorageError: If no such folder can be named.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError:
            raise StorageError(
                f"{CACHE_VARIABLE} is {chosen!r}, and this user has no home folder", expected="a path without ~"
            ) from None
    return usual_cache() or private_folder()


def usual_cache() -> Path | None:
    """Where the platform keeps a user's caches for us; None where there is no such place."""
    try:
        usual = platformdirs.user_cache_path("stbench", appauthor=False)
    except RuntimeError:  # as newer versions say it where the home is not known
        return None
    return usual if _can_be(usual) else None


def _can_be(folder: Path) -> bool:
    """Whether a folder is there or can be made."""
    if not folder.is_absolute():  # older versions of platformdirs leave a home that is not known as ~
        return False
    # os.path.exists answers where Path.exists raises: below another user's home
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110
    return nearest == folder or os.access(nearest, os.W_OK | os.X_OK)


def private_folder() -> Path:
    """A folder of this user's own below the system's temporary folder.

    Raises:
        StorageError: If there is none, or somebody else could write into it.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"stbench-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StorageError(
            f"there is no folder for what can be made again: {error}", fix=f"set {CACHE_VARIABLE} to a folder"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StorageError(
            "the folder for what can be made again is not private to this user", where=folder,
            fix=f"set {CACHE_VARIABLE} to a folder of your own",
        )  # fmt: skip
    return folder


@dataclass(frozen=True)
class Kind:
    """One kind of what is kept.

    Attributes:
        name: Of its folder, and for ``stbench cache``.
        noun: What one entry is called.
        title: What its entries are.
        suffix: Of the file that an entry is; an entry is a folder where this is empty.
        evicted: Whether entries give way when a limit is reached.
    """

    name: str
    noun: str
    title: str
    suffix: str = ""
    evicted: bool = True

    @property
    def folder(self) -> Path:
        """Where its entries are; it may not be there."""
        return cache_folder() / self.name

    def path(self, key: str) -> Path:
        """Where the entry of a key is, or will be."""
        return self.folder / f"{key}{self.suffix}"

    def entries(self) -> list[Entry]:
        """All finished entries, those first that were not used for longest."""
        entries = []
        for path in paths_in(self.folder):
            # Hidden are signs of life and unfinished work; the tag is of the library that downloads weights.
            if not path.name.startswith(".") and path.name != "CACHEDIR.TAG":
                try:
                    entries.append(Entry(self, path, size_of(path), path.lstat().st_mtime))
                except OSError:  # another process has removed it
                    continue
        return sorted(entries, key=lambda entry: (entry.used, entry.path.name))


@dataclass(frozen=True)
class Entry:
    """Something that is kept.

    Attributes:
        kind: What it is.
        size: In bytes.
        used: When it was last used, in seconds since the epoch.
    """

    kind: Kind
    path: Path
    size: int
    used: float


INDEX = Kind("index", "chip index", "what the chips of a data root hold", suffix=".parquet")
SPLITS = Kind("splits", "split", "who trains, validates and tests, by benchmark and seed", suffix=".json")
SAMPLE = Kind("sample", "sample", "the bundled synthetic scenes")
STAGES = Kind("stages", "first stage", "trained first stages")
FEATURES = Kind("features", "features", "kept features of frozen backbones")
PACKS = Kind("packs", "packed chips", "chips packed for fast reading, by `stbench data pack`", evicted=False)
BOARDS = Kind("boards", "boards", "what reports worked out of unchanged records", suffix=".bin")
WEIGHTS = Kind("weights", "weights", "published weights that were downloaded", evicted=False)
KINDS = {kind.name: kind for kind in (INDEX, SPLITS, SAMPLE, STAGES, FEATURES, PACKS, BOARDS, WEIGHTS)}


def paths_in(folder: Path) -> Iterator[Path]:
    """What a folder holds; nothing where it cannot be read."""
    try:
        yield from folder.iterdir()
    except OSError:
        return


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except OSError:  # another process has finished and renamed it
                continue
    return total


def touch(path: Path) -> None:
    """Note that an entry is used now; in a cache that cannot be written this is left out."""
    try:
        os.utime(path)
    except OSError:
        return


def remove_whole(path: Path) -> None:
    """Remove a file, a link or a folder as far as that is possible; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def stand_in_for_home() -> None:
    """See to it that no library needs a home folder or an account, by environment variables that children inherit.

    Matplotlib, timm, PyTorch and others keep files below the home, and PyTorch asks for the user's name. Where there
    is neither, they fail or write into a folder called ``~``. Variables that are set stay as they are.
    """
    if not hasattr(os, "getuid"):
        return
    if not any(os.environ.get(name) for name in _NAMES) and not _has_account():
        os.environ["USER"] = f"uid-{os.getuid()}"
    if usual_cache() is None:
        with contextlib.suppress(StorageError):  # whoever needs the folder says why there is none
            folder = str(private_folder())
            for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_HOME"):
                os.environ.setdefault(name, folder)


def _has_account() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
