"""Files that are either whole or not there: write beside, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that becomes ``target`` when the block ends well.

    The temporary file keeps ``target``'s suffix, so that writers which look at it work; it is removed
    when the block raises. Parent folders are made.
    """
    target = Path(target)
    handle, name = _new_file_beside(target)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; results are shared with a group
        temporary.replace(target)
        fsync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_file_beside(target: Path) -> tuple[int, str]:
    """An empty file in a target's folder, which is made; another process may remove the folder as empty meanwhile."""
    for attempt in range(5):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem[:40]}-", suffix=target.suffix)
        except FileNotFoundError:
            if attempt == 4:
                raise
    raise AssertionError


def fsync_folder(folder: Path) -> None:
    """See to it that what was made, renamed or removed in a folder outlives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse fsync on a folder; the rename itself has happened
        pass
    finally:
        os.close(descriptor)


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content``, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused because JSON has none."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def canonical(value: Any) -> str:
    """The canonical JSON of a value: equal for equal values, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def digest(*values: Any) -> str:
    """A SHA-256 over the canonical JSON of ``values`` (64 hex digits)."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes (64 hex digits)."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seed_from(*names: object) -> int:
    """A 31-bit seed that depends on nothing but ``names``."""
    return int(digest(*[str(name) for name in names])[:12], 16) % (2**31 - 1)
