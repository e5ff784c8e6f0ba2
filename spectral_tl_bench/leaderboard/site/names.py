"""File names, tracks and their sentences, and numbers as text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from spectral_tl_bench.files import digest
from spectral_tl_bench.leaderboard.text import NOTHING, UNLABELLED_TARGET

REPORTED = "reported"
_ORDER = ("reproduced", "partial", "sample", "demonstration", REPORTED)
_ABOUT = {
    "reproduced": ("Reproduced", "Runs of this suite on the complete published datasets.", False),
    "partial": (
        "Partial data",
        "Runs on a part of the published data. These numbers are not results on the complete benchmarks.",
        True,
    ),
    "sample": (
        "Synthetic sample",
        "Synthetic scenes, not a result on real data: they show that the suite runs, and nothing else.",
        True,
    ),
    "demonstration": (
        "Demonstration",
        "Benchmarks that users brought themselves; their data are not checked by this suite.",
        True,
    ),
    REPORTED: (
        "Reported in papers",
        "Numbers as printed in the paper, under its own protocol, not checked here.",
        True,
    ),
}
_SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_RESERVED = {"index", "con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}


@dataclass(frozen=True)
class Track:
    """A track as a reader meets it.

    Attributes:
        name: Name of the board, such as ``sample`` or ``reproduced-unlabelled-target``.
        title: For people.
        statement: What its numbers are.
        warning: Whether they are something else than results on the benchmarks.
        order: Position among the tracks.
    """

    name: str
    title: str
    statement: str
    warning: bool
    order: tuple[int, str]

    @property
    def slug(self) -> str:
        """Its folder."""
        return slug(self.name)


def track_of(name: str) -> Track:
    """The track of a board's name; a name that is not known is shown as it is."""
    base = name.removesuffix(UNLABELLED_TARGET)
    title, statement, warning = _ABOUT.get(base, (base.capitalize(), f"Track {base!r}.", True))
    if base != name:
        title += ", target images seen"
        statement += " These methods were given the target's images, without labels, before they were tested on them."
    order = _ORDER.index(base) if base in _ORDER else len(_ORDER)
    return Track(name, title, statement, warning, (order, name))


def opening(names: list[str]) -> str:
    """The track that a visitor sees first: reproduced numbers, else those of papers, else what there is."""
    wanted = ("reproduced", f"reproduced{UNLABELLED_TARGET}", REPORTED)
    return next((name for name in wanted if name in names), names[0])


def slug(text: str) -> str:
    """A file name without suffix for any text: unlike texts get unlike names, also where case is not told apart."""
    if _SAFE.fullmatch(text) and text not in _RESERVED:
        return text
    base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:32].strip("-")
    return f"{base}-{digest(text)[:12]}" if base else f"x-{digest(text)[:12]}"


def page_name(method: str, number: int) -> str:
    """File name of a method's page; one with many rows has several."""
    return f"{slug(method)}.html" if number == 0 else f"{slug(method)}-page-{number + 1}.html"


def script_json(value: Any) -> str:
    """JSON that is also harmless inside a script or an HTML page: no ``<``, ``>``, ``&`` and nothing beyond ASCII.

    Raises:
        ValueError: For NaN or infinity, which JSON cannot say.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction of 1 in per cent."""
    return NOTHING if _unknown(value) else f"{100 * float(value or 0):.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign."""
    if _unknown(value):
        return NOTHING
    text = f"{100 * float(value or 0):+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def printed(value: float) -> str:
    """A number of a paper: one decimal, as most are printed, or two where there are two."""
    return (f"{value:.1f}" if abs(value - round(value, 1)) < 1e-9 else f"{value:.2f}").replace("-", "−")


def count(value: float | None) -> str:
    """A number of parameters: 940, 12.3 k, 4.56 M."""
    if _unknown(value):
        return NOTHING
    number = float(value or 0)
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {unit}" if number < 999.5 * size else f"{number / size:.0f} {unit}"
    return f"{number:.0f}"


def seconds(value: float | None) -> str:
    """A time: 4.2 s, 12 min, 3.1 h."""
    if _unknown(value):
        return NOTHING
    number = float(value or 0)
    if number < 60:
        return f"{number:.3g} s"
    return f"{number / 60:.3g} min" if number < 3600 else f"{number / 3600:.3g} h"


def setting(value: Any) -> str:
    """A setting's value in one line."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
