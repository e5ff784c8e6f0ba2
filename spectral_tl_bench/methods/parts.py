"""Which part of a method's module a parameter belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from spectral_tl_bench.methods.base import Part


def part_of(name: str, parts: Sequence[Part]) -> Part | None:
    """The first part that contains a parameter of that name."""
    return next((part for part in parts if part.contains(name)), None)


def in_decoder(name: str, parts: Sequence[Part]) -> bool:
    """Whether a parameter belongs to what turns features into logits or pixels.

    Args:
        parts: The method's parts; what none of them contains goes by the name of its module.
    """
    part = part_of(name, parts)
    return name.partition(".")[0] == "decoder" if part is None else part.kind == "decoder"
