"""Names that others have given to files: whether they may become paths here, and what they say of the content."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from spectral_tl_bench.console import is_text
from spectral_tl_bench.data.layouts.base import text_problem

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_FOREIGN = (".rar", ".7z", ".tar.zst", ".zst")
_PIECE = re.compile(r"\.(zip|tar|gz|tgz|bz2|xz|rar|7z)[._-]?(part[-_.]?)?([0-9]{2,4}|[a-z]{2})$|\.z[0-9]{2}$")
_CUT = r"zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz"
_BYTES = re.compile(
    rf"(?P<whole>.+\.(?:{_CUT}))(?:\.(?P<number>\d{{3}})|[._-]?part[._-]?(?P<letters>[a-z]{{2}}))", re.I
)
"""Not ``NAME.z01``: those have headers of their own, and are no archive when they are put together."""
LONGEST_PART = 255


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive that can be unpacked here."""
    return name.lower().endswith(ARCHIVES)


def no_archive_reason(name: str) -> str:
    """Why something that is packed cannot be unpacked here; empty where its name does not say so."""
    lower = name.lower()
    if lower.endswith(_FOREIGN):
        return "its format cannot be unpacked here"
    divided = _PIECE.search(lower) and not is_archive(lower)
    return "it is one piece of a divided archive" if divided else ""


def piece_of(name: str) -> tuple[str, int] | None:
    """The name of the whole, and which piece of it this is, from 0; None if it is none that can be joined."""
    match = _BYTES.fullmatch(name)
    if match is None:
        return None
    if match["number"]:
        return match["whole"], int(match["number"]) - 1
    first, second = (ord(letter) - ord("a") for letter in match["letters"].lower())
    return match["whole"], 26 * first + second


def siblings(path: Path) -> Iterable[Path]:
    """A piece on this machine, and the others beside it; a file that is none alone."""
    piece = piece_of(path.name)
    if piece is None:
        return [path]
    return sorted(
        other for other in path.parent.iterdir()
        if other.is_file() and (found := piece_of(other.name)) is not None and found[0] == piece[0]
    )  # fmt: skip


def path_problem(name: str) -> str:
    """Why a name may not become a path below a folder; empty if it may."""
    path = PurePosixPath(name)
    if problem := text_problem(name) or ("" if is_text(name) else "a name that is not UTF-8"):
        return problem
    if not path.parts:
        return "an empty name"
    if path.is_absolute() or re.match(r"^[A-Za-z]:", name):
        return "an absolute path"
    if ".." in path.parts:
        return "a path that leads out of the folder"
    if any(len(part.encode()) > LONGEST_PART for part in path.parts):
        return f"a name of more than {LONGEST_PART} bytes"
    return ""


def folded(name: str) -> str:
    """What is the same for names that are one file on some disks: no capitals, letters composed."""
    return unicodedata.normalize("NFC", name).casefold()


def shown(address: str) -> str:
    """An address without what may be secret in it: user, password, and what follows the ``?``."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
