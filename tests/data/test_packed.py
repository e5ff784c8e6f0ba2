"""Packed chips are what their files are, to the last bit; of what is no such pack nothing is used or trusted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from packs import assert_same_samples, both, holes_in_all_bands, make_pack
from test_domains import shipped  # noqa: F401 - a fixture

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data import packed as packed_module
from spectral_tl_bench.data import rasters
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, SourceData, TargetImages
from spectral_tl_bench.data.packed import (
    PackedChips,
    chip_key,
    find_packed,
    pack_name,
    read_pack,
    read_shard,
    reading_key,
)
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import DataError

# ----------------------------------------------------------------------------------------------------------- the wall


def test_what_training_holds_names_no_chip_of_the_target_and_images_alone_no_label(own, tmp_path):
    benchmark = own.benchmark()
    _, index = both(benchmark, own.root, tmp_path / "out")
    split, settings = make_split(benchmark, index, 0), LoaderSettings(8, 4, 2)
    source = SourceData(benchmark, index, split, settings, 0)
    content = pickle.dumps(source)
    assert [name for name in split.chips("train") if name.encode() in content]
    assert not [name for name in split.chips("target") if name.encode() in content]
    shards = {place.shard.path for place in index.packed.of(split.chips("target")).places.values()}
    assert not [path for path in shards if path.encode() in content], "not even the files that hold them"
    images = TargetImages(benchmark, index, split.chips("target"), settings, source.statistics)
    assert {one.classes for data in images.collection.datasets for one in data.packed.places.values()} == {-1}
    assert EvaluationData(benchmark, index, split.chips("target"), settings, source.statistics).collection


# ------------------------------------------------------------------------------------------ stale, damaged, foreign


def chips_from(index) -> int:
    return len(index.packed.places)


def test_a_changed_file_is_read_from_the_file(own, tmp_path):
    benchmark, out = own.benchmark(), tmp_path / "out"
    make_pack(benchmark, own.root, out)
    own.write_raster(own.image("e0_0"), own.pixels("e0_0") + np.uint16(1), "e0_0")
    own.write_raster(own.label("w0_0"), 3 - own.labels("w0_0")[None], "w0_0")
    index = build_index(benchmark, own.root, packed=out)
    assert set(index.frame.index) - set(index.packed.places) == {"e0_0", "w0_0"}
    assert "8 of 10 chips are packed" in index.packed.line
    dataset = rasters.open_datasets(benchmark, index, ["e0_0"])[0]
    assert np.array_equal(dataset.read_window(0, 0, 0, 16, 16)["image"].numpy(), own.pixels("e0_0").astype("float32"))
    make_pack(benchmark, own.root, out)
    assert chips_from(build_index(benchmark, own.root, packed=out)) == 10, "only what is new is packed then"


def test_a_tag_that_makes_old_bytes_other_pixels_counts(own, tmp_path):
    benchmark, out = own.benchmark(nodata="fill"), tmp_path / "out"
    make_pack(benchmark, own.root, out)
    value = int(own.pixels("e0_0")[0, 0, 0])
    with rasterio.open(own.image("e0_0"), "r+") as file:
        file.nodata = value
    assert "e0_0" not in build_index(benchmark, own.root, packed=out).packed.places


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_file_that_changes_after_it_was_indexed_ends_the_reading(own, tmp_path, which, monkeypatch):
    benchmark = own.benchmark()
    _, index = both(benchmark, own.root, tmp_path / "out")
    dataset = rasters.open_datasets(benchmark, index, ["e0_0"])[0]
    dataset.read_window(0, 0, 0, 8, 8)
    path = getattr(own, which)("e0_0")
    os.utime(path, ns=(1, 1))
    dataset.read_window(0, 0, 0, 8, 8)  # it was looked at a moment ago
    monkeypatch.setattr(packed_module, "CHECK_EVERY", 0.0)
    with pytest.raises(DataError, match="a file has changed since it was indexed"):
        dataset.read_window(0, 0, 0, 8, 8)
    fresh = rasters.open_datasets(benchmark, index, ["e0_0"], labels=which == "image")[0]
    with pytest.raises(DataError) if which == "image" else np.errstate():
        fresh.read_window(0, 0, 0, 8, 8)  # whoever reads no labels does not mind theirs


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"void": [0, 3], "classes": [{"name": "a", "colour": "#0b6623", "raw": [1]},
                                                {"name": "b", "colour": "#1f5fc0", "raw": [2]}]}},
        {"nodata": "void"},
        {"nodata_in": "any"},
        {"labels": {"align": "pixels"}},
    ],
    ids=str,
)  # fmt: skip
def test_another_way_of_reading_is_another_pack(own, tmp_path, change):
    benchmark = own.benchmark()
    make_pack(benchmark, own.root, tmp_path)
    labels = own.definition["labels"] | change.get("labels", {})
    other = own.benchmark(**change | {"labels": labels})
    assert pack_name(other) != pack_name(benchmark)
    assert chips_from(build_index(other, own.root, packed=tmp_path)) == 0


def test_benchmarks_that_read_alike_share_a_pack(trees, tmp_path):
    made = builtin_benchmarks()
    for names in (
        ["dfc2020-spring", "dfc2020-summer", "dfc2020-autumn", "dfc2020-winter"],
        ["whuohs-s2t", "whuohs-t2s"],
    ):
        make_pack(made[names[0]], trees, tmp_path)
        for name in names[1:]:
            index = build_index(made[name], trees, packed=tmp_path)
            assert chips_from(index) == len(index.frame)
    assert len({reading_key(benchmark) for name, benchmark in made.items() if name != "whuohs-id"}) == 3


def test_a_raised_version_of_reading_is_another_pack(own, monkeypatch):
    assert packed_module.READING_VERSION == rasters.NUMERICS_VERSION, "raise both"
    before = pack_name(own.benchmark())
    monkeypatch.setattr(packed_module, "READING_VERSION", 2)
    assert pack_name(own.benchmark()) != before


def test_chips_are_found_wherever_the_files_are_and_whatever_their_times(own, tmp_path):
    benchmark = own.benchmark()
    make_pack(benchmark, own.root, tmp_path / "out")
    shutil.copytree(own.root, tmp_path / "copy")
    index = build_index(benchmark, tmp_path / "copy", packed=tmp_path / "out")
    assert chips_from(index) == 10
    keys = {chip_key(row) for row in index.frame.to_dict("records")}
    assert keys == {chip_key(row) for row in build_index(benchmark, own.root).frame.to_dict("records")}


def spoiled(path: Path, change) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def of_a_chip(name: str, **facts):
    """Change what a header says of its first tensor of a kind."""

    def change(header):
        key = next(key for key in header if key.endswith(f".{name}"))
        header[key] |= facts

    return change


def manifest(**facts):
    def change(header):
        said = json.loads(header["__metadata__"]["stbench"])
        header["__metadata__"]["stbench"] = json.dumps(said | facts)

    return change


BAD = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "no JSON": lambda path: path.write_bytes((20).to_bytes(8, "little") + b"x" * 2000),
    "deep JSON": lambda path: path.write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5),
    "a list": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"),
    "a header of 16 EiB": lambda path: path.write_bytes(b"\xff" * 2000),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"a": np.zeros(1000, dtype=object)})),
    "objects": lambda path: spoiled(path, of_a_chip("pixels", dtype="O")),
    "negative": lambda path: spoiled(path, of_a_chip("pixels", data_offsets=[-1536, 0])),
    "beyond the end": lambda path: spoiled(path, of_a_chip("pixels", data_offsets=[10**12, 10**12 + 1536])),
    "huge": lambda path: spoiled(path, of_a_chip("pixels", shape=[3, 10**6, 10**6])),
    "overflowing": lambda path: spoiled(path, of_a_chip("pixels", shape=[2**62, 4, 0])),
    "another shape": lambda path: spoiled(path, of_a_chip("classes", shape=[8, 32])),
    "flat": lambda path: spoiled(path, of_a_chip("pixels", shape=[768])),
    "text for a number": lambda path: spoiled(path, of_a_chip("pixels", data_offsets=["0", "1536"])),
    "booleans": lambda path: spoiled(path, of_a_chip("classes", shape=[True, 256])),
    "another version": lambda path: spoiled(path, manifest(version=2)),
    "another reading": lambda path: spoiled(path, manifest(reading="0" * 16)),
    "no manifest": lambda path: spoiled(path, lambda header: header.pop("__metadata__")),
}


def test_what_is_no_whole_shard_is_not_used(own, tmp_path):
    benchmark = own.benchmark()
    first, second = make_pack(benchmark, own.root, tmp_path)
    content, reading = first.read_bytes(), reading_key(benchmark)
    good = set(read_shard(second, reading))
    for kind, spoil in BAD.items():
        first.write_bytes(content)
        spoil(first)
        places, broken = read_pack(first.parent, reading)
        assert set(places) == good and list(broken) == [first], kind
    first.write_bytes(content)
    assert len(read_pack(first.parent, reading)[0]) == 10


@pytest.mark.parametrize("kind", ["cut short", "objects"])
def test_what_is_not_used_is_said_and_packed_again(own, tmp_path, kind, capsys):
    benchmark = own.benchmark()
    shards = make_pack(benchmark, own.root, tmp_path)
    BAD[kind](shards[0])
    index = build_index(benchmark, own.root, packed=tmp_path)
    assert chips_from(index) in (4, 6), "the other shard is as good as before"
    assert "cannot be used" in capsys.readouterr().err
    assert shards == make_pack(benchmark, own.root, tmp_path)
    assert chips_from(build_index(benchmark, own.root, packed=tmp_path)) == 10


def test_holes_are_holes_whatever_bytes_are_there(own, tmp_path):
    holes_in_all_bands(own)
    benchmark = own.benchmark(nodata="void")
    plain, packed = both(benchmark, own.root, tmp_path / "out")
    place = next(place for place in packed.packed.places.values() if place.holes >= 0)
    content = bytearray(Path(place.shard.path).read_bytes())
    area = slice(place.holes, place.holes + 256)
    content[area] = bytes(200 if byte else 0 for byte in content[area])
    Path(place.shard.path).write_bytes(content)
    packed = build_index(benchmark, own.root, packed=tmp_path / "out")
    assert assert_same_samples(benchmark, plain, packed) == 10


def test_a_pack_that_goes_away_in_between_costs_time_only(own, tmp_path, capsys):
    benchmark = own.benchmark()
    plain, packed = both(benchmark, own.root, tmp_path / "out")
    packed_module._maps.clear()
    shutil.rmtree(tmp_path / "out")
    one, other = (rasters.open_datasets(benchmark, index)[0].read_window(0, 0, 0, 16, 16) for index in (plain, packed))
    assert torch.equal(one["image"], other["image"]) and torch.equal(one["mask"], other["mask"])
    assert "packed chips cannot be read, and their files are" in capsys.readouterr().err


def test_more_shards_than_may_be_open(own, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_module, "MOST_MAPS", 1)
    packed_module._maps.clear()
    benchmark = own.benchmark()
    assert assert_same_samples(benchmark, *both(benchmark, own.root, tmp_path / "out")) == 10
    assert len(packed_module._maps) == 1


# ------------------------------------------------------------------------------------------------------- where it is


def test_where_a_pack_is_looked_for(own, tmp_path, monkeypatch):
    benchmark = own.benchmark()
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    frame = build_index(benchmark, own.root).frame
    assert find_packed(benchmark, frame) == PackedChips(), "none, and no word about it"
    make_pack(benchmark, own.root, tmp_path / "out")
    named = tmp_path / "out" / pack_name(benchmark)
    assert len(find_packed(benchmark, frame, tmp_path / "out").places) == 10
    assert len(find_packed(benchmark, frame, named).places) == 10, "the pack's own folder is found as well"
    monkeypatch.setenv("STBENCH_PACKED", str(tmp_path / "out"))
    assert len(find_packed(benchmark, frame).places) == 10
    assert find_packed(benchmark, frame, "off") == PackedChips()
    monkeypatch.setenv("STBENCH_PACKED", "off")
    assert find_packed(benchmark, frame) == PackedChips()
    monkeypatch.setenv("STBENCH_PACKED", str(tmp_path / "no"))
    assert "no packed chips for it in" in find_packed(benchmark, frame).line, "another node may have it"
    with pytest.raises(DataError, match="no folder of packed chips"):
        find_packed(benchmark, frame, tmp_path / "no")


def test_bounds_and_crs_follow_the_index(own):
    dataset = rasters.open_datasets(own.benchmark(), build_index(own.benchmark(), own.root))[0]
    whole = dataset.bounds
    assert dataset.bounds is whole, "worked out once"
    dataset.index = dataset.index.iloc[:1]
    assert dataset.bounds[0].stop < whole[0].stop and dataset.crs == dataset.index.crs
