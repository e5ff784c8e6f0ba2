"""File names, tracks and their sentences, and numbers as text."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

from spectral_tl_bench.files import digest
from spectral_tl_bench.leaderboard import text
from spectral_tl_bench.leaderboard.text import WARNINGS

REPORTED = "reported"
BESIDE = "published-beside"
_ABOUT = {
    "reproduced": ("Reproduced", "Runs of this suite on the complete published datasets."),
    "partial": (
        "Partial data",
        "Runs on a part of the published data. These numbers are not results on the complete benchmarks.",
    ),
    "aerial": ("Aerial images", WARNINGS["aerial"]),
    "hyperspectral": ("Hyperspectral scenes", WARNINGS["hyperspectral"]),
    "demonstration": ("Own benchmarks", WARNINGS["demonstration"]),
    "sample": (
        "Synthetic sample",
        "Synthetic scenes, not a result on real data: they show that the suite runs, and nothing else.",
    ),
    REPORTED: ("As printed", "Numbers as printed in the paper, under its own protocol, not checked here."),
    BESIDE: ("Printed and measured", "The paper's numbers beside what runs by its protocol measured here."),
}
_SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_RESERVED = {"index", "con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}


class Track(NamedTuple):
    """A track as a reader meets it, sorted by ``order``.

    Attributes:
        name: Name of the board, such as ``sample`` or ``reproduced-unlabelled-target``.
        statement: What its numbers are.
        warning: Whether they are something else than results on the benchmarks.
        slug: Its folder.
    """

    order: tuple[int, int]
    name: str
    title: str
    statement: str
    warning: bool
    slug: str


def track_of(name: str) -> Track:
    """The track of a board's name; a name that is not known is shown as it is."""
    if name in _ABOUT:
        title, statement = _ABOUT[name]
        return Track((list(_ABOUT).index(name), 0), name, title, statement, name != "reproduced", slug(name))
    base, protocol, target_images = text.parts_of(name)
    title, statement = _ABOUT.get(base, (base.capitalize(), f"Track {base!r}."))
    title += text.protocol_title(protocol)
    statement = " ".join(filter(None, (text.protocol_warning(protocol), statement)))
    if target_images:
        title += ", target images seen"
        statement += " These methods were given the target's images, without labels, before they were tested on them."
    place = list(_ABOUT).index(base) if base in _ABOUT else len(_ABOUT)
    return Track((place, 1 + (protocol != text.STRICT)), name, title, statement, True, slug(name))


def kind_of(name: str) -> str:
    """What pixels a board's numbers are of, in two words."""
    track = text.track_of(name)
    if track == "sample":
        return "Synthetic scenes"
    return "Part of the real chips" if track == "partial" else "Real chips"


def slug(name: str) -> str:
    """A file name without suffix for any text: unlike texts get unlike names, also where case is not told apart."""
    if _SAFE.fullmatch(name) and name not in _RESERVED:
        return name
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-")
    return f"{base or 'x'}-{digest(name)[:12]}"


def page_name(method: str, number: int) -> str:
    """File name of a method's page; one with many rows has several."""
    return f"{slug(method)}.html" if number == 0 else f"{slug(method)}-page-{number + 1}.html"


def part_name(path: str, number: int) -> str:
    """Path of a part of a page whose rows are spread over several; no slug has a dot."""
    return path if number == 0 else path.replace(".html", f".{number + 1}.html")


def script_json(value: Any) -> str:
    """JSON that is also harmless inside a script or an HTML page: no ``<``, ``>``, ``&`` and nothing beyond ASCII.

    Raises:
        ValueError: For NaN or infinity, which JSON cannot say.
    """
    script = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return script.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def signed(value: float | None, digits: int = 2) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return text.signed(value, digits).replace("-", "−")


def points(value: float | None) -> str:
    """A difference that is in percentage points already, with its sign."""
    return text.signed(value, scale=1).replace("-", "−")


def printed(value: float) -> str:
    """A number of a paper: one decimal, as most are printed, or two where there are two."""
    return (f"{value:.1f}" if abs(value - round(value, 1)) < 1e-9 else f"{value:.2f}").replace("-", "−")


def count(value: float | None) -> str:
    """A number of parameters: 940, 12.3 k, 4.56 M."""
    number = text.number(value)
    if math.isnan(number):
        return text.NOTHING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {unit}" if number < 999.5 * size else f"{number / size:.0f} {unit}"
    return f"{number:.0f}"


def seconds(value: float | None) -> str:
    """A time: 4.2 s, 12 min, 3.1 h."""
    number = text.number(value)
    if math.isnan(number):
        return text.NOTHING
    if number < 60:
        return f"{number:.3g} s"
    return f"{number / 60:.3g} min" if number < 3600 else f"{number / 3600:.3g} h"


def megabytes(value: float | None) -> str:
    """An amount of memory: 812 MB, 3.1 GB."""
    number = text.number(value)
    if math.isnan(number):
        return text.NOTHING
    return f"{number:.3g} MB" if number < 999.5 else f"{number / 1000:.3g} GB"


def setting(value: Any) -> str:
    """A setting's value in one line: names and values, no JSON."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting(one)}" for name, one in sorted(value.items())) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return value if isinstance(value, str) else text.as_json(value)
