"""Faults of single files in a copy of a dataset: each found by its name, while the other files are looked at."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from spectral_tl_bench.data import index as index_module
from spectral_tl_bench.data.domains import TABLE
from spectral_tl_bench.data.scan import scan_chip
from spectral_tl_bench.data.source import DataSource
from spectral_tl_bench.data.sources import progress
from spectral_tl_bench.data.verify import Verdict, verify
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.sample import write_dfc2020
from tests.data.test_domains import shipped, table_of, without_places
from tests.data.test_verify import CITY, DFC, complete, copy, standardise
from tests.tiny import run_main

__all__ = ["copy", "shipped"]
CHIP = f"ROIs0000_spring_s2_{CITY}_p0"
VERIFY = ["data", "verify", "dfc2020-spring"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the chips that were opened."""
    names: list[str] = []

    def scan(base, chip, *more):
        names.append(chip.chip)
        return scan_chip(base, chip, *more)

    monkeypatch.setattr(index_module, "scan_chip", scan)
    return names


def image_of(root: Path) -> Path:
    return root / f"DFC2020/spring/image/s2_{CITY}/{CHIP}.tif"


def label_of(root: Path) -> Path:
    return root / f"DFC2020/spring/label/dfc_{CITY}/{CHIP.replace('_s2_', '_dfc_')}.tif"


def edit(path: Path, what: Callable[[np.ndarray], np.ndarray] = np.asarray, **profile: object) -> None:
    with rasterio.open(path) as source:
        pixels, facts = what(source.read()), dict(source.profile)
    facts |= {"dtype": pixels.dtype, "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", **facts | profile) as target:
        target.write(pixels)


def set_tags(root: Path) -> None:
    with rasterio.open(image_of(root), "r+") as file:
        file.scales, file.offsets = [0.0001] * file.count, [-0.1] * file.count


def set_mask(root: Path) -> None:
    with rasterio.open(image_of(root), "r+") as file:
        mask = np.full(file.shape, 255, dtype=np.uint8)
        mask[:4] = 0
        file.write_mask(mask)


def shift(root: Path, pixels: float) -> None:
    with rasterio.open(image_of(root)) as file:
        place = file.transform
    edit(image_of(root), transform=place @ Affine.translation(pixels, 0))


def left(value: float, kind: str = "") -> Callable[[np.ndarray], np.ndarray]:
    """Three columns of that value."""

    def what(pixels: np.ndarray) -> np.ndarray:
        return np.where(np.arange(pixels.shape[-1]) < 3, value, pixels).astype(kind or pixels.dtype)

    return what


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "z-scores": (lambda root: edit(image_of(root), standardise), f"{CHIP}: values are standardised already"),
    "reflectance": (
        lambda root: edit(image_of(root), lambda pixels: (pixels / 10_000).astype("float32")),
        f"{CHIP}: the mean reflectance would be",
    ),
    "float32": (
        lambda root: edit(image_of(root), lambda pixels: pixels.astype("float32")),
        f"1 of 56 images hold pixels of another type:\n    {CHIP}: float32\n  expected: uint16 or int16, as published",
    ),
    "uint8": (
        lambda root: edit(image_of(root), lambda pixels: pixels.clip(0, 255).astype("uint8")),
        f"1 of 56 images hold pixels of another type:\n    {CHIP}: uint8",
    ),
    "bands": (lambda root: edit(image_of(root), lambda pixels: pixels[:12]), f"{CHIP}: 12 bands"),
    "size": (
        lambda root: [edit(path(root), lambda pixels: pixels[:, :24, :24]) for path in (image_of, label_of)],
        f"{CHIP}: 24x24 px",
    ),
    "tags": (set_tags, f"1 of 56 images carry scale and offset tags, the others none:\n    {CITY}: 1 of its images"),
    "CRS": (
        lambda root: edit(image_of(root), crs="EPSG:32633"),
        "the label's CRS is EPSG:32632, its image's EPSG:32633",
    ),
    "half a pixel": (lambda root: shift(root, 0.5), "the label lies 0.50 pixels beside"),
    "three pixels": (lambda root: shift(root, 3), "covers 91% of the image"),
    "NaN": (
        lambda root: edit(image_of(root), left(np.nan, "float32")),
        "note: 1 chips have NaN, masked or nodata pixels: 96 px",
    ),
    "nodata": (
        lambda root: edit(image_of(root), left(0), nodata=0),
        "note: 1 chips have NaN, masked or nodata pixels: 96 px",
    ),
    "mask": (set_mask, "note: 1 chips have NaN, masked or nodata pixels: 128 px"),
    "blank": (
        lambda root: edit(image_of(root), np.zeros_like),
        f"note: 1 images are one value throughout, for example {CHIP}",
    ),
    "label value": (
        lambda root: edit(label_of(root), left(99)),
        f"note: the label value 99 of 1 chips, for example {CHIP}, is not in the label map: void",
    ),
    "void": (lambda root: edit(label_of(root), np.zeros_like), "note: 1 chips without a labelled pixel are left out"),
    "no label": (lambda root: label_of(root).unlink(), "1 of 56 images have no label, for example spring/image"),
    "no image": (lambda root: image_of(root).unlink(), "1 of 56 labels have no image, for example spring/label"),
    "name": (
        lambda root: shutil.copy(image_of(root), image_of(root).with_name("copy of p0.tif")),
        "the file name 'copy of p0.tif' is not one of DFC2020\n  where: ",
    ),
    "truncated": (
        lambda root: image_of(root).write_bytes(image_of(root).read_bytes()[:900]),
        "replace these files; a partial download is the usual cause",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_file_is_found_by_its_name_and_the_others_go_on(copy, cache, monkeypatch, capsys, fault):
    plant, said = FAULTS[fault]
    complete(monkeypatch)
    assert run_main(monkeypatch, [*VERIFY, f"--data-root={copy}"]) == 0
    assert said not in capsys.readouterr().out
    plant(copy)
    code = run_main(monkeypatch, [*VERIFY, f"--data-root={copy}"])
    printed = capsys.readouterr().out
    assert said in printed and "See previous exception" not in printed
    assert code == (0 if said.startswith("note: ") and fault != "NaN" else 2), "notes are no faults; NaN needs floats"
    if code:
        assert "not sound" in printed and "is of an earlier look" in printed
    rows = {line.split()[0]: line for line in printed.splitlines() if " rules hold" in line}
    assert len(rows) == 7, "every domain was looked at"
    assert rows[CITY].split()[1] in ("7", "8") and rows["Mumbai"].split()[1] == "8"


def look(root: Path) -> Verdict:
    return verify(DFC, DataSource("files", root, ""))


def test_faults_of_all_kinds_are_said_at_once(copy, cache):
    images = sorted(image_of(copy).parent.glob("*.tif"))
    edit(images[1], lambda pixels: pixels[:12])
    edit(images[2], lambda pixels: pixels[:, :24, :24])
    edit(images[3], lambda pixels: pixels.astype("float32"))
    with rasterio.open(images[4], "r+") as file:
        file.scales = [0.0001] * file.count
    shutil.rmtree(copy / "DFC2020/winter")
    faults = "\n".join(look(copy).faults)
    for said in ("another number of bands", "mixed sizes", "another type", "scale and offset tags", "chips of 32x32 px",
                 "no chip of domain KippaRing, MexicoCity", "Chabarovsk has 8 chips, published are 486"):  # fmt: skip
        assert faults.count(said) == 1, said


def test_one_half_of_a_copy_is_looked_at(trees, cache, tmp_path):
    from spectral_tl_bench.benchmarks import builtin_benchmarks

    shutil.copytree(trees / "WHU-OHS/transfer-STall/source", tmp_path / "WHU-OHS/transfer-STall/source")
    found = verify(builtin_benchmarks()["whuohs-s2t"], DataSource("files", tmp_path, ""))
    assert any("only one half of WHU-OHS is here" in fault for fault in found.faults)
    assert dict(count[:2] for count in found.counts)["S1"] == 4 and len(found.findings) == 8


def test_the_copy_that_was_cut_again_is_refused_with_the_reason(cache, tmp_path):
    write_dfc2020(tmp_path / "DFC2020", chip=96, chips_per_city=1)
    found = look(tmp_path)
    assert any("chips of 96 x 96 px" in fault and "cut again with overlap" in fault for fault in found.faults)


def test_each_file_is_opened_once_and_a_second_look_opens_what_has_changed(copy, opened, monkeypatch):
    look(copy)
    assert len(opened) == len(set(opened)) == 56, "a copy that is not sound"
    opened.clear()
    look(copy)
    assert opened == []
    edit(image_of(copy), lambda pixels: pixels + 1)
    complete(monkeypatch)
    assert look(copy).sound and opened == [CHIP]


def test_a_sound_copy_is_opened_once(copy, opened, monkeypatch):
    complete(monkeypatch)
    assert look(copy).sound and len(opened) == 56


def test_what_was_read_before_an_interruption_is_kept(copy, opened, monkeypatch):
    real = index_module.scan_chip

    def scan(base, chip, *more):
        if len(opened) == 40:
            raise KeyboardInterrupt
        return real(base, chip, *more)

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "scan_chip", scan)
        patch.setattr(index_module, "available_cores", lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            look(copy)
    before = set(opened)
    opened.clear()
    assert len(look(copy).frame) == 56
    assert len(opened) == 16 and not before & set(opened)


def test_it_says_how_far_it_is(copy, cache, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    lines: list[str] = []
    verify(DFC, DataSource("files", copy, ""), lines.append)
    assert len(lines) == 56 and all("/s, " in line and line.endswith(" left") for line in lines)
    assert "(100%)" in lines[-1] and lines[0].startswith("chips read: ")


def test_data_that_cannot_be_written_to_are_sound_all_the_same(copy, cache, monkeypatch, capsys, tmp_path):
    complete(monkeypatch)

    def refuse(path: Path, _: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    command = ["data", "verify", "dfc2020-spring", "dfc2020-winter", f"--data-root={copy}"]
    with monkeypatch.context() as patch:
        patch.setattr("spectral_tl_bench.data.verify.write_json", refuse)
        assert run_main(monkeypatch, command) == 0
        printed = capsys.readouterr().out
        assert printed.count(": sound; 56 chips") == 2 and printed.count("Read-only file system") == 2
        assert "--manifest FILE writes it elsewhere" in printed
        assert run_main(monkeypatch, [*VERIFY, f"--data-root={copy}", f"--manifest={tmp_path / 'm.json'}"]) == 2
    (tmp_path / "manifests").mkdir()
    assert run_main(monkeypatch, [*command, f"--manifest={tmp_path / 'manifests'}"]) == 0
    for name in ("dfc2020-spring", "dfc2020-winter"):
        assert json.loads((tmp_path / f"manifests/stbench-manifest-{name}.json").read_text())["chips"]
    capsys.readouterr()
    assert run_main(monkeypatch, [*command, f"--manifest={tmp_path / 'm.json'}"]) == 2
    assert "name a folder that is there" in capsys.readouterr().err


def test_a_place_for_the_manifest_that_cannot_be_is_said_before_anything_is_read(copy, opened, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    assert run_main(monkeypatch, [*VERIFY, f"--data-root={copy}", f"--manifest={tmp_path / 'file' / 'm.json'}"]) == 2
    assert opened == []


def test_a_table_of_domains(shipped, cache, monkeypatch, capsys, tmp_path):
    root, domains = shipped
    without_places(root)
    table = tmp_path / "mine.csv"
    command = [*VERIFY, f"--data-root={root}"]
    assert run_main(monkeypatch, command) == 2
    assert "neither name nor place tells it" in capsys.readouterr().out
    table.write_text(table_of(domains).replace("Mumbai", "Munich", 1))
    assert run_main(monkeypatch, [*command, f"--domains={table}"]) == 2
    assert "domain 'Munich'" in capsys.readouterr().out and not (root / TABLE).exists()
    table.write_text(table_of(domains))
    assert run_main(monkeypatch, [*command, f"--domains={table}"]) == 2
    printed = capsys.readouterr().out
    assert "Mumbai has 8 chips, published are 900" in printed and "it was found in a table" in printed
    assert (root / TABLE).read_text() == table.read_text()


def test_without_the_data_set_there_is_nothing_to_look_at(cache, tmp_path):
    with pytest.raises(DataError, match="no DFC2020 data for dfc2020-spring was found"):
        look(tmp_path)
