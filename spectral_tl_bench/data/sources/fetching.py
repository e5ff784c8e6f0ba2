"""Fetching one file: goes on where it stopped, starts anew when the file has changed, believes no byte unchecked."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import requests
import urllib3

from spectral_tl_bench.data.sources.asking import AgainError, Patience, broken, check_status, send
from spectral_tl_bench.data.sources.listing import SourceFile, version_of
from spectral_tl_bench.data.sources.names import shown
from spectral_tl_bench.data.sources.progress import Progress, Say
from spectral_tl_bench.errors import DataError, StorageError
from spectral_tl_bench.files import fsync_folder, write_json
from spectral_tl_bench.storage import in_words
from spectral_tl_bench.storage.room import NO_ROOM

CHUNK = 1 << 16
PART, NOTES = ".part", ".part.json"
"""Endings of what is not whole yet, and of the file that says of which version a file or a part is."""


def fetch(file: SourceFile, target: Path, say: Say) -> None:
    """Fetch a file, unless it is here in this version; what a broken start has left is gone on from.

    Beside the target lie ``NAME.part`` until it is whole, and ``NAME.part.json`` with the version of either.

    Args:
        file: The file.
        target: Where it is put.
        say: Prints one line.

    Raises:
        UserError: If the server refuses, or gives up nothing for long.
        DataError: If the content is not what it should be; it is removed then.
        StorageError: If there is no room; what has come is kept.
    """
    part, notes = (target.with_name(target.name + end) for end in (PART, NOTES))
    known = read_notes(notes)
    if target.exists() and known == file.version != "":
        return
    target.unlink(missing_ok=True)
    if part.exists() and (known != file.version or not file.version):
        say(
            f"{file.name} has changed at the source since it was begun: starts anew" if file.version
            else f"{file.name}: the server does not say whether it is the same as before: starts anew"
        )  # fmt: skip
        part.unlink()
    if part.exists():
        say(f"{file.name}: goes on after {in_words(part.stat().st_size)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(notes, {"version": file.version})
        _Transfer(file, part, say).run()
        part.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageError(
            f"{error.strerror}: {file.name} could not be stored",
            where=target.parent, expected="" if file.size is None else f"room for {in_words(file.size)}",
            fix="make room and start again: what has come is kept",
        ) from None  # fmt: skip


def read_notes(path: Path) -> str | None:
    """The version that was noted; None if there is nothing that can be read."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Transfer:
    """The way of one file into its ``.part``."""

    def __init__(self, file: SourceFile, part: Path, say: Say) -> None:
        self.file, self.part, self.say = file, part, say
        self.patience = Patience(file.url, say)
        self.have = part.stat().st_size if part.exists() else 0
        self.sum = _new_sum(file)
        if self.have:
            with part.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    self.sum.update(chunk)
        self.progress = Progress(file.name, file.size, self.have, say)

    def run(self) -> None:
        """Until the part is whole and checked."""
        whole = self.have > 0 and self.have == self.file.size
        while not whole:
            before = self.have
            try:
                self._receive()
                whole = True
            except AgainError as again:
                if self.have > before:
                    self.patience.progress()
                self.patience.wait(again, f"{in_words(self.have)} of it are kept; " if self.have else "")
        self._judge()

    def _receive(self) -> None:
        headers = {**self.file.headers, **({"Range": f"bytes={self.have}-"} if self.have else {})}
        with send("GET", self.file.url, headers=headers, stream=True) as response:
            if response.status_code == 416:
                self._restart()
                raise AgainError("the server has less of it than is here")
            check_status(response.status_code, response.headers, self.file.url)
            self._check_same(response)
            if self.have and (response.status_code != 206 or _range(response)[0] != self.have):
                self.say(f"{self.file.name}: the server cannot go on in the middle: from the beginning")
                self._restart()
            length = response.headers.get("Content-Length", "")
            end = self.have + int(length) if length.isdigit() else self.file.size
            with self.part.open("ab") as stream:
                while chunk := _read(response):
                    stream.write(chunk)
                    self.sum.update(chunk)
                    self.have += len(chunk)
                    self.progress.at(self.have)
                stream.flush()
                os.fsync(stream.fileno())
            if end is not None and self.have < end:
                raise AgainError("the connection ended early")

    def _restart(self) -> None:
        self.part.unlink(missing_ok=True)
        self.have, self.sum = 0, _new_sum(self.file)

    def _check_same(self, response: requests.Response) -> None:
        """The file must still be what was listed; what has a checksum is judged by that."""
        total, now = _range(response)[1], version_of(response.headers)
        other = total is not None and self.file.size is not None and total != self.file.size
        if other or (not self.file.checksum and now and not self.file.version.startswith("size:")
                     and now != self.file.version):  # fmt: skip
            self._restart()
            raise DataError(
                "the file has changed at the source while it was fetched", where=shown(self.file.url),
                fix="start again: it begins anew",
            )  # fmt: skip

    def _judge(self) -> None:
        kind, _, wanted = self.file.checksum.partition(":")
        if self.file.size is not None and self.have != self.file.size:
            what, found, wanted = "size", f"{self.have} bytes", f"{self.file.size} bytes"
        elif wanted and self.sum.hexdigest() != wanted:
            what, found = f"{kind} checksum", self.sum.hexdigest()
        else:
            return
        self._restart()
        raise DataError(
            f"{self.file.name} has the wrong {what} and was removed: {found}", where=shown(self.file.url),
            expected=wanted, fix="start again; if it happens again, the source or the mirror has another file",
        )  # fmt: skip


def _new_sum(file: SourceFile) -> Any:
    kind = file.checksum.partition(":")[0]
    if kind == "git":  # the name of a blob begins with its size
        return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    return hashlib.new(kind or "sha256", usedforsecurity=False)


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole, as a partial answer says them."""
    match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _read(response: requests.Response) -> bytes:
    """The next bytes as they lie on the server."""
    try:
        return bytes(response.raw.read(CHUNK, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise broken(error) from None
