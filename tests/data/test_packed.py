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
from packs import assert_same_samples, both, make_pack
from safetensors.numpy import load_file
from test_domains import shipped  # noqa: F401 - a fixture
from test_placement import TURNS, rewrite
from test_units import tag
from vrts import three

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

LAYOUTS = ("whuohs-s2t", "whuohs-id", "dfc2020-autumn", "dfc2020-id", "mts12-n2s")


# --------------------------------------------------------------------------------------------------- the same samples


@pytest.mark.parametrize("name", LAYOUTS)
def test_samples_of_every_layout(name, trees, tmp_path):
    benchmark = builtin_benchmarks()[name]
    plain, packed = both(benchmark, trees, tmp_path)
    assert assert_same_samples(benchmark, plain, packed) == len(packed.frame)
    assert packed.manifest == plain.manifest and packed.places == plain.places and packed.notes == plain.notes


def test_samples_of_the_layout_that_copernicus_bench_ships(shipped, tmp_path):  # noqa: F811
    benchmark = builtin_benchmarks()["dfc2020-spring"]
    assert assert_same_samples(benchmark, *both(benchmark, shipped[0], tmp_path / "out")) == len(shipped[1])


def holes_in_a_band(own):
    for name in ("e0_0", "w0_0"):
        values = own.pixels(name).astype("int16")
        values[1, 2, 3] = values[:, 7, 7] = -9999
        own.write_raster(own.image(name), values, name, nodata=-9999)


def holes_in_all_bands(own):
    for name in ("e0_0", "e1_1", "w0_0"):
        values = own.pixels(name)
        values[:, 4:6, 5] = 0
        own.write_raster(own.image(name), values, name, nodata=0)


def masks(own):
    for name in ("e0_1", "w1_0"):
        with rasterio.open(own.image(name), "r+") as file:
            file.write_mask(np.arange(256).reshape(16, 16) % 7 > 0)


def not_finite(own):
    for row in own.rows:
        values = own.pixels(row["name"]).astype("float32") / 3
        values[2, 1, 1:4] = np.nan, np.inf, -np.inf
        own.write_raster(own.image(row["name"]), values, row["name"])


def turned(own):
    for number, row in enumerate(own.rows):
        rewrite(own.image(row["name"]), TURNS[number % 8])


def hidden_labels(own):
    for name in ("e0_0", "w0_1"):
        with rasterio.open(own.label(name), "r+") as file:
            file.write_mask(np.arange(256).reshape(16, 16) % 5 > 0)


def a_vrt(own):
    own.image("e0_0").rename(own.root / "pixels.tif")
    own.image("e0_0").write_text(three("../pixels.tif", relative=1))


def typed(dtype):
    def change(own):
        for row in own.rows:
            own.write_raster(own.image(row["name"]), (own.pixels(row["name"]) % 120).astype(dtype), row["name"])

    return change


KINDS = {
    "as they are": (lambda own: None, {}),
    "holes in a band": (holes_in_a_band, {"nodata": "fill"}),
    "holes in a band, void": (holes_in_a_band, {"nodata": "void"}),
    "holes in all bands": (holes_in_all_bands, {"nodata": "void"}),
    "holes wherever a band has one": (holes_in_all_bands, {"nodata": "fill", "nodata_in": "any"}),
    "masks": (masks, {"nodata": "fill"}),
    "not finite": (not_finite, {"nodata": "fill"}),
    "turned": (turned, {}),
    "hidden labels": (hidden_labels, {}),
    "a VRT": (a_vrt, {}),
    "scaled": (lambda own: tag(own, "ew", (2.0, 0.5, 1.0), (0.0, 3.0, -1.0)), {}),
    **{dtype: (typed(dtype), {}) for dtype in ("uint8", "int8", "uint32", "float64")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_kind_of_file(own, kind, tmp_path):
    change, rules = KINDS[kind]
    change(own)
    benchmark = own.benchmark(**rules)
    plain, packed = both(benchmark, own.root, tmp_path / "out")
    assert len(packed.frame["crs"].unique()) == 2
    assert assert_same_samples(benchmark, plain, packed) == 10


def test_samples_without_labels(own, tmp_path):
    holes_in_a_band(own)
    benchmark = own.benchmark(nodata="void")
    assert assert_same_samples(benchmark, *both(benchmark, own.root, tmp_path / "out"), labels=False) == 10


def test_samples_without_a_crs(own_without_crs, tmp_path):
    benchmark = own_without_crs.benchmark()
    assert assert_same_samples(benchmark, *both(benchmark, own_without_crs.root, tmp_path / "out")) == 10


def test_pixels_are_kept_in_the_type_of_the_files(own, tmp_path):
    tensors = [load_file(shard) for shard in make_pack(own.benchmark(), own.root, tmp_path)]
    pixels = [value for shard in tensors for name, value in shard.items() if name.endswith(".pixels")]
    assert len(tensors) == 2, "one for each domain: what is open of the source holds nothing of the target"
    assert {value.dtype for value in pixels} == {np.dtype("uint16")} and len(pixels) == 10
    assert {value.tobytes() for value in pixels} == {own.pixels(row["name"]).tobytes() for row in own.rows}


def test_splits_statistics_and_batches(own, tmp_path):
    benchmark = own.benchmark()
    sources = []
    for index in both(benchmark, own.root, tmp_path / "out"):
        split = make_split(benchmark, index, 0)
        source = SourceData(benchmark, index, split, LoaderSettings(8, 4, 2), 3)
        assert source.validation.only([]).rows == {}
        part = source.validation.only(list(source.validation.rows)[:1])
        batches = list(source.train_loader(6, labelled=True, stage="one")) + list(source.sweep_loader(labelled=True))
        sources.append((split.hash, source.statistics, batches, list(part.loader()), part))
    (hash_0, one, first, windows, _), (hash_1, other, second, packed_windows, part) = sources
    assert part.collection.datasets[0].packed.places, "some of the chips are read from there as well"
    assert hash_0 == hash_1 and np.array_equal(one.mean, other.mean) and np.array_equal(one.std, other.std)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(windows, packed_windows, strict=True))


def test_reader_processes_have_the_same(own, tmp_path):
    benchmark = own.benchmark()
    batches = []
    for index in both(benchmark, own.root, tmp_path / "out"):
        source = SourceData(benchmark, index, make_split(benchmark, index, 0), LoaderSettings(8, 4, 2, workers=1), 3)
        batches.append([batch["image"] for batch in source.train_loader(2, labelled=False, stage="one")])
    assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


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
