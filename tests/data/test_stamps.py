"""What is kept of data is made anew when a file changes that pixels come from, and not when none does."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from vrts import three

from spectral_tl_bench.data import index as index_module
from spectral_tl_bench.data import stamps
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.layouts import ChipFiles
from spectral_tl_bench.data.rasters import open_datasets
from spectral_tl_bench.errors import DataError

CHIP = "e0_0"


def build(own):
    return build_index(own.benchmark(), own.root)


def opened(own, monkeypatch) -> int:
    """How many chips are opened for an index."""
    seen = []
    with monkeypatch.context() as patch:
        row = {"problem": "x", "fault": "file"}
        patch.setattr(index_module, "scan_chip", lambda _, chip, *__: seen.append(chip) or {**row, "chip": chip.chip})
        try:
            build(own)
        except DataError:
            assert seen
    return len(seen)


def replace_unseen(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Put another raster of the same size and time in place of one."""
    status = path.stat()
    other = path.with_name("other")
    shutil.copyfile(path, other)
    with rasterio.open(other, "r+") as file:
        file.write(change(file.read()))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.fixture
def mosaic(own):
    """The data set with one image as a VRT over a VRT over a GeoTIFF."""
    own.image(CHIP).rename(own.root / "source.tif")
    (own.root / "inner.vrt").write_text(three("source.tif", 1))
    own.image(CHIP).write_text(three("../inner.vrt", 1))
    return own


def turn(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, ::-1].copy()


# ------------------------------------------------------------------------------------------------------------ the index


def test_nothing_is_opened_again_while_nothing_changes(mosaic, monkeypatch):
    build(mosaic)
    assert opened(mosaic, monkeypatch) == 0
    mosaic.image("w0_0").read_bytes()
    (mosaic.root / "image" / "notes.txt").write_text("x")
    (mosaic.root / "image" / "e0_0_copy.tif.aux.xml").write_text("x")
    assert opened(mosaic, monkeypatch) == 0


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("what", ["image", "label", "source of a source"])
def test_changed_pixels_are_noticed(mosaic, what, unseen):
    first = build(mosaic)
    path = {"image": mosaic.image("w0_0"), "label": mosaic.label("w0_0")}.get(what, mosaic.root / "source.tif")
    if unseen:
        replace_unseen(path, turn)
    else:
        with rasterio.open(path, "r+") as file:
            file.write(turn(file.read()))
    second = build(mosaic)
    assert second.manifest != first.manifest
    name = CHIP if what == "source of a source" else "w0_0"
    changed = first.frame["content"] != second.frame["content"]
    assert list(first.frame.index[changed]) == [name]


def test_another_source_of_the_same_look_is_noticed(mosaic):
    first = build(mosaic)
    mosaic.write_raster(mosaic.root / "sourc2.tif", turn(mosaic.pixels(CHIP)), CHIP)
    (mosaic.root / "inner.vrt").write_text(three("sourc2.tif", 1))
    assert build(mosaic).manifest != first.manifest


BESIDE = ["{}.aux.xml", "{}.msk", "{}.ovr", "{}.hdr", "{}.wld", "{}w", "{}.MSK", "{}.msk.aux.xml"]
INSTEAD = [".tfw", ".TFW", ".tifw", ".wld", ".hdr", ".aux.xml", ".tab", ".aux"]


@pytest.mark.parametrize("where", ["image", "label", "source"])
def test_a_file_beside_a_raster_is_noticed_when_it_comes_changes_and_goes(mosaic, where):
    path = {"image": mosaic.image("w0_0"), "label": mosaic.label("w0_0")}.get(where, mosaic.root / "source.tif")
    chip = mosaic.image(CHIP) if where == "source" else path
    for ending in (*BESIDE, *INSTEAD):
        other = Path(ending.format(path)) if "{}" in ending else path.with_suffix(ending)
        assert other not in stamps.Walk([mosaic.root]).files(chip)
        shutil.copyfile(path, other)  # masks have to be TIFFs; of the others only the stamp is looked at here
        assert other in stamps.Walk([mosaic.root]).files(chip), ending
        before = stamps.stamp(other)
        os.utime(other, (1, 1))
        assert stamps.stamp(other) != before
        other.unlink()


def test_a_mask_that_comes_later_is_looked_at(own, monkeypatch):
    build(own)
    assert opened(own, monkeypatch) == 0
    own.write_raster(Path(f"{own.image(CHIP)}.msk"), np.full((1, 16, 16), 255, "uint8"), CHIP)
    assert opened(own, monkeypatch) == 1


def test_a_folder_that_cannot_be_listed_is_asked_for_each_file(own, monkeypatch):
    mask = Path(f"{own.image(CHIP)}.msk")
    own.write_raster(mask, np.full((1, 16, 16), 255, "uint8"), CHIP)

    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert stamps.Walk([own.root]).files(own.image(CHIP)) == [own.image(CHIP), mask]


def test_the_index_is_found_however_the_folder_is_called(own, monkeypatch, tmp_path):
    build(own)
    (tmp_path / "link").symlink_to(own.root)
    monkeypatch.chdir(own.root.parent)
    for name in (Path(own.root.name), tmp_path / "link"):
        with monkeypatch.context() as patch:
            patch.setattr(index_module, "scan_chip", lambda *_: pytest.fail("a chip was opened"))
            assert len(build_index(own.benchmark(), name).frame) == 10


def test_the_status_time_alone_costs_a_scan_and_changes_nothing(own, monkeypatch):
    first = build(own)
    own.image(CHIP).chmod(0o600)
    assert opened(own, monkeypatch) == 1
    assert build(own).manifest == first.manifest


# ------------------------------------------------------------------------------------------------------------ the clock


@pytest.mark.parametrize(
    ("age", "fraction", "waits"),
    [(1.0, 5, 0.0), (0.03, 5, 0.02), (0.0, 5, 0.05), (-100.0, 5, 0.05), (1.0, 0, 1.1), (3.0, 0, 0.0), (-5.0, 0, 2.1)],
)
def test_a_file_that_was_just_changed_is_stamped_when_a_later_change_would_show(monkeypatch, age, fraction, waits):
    changed = 1_700_000_000 * 10**9 + fraction
    slept = []
    monkeypatch.setattr(stamps.time, "time", lambda: changed / 1e9 + age)
    monkeypatch.setattr(stamps.time, "sleep", slept.append)
    stamps._let_the_clock_move([("old", 1, 1, 1), ("new", 1, 1, changed)])
    assert sum(slept) == pytest.approx(waits, abs=1e-5)


def test_changes_in_quick_succession_are_each_noticed(own):
    seen = set()
    for value in range(1, 6):
        replace_unseen(own.label(CHIP), lambda label: np.roll(label, 1))  # same size, same time, same histogram
        seen.add(build(own).manifest)
        assert len(seen) == value


# ------------------------------------------------------------------------------------------------------------ reading


def read(own, index, labels: bool = True) -> None:
    for dataset in open_datasets(own.benchmark(), index, labels=labels):
        for number, _ in enumerate(dataset.chip_rows()):
            dataset.read_window(number, 0, 0, 16, 16)


@pytest.mark.parametrize("what", ["image", "label", "source of a source"])
def test_a_file_that_changes_between_the_index_and_reading_is_no_result(mosaic, what):
    index = build(mosaic)
    read(mosaic, index)
    path = {"image": mosaic.image("w0_0"), "label": mosaic.label("w0_0")}.get(what, mosaic.root / "source.tif")
    with rasterio.open(path, "r+") as file:
        file.write(turn(file.read()))
    with pytest.raises(DataError, match="a file has changed since it was indexed") as caught:
        read(mosaic, index)
    assert str(path) in str(caught.value) and "run again" in str(caught.value)
    read(mosaic, build(mosaic))


def test_what_only_changes_the_status_does_not_end_a_run(own):
    index = build(own)
    own.image(CHIP).chmod(0o600)
    (own.root / "backup").hardlink_to(own.label(CHIP))
    read(own, index)


def test_a_dataset_without_labels_does_not_know_their_files(own):
    index = build(own)
    own.label(CHIP).unlink()
    read(own, index, labels=False)
    for dataset in open_datasets(own.benchmark(), index, labels=False):
        for row in dataset.chip_rows():
            assert row["image_files"] and not {"label", "label_files"} & row.keys()


@pytest.mark.parametrize("slow", [-1.0, 1e9])
def test_threads_look_at_what_is_slow_and_find_the_same(own, monkeypatch, slow):
    rows = [
        ChipFiles(row["name"], "east", "", f"image/{row['name']}.tif", f"label/{row['name']}.tif") for row in own.rows
    ]
    rows.append(ChipFiles("gone", "east", "", "image/gone.tif", "label/gone.tif"))
    usual = stamps.stamp_chips(own.root, rows, (own.root,), False, 3)
    seen = set()
    real = stamps.Walk.chip
    monkeypatch.setattr(stamps.Walk, "chip", lambda *what: seen.add(threading.get_ident()) or real(*what))
    monkeypatch.setattr(stamps, "AT_ONCE", 2)
    monkeypatch.setattr(stamps, "SLOW", slow)
    assert stamps.stamp_chips(own.root, rows, (own.root,), False, 3) == usual
    assert (seen == {threading.get_ident()}) == (slow > 0)
    assert usual[-1].image[0][1:] == (0, 0, 0), "a missing file is one without a size"


@pytest.mark.parametrize("name", ["{stem}.TIF.AUX.XML", "{stem}.tif.msk", "{stem}.TFW", "{stem}.hdr"])
def test_a_sidecar_is_found_whatever_its_letters(own, name):
    path = own.image(CHIP)
    other = path.with_name(name.format(stem=path.stem))
    shutil.copyfile(path, other) if name.endswith("msk") else other.write_text("")
    assert stamps.Walk((own.root,)).files(path) == [path, other]
    assert stamps.Walk((own.root,)).files(own.label(CHIP)) == [own.label(CHIP)]
