"""The contract between ``stbench convert`` and what knows the checkpoints of other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from spectral_tl_bench.plugins import imported, offered

GROUP = "spectral_tl_bench.converters"


@dataclass(frozen=True)
class ConversionRequest:
    """What the user asked for.

    Attributes:
        out: The file to write; None to look only.
        to: ``ours``, or ``release`` for the way back.
        stage: 1 or 2; None to find it out.
        family: Name of the pretrained transformer; None to find it out.
        heads: Attention heads; None to find it out.
        without: Parts that the checkpoint was trained without.
    """

    source: Path
    out: Path | None
    to: Literal["ours", "release"]
    stage: Literal[1, 2] | None = None
    family: str | None = None
    heads: int | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """What became of a file.

    Attributes:
        summary: Lines about it as a whole.
        placed: (part, tensors, parameters).
        ignored: (reason, keys).
        notes: What was decided, and what to do with the result.
    """

    summary: tuple[str, ...]
    placed: tuple[tuple[str, int, int], ...]
    ignored: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]


Converter = Callable[[ConversionRequest], Conversion]
"""Writes ``out`` as a whole, or raises ``UserError`` and writes nothing."""


def load_converter(name: str) -> Converter:
    """The converter of a method's checkpoints.

    Raises:
        MethodError: If no installed package offers it, or it cannot be imported.
    """
    entry = offered(name, GROUP, "converter")
    return cast(Converter, imported(entry, f"converter {name!r}"))
