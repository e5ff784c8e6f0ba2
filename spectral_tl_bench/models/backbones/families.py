"""Families of backbones: what builds a network, and the version of its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Builder = TypeVar("Builder", bound=Callable[..., Any])


def family(name: str, *, numerics_version: int) -> Callable[[Builder], Builder]:
    """Declare a function that makes networks as one family.

    Args:
        numerics_version: Raised by hand whenever what its networks compute may change.
    """

    def declare(make: Builder) -> Builder:
        make.family, make.numerics_version = name, numerics_version  # type: ignore[attr-defined]
        return make

    return declare
