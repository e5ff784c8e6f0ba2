"""What the tests of the storage share: a text that is read and written as an entry, and entries of some age."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spectral_tl_bench.errors import StageError
from spectral_tl_bench.storage import STAGES, obtain


def silent(line: str) -> None:
    pytest.fail(f"said {line!r}")


def read(folder: Path) -> str:
    text = (folder / "text").read_text()
    if "broken" in text:
        raise StageError("it is broken")
    return text


def write(text: str):
    return lambda folder: (folder / "text").write_text(text)


def get(key: str = "k", text: str = "made", kind=STAGES, say=silent, **more):
    return obtain(kind, key, read, write(text), damaged=(StageError,), say=say, **more)


def entry(kind, name: str, size: int, age: float) -> Path:
    """An entry that was last used some seconds ago."""
    path = kind.path(name)
    path.mkdir(parents=True)
    (path / "data").write_bytes(b"x" * size)
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()
