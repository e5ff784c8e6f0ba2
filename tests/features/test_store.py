"""Features on disk: what is written is read, what is damaged is found and mended, disks do not fill."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.features.modules import FeatureMaps
from spectral_tl_bench.features.store import (
    CARD_FILE,
    FeatureError,
    FeatureIdentity,
    check_room,
    feature_folder,
    find_or_write,
    level_file,
    read_features,
    write_features,
)
from spectral_tl_bench.storage import room

ROWS = 5
SHAPES = [(ROWS, 4, 3, 3), (ROWS, 2, 1, 1)]


def identity(**changes) -> FeatureIdentity:
    fields = {
        "backbone": {"name": "toy"}, "seed": 0, "weights": "w", "extractor": "m:f", "levels": (0, 1), "kept": (0, 1),
        "dataset": "toy", "bands": ("a",), "wavelengths": (0.5,), "gsd": 10.0, "nodata": "mean", "mean": (0.1,),
        "std": (1.0,), "chips": (("one", "c0", 32, 32),), "window": 16, "stride": 16, "copies": 1, "dtype": "float32",
        "device": "cpu", "numerics": {"data": "1"}, "code": {"torch": "t"},
    }  # fmt: skip
    return FeatureIdentity(**{**fields, **changes})


def maps() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def batches(size: int = 2):
    for start in range(0, ROWS, size):
        yield FeatureMaps([one[start : start + size] for one in maps()], 16)


def write(folder, **changes):
    return write_features(folder, identity(**changes), SHAPES, batches())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_written_is_read(tmp_path, dtype):
    write(tmp_path, dtype=dtype)
    found = read_features(tmp_path, identity(dtype=dtype))
    rows = [4, 0, 4]
    kind = getattr(torch, dtype)
    for got, one in zip(found.rows(rows).maps, maps(), strict=True):
        assert got.dtype == kind and torch.equal(got, one.to(kind)[rows])
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again._arrays is None and torch.equal(again.rows([1]).maps[0], found.rows([1]).maps[0])
    assert found.rows(rows).shape[0] == 3 and found.rows(rows).shape[2:] == (16, 16)


def test_only_kept_levels_are_stored_and_only_wanted_ones_read(tmp_path):
    write_features(tmp_path, identity(kept=(1,)), SHAPES[1:], batches())
    assert not level_file(tmp_path, 0).exists()
    first, second = read_features(tmp_path, identity(kept=(1,))).rows([2, 3]).maps
    assert first.shape == (2, 0) and torch.equal(second, maps()[1][[2, 3]])


def cut_short(folder):
    path = level_file(folder, 0)
    path.write_bytes(path.read_bytes()[:-8])


def change_values(folder):
    array = np.load(level_file(folder, 1), mmap_mode="r+")
    array[2] += 1
    array.flush()


def change_card(folder):
    card = json.loads((folder / CARD_FILE).read_text())
    card["identity"]["stride"] = 8
    (folder / CARD_FILE).write_text(json.dumps(card))


def drop_level(folder):
    card = json.loads((folder / CARD_FILE).read_text())
    card["shapes"], card["spots"] = card["shapes"][:1], card["spots"][:1]
    (folder / CARD_FILE).write_text(json.dumps(card))


DAMAGE = {
    "cut short": cut_short,
    "other values": change_values,
    "no level": lambda folder: level_file(folder, 1).unlink(),
    "not an array": lambda folder: level_file(folder, 1).write_text("no"),
    "swapped levels": lambda folder: shutil.copy(level_file(folder, 0), level_file(folder, 1)),
    "broken card": lambda folder: (folder / CARD_FILE).write_text("{"),
    "foreign card": lambda folder: (folder / CARD_FILE).write_text("{}"),
    "changed card": change_card,
    "card without a level": drop_level,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_said_and_mended(cache, damage):
    find_or_write(identity(), SHAPES, batches, 1, print)
    folder = feature_folder(identity())
    damage(folder)
    with pytest.raises(FeatureError):
        read_features(folder, identity())
    said: list[str] = []
    found, reused = find_or_write(identity(), SHAPES, batches, 1, said.append)
    assert not reused and "cannot be used and is made again" in said[0] and str(folder) in said[0]
    assert torch.equal(found.rows([1]).maps[1], maps()[1][[1]])
    assert find_or_write(identity(), SHAPES, batches, 1, said.append)[1], "it is whole again"


def test_other_identities_do_not_meet(cache):
    find_or_write(identity(), SHAPES, batches, 1, print)
    with pytest.raises(FeatureError, match="other features"):
        read_features(feature_folder(identity()), identity(stride=8))
    assert not find_or_write(identity(stride=8), SHAPES, batches, 1, print)[1]


def test_an_interrupted_writer_leaves_nothing(cache):
    def broken():
        yield next(batches())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_write(identity(), SHAPES, broken, 1, print)
    with pytest.raises(ValueError, match="announced"):
        find_or_write(identity(), SHAPES, lambda: list(batches())[:1], 1, print)
    assert not list((cache / "features").iterdir())
    assert not find_or_write(identity(), SHAPES, batches, 1, print)[1]


def test_features_in_use_do_not_give_way_to_others(cache):
    maps, _ = find_or_write(identity(), SHAPES, batches, 1, print)
    os.utime(maps.folder, (1, 1))
    size = sum(path.stat().st_size for path in maps.folder.iterdir())
    limit = (size + 100) / 2**30
    with pytest.raises(StorageError, match="--feature-cache-limit"):
        find_or_write(identity(stride=8), SHAPES, batches, limit, print)
    folder = maps.folder
    del maps
    said: list[str] = []
    assert not find_or_write(identity(stride=8), SHAPES, batches, limit, said.append)[1]
    assert not folder.exists() and f"removed {folder}" in said[0]


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    large = [FeatureMaps([torch.full(shape, 1e5) for shape in SHAPES], 16)]
    with pytest.raises(FeatureError, match="not finite in float16") as caught:
        write_features(tmp_path, identity(dtype="float16"), SHAPES, large)
    assert "cache_dtype=float32" in str(caught.value) and not (tmp_path / CARD_FILE).exists()
    write_features(tmp_path, identity(dtype="bfloat16"), SHAPES, large)


def test_the_limit_counts_what_is_there(cache, monkeypatch):
    needed = {"training": 3 * 2**28, "target": 2**28}
    check_room(needed, 1.0, print)
    with pytest.raises(StorageError, match=r"1\.0 GiB \(training 768\.0 MiB, target 256\.0 MiB\)") as caught:
        check_room(needed, 0.99, print)
    assert "--feature-cache-limit" in str(caught.value) and "cache_dtype=float16" in str(caught.value)
    (cache / "features" / "recent").mkdir(parents=True)
    (cache / "features" / "recent" / "level.npy").write_bytes(b"x" * 1000)
    with pytest.raises(StorageError, match=r"beside 1000 B that are there; the limit is 1\.0 GiB"):
        check_room(needed, 1.0, print)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10, 2**30))
    with pytest.raises(StorageError, match="the disk has"):
        check_room(needed, 100.0, print)
    with pytest.raises(StorageError, match="the limit"):
        find_or_write(identity(), SHAPES, batches, 1e-7, print)
