"""Archives that come in pieces are joined when all are there, and refused when not."""

from __future__ import annotations

import pytest
from packing import MTS12, REPO, files_of, pack, whole_tree

from spectral_tl_bench.data.sources import getting
from spectral_tl_bench.data.sources.names import piece_of

NUMBERS = "MTS12.zip.{:03d}"


def cut(content: bytes, number: int = 3) -> list[bytes]:
    size = len(content) // number + 1
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize(
    ("name", "piece"),
    [
        ("a/MTS12.zip.001", ("a/MTS12.zip", 0)), ("MTS12.ZIP.012", ("MTS12.ZIP", 11)),
        ("MTS12.tar.gz.part-aa", ("MTS12.tar.gz", 0)), ("MTS12.tgz.partab", ("MTS12.tgz", 1)),
        ("MTS12.tar.part_ba", ("MTS12.tar", 26)), ("MTS12.z01", None), ("MTS12.7z.001", None), ("MTS12.zip", None),
        ("MTS12.rar.part-aa", None), ("MTS12.001", None), ("MTS12.zip.01", None), (".zip.001", None),
    ],
)  # fmt: skip
def test_names_of_pieces(name, piece):
    assert piece_of(name) == piece


@pytest.mark.parametrize("named", ["numbers", "letters"])
def test_pieces_of_a_repository_become_the_data_set(site, stbench, names, root, published, named):
    content = published[MTS12] if named == "numbers" else pack(names, kind="gz")
    pieces = cut(content)
    labels = [NUMBERS.format(n + 1) for n in range(3)] if named == "numbers" else [
        f"MTS12.tar.gz.part-a{letter}" for letter in "abc"
    ]  # fmt: skip
    site.repos[REPO] = dict(zip(labels, pieces, strict=True))
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert "files: 1," in said
    assert not [file for file in files_of(root / getting.WORK) if "MTS12." in file], "pieces do not stay"
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "nothing to do" in said


def test_a_start_that_stopped_between_pieces_goes_on(site, stbench, names, root, published, monkeypatch):
    site.repos[REPO] = {NUMBERS.format(n + 1): piece for n, piece in enumerate(cut(published[MTS12]))}
    join = getting.join

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(getting, "join", stop)
    assert stbench("get", "mts12", "--accept-terms")[0] != 0
    asked = len([path for path in site.asked if "MTS12.zip.00" in str(path)])
    monkeypatch.setattr(getting, "join", join)
    code, said = stbench("get", "mts12", "--accept-terms", "--keep-archives")
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert len([path for path in site.asked if "MTS12.zip.00" in str(path)]) == asked, "no piece is fetched twice"
    kept = [path for path in (root / getting.WORK).rglob("MTS12.zip") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [published[MTS12]]


@pytest.mark.parametrize("given", ["folder", "first", "last"])
def test_pieces_on_this_machine_stay_as_they_are(stbench, names, root, published, tmp_path, given):
    folder = tmp_path / "mine"
    folder.mkdir()
    pieces = cut(published[MTS12])
    for number, piece in enumerate(pieces, 1):
        (folder / NUMBERS.format(number)).write_bytes(piece)
    address = {"folder": folder, "first": folder / NUMBERS.format(1), "last": folder / NUMBERS.format(3)}[given]
    code, said = stbench("get", "mts12", "--from", address)
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert [(folder / NUMBERS.format(n)).read_bytes() for n in (1, 2, 3)] == pieces
    assert not list((root / getting.WORK).rglob("*.zip"))


@pytest.mark.parametrize("there", [(1, 3), (2, 3), (0, 1, 2)])
def test_a_missing_piece_is_refused_before_anything_is_fetched(site, stbench, root, published, there):
    pieces = cut(published[MTS12])
    site.repos[REPO] = {NUMBERS.format(number): pieces[number % 3] for number in there}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "the pieces of MTS12.zip are not one archive" in said and not root.exists()


def test_the_whole_beside_its_pieces_is_refused(site, stbench, root, published):
    site.repos[REPO] = {NUMBERS.format(n + 1): piece for n, piece in enumerate(cut(published[MTS12]))}
    site.repos[REPO][MTS12] = published[MTS12]
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "nothing of the whole's name" in said
    code, said = stbench("get", "mts12", "--accept-terms", "--files", "*.zip")
    assert code == 0, said


def test_a_missing_last_piece_and_a_changed_one_leave_nothing(site, stbench, root, published, tmp_path):
    pieces = cut(published[MTS12], 4)
    site.repos[REPO] = {NUMBERS.format(n + 1): piece for n, piece in enumerate(pieces[:3])}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "MTS12.zip is a zip archive that is cut off" in said and "the last may be missing" in said
    assert not (root / "MTS12").exists()
    site.repos[REPO] = {NUMBERS.format(n + 1): piece for n, piece in enumerate(pieces)}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0, said
