"""``stbench data list`` and ``get``: from an empty folder to a tree that ``data check`` accepts, whatever stops it."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
from packing import MTS12, REPO, files_of, pack, whole_tree
from servers import answers, breaks_after
from tiny import run_main

from spectral_tl_bench.data.sources import getting

SECOND_DISK = Path("/dev/shm")  # noqa: S108 - a disk of its own, where there is one


@pytest.mark.parametrize(
    ("name", "folder", "benchmark"),
    [("mts12", "MTS12", "mts12-n2s"), ("dfc2020", "DFC2020", "dfc2020-winter"), ("whu-ohs", "WHU-OHS", "whuohs-t2s")],
)
def test_from_an_empty_folder_to_data_that_are_accepted(
    site, stbench, real, trees, root, name, folder, benchmark, tmp_path, monkeypatch
):
    # A pack in the cache that tests share would be read by every later test of the same chips.
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    site.repos[REPO] = real
    code, said = stbench("get", name, "--accept-terms")
    assert code == 0, said
    part = "transfer-STall" if name == "whu-ohs" else ""
    assert whole_tree(root, trees, folder, part) and "can read it" not in said
    assert "next: stbench data verify" in said and benchmark in said
    left = files_of(root / getting.WORK)
    assert all(file.endswith(("receipt.json", "lock")) for file in left), "the archive is gone"
    code, said = stbench("check", benchmark)
    assert code == 0 and "track: partial" in said, said
    code, said = stbench("verify", benchmark)
    faults = [line for line in said.splitlines() if line.startswith(("fault", "broken"))]
    assert "rules hold" in said and len(faults) > 1
    assert all("published are" in line or "chips of 32x32 px" in line for line in faults), "few small chips, no more"
    code, said = stbench("pack", benchmark, "--verify")
    assert code == 0 and "packed chips are those of the files, bit for bit" in said, said

    before = len(site.asked)
    code, said = stbench("get", name, "--accept-terms")
    assert code == 0 and "nothing to do" in said
    assert all(path.startswith("/api/") for _, path, _ in site.asked[before:]), "no byte of the data again"


def test_terms_come_before_the_first_byte(site, stbench, root):
    code, said = stbench("get", "mts12")
    assert code == 2 and "--accept-terms" in said and "cite: Zhao" in said and "No licence is known" in said
    assert "dataset12.html" in said and MTS12 in said and not root.exists()
    assert not site.fetched("cdn") and not any("/cdn/" in path for _, path, _ in site.asked)
    code, said = stbench("get", "mts12", "--dry-run")
    assert code == 0 and "cite: Zhao" in said and "sha256" in said and not root.exists()


def test_list_says_what_is_here(site, stbench, names, root, monkeypatch, capsys):
    shutil.copytree(names / "MTS12", root / "MTS12")
    code, said = stbench("list")
    assert code == 0 and "3 of 936 chips" in said and said.count("on disk") == 9 and "8.75 GB" in said
    assert "irsip.whu.edu.cn" in said and REPO in said and "copernicus-bench" in said
    code, said = stbench("list", "--json")
    facts = json.loads(said)["datasets"]
    assert facts["mts12"]["on_disk"][0]["chips"] == 3 and not facts["mts12"]["on_disk"][0]["complete"]
    on_disk = {one["layout"]: one["published"] for facts in facts.values() for one in facts["on_disk"]}
    known = {"whu-ohs-transfer": 2914, "whu-ohs-official": 7795, "dfc2020": 6114, "mts12": 936}
    assert on_disk == {**known, "table": 0, "loveda": 0}, "0 is not known"
    (root / "MTS12/image/train/odd.tif").write_bytes(b"")
    assert "cannot be read: the file name 'odd.tif'" in stbench("list")[1]
    assert run_main(monkeypatch, ["data", "list"]) == 0
    assert "STBENCH_DATA says where to look" in capsys.readouterr().out
    assert not site.asked, "nothing is asked of anybody"


def test_a_broken_line_and_a_second_start(site, stbench, names, root, published, monkeypatch):
    content = published[MTS12]
    site.trouble = [("/cdn/", breaks_after(content, len(content) // 2)), *[("/cdn/", answers(503))] * 20]
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "are kept" in said and not (root / "MTS12").exists()
    assert "the connection broke; next try in 1 s" in said, "no name of a class of some library"
    site.trouble, site.asked = [], []
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "goes on after" in said and whole_tree(root, names, "MTS12")
    (only,) = [part for _, path, part in site.asked if "/cdn/" in path]
    assert only.startswith("bytes=") and only != "bytes=0-"


def test_a_busy_hub_is_waited_for(site, stbench, names, root):
    site.trouble = [
        ("/api/datasets", answers(429, Retry_After="1")), ("/tree/", answers(503)),
        ("/resolve/", answers(429, Retry_After="1")), ("/cdn/", answers(502)),
    ]  # fmt: skip
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12") and site.trouble == []
    assert "429" in said and "(502)" in said


def test_ctrl_c_says_that_it_can_go_on(site, stbench, names, root, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getting, "unpack", stop)
        code, said = stbench("get", "mts12", "--accept-terms")
    assert code != 0 and "the same command goes on from there" in said
    site.asked = []
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12")
    assert not any("/cdn/" in path for _, path, _ in site.asked), "the archive was there already"


def stopped_in_the_middle():
    """A ``Path.rename`` that puts one thing of the data set into its place, and is stopped before the next."""
    real, moved = Path.rename, []

    def rename(self, target):
        if "MTS12" in str(target) and getting.WORK not in str(target):
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        return real(self, target)

    return rename


def test_an_interruption_while_it_is_put_into_place(site, stbench, names, root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped_in_the_middle())
        assert stbench("get", "mts12", "--accept-terms")[0] != 0
    site.asked = []
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert not any("/cdn/" in path for _, path, _ in site.asked)


def test_a_changed_revision_starts_anew(site, stbench, names, root, published):
    content = published[MTS12]
    site.trouble = [("/cdn/", breaks_after(content, len(content) // 2)), *[("/cdn/", answers(503))] * 20]
    assert stbench("get", "mts12", "--accept-terms")[0] == 2
    site.trouble = []
    site.repos[REPO][MTS12] = pack(names, ["MTS12"], below="v2/")
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "has changed at the source since it was begun: starts anew" in said
    assert whole_tree(root, names, "MTS12")

    site.repos[REPO]["README.md"] = b"# another commit, the same data"
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "nothing to do" in said
    site.repos[REPO][MTS12] = content
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "the source has other files now" in said and whole_tree(root, names, "MTS12")
    shutil.rmtree(root / "MTS12")
    assert stbench("get", "mts12", "--accept-terms")[0] == 0 and whole_tree(root, names, "MTS12")


def test_free_space_is_looked_at_first(site, stbench, root, monkeypatch, published):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(1.9 * len(published[MTS12]))))
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "there is no room: at least" in said and not root.exists()
    assert not any("/cdn/" in path for _, path, _ in site.asked)


def test_what_is_there_is_never_replaced(site, stbench, names, root):
    (root / "MTS12/image/train").mkdir(parents=True)
    (root / "MTS12/image/train/mine.tif").write_bytes(b"mine")
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "there is something already" in said and "move it away" in said
    assert files_of(root / "MTS12") == {"image/train/mine.tif"}
    (root / "MTS12").rename(root / "away")
    site.asked = []
    assert stbench("get", "mts12", "--accept-terms")[0] == 0 and whole_tree(root, names, "MTS12")
    assert not any("/cdn/" in path for _, path, _ in site.asked), "nothing is downloaded again"


def test_places_that_cannot_be(site, stbench, root, monkeypatch, capsys):
    root.mkdir()
    (root / "MTS12").write_text("a file")
    assert "it is not a folder" in stbench("get", "mts12", "--accept-terms")[1]
    assert run_main(monkeypatch, ["data", "get", "mts12"]) == 2
    assert "no folder to put the data in" in capsys.readouterr().err
    (root / "MTS12").unlink()

    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "there")

    monkeypatch.setattr(getting, "merge", elsewhere)
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "cannot be put here: Invalid cross-device link" in said and "where: there" in said


def test_a_data_root_that_is_moved_while_it_is_put_into_place(site, stbench, names, root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopped_in_the_middle())
        command = ["data", "get", "mts12", "--accept-terms", f"--data-root={root.name}"]
        assert run_main(monkeypatch, command) != 0
    root.rename(tmp_path / "elsewhere")
    site.asked = []
    assert run_main(monkeypatch, [*command[:-1], f"--data-root={tmp_path / 'elsewhere'}"]) == 0
    assert whole_tree(tmp_path / "elsewhere", names, "MTS12")
    assert not any("/cdn/" in path for _, path, _ in site.asked)


def test_what_was_unpacked_and_is_nowhere_is_no_success(site, stbench, root, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getting, "fsync_folder", stop)
        assert stbench("get", "mts12", "--accept-terms")[0] != 0
    shutil.rmtree(root / "MTS12" / "label")
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "neither where it was nor in its place" in said and "remove " in said
    assert "nothing to do" not in stbench("get", "mts12", "--accept-terms")[1]


def test_what_was_put_here_and_is_not_whole_any_more(site, stbench, names, root):
    assert stbench("get", "mts12", "--accept-terms")[0] == 0
    gone = root / "MTS12/image/train/eopatch_id_0_col_8_row_14.tif"
    gone.unlink()
    (root / "MTS12/label/train/eopatch_id_0_col_8_row_14_label.mat").unlink()
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "3 chips then, now mts12: 2 of 936 chips" in said and "got anew" in said
    assert "move MTS12/image and MTS12/label away" in said
    shutil.rmtree(root / "MTS12")
    assert stbench("get", "mts12", "--accept-terms")[0] == 0 and whole_tree(root, names, "MTS12")


@pytest.mark.skipif(not SECOND_DISK.is_mount(), reason="no second disk")
def test_a_folder_on_another_disk_is_said_before_anything_is_asked(site, stbench, root):
    with tempfile.TemporaryDirectory(dir=SECOND_DISK) as other:
        root.mkdir()
        (root / "MTS12").symlink_to(other)
        code, said = stbench("get", "mts12", "--accept-terms")
        assert code == 2 and "is on another disk than the data root" in said and f"such as {Path(other).parent}" in said
        assert not site.asked and not [*Path(other).iterdir()]


def test_commands_that_are_named_can_be_copied(site, stbench, root, monkeypatch):
    odd = root / "Größe 2"
    code = run_main(monkeypatch, ["data", "get", "mts12", "--accept-terms", f"--data-root={odd}"])
    line = next(line for line in stbench("list")[1].splitlines() if line.startswith("next: ")) if code == 0 else ""
    words = shlex.split(line.removeprefix("next: "))
    assert words[:3] == ["stbench", "data", "verify"] and words[-1] == str(odd)


def test_two_starts_at_once(site, stbench, root, monkeypatch):
    inner = []

    def fetch(*_: object) -> None:
        with monkeypatch.context() as patch:
            patch.undo()
            inner.append(stbench("get", "mts12", "--accept-terms"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getting, "fetch", fetch)
        stbench("get", "mts12", "--accept-terms")
    assert inner[0][0] == 2 and "another start is getting the same here" in inner[0][1]
