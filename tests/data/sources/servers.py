"""A server that behaves like the Hugging Face hub, Zenodo and a plain web server, and misbehaves when told to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

Trouble = Callable[["Handler"], bool]
"""Answers a request in its own way and returns true, or returns false."""


@dataclass
class Site:
    """What a server has and what was asked of it.

    Attributes:
        repos: Files by path, by name of the repository.
        commits: Commit of each repository; a sum of its files unless it is set.
        small: Files that the hub keeps in git itself, not as large files.
        plain: Content of addresses of a plain web server, by path.
        records: Files of Zenodo records, by number.
        ranges: Whether parts of files are given.
        tags: Whether answers have an ETag.
        page: Entries of the hub's tree in one answer.
        trouble: What happens before an ordinary answer, by a part of the path; each once, in their order.
        asked: (method, path, Range) of all requests.
        headers: Headers of the last request for each path.
        address: Where it is.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    small: set[str] = field(default_factory=set)
    plain: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ranges: bool = True
    tags: bool = True
    page: int = 1000
    trouble: list[tuple[str, Trouble]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    headers: dict[str, Any] = field(default_factory=dict)
    address: str = ""

    def commit(self, repo: str) -> str:
        files = "".join(f"{name}{sum_of(content)}" for name, content in sorted(self.repos[repo].items()))
        return self.commits.get(repo) or hashlib.sha1(files.encode(), usedforsecurity=False).hexdigest()

    def fetched(self, ending: str) -> list[tuple[str, str]]:
        """(path, Range) of the requests for content whose path ends so."""
        return [(path, part) for _, path, part in self.asked if path.endswith(ending) and "/api/datasets" not in path]


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_of(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.site.asked.append((self.command, path, self.headers.get("Range", "")))
        self.site.headers[path] = self.headers
        for number, (part, act) in enumerate(self.site.trouble):
            if part in path:
                del self.site.trouble[number]
                if act(self):
                    return None
                break
        if hub := re.match(r"^/api/datasets/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?$", path):
            self.hub(hub[1], hub[2], hub[3], parse_qs(parts.query))
        elif file := re.match(r"^/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
            files = self.site.repos.get(file[1], {})
            if file[2] != self.site.commit(file[1]) or file[3] not in files:
                return self.missing("EntryNotFound")
            # As the hub does for large files: on to another server, without its account
            self.send_response(302)
            self.send_header("Location", f"{self.site.address}/cdn/{sum_of(files[file[3]])}")
            self.send_header("X-Repo-Commit", file[2])
            self.send_header("X-Linked-Etag", f'"{sum_of(files[file[3]])}"')
            self.send_header("X-Linked-Size", str(len(files[file[3]])))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif cdn := re.match(r"^/cdn/(\w+)$", path):
            every = [content for files in self.site.repos.values() for content in files.values()]
            self.content(next(content for content in every if sum_of(content) == cdn[1]))
        elif record := re.match(r"^/api/records/(\d+)(?:/files/(.+)/content)?$", path):
            self.zenodo(record[1], record[2])
        elif path in self.site.plain:
            self.content(self.site.plain[path])
        else:
            self.missing("")
        return None

    def hub(self, repo: str, kind: str | None, revision: str | None, query: dict[str, list[str]]) -> None:
        if repo not in self.site.repos:
            return self.missing("RepoNotFound", 401)
        files, commit = self.site.repos[repo], self.site.commit(repo)
        if revision not in (None, "main", commit):
            return self.missing("RevisionNotFound")
        if kind != "tree":
            return self.json({"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in sorted(files)]})
        start = int(query.get("cursor", ["0"])[0])
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            for name in sorted({name.rpartition("/")[0] for name in files} - {""})
        ]
        for name, content in sorted(files.items()):
            entry = {"type": "file", "path": name, "size": len(content), "oid": blob_of(content)}
            if name not in self.site.small:
                entry["lfs"] = {"oid": sum_of(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        more = {}
        if start + self.site.page < len(entries):
            url = f"{self.site.address}/api/datasets/{repo}/tree/{quote(str(revision))}?recursive=True"
            more = {"Link": f'<{url}&cursor={start + self.site.page}>; rel="next"'}
        return self.json(entries[start : start + self.site.page], **more)

    def zenodo(self, number: str, name: str | None) -> None:
        if number not in self.site.records:
            return self.json({"status": 404, "message": "PID does not exist."}, 404)
        files = self.site.records[number]
        if name is not None:
            return self.content(files[name])
        entries = [
            {
                "key": key, "size": len(content),
                "checksum": f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}",
                "links": {"self": f"{self.site.address}/api/records/{number}/files/{quote(key)}/content"},
            }
            for key, content in files.items()
        ]  # fmt: skip
        about = {"title": "A record", "license": {"id": "cc-by-4.0"}}
        return self.json({"id": int(number), "revision": 3, "metadata": about, "files": entries})

    def content(self, content: bytes, *, cut: int | None = None) -> None:
        """A file, or the part that is asked for; cut off after some bytes on demand."""
        part = re.match(r"bytes=(\d+)-$", self.headers.get("Range", "")) if self.site.ranges else None
        start = int(part[1]) if part else 0
        if part and start >= len(content):
            return self.plainly(416, b"")
        self.send_response(206 if part else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        if self.site.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if self.site.tags:
            self.send_header("ETag", f'"{sum_of(content)}"')
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
        return None

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.plainly(status, json.dumps(value).encode(), **{"Content-Type": "application/json"} | headers)

    def missing(self, code: str, status: int = 404) -> None:
        self.plainly(status, b"{}", **({"X-Error-Code": code, "X-Error-Message": "not found"} if code else {}))

    def plainly(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def answers(status: int, **headers: str) -> Trouble:
    """A status instead of the file."""

    def act(handler: Handler) -> bool:
        handler.plainly(status, b"not now", **headers)
        return True

    return act


def breaks_after(content: bytes, size: int) -> Trouble:
    """The connection ends after so many bytes."""

    def act(handler: Handler) -> bool:
        handler.content(content, cut=size)
        return True

    return act


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Run a site on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # connections that the client gave up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
