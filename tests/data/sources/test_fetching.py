"""Fetching a file from servers that break off, change their mind, are busy, or lie."""

from __future__ import annotations

import email.utils
import errno
import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from servers import Site, answers, breaks_after, serving, sum_of

from spectral_tl_bench.data.sources import asking, fetching, progress
from spectral_tl_bench.data.sources.fetching import fetch
from spectral_tl_bench.data.sources.listing import SourceFile
from spectral_tl_bench.errors import DataError, StorageError, UserError

CONTENT = os.urandom(400_000)
SIZE = len(CONTENT)
TAG = f'"{sum_of(CONTENT)}"'
NOTES = json.dumps({"version": TAG})


@pytest.fixture(scope="module")
def server():
    with serving(Site()) as site:
        yield site


@pytest.fixture
def site(server, monkeypatch):
    fresh = Site(plain={"/a.zip": CONTENT})
    fresh.address = server.address
    server.__dict__.update(fresh.__dict__)
    server.waits = []
    monkeypatch.setattr(asking, "SLEEP", server.waits.append)
    return server


@pytest.fixture
def get(site, tmp_path):
    """Fetches the file, and gives what was said."""

    def run(**changes) -> list[str]:
        facts = {"url": f"{site.address}/a.zip", "size": SIZE, "version": TAG, "checksum": f"sha256:{sum_of(CONTENT)}"}
        said: list[str] = []
        try:
            fetch(SourceFile("a.zip", **(facts | changes)), tmp_path / "a.zip", said.append)
        finally:
            run.said = said
        return said

    run.target, run.part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    return run


def ranges(site: Site) -> list[str]:
    return [part for _, _, part in site.asked]


def test_a_whole_file_is_fetched_once(site, get):
    assert get() == [] and get.target.read_bytes() == CONTENT and not get.part.exists()
    assert get() == [] and ranges(site) == [""], "the second start asks for nothing"


@pytest.mark.parametrize("checksum", ["md5", "sha256", "git", ""])
def test_a_broken_connection_is_gone_on_from(site, get, checksum):
    site.trouble = [("a.zip", breaks_after(CONTENT, 150_000)), ("a.zip", breaks_after(CONTENT, 100_000))]
    sums = {
        "md5": hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(), "sha256": sum_of(CONTENT), "": "",
        "git": hashlib.sha1(b"blob 400000\0" + CONTENT, usedforsecurity=False).hexdigest(),
    }  # fmt: skip
    said = get(checksum=f"{checksum}:{sums[checksum]}".strip(":"))
    assert get.target.read_bytes() == CONTENT
    starts = [int(part[6:-1]) for part in ranges(site) if part]
    assert len(starts) == 2 and 100_000 <= starts[0] <= 150_000 < starts[1] <= 250_000
    assert sum("the connection" in line for line in said) == 2


def test_a_killed_start_is_gone_on_from(site, get, monkeypatch):
    real, read = fetching._read, []

    def interrupted(response):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(1)
        return real(response)

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get()
    have = get.part.stat().st_size
    assert 0 < have < SIZE and not get.target.exists()
    assert any("goes on after" in line for line in get())
    assert ranges(site) == ["", f"bytes={have}-"] and get.target.read_bytes() == CONTENT


def test_a_server_that_gives_no_parts(site, get):
    site.ranges = False
    site.trouble = [("a.zip", breaks_after(CONTENT, 200_000))]
    said = get()
    assert any("cannot go on in the middle" in line for line in said) and get.target.read_bytes() == CONTENT


@pytest.mark.parametrize("version", ["another", ""])
def test_a_changed_file_starts_anew(site, get, version):
    get.part.write_bytes(b"old" * 1000)
    get.target.with_name("a.zip.part.json").write_text(NOTES)
    said = get(version=version)
    assert "starts anew" in said[0] and ranges(site) == [""] and get.target.read_bytes() == CONTENT


def test_a_part_without_notes_is_not_trusted(site, get):
    get.part.write_bytes(b"x")
    assert "starts anew" in get()[0] and get.target.read_bytes() == CONTENT


def test_a_file_that_changes_while_it_is_fetched(site, get):
    site.trouble = [("a.zip", breaks_after(CONTENT, 200_000))]
    site.plain["/a.zip"] = os.urandom(SIZE)
    with pytest.raises(DataError, match="has changed at the source while"):
        get(checksum="")
    assert not get.part.exists() and not get.target.exists()
    site.plain["/a.zip"] = CONTENT + b"more"
    site.trouble = [("a.zip", breaks_after(CONTENT, 200_000))]
    with pytest.raises(DataError, match="has changed at the source while"):
        get()


def test_a_wrong_checksum_removes_the_part(site, get):
    site.plain["/a.zip"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(DataError, match="wrong sha256 checksum") as wrong:
        get()
    assert sum_of(CONTENT) in str(wrong.value) and sum_of(site.plain["/a.zip"]) in str(wrong.value)
    assert not get.part.exists() and not get.target.exists()


def test_too_much_is_the_wrong_size(site, get):
    site.plain["/a.zip"] = CONTENT + b"x"
    with pytest.raises(DataError, match="wrong size and was removed: 400001 bytes"):
        get(checksum="", version="size:400000")
    assert not get.part.exists()


def test_a_whole_part_is_only_checked(site, get):
    get.part.write_bytes(CONTENT)
    get.target.with_name("a.zip.part.json").write_text(NOTES)
    get()
    assert site.asked == [] and get.target.read_bytes() == CONTENT


def test_a_part_that_is_too_long_starts_anew(site, get):
    get.part.write_bytes(CONTENT + b"x")
    get.target.with_name("a.zip.part.json").write_text(NOTES)
    get()
    assert get.target.read_bytes() == CONTENT


def test_without_a_size(site, get):
    get(size=None, checksum="")
    assert get.target.read_bytes() == CONTENT


def test_a_busy_server_is_waited_for_as_it_asks(site, get):
    date = email.utils.formatdate(time.time() + 40, usegmt=True)
    site.trouble = [
        ("a.zip", answers(429, Retry_After="7")), ("a.zip", answers(429, Retry_After=date)), ("a.zip", answers(503)),
        ("a.zip", answers(500)),
    ]  # fmt: skip
    said = get()
    assert site.waits[0] == 7 and 30 < site.waits[1] <= 40 and site.waits[2:] == [4, 8]
    assert "429" in said[0] and "503" in said[2] and get.target.read_bytes() == CONTENT


def test_patience_has_an_end(site, get):
    site.trouble = [("a.zip", breaks_after(CONTENT, 200_000)), *[("a.zip", answers(503))] * 20]
    with pytest.raises(UserError, match="no answer of use after 8 tries") as tired:
        get()
    assert "are kept" in str(tired.value) and get.part.stat().st_size > 0 and len(site.waits) == 7
    site.trouble = [("a.zip", answers(429, Retry_After="86400"))]
    with pytest.raises(UserError, match="asks to wait for 1440 minutes"):
        get()


def test_nobody_there_is_said_soon(get, site):
    with pytest.raises(UserError, match="no answer of use after 3 tries") as gone:
        get(url="http://user:secret@127.0.0.1:9/a.zip?token=hidden")
    assert (
        "secret" not in str(gone.value) and "hidden" not in str(gone.value) and "127.0.0.1:9/a.zip" in str(gone.value)
    )
    assert not any("secret" in line or "hidden" in line for line in get.said)


@pytest.mark.parametrize(
    ("status", "said"), [(404, "no such file"), (410, "no such file"), (401, "wants an account"), (403, "HF_TOKEN"),
                         (400, "the server refuses")],
)  # fmt: skip
def test_what_is_refused_is_not_asked_again(site, get, status, said):
    site.trouble = [("a.zip", answers(status))]
    with pytest.raises(UserError, match=said):
        get()
    assert len(site.asked) == 1 and site.waits == []


class FullDisk:
    """A file on a disk that is full after some bytes."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, content):
        if self.stream.tell() + len(content) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.stream.write(content)


def test_a_full_disk_keeps_what_has_come(site, get, monkeypatch):
    real = Path.open

    def opened(self, mode="r", *more, **options):
        stream = real(self, mode, *more, **options)
        return FullDisk(stream, 150_000) if mode == "ab" else stream

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(StorageError, match="No space left") as full:
            get()
    assert "start again" in str(full.value) and 0 < get.part.stat().st_size <= 150_000
    get()
    assert ranges(site)[1].startswith("bytes=") and get.target.read_bytes() == CONTENT


def test_progress_has_speed_and_time_left(site, get, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    said = get()
    assert any("of 390.6 KiB (" in line and "/s, " in line and line.endswith(" left") for line in said)
