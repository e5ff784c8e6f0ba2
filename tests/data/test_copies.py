"""Chips that are there twice, under two names or on both sides of the gap."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.sample import write_mts12


def refusal(own) -> str:
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root)
    assert str(own.root) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["symbolic", "absolute", "hard", "folder"])
@pytest.mark.parametrize("other", ["e1_0", "w0_0"])
def test_two_chips_of_one_image(own, kind, other):
    own.image(other).unlink()
    if kind == "hard":
        own.image(other).hardlink_to(own.image("e0_0"))
    elif kind == "folder":
        (own.root / "image" / "again").symlink_to(own.root / "image")
        own.image(other).symlink_to("again/e0_0.tif")
    else:
        own.image(other).symlink_to("e0_0.tif" if kind == "symbolic" else own.image("e0_0"))
    message = refusal(own)
    assert f"the images of the chips 'e0_0' and '{other}' are one file" in message
    assert f"image/e0_0.tif, image/{other}.tif" in message


def test_two_dates_may_share_a_label(own):
    for name in ("e1_0", "w0_0"):  # of the same ground
        own.write_raster(own.image(name), own.pixels(name), "e0_0")
    own.label("e1_0").unlink()
    own.label("e1_0").symlink_to(own.label("e0_0"))
    own.label("w0_0").unlink()
    own.label("w0_0").hardlink_to(own.label("e0_0"))
    index = build_index(own.benchmark(), own.root)
    assert list(index.frame.loc["e1_0", "label_counts"]) == list(index.frame.loc["e0_0", "label_counts"])


def test_an_image_is_not_its_own_label(own):
    own.definition["layout"]["label"] = own.definition["layout"]["image"]
    assert "the chip 'e0_0' has its image for a label" in refusal(own)


def test_an_image_of_the_source_is_none_of_the_target(own):
    own.write_raster(own.image("w1_0"), own.pixels("e1_1"), "w1_0")
    message = refusal(own)
    assert "'e1_1' of the source and 'w1_0' of the target hold the same pixels" in message
    assert "remove image/e1_1.tif or image/w1_0.tif" in message


@pytest.mark.parametrize("change", [lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: np.rot90(x, axes=(1, 2))])
def test_neither_is_one_that_is_turned_or_in_another_type(own, change):
    pixels = change(own.pixels("e1_1")).astype("float32")
    own.write_raster(own.image("w1_0"), pixels, "w1_0")
    assert "hold the same pixels" in refusal(own)


def test_copies_within_a_side_are_noted(own):
    own.write_raster(own.image("e0_0"), own.pixels("e1_1"), "e0_0")
    index = build_index(own.benchmark(), own.root)
    assert index.notes == ("1 chips hold the same pixels as another, for example e0_0 and e1_1",)


def test_blank_images_are_alike_and_images_that_differ_in_a_pixel_are_not_the_same(own):
    for name in ("e0_0", "w0_0"):
        own.write_raster(own.image(name), np.full((3, 16, 16), 7, "uint16"), name)
    pixels = own.pixels("e1_1")
    pixels[0, 0, 0] += 1
    own.write_raster(own.image("w1_0"), pixels, "w1_0")
    assert build_index(own.benchmark(), own.root).notes == ()


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("Straße", "STRASSE"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_differ_only_by_capitals_or_accents(own, one, other):
    for name, row in zip((one, other), own.rows, strict=False):
        own.image(row["name"]).rename(own.image(name))
        own.label(row["name"]).rename(own.label(name))
        row["name"] = name
    own.write_table()
    message = refusal(own)
    assert "differ only by capitals or accents" in message and repr(one) in message and repr(other) in message


def test_a_row_that_is_there_twice(own):
    own.rows.append(own.rows[3])
    own.write_table()
    assert "1 chip names occur more than once, for example 'e1_1'" in refusal(own)


def test_published_data_are_what_they_are_and_get_a_note(tmp_path):
    write_mts12(tmp_path / "MTS12", chip=16, north=8, south=4)
    benchmark = builtin_benchmarks()["mts12-n2s"]
    first = build_index(benchmark, tmp_path)
    north, south = (first.frame[first.frame["domain"] == side].iloc[0]["image"] for side in ("north", "south"))
    shutil.copyfile(first.root / north, first.root / south)
    (note,) = [note for note in build_index(benchmark, tmp_path).notes if "same pixels" in note]
    assert note.endswith("; 1 images are in source and target")
