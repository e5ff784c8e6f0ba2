"""How fast windows are read: packed, from GeoTIFF, by plain rasterio and TorchGeo, from a bare memory map, in one run.

    python profiling/reading.py                          (600 chips of WHU-OHS's shape, 12 GB: half an hour of CPU)
    python profiling/reading.py --chips 40 --parts 512x512x32        (a trial)
    python profiling/reading.py --parts index            (7,280 small chips: building and opening the index)

Every arm is a ``DataLoader`` whose batches are counted; readers are processes, but threads for packed chips. Numbers
are windows per CPU second, with all readers but without the start of processes, as medians of interleaved rounds; what
is opened for the first time is read once before. The suite may keep 8 % of the data in memory, as where data are much
larger. Files are written and removed by this script.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import yaml
from rasterio.windows import Window
from torch.utils.data import DataLoader, Dataset, Sampler

from spectral_tl_bench.benchmarks import Benchmark, read_benchmark
from spectral_tl_bench.data import packed, readers
from spectral_tl_bench.data.batches import stacked, stacked_masks
from spectral_tl_bench.data.chip_cache import ChipCache
from spectral_tl_bench.data.index import ChipIndex, build_index
from spectral_tl_bench.data.loaders import LoaderSettings
from spectral_tl_bench.data.packing import pack
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets
from spectral_tl_bench.data.readers import Readers
from spectral_tl_bench.data.samplers import RandomCollectionWindows

SHAPES = {"512x512x32": (32, 512, "int16"), "256x256x13": (13, 256, "uint16"), "500x500x24": (24, 500, "uint16")}
OF_LARGEST = 4
"""Of the other shapes there are as many chips divided by this."""
WINDOW = 224
KEPT = 0.08
PACKED_BYTES = 1024**3
"""Of the pack: maps are dropped before each measurement, so that pages are found anew as in a larger one."""
WINDOWS = {"packed, integers": 3, "packed": 2, "map, integers": 3, "map": 2}
"""Times as many windows as of the other arms, which are slower."""


@dataclass(frozen=True)
class Data:
    """Chips of one shape: a folder, an index of all, and one of those that are packed."""

    folder: Path
    bands: int
    side: int
    benchmark: Benchmark
    files: ChipIndex
    packed: ChipIndex


def write(folder: Path, bands: int, side: int, dtype: str, count: int) -> Benchmark:
    """Uncompressed GeoTIFFs as rasterio writes them, apart from each other on the ground; and a benchmark of them."""
    rng = np.random.default_rng(0)
    ground = rng.integers(1, 4000, (bands, side, side)).astype(dtype)
    classes = rng.integers(1, 4, (1, side, side)).astype("uint8")
    rows, step = ["name,region,site"], 10 * (side + 8)  # TorchGeo reads neighbours, too, where chips touch
    for kind in ("image", "label"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        line, column = divmod(number, 90)
        place = rasterio.Affine(10, 0, 3e5 + column * step, 0, -10, 5e6 - line * step)
        values = {"image": np.roll(ground, number, axis=1) + ground.dtype.type(number % 4096), "label": classes}
        for kind, layers in values.items():
            with rasterio.open(
                folder / kind / f"c{number:05}.tif", "w", driver="GTiff", count=len(layers), height=side, width=side,
                dtype=layers.dtype, crs="EPSG:32633", transform=place,
            ) as file:  # fmt: skip
                file.write(layers)
        rows.append(f"c{number:05},{'east' if number % 2 else 'west'},s{number % 50}")
    (folder / "chips.csv").write_text("\n".join(rows) + "\n")
    (folder / "own.yaml").write_text(yaml.safe_dump({
        "id": "own", "title": "own", "version": "1.0", "dataset": "Own", "gap": "region", "citation": "nobody",
        "sensor": {"name": "none", "gsd": 10, "unit": "digital numbers",
                   "bands": [{"name": f"B{band}", "wavelength": 0.4 + 0.01 * band} for band in range(bands)]},
        "chip_size": side, "domains": [{"id": "east"}, {"id": "west"}], "source": ["east"], "target": ["west"],
        "layout": {"kind": "table", "table": "chips.csv", "image": "image/{name}.tif", "label": "label/{name}.tif",
                   "chip": "name", "domain": "region", "site": "site"},
        "labels": {"classes": [{"name": str(raw), "colour": f"#{raw}{raw}0000", "raw": [raw]} for raw in (1, 2, 3)]},
        "split": {"place": "site", "validation": 0.3},
    }))  # fmt: skip
    return read_benchmark(folder / "own.yaml")


def prepare(folder: Path, shape: str, count: int) -> Data:
    """Write chips, index them and pack some."""
    bands, side, dtype = SHAPES[shape]
    benchmark = write(folder, bands, side, dtype, count)
    started = spent()
    files = build_index(benchmark, folder, packed="off")
    indexed, started = spent() - started, spent()
    few = max(2, PACKED_BYTES // (side * side * (2 * bands + 1)))
    some = replace(files, frame=files.frame.iloc[:few])
    pack(benchmark, some, folder / "packs", 1, lambda _: None)
    print(f"{shape}: {count} chips, indexed in {indexed:.0f} CPU s; {len(some.frame)} of them packed in "
          f"{spent() - started:.0f} CPU s", flush=True)  # fmt: skip
    for shard in sorted((folder / "packs").rglob("*.safetensors")):  # into the page cache, where the files are
        shard.read_bytes()
    places = packed.find_packed(benchmark, some.frame, folder / "packs")
    return Data(folder, bands, side, benchmark, files, replace(some, packed=places))


class Batch:
    """Stacks windows as the suite's loaders do it: for the CPU as float32, for a GPU as the files' integers."""

    def __init__(self, integers: bool) -> None:
        self.integers = integers

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pixels and labels."""
        return {"image": stacked([sample["image"] for sample in samples], self.integers),
                "mask": stacked_masks([sample["mask"] for sample in samples])}  # fmt: skip


class InParts(Sampler[Any]):
    """Keys, a part of them each time: no window comes twice."""

    def __init__(self, keys: Sequence[Any], parts: Sequence[int]) -> None:
        self.keys, self.parts = list(keys), list(parts)

    def __iter__(self) -> Iterator[Any]:
        """Yield the next part."""
        count = self.parts.pop(0)
        some, self.keys = self.keys[:count], self.keys[count:]
        return iter(some)


class Places(Dataset[dict[str, Any]]):
    """Windows by (chip, line, column), read by whatever reads them."""

    def __init__(self, read: Callable[..., tuple[Any, Any]]) -> None:
        self.read = read

    def __getitem__(self, place: tuple[int, int, int]) -> dict[str, Any]:
        """Pixels as they are, and labels, int64."""
        image, mask = self.read(*place)
        return {"image": image, "mask": torch.from_numpy(mask.astype(np.int64))}


Make = Callable[[int, Sequence[int], int], DataLoader[Any]]
"""Makes a loader of (side of windows, windows of each iteration, readers)."""


def batch(side: int) -> int:
    """Windows of a batch."""
    return 8 if side == WINDOW else 2


def arms(data: Data) -> dict[str, Make]:
    """What is compared, by name."""
    chips = len(data.files.frame)
    size = chips * data.side**2 * (2 * data.bands + 1)

    def loader(dataset: Dataset[Any], sampler: Sampler[Any], workers: int, side: int, collate: Any) -> Any:
        return DataLoader(dataset, batch(side), sampler=sampler, num_workers=workers, persistent_workers=workers > 0,
                          collate_fn=collate)  # fmt: skip

    def suite(index: ChipIndex, integers: bool = False) -> Make:
        def make(side: int, parts: Sequence[int], workers: int) -> Any:
            packed._maps.clear()
            datasets = open_datasets(data.benchmark, index, cache=ChipCache(int(KEPT * size)))
            collection = ChipCollection(datasets)
            keys = list(RandomCollectionWindows(collection, side, sum(parts), 0))
            settings = LoaderSettings(side, side, batch(side), workers)
            return Readers(collection, settings, batch_size=batch(side), sampler=InParts(keys, parts),
                           collate_fn=Batch(integers))  # fmt: skip

        return make

    def places(read: Callable[..., Any], count: int, integers: bool = False) -> Make:
        def make(side: int, parts: Sequence[int], workers: int) -> Any:
            free = data.side - side + 1
            keys = np.random.default_rng(1).integers(0, [count, free, free], (sum(parts), 3)).tolist()
            dataset = Places(lambda *place: read(*place, side))
            return loader(dataset, InParts(keys, parts), workers, side, Batch(integers))

        return make

    def plain_rasterio(chip: int, line: int, column: int, side: int) -> tuple[Any, Any]:
        window, name = Window(column, line, side, side), f"c{chip:05}.tif"
        with (
            rasterio.open(data.folder / "image" / name) as image,
            rasterio.open(data.folder / "label" / name) as label,
        ):
            return image.read(window=window), label.read(1, window=window)

    where = [data.packed.packed.places[chip] for chip in data.packed.frame.index]
    maps: dict[str, Any] = {}

    def bare(chip: int, line: int, column: int, side: int) -> tuple[Any, Any]:
        """The same bytes without any of the suite's code."""
        place = where[chip]
        shard = maps.setdefault(place.shard.path, None)
        if shard is None:
            shard = maps[place.shard.path] = np.memmap(place.shard.path, np.uint8, "r")
        image: Any = np.ndarray(place.shape, place.dtype, shard, place.pixels)
        label: Any = np.ndarray(place.shape[1:], np.uint8, shard, place.classes)
        cut = (slice(line, line + side), slice(column, column + side))
        return image[:, *cut], label[cut]

    def mapped(integers: bool) -> Make:
        def make(*what: Any) -> DataLoader[Any]:
            maps.clear()
            return places(bare, len(where), integers)(*what)

        return make

    return {
        "packed, integers": suite(data.packed, True), "packed": suite(data.packed),
        "map, integers": mapped(True), "map": mapped(False),
        "GeoTIFF, integers": suite(data.files, True), "GeoTIFF": suite(data.files),
        "rasterio": places(plain_rasterio, chips), "TorchGeo": plain_torchgeo(data.folder, loader),
    }  # fmt: skip


def plain_torchgeo(folder: Path, loader: Any) -> Make:
    """As TorchGeo's tutorial has it: two raster datasets, their intersection, a random sampler, stacked samples."""
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Labels(RasterDataset):
        is_image = False

    dataset = RasterDataset(str(folder / "image")) & Labels(str(folder / "label"))

    def make(side: int, parts: Sequence[int], workers: int) -> Any:
        RasterDataset._cached_load_warp_file.cache_clear()  # open files must not be shared with reader processes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keys = list(RandomGeoSampler(dataset, size=side, length=sum(parts)))
        return loader(dataset, InParts(keys, parts), workers, side, stack_samples)

    return make


def spent() -> float:
    """CPU seconds of this process and of its children that run."""
    ticks, found = os.sysconf("SC_CLK_TCK"), time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        found += (int(fields[11]) + int(fields[12])) / ticks
    return found


def rate(make: Make, side: int, length: int, workers: int) -> tuple[float, float]:
    """Windows per second of CPU, and of the clock."""
    loader = make(side, (max(1, workers) * batch(side), length), workers)
    for _ in loader:  # readers are there, and have read
        pass
    cpu, clock = spent(), time.perf_counter()
    found = sum(len(batch["image"]) for batch in loader)
    cpu, clock = spent() - cpu, time.perf_counter() - clock
    assert found == length, (found, length)
    return found / cpu, found / clock


def memory(make: Make, length: int, workers: int = 8) -> list[tuple[int, ...]]:
    """MiB of the largest reader after each fifth of an epoch, of this process if its threads read: four numbers each.

    Anonymous memory is what a reader has taken and only gives back itself. USS is what nobody else has, with the page
    cache of files that it alone has mapped, which the system takes back as it needs. PSS has its share of what several
    have, and adds up over readers. RSS counts libraries and the page cache of mapped files in full for each reader.
    """
    loader = make(WINDOW, (length,), workers)
    largest: list[tuple[int, ...]] = []
    marks = {len(range(0, length, 8)) * part // 5 for part in range(1, 6)}
    for number, _ in enumerate(loader, start=1):
        if number in marks:
            found = []
            for pid in [child.pid for child in multiprocessing.active_children()] or [os.getpid()]:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines}
                alone = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
                found.append((sizes["Anonymous:"], alone, sizes["Pss:"], sizes["Rss:"]))
            largest.append(tuple(round(max(kind)) for kind in zip(*found, strict=True)))
    return largest


def compare(shape: str, wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All arms on chips of one shape."""
    first = shape == next(iter(SHAPES))
    data = prepare(folder, shape, wanted.chips if first else max(8, wanted.chips // OF_LARGEST))
    made, rows = {name: make for name, make in arms(data).items() if name in (wanted.arms or name)}, []
    many = wanted.windows * (4 if data.bands * data.side**2 < 2**21 else 1)  # small chips are soon read
    for side, length in ((WINDOW, many), (data.side, many // 3)):
        for workers in wanted.workers:
            rates: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
            for _ in range(wanted.rounds):
                for name, make in made.items():
                    rates[name].append(rate(make, side, length * WINDOWS.get(name, 1) // 8 * 8, workers))
            row = {"side": side, "workers": workers}
            for name, values in rates.items():
                row[name] = [round(statistics.median(part), 1) for part in zip(*values, strict=True)]
            print(json.dumps(row), flush=True)
            rows.append(row)
    held = {}
    for name in made.keys() & {"packed, integers", "packed", "GeoTIFF", "TorchGeo"}:
        held[name] = memory(made[name], len(data.files.frame) * (1 if name == "TorchGeo" else 4))
    what = "anonymous, USS, PSS and RSS in MiB of the largest of 8 readers, or of the process whose threads read"
    print(f"{shape}: {what}: {held}", flush=True)
    return {"chips": len(data.files.frame), "packed": len(data.packed.frame), "rates": rows, "memory": held}


def many_small(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds to build the index of many small chips, to open it again, and what TorchGeo takes for its own."""
    benchmark = write(folder, 13, 16, "uint16", wanted.small_chips)
    steps: dict[str, Callable[[], object]] = {
        "built": lambda: build_index(benchmark, folder), "opened again": lambda: build_index(benchmark, folder),
        "TorchGeo": lambda: plain_torchgeo(folder, None),
    }  # fmt: skip
    found: dict[str, Any] = {"chips": wanted.small_chips}
    for name, run in steps.items():
        cpu, clock = sum(os.times()[:4]), time.perf_counter()
        run()
        found[name] = [round(sum(os.times()[:4]) - cpu, 2), round(time.perf_counter() - clock, 2)]
    print(f"index: CPU s, by the clock: {found}", flush=True)
    return found


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=(*SHAPES, "index"), default=[*SHAPES, "index"])
    parser.add_argument("--chips", type=int, default=600)
    parser.add_argument("--small-chips", type=int, default=7280)
    parser.add_argument("--windows", type=int, default=48, help="per measurement; a third of it of whole chips")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 8])
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--cores", type=int, help="let threads read as if there were so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="all numbers as JSON")
    wanted = parser.parse_args()
    if wanted.windows < 24:
        parser.error("--windows: 24 at least; a third of it, whole chips, is read in eights")
    torch.set_num_threads(1)
    if wanted.cores:
        readers.available_cores = lambda: wanted.cores
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    found: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count()}
    for part in wanted.parts:
        with tempfile.TemporaryDirectory(prefix="stbench-reading-") as folder:
            os.environ["STBENCH_CACHE"] = f"{folder}/cache"
            found[part] = (
                many_small(wanted, Path(folder) / "data")
                if part == "index"
                else compare(part, wanted, Path(folder) / "data")
            )
        if wanted.out is not None:
            wanted.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
