"""Which files there are to fetch: from the Hugging Face hub, from Zenodo, from an address, or from this machine."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from spectral_tl_bench.console import user_path
from spectral_tl_bench.data.sources.asking import TIMEOUT, broken, check_status, patiently, send
from spectral_tl_bench.data.sources.catalogue import UNUSABLE, Dataset, Source
from spectral_tl_bench.data.sources.names import (
    is_archive,
    no_archive_reason,
    path_problem,
    piece_of,
    shown,
    siblings,
)
from spectral_tl_bench.data.sources.progress import Say
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import digest
from spectral_tl_bench.storage import in_words

ZENODO = "https://zenodo.org"
PLAIN = {"Accept-Encoding": "identity"}
"""Bytes as they lie on the server: a size and a place to go on from mean nothing otherwise."""

_ZENODO = re.compile(r"^(?:zenodo:|https?://(?:www\.)?zenodo\.org/records?/)(?P<id>\d+)/?$")
_HUB = re.compile(
    r"^(?:hf:|https?://(?:huggingface\.co|hf\.co)/datasets/)(?P<repo>[\w.-]+/[\w.-]+)(?:/tree/(?P<revision>[^/]+))?/?$"
)


@dataclass(frozen=True)
class SourceFile:
    """One file to fetch.

    Attributes:
        name: Its path in the source; may become a path below a folder.
        url: Where it is; empty for a file on this machine.
        size: Bytes; None where the server does not say.
        version: Changes when the content does; empty where nothing is known that would.
        checksum: ``md5:HEX``, ``sha256:HEX`` or ``git:HEX`` (a blob's name in git); empty where there is none.
        headers: What goes with the request.
        local: The file itself, if it is on this machine.
        packed: Whether it is an archive.
        pieces: What it is joined of, in this order, where it is had in pieces.
    """

    name: str
    url: str = ""
    size: int | None = None
    version: str = ""
    checksum: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    local: Path | None = None
    packed: bool = False
    pieces: tuple[SourceFile, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What a source holds of a data set.

    Attributes:
        label: The source, in words; the same at every start.
        files: The files, sorted by name.
        notes: What the user should know.
        citation: Whom to cite beside the data set.
    """

    label: str
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()
    citation: tuple[str, ...] = ()

    @property
    def remote(self) -> bool:
        """Whether anything comes over the network."""
        return any(piece.local is None for file in self.files for piece in file.pieces or (file,))


def list_source(
    dataset: Dataset, source: str | None, address: str | None, revision: str | None, wanted: Sequence[str], say: Say
) -> Listing:
    """Find the files of a data set.

    Args:
        dataset: The data set.
        source: ``--source``.
        address: ``--from``.
        revision: ``--revision``.
        wanted: ``--files``: patterns for names; empty for those that belong to the data set.
        say: Prints one line.

    Raises:
        UserError: If there are none, or they cannot be asked for.
    """
    for name, reason in UNUSABLE.items():
        if name in (address or "").lower():
            raise UserError(
                f"{name} cannot be used: {reason}", expected=f"one of {', '.join(dataset.sources)}",
                fix="choose one with --source; `stbench data list` says more",
            )  # fmt: skip
    if address is not None and (hub := _HUB.match(address)):
        chosen = Source(kind="hub", about="", repo=hub["repo"])
        listing = _hub(dataset, chosen, revision or hub["revision"], wanted, say)
    elif address is None and (facts := dataset.source(source)[1]).kind == "hub":
        listing = _hub(dataset, facts, revision, wanted, say)
    elif revision is not None:
        raise UserError("--revision goes with a repository of the Hugging Face hub only", fix="leave it out")
    elif address is None:
        raise UserError(
            f"the suite cannot download this: {facts.about}", where=dataset.page, fix=facts.do
        )  # fmt: skip
    elif zenodo := _ZENODO.match(address):
        listing = _zenodo(zenodo["id"], wanted, say)
    elif "://" in address:
        listing = _address(address, say)
    else:
        listing = _local(dataset, user_path(address), wanted)
    if address is not None and source is not None:
        listing = _with_known_checksums(listing, dataset.source(source)[1])
    listing = _with_wholes(listing)
    _check(listing)
    return replace(listing, label=f"{listing.label}, files {' '.join(wanted)}") if wanted else listing


def _with_wholes(listing: Listing) -> Listing:
    """The listing with one archive in place of its pieces.

    Raises:
        UserError: If a piece is missing or there twice, or the whole is there as well.
    """
    groups: dict[str, list[tuple[int, SourceFile]]] = {}
    for file in listing.files:
        if (piece := piece_of(file.name)) is not None:
            groups.setdefault(piece[0], []).append((piece[1], file))
    names = {file.name for file in listing.files}
    files = [file for file in listing.files if piece_of(file.name) is None]
    for whole, numbered in groups.items():
        numbered.sort(key=lambda pair: pair[0])
        numbers, pieces = [number for number, _ in numbered], [file for _, file in numbered]
        if len(pieces) == 1:  # where the others are is not known: refused as what it is
            files += pieces
        elif whole in names or numbers != list(range(len(pieces))):
            raise UserError(
                f"the pieces of {whole} are not one archive", where=listing.label,
                expected="each piece once, from the first one on, and nothing of the whole's name",
                fix=f"found {', '.join(piece.name for piece in pieces[:6])}; choose with --files",
            )  # fmt: skip
        else:
            files.append(_whole(whole, pieces))
    return replace(listing, files=tuple(sorted(files, key=lambda file: file.name)))


def _whole(name: str, pieces: list[SourceFile]) -> SourceFile:
    sizes, versions = [piece.size for piece in pieces], [piece.version for piece in pieces]
    size = None if None in sizes else sum(size or 0 for size in sizes)
    return SourceFile(name, size=size, version=digest(versions) if all(versions) else "", packed=True,
                      pieces=tuple(pieces))  # fmt: skip


def _check(listing: Listing) -> None:
    for file in listing.files:
        if problem := next(filter(None, (path_problem(one.name) for one in (file, *file.pieces))), ""):
            raise UserError(f"the source names a file {file.name[:60]!r}: {problem}", where=listing.label)
        if reason := no_archive_reason(file.name):
            raise UserError(
                f"{file.name} cannot be unpacked: {reason}", where=listing.label,
                fix="download it by hand, join and unpack it, and give that folder to --data-root; or leave it out "
                "with --files",
            )  # fmt: skip


def _with_known_checksums(listing: Listing, source: Source) -> Listing:
    """A mirror's file of a name that the source has must be the source's file."""
    known = {PurePosixPath(name).name: checksum for name, checksum in source.files.items()}
    files = tuple(
        file if (checksum := known.get(PurePosixPath(file.name).name)) is None
        else replace(file, version=checksum, checksum=checksum)
        for file in listing.files
    )  # fmt: skip
    return replace(listing, files=files, citation=source.citation)


def _chosen(dataset: Dataset, files: Sequence[SourceFile], wanted: Sequence[str], label: str) -> list[SourceFile]:
    """Files whose names match one of the patterns; without patterns those whose path holds the data set's name."""
    key = _letters(dataset.dataset)
    matching = [
        file for file in files if (_matches(file.name, wanted) if wanted else key in _letters(file.name))
    ]  # fmt: skip
    if not matching:
        lines = [
            f"{file.name} ({'size not known' if file.size is None else in_words(file.size)})" for file in files[:20]
        ]
        more = [f"and {len(files) - 20} more"] if len(files) > 20 else []
        said = f"matches {' or '.join(wanted)}" if wanted else f"has {dataset.dataset} in its path"
        raise UserError(
            f"no file of the source {said}", where=label,
            expected="one of\n    " + "\n    ".join([*lines, *more]) if files else "files; the source is empty",
            fix="name the right ones with --files PATTERN, such as --files '*.zip'",
        )  # fmt: skip
    return sorted(matching, key=lambda file: file.name)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _hub(dataset: Dataset, source: Source, revision: str | None, wanted: Sequence[str], say: Say) -> Listing:
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import build_hf_headers

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    page, api = f"{endpoint}/datasets/{source.repo}", HfApi(endpoint=endpoint)
    asked = revision or source.revision

    def ask() -> tuple[str, list[Any]]:
        with _hub_answers(page):
            # The tree is read at one commit, so that what is fetched belongs together
            commit = str(api.dataset_info(source.repo, revision=asked, timeout=TIMEOUT[1]).sha)
            return commit, list(api.list_repo_tree(
                source.repo, recursive=True, revision=commit, repo_type="dataset"
            ))  # fmt: skip

    commit, entries = patiently(ask, page, say)
    headers = {**build_hf_headers(), **PLAIN}
    pinned = source.files if asked == source.revision else {}
    files = []
    for entry in entries:
        if isinstance(entry, RepoFile) and not PurePosixPath(entry.path).name.startswith("."):
            own = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            url = hf_hub_url(source.repo, entry.path, repo_type="dataset", revision=commit, endpoint=endpoint)
            checksum, packed = pinned.get(entry.path) or own, is_archive(entry.path)
            files.append(SourceFile(entry.path, url, entry.size, own, checksum, headers, packed=packed))
    label = f"{source.repo} at {shown(endpoint)}"
    chosen = _chosen(dataset, files, wanted or tuple(source.files), label)
    return Listing(label, tuple(chosen), (f"revision {commit}",), source.citation)


@contextlib.contextmanager
def _hub_answers(page: str) -> Iterator[None]:
    """Turn what any version of the hub's library raises into what can be waited for, and what cannot."""
    try:
        yield
    except Exception as error:  # the versions have different errors for the same
        if type(error).__name__ == "OfflineModeIsEnabled":
            raise UserError("HF_HUB_OFFLINE forbids asking the Hugging Face hub", fix="unset it") from None
        response = getattr(error, "response", None)
        if response is not None:
            missing = type(error).__name__ in ("RepositoryNotFoundError", "RevisionNotFoundError")
            check_status(404 if missing else response.status_code, response.headers, page)
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("requests", "httpx", "httpx2"):
            raise broken(error) from None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"the Hugging Face hub cannot be asked: {reason}", where=shown(page),
            fix="check HF_ENDPOINT and --revision; --from takes a mirror or a local copy",
        ) from None  # fmt: skip


def _zenodo(number: str, wanted: Sequence[str], say: Say) -> Listing:
    url = f"{ZENODO}/api/records/{number}"

    def ask() -> Any:
        with send("GET", url, headers={"Accept": "application/json"}) as response:
            check_status(response.status_code, response.headers, url)
            return response.json()

    try:
        record = patiently(ask, url, say)
        about = record.get("metadata", {})
        files = [
            SourceFile(
                entry["key"],
                entry["links"]["self"],
                int(entry["size"]),
                entry["checksum"],
                entry["checksum"],
                PLAIN,
                packed=is_archive(entry["key"]),
            )
            for entry in record["files"]
        ]
    except (requests.exceptions.JSONDecodeError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "Zenodo's answer names no files", where=url, fix="look at the record's page; its files may be closed"
        ) from None
    licence = (about.get("license") or {}).get("id", "not stated")
    title = re.sub(r"[^\w .,:;()/+-]", "", str(about.get("title", "")))[:120]
    chosen = [
        file for file in sorted(files, key=lambda file: file.name)
        if not wanted or _matches(file.name, wanted)
    ]  # fmt: skip
    if not chosen:
        raise UserError(
            "no file of the record is wanted", where=url, expected=", ".join(file.name for file in files[:20]) or None,
            fix="name the right ones with --files PATTERN",
        )  # fmt: skip
    return Listing(f"Zenodo record {number}", tuple(chosen), (f"record: {title}", f"licence of the record: {licence}"))


def _address(url: str, say: Say) -> Listing:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(
            "--from takes http and https addresses only", where=shown(url), fix="download it by hand, and give the file"
        )

    def ask() -> Mapping[str, str]:
        # Not HEAD: servers of signed addresses refuse it
        with send("GET", url, headers=PLAIN, stream=True) as response:
            check_status(response.status_code, response.headers, url)
            return response.headers

    headers = patiently(ask, url, say)
    if "text/html" in headers.get("Content-Type", ""):
        raise UserError(
            "this address leads to a web page, not to an archive", where=shown(url),
            fix="log in and download the archive with a browser, then give the file to --from",
        )  # fmt: skip
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdigit() else None
    version = version_of(headers) or (f"size:{size}" if size is not None else "")
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not is_archive(name):
        named = re.search(r'filename="?([^";]+)', headers.get("Content-Disposition", ""))
        name = named[1].strip() if named else name or "download"
    return Listing(shown(url), (SourceFile(name, url, size, version, headers=PLAIN, packed=True),))


def version_of(headers: Mapping[str, str]) -> str:
    """What tells one content at an address from another; empty where the server says nothing of the kind."""
    return headers.get("ETag") or headers.get("Last-Modified") or ""


def _local(dataset: Dataset, path: Path, wanted: Sequence[str]) -> Listing:
    try:
        found = [*siblings(path)] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    except OSError as error:
        raise UserError(f"--from cannot be read: {error.strerror}", where=path) from None
    if not path.exists():
        raise UserError(
            "--from names nothing that is here", where=path, expected="an address, an archive, or a folder of archives"
        )
    base = path.parent if path.is_file() else path
    names = {file.relative_to(base).as_posix(): file for file in found}
    chosen = {
        name: file for name, file in names.items()
        if (is_archive(name) or no_archive_reason(name) or path.is_file())
        and (not wanted or _matches(name, wanted))
    }  # fmt: skip
    if not chosen:
        raise UserError(
            "there is no archive in this folder", where=path, expected="files ending in .zip, .tar or .tar.gz",
            fix=f"if it is {dataset.dataset} already, unpacked, give the folder to --data-root",
        )  # fmt: skip
    files = []
    for name, file in chosen.items():
        state = file.stat()
        files.append(
            SourceFile(name, "", state.st_size, f"{state.st_size}:{state.st_mtime_ns}", local=file, packed=True)
        )
    return Listing(str(path.absolute()), tuple(files))
