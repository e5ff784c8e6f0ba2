"""Notices that a method opens a file of the target, as far as Python sees it.

An audit hook of Python sees what is opened by Python code in this process, and ``rasterio.open`` is watched by itself,
because GDAL opens files without Python. Code that reads in other ways, or in a process of its own, is not seen: this
finds mistakes and simple cheating, and prevents nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import rasterio
from torch import nn

TRAINING = frozenset(
    f"spectral_tl_bench.training.{name}"
    for name in ("train", "gradient", "task", "closed_form", "averaging", "pretrain")
)
"""Modules in whose calls no file of the target is opened, whoever does it."""

METHODS = "spectral_tl_bench.methods"

_CALLS = {nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__}


class Reading:
    """What was opened, of the files that must not be.

    Args:
        package: Top-level package of the method, or of the suite's own methods.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        self.guarded: frozenset[str] = frozenset()
        self.opened: list[str] = []
        self._busy = False

    def guard(self, paths: Collection[str | os.PathLike[str]]) -> None:
        """Watch these files from now on."""
        self.guarded = frozenset(os.path.realpath(path) for path in paths)

    def note(self, path: Any) -> None:
        """Keep a file that is opened, if it is guarded and a method's code or training is on the way to it."""
        if self._busy or not self.guarded or not isinstance(path, str | bytes | os.PathLike):
            return
        self._busy = True  # finding out about it opens nothing, but asks for links
        try:
            real = os.path.realpath(os.fsdecode(path))
            if real in self.guarded and (way := self._way(sys._getframe(1))):
                self.opened.append(f"{Path(real).name} ({way})")
        finally:
            self._busy = False

    def _way(self, frame: FrameType | None) -> str:
        """The first frame, from within, that must not lead to the target; empty if there is none."""
        within = None
        while frame is not None:
            name = str(frame.f_globals.get("__name__", ""))
            if name == self.package or name.startswith(f"{self.package}."):
                path = Path(frame.f_code.co_filename).parts
                return f"{'/'.join(path[-2:])}, line {frame.f_lineno}"
            if name in TRAINING or frame.f_code in _CALLS:
                within = within or f"within {frame.f_code.co_name} of {name}"
            frame = frame.f_back
        return within or ""


_active: list[Reading] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active and event == "open" and arguments:
        for reading in _active:
            reading.note(arguments[0])


@contextmanager
def watched(reading: Reading) -> Iterator[Reading]:
    """Note what is opened in the block."""
    if not _hooked:
        sys.addaudithook(_hook)  # stays for good, and does nothing while nothing is watched
        _hooked.append(True)
    original = rasterio.open

    def noting(path: Any, *arguments: Any, **options: Any) -> Any:
        reading.note(path)
        return original(path, *arguments, **options)

    _active.append(reading)
    rasterio.open = noting
    try:
        yield reading
    finally:
        rasterio.open = original
        _active.remove(reading)
