"""What packed chips should be stored as: memory maps, zarr, tensorstore or litdata, read whole and in windows.

    python profiling/pack_formats.py --chips 40 --rounds 5

Formats whose library is not installed are left out. Every read gives what a sample holds: float32 pixels and int64
labels of one window. Warm: files are in the page cache. Cold: they were synced and dropped from it by
``posix_fadvise(DONTNEED)`` before the round, with no map of them open. All formats run once per round.

Chips are invented: smooth fields with the noise of a sensor, so that compression has about what it has on real ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Read = Callable[[int, slice, slice], tuple[Array, Array]]
TILE = 128
SHAPES = {
    "512x512x32 int16": (32, 512, "int16"),
    "256x256x13 uint16": (13, 256, "uint16"),
    "500x500x24 uint16": (24, 500, "uint16"),
}


class Format(NamedTuple):
    """A way to store chips."""

    write: Callable[[Path, int, Callable[[int], tuple[Array, Array]]], None]
    open: Callable[[Path], Read]
    needs: tuple[str, ...] = ()


def invented(number: int, bands: int, side: int, dtype: str) -> tuple[Array, Array]:
    """A chip (C, H, W) and its label (H, W)."""
    rng = np.random.default_rng(number)
    coarse = rng.normal(0, 1, (3, side // 16 + 1, side // 16 + 1))
    fields = np.kron(coarse, np.ones((16, 16)))[:, :side, :side]
    spectra = rng.uniform(100, 600, (bands, 3))
    image = np.einsum("bf,fhw->bhw", spectra, fields) + 1500 + rng.normal(0, 15, (bands, side, side))
    return np.clip(image, 0, 30_000).astype(dtype), (fields[0] > 0).astype(np.uint8)


def sample(image: Array, label: Array) -> tuple[Array, Array]:
    """What every format ends with."""
    return np.asarray(image).astype(np.float32), np.asarray(label).astype(np.int64)


def write_map(folder: Path, count: int, chip: Callable[[int], tuple[Array, Array]]) -> None:
    """All chips in one file, labels in another."""
    with (folder / "pixels").open("wb") as pixels, (folder / "labels").open("wb") as labels:
        for number in range(count):
            image, label = chip(number)
            pixels.write(image.tobytes())
            labels.write(label.tobytes())
    facts = {"shape": [count, *image.shape], "dtype": image.dtype.name}
    (folder / "facts.json").write_text(json.dumps(facts))


def open_map(folder: Path) -> Read:
    """Map and index."""
    facts = json.loads((folder / "facts.json").read_text())
    shape = tuple(facts["shape"])
    pixels = np.memmap(folder / "pixels", facts["dtype"], "r", shape=shape)
    labels = np.memmap(folder / "labels", np.uint8, "r", shape=(shape[0], *shape[2:]))
    return lambda number, y, x: sample(pixels[number, :, y, x], labels[number, y, x])


def write_tiles(folder: Path, count: int, chip: Callable[[int], tuple[Array, Array]]) -> None:
    """As ``write_map``, each chip in tiles of all bands."""

    def tiled(number: int) -> tuple[Array, Array]:
        image, label = chip(number)
        more = -image.shape[1] % TILE
        parts = np.pad(image, ((0, 0), (0, more), (0, more))).reshape(
            len(image), -1, TILE, (image.shape[2] + more) // TILE, TILE
        )
        return np.ascontiguousarray(parts.transpose(1, 3, 0, 2, 4)), label

    write_map(folder, count, tiled)


def open_tiles(folder: Path) -> Read:
    """Put a window together from the tiles that it touches."""
    facts = json.loads((folder / "facts.json").read_text())
    shape = tuple(facts["shape"])
    count, bands = shape[0], shape[3]
    pixels = np.memmap(folder / "pixels", facts["dtype"], "r", shape=shape)
    side = int((os.path.getsize(folder / "labels") // count) ** 0.5)  # noqa: PTH202
    labels = np.memmap(folder / "labels", np.uint8, "r", shape=(count, side, side))

    def read(number: int, y: slice, x: slice) -> tuple[Array, Array]:
        image = np.empty((bands, y.stop - y.start, x.stop - x.start), np.float32)
        for line in range(y.start // TILE, (y.stop - 1) // TILE + 1):
            top, bottom = max(y.start, line * TILE), min(y.stop, (line + 1) * TILE)
            for column in range(x.start // TILE, (x.stop - 1) // TILE + 1):
                left, right = max(x.start, column * TILE), min(x.stop, (column + 1) * TILE)
                image[:, top - y.start : bottom - y.start, left - x.start : right - x.start] = pixels[
                    number, line, column, :, top - line * TILE : bottom - line * TILE,
                    left - column * TILE : right - column * TILE,
                ]  # fmt: skip
        return image, labels[number, y, x].astype(np.int64)

    return read


def zarr_writer(compressed: bool) -> Callable[[Path, int, Callable[[int], tuple[Array, Array]]], None]:
    """Zarr v3: chunks of all bands of a tile, shards of eight chips."""

    def write(folder: Path, count: int, chip: Callable[[int], tuple[Array, Array]]) -> None:
        import zarr

        image, _ = chip(0)
        bands, side, _ = image.shape
        whole = -(-side // TILE) * TILE
        codec = zarr.codecs.ZstdCodec(level=3) if compressed else None
        pixels = zarr.create_array(
            folder / "pixels", shape=(count, bands, side, side), dtype=image.dtype, chunks=(1, bands, TILE, TILE),
            shards=(8, bands, whole, whole), compressors=codec,
        )  # fmt: skip
        labels = zarr.create_array(
            folder / "labels", shape=(count, side, side), dtype="uint8", chunks=(1, TILE, TILE),
            shards=(8, whole, whole), compressors=codec,
        )  # fmt: skip
        for start in range(0, count, 8):
            several = [chip(number) for number in range(start, min(start + 8, count))]
            pixels[start : start + len(several)] = np.stack([image for image, _ in several])
            labels[start : start + len(several)] = np.stack([label for _, label in several])

    return write


def open_zarr(folder: Path) -> Read:
    """The library's own reader."""
    import zarr

    pixels, labels = zarr.open_array(folder / "pixels", mode="r"), zarr.open_array(folder / "labels", mode="r")
    return lambda number, y, x: sample(pixels[number, :, y, x], labels[number, y, x])


def open_tensorstore(folder: Path) -> Read:
    """The same files by tensorstore."""
    import tensorstore

    def array(name: str) -> Any:
        store = {"driver": "file", "path": str(folder / name)}
        return tensorstore.open({"driver": "zarr3", "kvstore": store}, read=True).result()

    pixels, labels = array("pixels"), array("labels")
    return lambda number, y, x: sample(pixels[number, :, y, x].read().result(), labels[number, y, x].read().result())


def write_litdata(folder: Path, count: int, chip: Callable[[int], tuple[Array, Array]]) -> None:
    """Chunks of 64 MB, an item a chip."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes=64 * 2**20)
    for number in range(count):
        image, label = chip(number)
        writer.add_item(number, {"image": image, "label": label})
    writer.done()
    writer.merge(1)


def open_litdata(folder: Path) -> Read:
    """Items are read whole, windows cut out of them."""
    from litdata import StreamingDataset

    items = StreamingDataset(str(folder))

    def read(number: int, y: slice, x: slice) -> tuple[Array, Array]:
        item = items[number]
        return sample(item["image"][:, y, x], item["label"][y, x])

    return read


FORMATS = {
    "map": Format(write_map, open_map),
    "map, tiles": Format(write_tiles, open_tiles),
    "zarr": Format(zarr_writer(False), open_zarr, ("zarr",)),
    "zarr zstd": Format(zarr_writer(True), open_zarr, ("zarr",)),
    "tensorstore": Format(zarr_writer(False), open_tensorstore, ("zarr", "tensorstore")),
    "tensorstore zstd": Format(zarr_writer(True), open_tensorstore, ("zarr", "tensorstore")),
    "litdata": Format(write_litdata, open_litdata, ("litdata",)),
}
SAME_FILES = {"tensorstore": "zarr", "tensorstore zstd": "zarr zstd"}


def drop(folder: Path) -> None:
    """Have all files below a folder leave the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def measure(folder: Path, count: int, side: int, rounds: int, reads: int) -> dict[str, dict[str, Any]]:
    """Median CPU milliseconds (and, cold, seconds by the clock) of one read, by format and kind of read."""
    found: dict[str, dict[str, list[float]]] = {}
    names = [name for name in FORMATS if (folder / SAME_FILES.get(name, name)).is_dir()]
    for number in range(rounds + 1):
        rng = np.random.default_rng(number)
        for kind, size in (("full", side), ("window", 224)):
            places = [(int(rng.integers(count)), *map(int, rng.integers(0, side - size + 1, 2))) for _ in range(reads)]
            for cold in (False, True):
                for name in names:
                    place = folder / SAME_FILES.get(name, name)
                    if cold:
                        drop(place)
                    read = FORMATS[name].open(place)
                    if not cold:
                        for chip in {chip for chip, *_ in places}:
                            read(chip, slice(0, side), slice(0, side))
                    clock, cpu = time.perf_counter(), time.process_time()
                    for chip, y, x in places:
                        read(chip, slice(y, y + size), slice(x, x + size))
                    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
                    del read
                    if number:
                        kept = found.setdefault(name, {})
                        kept.setdefault(f"{kind} {'cold' if cold else 'warm'} cpu", []).append(1e3 * cpu / reads)
                        kept.setdefault(f"{kind} {'cold' if cold else 'warm'} clock", []).append(1e3 * clock / reads)
    return {name: {key: statistics.median(values) for key, values in kept.items()} for name, kept in found.items()}


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=24)
    parser.add_argument("--folder", type=Path, default=None, help="below it; default: the temporary folder")
    chosen = parser.parse_args()
    for title, (bands, side, dtype) in SHAPES.items():
        folder = Path(tempfile.mkdtemp(prefix="pack-formats-", dir=chosen.folder))
        try:
            for name, one in FORMATS.items():
                if name in SAME_FILES or not all(find_spec(library) for library in one.needs):
                    continue
                (folder / name).mkdir()
                started = time.process_time()
                one.write(folder / name, chosen.chips, lambda number: invented(number, bands, side, dtype))  # noqa: B023
                size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
                files = sum(path.is_file() for path in (folder / name).rglob("*"))
                print(f"{title} {name}: {size / 2**20:.0f} MiB, {files} files, {time.process_time() - started:.1f} s")
            result = measure(folder, chosen.chips, side, chosen.rounds, chosen.reads)
            keys = [f"{kind} {heat} {unit}" for kind in ("full", "window") for heat, unit in
                    (("warm", "cpu"), ("cold", "cpu"), ("cold", "clock"))]  # fmt: skip
            print(title, "ms:", " | ".join(keys))
            for name, values in result.items():
                print(f"  {name:18}", " | ".join(f"{values[key]:8.2f}" for key in keys), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
