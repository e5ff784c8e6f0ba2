"""Unpacking archives of others: what is right comes out whole, what is not leaves nothing outside its folder."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tarfile
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from packing import odd_member, tarred, zipped

from spectral_tl_bench.data.sources import progress, unpacking
from spectral_tl_bench.data.sources.unpacking import Limits, unpack
from spectral_tl_bench.errors import DataError, StorageError

GOOD = {"MTS12/image/a.tif": b"a" * 3000, "MTS12/image/b.tif": b"b" * 10, "MTS12/label/a.mat": b""}
LINK = stat.S_IFLNK | 0o777


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path):
    """Writes an archive, and gives it with the folder to unpack to."""

    def make(content: bytes, name: str = "it.zip") -> tuple[Path, Path]:
        archive = tmp_path / name
        archive.write_bytes(content)
        return archive, tmp_path / "inner" / "out"

    return make


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
def test_all_comes_out_whatever_the_name_says(place, kind):
    content = zipped(GOOD) if kind == "zip" else tarred(GOOD, kind)
    archive, folder = place(content, "download")
    done = unpack(archive, folder, resume=False)
    assert written(folder) == GOOD and (done.files, done.size, done.links) == (3, 3010, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped({"good.tif": b"x", "../evil": b"x"}), "leads out of the folder"),
        (zipped({"a/../../evil": b"x"}), "leads out of the folder"),
        (zipped({"..\\evil": b"x"}), "leads out of the folder"),
        (zipped({"/evil": b"x"}), "an absolute path"),
        (zipped({"C:\\evil": b"x"}), "an absolute path"),
        (zipped({"a\x1b[2Jb": b"x"}), "control characters"),
        (zipped({"x" * 300: b"x"}), "more than 255 bytes"),
        (zipped({"good.tif": b"x", "out": b"../../etc"}, {"out": LINK}), "a link that leads out"),
        (zipped({"out": b"/etc/passwd"}, {"out": LINK}), "a link that leads out"),
        (zipped({"pipe": b""}, {"pipe": stat.S_IFIFO | 0o644}), "a device, a pipe"),
        (zipped({"A/x.tif": b"1", "a/y.tif": b"2"}), "one on some disks"),
        (zipped({"a/x.TIF": b"1", "a/x.tif": b"2"}), "one on some disks"),
        (zipped({"caf\u00e9.tif": b"1", "cafe\u0301.tif": b"2"}), "one on some disks"),
        (zipped({"a": b"1", "a/b": b"2"}), "one on some disks"),
        (tarred({"../evil": b"x"}), "leads out of the folder"),
        (tarred({"/evil": b"x"}), "an absolute path"),
        (tarred({"a": b"1"}, odd=[odd_member("out", tarfile.SYMTYPE, "../..")]), "a link that leads out"),
        (tarred({"a": b"1"}, odd=[odd_member("out", tarfile.SYMTYPE, "/etc")]), "a link that leads out"),
        (tarred({"a": b"1"}, odd=[odd_member("out", tarfile.LNKTYPE, "../secret")]), "a link that leads out"),
        (tarred({"a": b"1"}, odd=[odd_member("null", tarfile.CHRTYPE)]), "a device, a pipe"),
        (tarred({"a": b"1"}, odd=[odd_member("disk", tarfile.BLKTYPE)]), "a device, a pipe"),
        (tarred({"a": b"1"}, "gz", odd=[odd_member("pipe", tarfile.FIFOTYPE)]), "a device, a pipe"),
        (b"<html>please log in</html>", "neither a zip nor a tar"),
        (zipped(GOOD)[:-40], "is a zip archive that is cut off"),
    ],
)
def test_what_is_not_safe_is_refused_and_named(place, tmp_path, content, said):
    archive, folder = place(content)
    with pytest.raises(DataError, match=said) as refused:
        unpack(archive, folder, resume=False)
    assert str(archive) in str(refused.value)
    outside = {path for path in tmp_path.rglob("*") if path != archive and folder not in path.parents}
    assert outside <= {folder, folder.parent}, "nothing outside"
    if zipfile.is_zipfile(archive):
        assert not folder.exists(), "a zip is judged before anything of it is unpacked"


def test_a_file_twice_in_one_archive_is_refused(place):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.warns(UserWarning):
        file.writestr("a.tif", b"one")
        file.writestr("a.tif", b"two")
    with pytest.raises(DataError, match="comes twice"):
        unpack(*place(buffer.getvalue()), resume=False)


def test_nothing_is_written_through_a_link_of_the_archive(place, tmp_path):
    """A link within the archive is left out, and counted; what stands below its name is a folder of its own."""
    members = tarred({"real/a": b"1"}, odd=[odd_member("shortcut", tarfile.SYMTYPE, "real")])
    archive, folder = place(members)
    assert unpack(archive, folder, resume=False).links == 1 and written(folder) == {"real/a": b"1"}


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_bombs_are_refused_before_they_fill_the_disk(place, kind):
    zeros = {"a.tif": bytes(3_000_000), "b.tif": bytes(3_000_000)}
    archive, folder = place(zipped(zeros) if kind == "zip" else tarred(zeros, kind))
    with pytest.raises(DataError, match="more than 300 times as large"):
        unpack(archive, folder, resume=False, limits=Limits(spared=4_000_000))
    with pytest.raises(DataError, match="would become more than"):
        unpack(archive, folder, resume=False, limits=Limits(size=5_000_000))
    with pytest.raises(DataError, match="more than 1 members"):
        unpack(archive, folder, resume=False, limits=Limits(files=1))
    assert sum(map(len, written(folder).values())) <= 3_000_000
    assert unpack(archive, folder, resume=False).size == 6_000_000, "usual labels are packed as well"


def test_a_member_that_says_less_than_it_holds(place):
    content = bytearray(zipped({"a.tif": b"x" * 5000}))
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")  # its size in the list of members
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(*place(bytes(content)), resume=False)


def test_damage_is_found(place):
    noise = os.urandom(100_000)
    whole = bytearray(zipped({"a.tif": noise}))
    whole[50_000] ^= 0xFF
    with pytest.raises(DataError, match=r"CRC|invalid"):
        unpack(*place(bytes(whole)), resume=False)
    for kind in ("tar", "gz"):
        archive, folder = place(tarred({"b.tif": noise}, kind)[:60_000])
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack(archive, folder, resume=False)
        assert written(folder) == {}, "no half of a file"


def test_an_encrypted_archive_says_so(place):
    content = bytearray(zipped({"a.tif": b"secret"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    with pytest.raises(DataError, match="it is encrypted"):
        unpack(*place(bytes(content)), resume=False)


def test_it_goes_on_where_it_stopped(place, monkeypatch):
    archive, folder = place(zipped(GOOD))
    copied = []
    real = unpacking._Unpacking.copy

    def copy(self, member, path):
        if len(copied) == 1:
            raise KeyboardInterrupt
        copied.append(member.name)
        real(self, member, path)

    monkeypatch.setattr(unpacking._Unpacking, "copy", copy)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, folder, resume=False)
    assert written(folder) == {"MTS12/image/a.tif": GOOD["MTS12/image/a.tif"]}
    (folder / "MTS12/image/b.tif").write_bytes(b"half")
    copied.clear()
    monkeypatch.setattr(
        unpacking._Unpacking, "copy", lambda self, member, path: (copied.append(member.name), real(self, member, path))
    )
    unpack(archive, folder, resume=True)
    assert copied == ["MTS12/image/b.tif", "MTS12/label/a.mat"] and written(folder) == GOOD


def test_the_disk_takes_several_files_at_once_and_each_before_it_has_its_name(place, monkeypatch):
    archive, folder = place(zipped(GOOD))
    together, synced = threading.Barrier(len(GOOD), timeout=20), []

    def fsync(stream):
        together.wait()
        synced.append({name for name in GOOD if (folder / name).exists()})

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(unpacking, "fsync_folder", lambda _: None)
    assert unpack(archive, folder, resume=False).files == len(GOOD) == len(synced)
    assert written(folder) == GOOD and set() in synced and all(len(there) < len(GOOD) for there in synced)


def test_a_file_that_the_disk_does_not_take_is_not_there(place, monkeypatch):
    archive, folder = place(zipped(GOOD))

    def fsync(_stream):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="No space left"):
        unpack(archive, folder, resume=False)
    assert written(folder) == {}


def test_a_full_disk(place, monkeypatch):
    archive, folder = place(zipped(GOOD))
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 7_990, 3_005))
        with pytest.raises(StorageError, match=r"it\.zip takes 2.9 KiB") as full:
            unpack(archive, folder, resume=False)
        assert "start again" in str(full.value) and not folder.exists(), "a zip is known before it is unpacked"
        patch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 8_000, 2_000))
        with pytest.raises(StorageError, match=r"a\.tif takes 2.9 KiB"):
            unpack(*place(tarred(GOOD), "it.tar"), resume=False)

    def no_room(_self, _member, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(unpacking._Unpacking, "copy", no_room)
    with pytest.raises(StorageError, match="No space left"):
        unpack(archive, folder, resume=False)
    assert written(folder) == {}


def test_what_macos_adds_stays_out(place):
    archive, folder = place(zipped({**GOOD, "__MACOSX/MTS12/image/._a.tif": b"fork"}))
    unpack(archive, folder, resume=False)
    assert written(folder) == GOOD


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
def test_it_says_how_far_it_is_and_how_long_it_takes(place, kind, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    members = {f"{number}.tif": os.urandom(200_000) for number in range(8)}
    lines: list[str] = []
    unpack(*place(zipped(members) if kind == "zip" else tarred(members, kind)), resume=False, say=lines.append)
    assert len(lines) == 8 and all("/s, " in line and line.endswith(" left") for line in lines)
    percent = [int(line.partition("(")[2].partition("%")[0]) for line in lines]
    assert percent == sorted(percent) and percent[0] < 40 and percent[-1] >= 90
