"""How numbers and names of a board are written, whatever the format."""

from __future__ import annotations

import functools
import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False)  # made once: dumps makes one for every value
NOTHING = "–"
NOT_ESTIMABLE = "not estimable"
UNLABELLED_TARGET = "-unlabelled-target"
"""End of the name of boards for methods that were given the target's images without labels."""

_TITLES = {
    "reproduced": "Leaderboard",
    "partial": "Board of partial data",
    "sample": "Board of synthetic sample scenes",
    "demonstration": "Board of own benchmarks",
    "aerial": "Board of aerial images",
    "hyperspectral": "Board of hyperspectral scenes",
}
_FURTHER = "Further benchmarks: {}. They are no part of the eight, and their data are the user's own copies."
WARNINGS = {
    "partial": "Only a part of the data was used. These numbers are not results on the complete benchmarks.",
    "sample": "Synthetic scenes: this shows that the suite runs. It is not a result on real data.",
    "demonstration": "Benchmarks that users brought themselves; their data are not checked by this suite.",
    "aerial": _FURTHER.format("aerial images"),
    "hyperspectral": _FURTHER.format("hyperspectral scenes with sparse labels"),
}
ABOUT_TUNING = (
    "Tuned (20): options or learning rate were chosen by a search of 20 draws on source validation, for each benchmark "
    "by itself; rows without a mark were run as they are given. Source validation: what the selected checkpoints reach "
    "on held-out places of the source, which is all that a choice may look at. A row that is good on the target and "
    "poor on source validation, one of many variants of its method, may have been chosen by the target."
)
WHY_RELEASE = (
    "Release: what the metric of the SpectralX release says on the same confusion matrices. It drops the row and the "
    "column of every class without ground truth, so that the pixels predicted as such, all of them mistakes, vanish "
    "from its count: it is never below the mIoU here. Difference: release minus mIoU, in percentage points. Nothing is "
    "ranked by it."
)
"""Beside every pair of both metrics."""
WHICH_METRIC = (
    "mIoU by the rule of this suite; Release: by that of the paper's release, which overlooks pixels predicted as a "
    "class without ground truth, and so is higher."
)
"""The same in a caption."""
STRICT, PUBLISHED, AS_PUBLISHED = "strict", "published", "as-published"
_PROTOCOL_TITLES = {PUBLISHED: ", run as in the paper", AS_PUBLISHED: ", as published: validated on the target"}
_PROTOCOL_WARNINGS = {
    PUBLISHED: "Protocol published: pixels and training as in the release of the SpectralX paper. Not comparable with "
    "the strict boards.",
    AS_PUBLISHED: "Protocol as-published: as in the release of the SpectralX paper, every validation was made on the "
    "target's own labels. Not comparable with the strict boards, nor with those of the protocol published.",
}
_TARGET_WARNING = (
    "The methods of this board were given the target's images, without labels, while they were trained. They cannot "
    "be compared with methods that never saw the target."
)


class BoardName(NamedTuple):
    """What the name of a board says: ``TRACK[-PROTOCOL][-unlabelled-target]``."""

    track: str
    protocol: str
    target_images: bool


def parts_of(board: str) -> BoardName:
    """Track, protocol and whether target images were seen, from a board's name."""
    track, _, protocol = board.removesuffix(UNLABELLED_TARGET).partition("-")
    return BoardName(track, protocol or STRICT, board.endswith(UNLABELLED_TARGET))


def track_of(board: str) -> str:
    """The track that a board belongs to."""
    return parts_of(board).track


def protocol_title(protocol: str) -> str:
    """What is added to the title of a board for its protocol; nothing for strict."""
    return "" if protocol == STRICT else _PROTOCOL_TITLES.get(protocol, f", protocol {protocol}")


def protocol_warning(protocol: str) -> str:
    """What a reader of results by a protocol must be told; nothing for strict."""
    other = f"Protocol {protocol}. Not comparable with the strict boards."
    return "" if protocol == STRICT else _PROTOCOL_WARNINGS.get(protocol, other)


def title(board: str) -> str:
    """What a board is called."""
    name = parts_of(board)
    suffix = ", with unlabelled target images" if name.target_images else ""
    return _TITLES[name.track] + protocol_title(name.protocol) + suffix


def warnings(board: str) -> list[str]:
    """What a reader must be told before the first number."""
    name = parts_of(board)
    sentences = [WARNINGS.get(name.track, ""), protocol_warning(name.protocol)]
    return [sentence for sentence in (*sentences, _TARGET_WARNING if name.target_images else "") if sentence]


class Selected(NamedTuple):
    """Which checkpoints the numbers of a board are of, and what their validation says, as the heads of columns."""

    how: str
    head: str
    short: str
    about: str


def selected_by(board: str) -> Selected:
    """Which checkpoints the numbers of a board are of."""
    if parts_of(board).protocol == AS_PUBLISHED:
        return Selected(
            "of the last validation, as in the release", "Printed by the release", "Printed",
            "what the release would have printed at that validation: its metric on the target, over all passes until "
            "then, because its matrix is never reset",
        )  # fmt: skip
    return Selected(
        "that was selected on source validation", "Source validation", "Source val.",
        "mIoU on source validation, by which the checkpoint was selected",
    )  # fmt: skip


def backbone_text(row: Mapping[Any, Any]) -> str:
    """The backbone of a row of ``Analysis.rows``, and whether its weights are random."""
    if not row["backbone"]:
        return NOTHING
    return f"{row['backbone']} (random weights)" if row["pretrained"] == "none" else str(row["backbone"])


def file_stem(board: str) -> str:
    """Stem of a board's files: ``board`` for the reproduced track, ``board-<name>`` for any other."""
    return "board" if board == "reproduced" else f"board-{board}"


def plain(text: object) -> str:
    """Text on one line without control characters, terminal escapes or marks that turn the writing direction."""
    return _plain(str(text))


def shown(value: Any) -> Any:
    """A value without control characters and marks that turn the writing direction, whoever wrote the text."""
    return plain(value) if type(value) is str and not value.isascii() else value


@functools.lru_cache(maxsize=65_536)
def _plain(text: str) -> str:
    line = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(mark)[0] == "C" else mark for mark in line)


def number(value: object) -> float:
    """A float; NaN for anything that is not a number, pandas' NA among them."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def percent(value: object, digits: int = 2) -> str:
    """A fraction in per cent."""
    fraction = number(value)
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def with_spread(value: object, std: object) -> str:
    """A fraction in per cent, with its standard deviation if that is known."""
    return percent(value) if math.isnan(number(std)) else f"{percent(value)} ± {percent(std)}"


def interval(low: object, high: object) -> str:
    """Both ends in per cent, or that there is no interval."""
    first, last = number(low), number(high)
    if math.isnan(first) or math.isnan(last):
        return NOT_ESTIMABLE
    return f"{100 * first:.2f} to {100 * last:.2f}"


def signed(value: object, digits: int = 2, scale: float = 100) -> str:
    """A difference with its sign, by default of fractions in per cent."""
    difference = number(value)
    if math.isnan(difference):
        return NOTHING
    text = f"{scale * difference:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def count_range(low: object, high: object) -> str:
    """A whole number, or two where they differ."""
    first, last = number(low), number(high)
    if math.isnan(first):
        return NOTHING
    return f"{first:,.0f}" if first == last else f"{first:,.0f} to {last:,.0f}"


def fixed(value: object, digits: int) -> str:
    """A number with so many decimals."""
    return NOTHING if math.isnan(number(value)) else f"{number(value):.{digits}f}"


def one_decimal(value: object) -> str:
    """For seconds and megabytes."""
    return NOTHING if math.isnan(number(value)) else f"{number(value):,.1f}"


def as_json(value: Any) -> str:
    """JSON on one line, keys sorted."""
    return _JSON.encode(value)
