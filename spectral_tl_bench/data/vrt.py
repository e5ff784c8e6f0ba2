"""What a VRT reads: its XML is looked through before GDAL sees it.

A VRT is a small program: it names files anywhere, servers, Python code. GDAL takes attributes for elements, knows no
capitals and forgives much, so only what is well formed and of a known kind passes; see ``open_raster``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from spectral_tl_bench.errors import DataError

MARK = b"<VRTDataset"
LONGEST = 16 * 1024**2
"""Bytes of XML that are read at most."""
DEEPEST_ELEMENT = 64

_SOURCES = frozenset({"sourcefilename", "sourcedataset"})
_KINDS = frozenset({"", "vrtrasterband", "vrtsourcedrasterband", "vrtderivedrasterband", "vrtwarpedrasterband",
                    "vrtpansharpenedrasterband", "vrtwarpeddataset", "vrtpansharpeneddataset"})  # fmt: skip
_REFUSED = {
    "pixelfunctionlanguage": "program code",
    "pixelfunctioncode": "program code",
    "openoptions": "options for opening files",
    "ooi": "options for opening files",
    "dempath": "a terrain model",
    "geoloctransformer": "geolocation arrays",
    "processingsteps": "processing steps",
    "group": "multidimensional arrays",
    "subclass": "a kind of its own",
    "relativetovrt": "an element that should be an attribute",
}
_FREE = frozenset({"mdi", "description", "category"})
"""Elements for people, in which an address is only text."""
_SUSPICIOUS = re.compile(r"/vsi|\\vsi|://")
_PLAIN = re.compile(r"(?:(?:\.\.?/)*(?!\.\.?/)|/)(?:(?!\.\.(?:/|$))[^/\\:<>\"|?*\x00-\x1f]+(?:/|$))+")
"""Folders and a file; upwards only in front, because GDAL and the system disagree on ``link/..``."""


def vrt_sources(path: Path) -> list[Path]:
    """The files that a VRT names, in their order, each once.

    Args:
        path: A VRT, through no link: GDAL and the system see different folders through links.

    Raises:
        DataError: If it is no well-formed XML, has a document type, or does more than to name plain files.
    """
    try:
        content = path.open("rb").read(LONGEST + 1)
    except OSError as error:
        raise DataError(f"the VRT cannot be read: {error.strerror}", where=path) from None
    if len(content) > LONGEST:
        raise DataError(f"the VRT has more than {LONGEST // 1024**2} MiB of XML", where=path)
    reader = _Reader(path)
    try:
        reader.parse(content)
    except expat.ExpatError as error:
        raise DataError(f"the VRT is no valid XML: {error}", where=path) from None
    return list(dict.fromkeys(reader.sources))


@dataclass
class _Reader:
    path: Path
    sources: list[Path] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _relative: bool = False

    def parse(self, content: bytes) -> None:
        parser = expat.ParserCreate("utf-8")  # whatever the file says: GDAL reads bytes
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = lambda *_: self._refuse("a document type (DOCTYPE)")
        # GDAL would take the first piece of a name for the whole.
        parser.CommentHandler = parser.ProcessingInstructionHandler = parser.StartCdataSectionHandler = self._piece
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._text.append
        parser.EndElementHandler = self._end
        parser.Parse(content, True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.lower()
        attributes = {key.lower(): value for key, value in attributes.items()}
        if not self._open and name != "vrtdataset":
            self._refuse(f"<{name}> as its outermost element")
        self._piece()
        if len(self._open) == DEEPEST_ELEMENT:
            self._refuse(f"elements that are nested {DEEPEST_ELEMENT} deep")
        for word in (name, *(attributes.keys() - {"subclass", "relativetovrt"})):
            if word in _REFUSED:
                self._refuse(_REFUSED[word])
        if attributes.keys() & _SOURCES:
            self._refuse("a file in an attribute")
        kind = attributes.get("subclass", "")
        if kind.lower() not in _KINDS:
            self._refuse(f"the kind {kind[:60]!r}")
        for value in attributes.values():
            self._look_at(name, value)
        if name in _SOURCES:
            relative = attributes.get("relativetovrt", "0")
            if relative not in ("0", "1"):
                self._refuse(f"relativeToVRT={relative[:20]!r}")
            self._relative = relative == "1"
        self._open.append(name)
        self._text.clear()

    def _piece(self, *_: object) -> None:
        if self._open and self._open[-1] in _SOURCES:
            self._refuse("more than text within the name of a file")

    def _end(self, _name: str) -> None:
        name, text = self._open.pop(), "".join(self._text)
        self._text.clear()
        if name in _SOURCES:
            if not _PLAIN.fullmatch(text) or text.startswith("/vsi") or text != text.strip():
                raise DataError(
                    f"the VRT reads {_short(text)}, which is no plain file", where=self.path,
                    expected="files on this machine: no server, no archive, no part of a file, no VRT within a name",
                    fix="download it, and write the VRT anew with gdalbuildvrt",
                )  # fmt: skip
            # As GDAL does it: a name that is not relative to the VRT is relative to the working folder.
            folder = self.path.parent if self._relative else Path.cwd()
            self.sources.append(Path(os.path.normpath(folder / text)))
        else:
            self._look_at(name, text)

    def _look_at(self, name: str, text: str) -> None:
        if name not in _FREE and _SUSPICIOUS.search(text):
            self._refuse(f"<{name}> with the address {_short(text)}")

    def _refuse(self, what: str) -> Any:
        raise DataError(
            f"the VRT has {what}, which is not read from data", where=self.path,
            expected="bands that are put together from files", fix="write it out: gdal_translate IN.vrt OUT.tif",
        )  # fmt: skip


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:97]}...")
