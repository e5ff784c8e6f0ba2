"""From an empty folder to a sound, verified, packed tree, at the numbers and sizes of chips that were published.

    python profiling/true_counts.py dfc2020                    (22 GB of disk)
    python profiling/true_counts.py dfc2020 --copernicus       (the layout of Copernicus-Bench: domains by footprint)
    python profiling/true_counts.py mts12                      (23 GB)
    python profiling/true_counts.py whu-ohs --deflate --pack-every 8     (9 GB; without the options 100)

Names, folders, counts, sizes, types and CRS are the published ones as far as they are known; what is in the chips is
invented: patches of classes with spectra of simple shape, little noise. So are WHU-OHS's counts by city, the fifth
tile that MTS12 lacks, and, of Copernicus-Bench, which chip is in which fold. The archive is served on this machine as
the hub serves it; ``get``, ``verify`` and ``pack`` run as processes, each a second time, where nothing is to do. All
that is written is removed.
"""

from __future__ import annotations

import argparse
import functools
import json
import mmap
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from measuring import MEBIBYTE, Used, run_measured
from rasterio.io import MemoryFile
from scipy.io import savemat

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks
from spectral_tl_bench.data.audit.shipped import tile_index
from spectral_tl_bench.data.layouts.dfc2020 import dfc_label_path
from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.data.source import DataSource, open_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.sample.rasters import utm
from spectral_tl_bench.storage.place import size_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/data/sources"))
import servers
from packing import COPERNICUS, REPO

SHAPES = {"dfc2020": ("uint16", 4, 16), "mts12": ("uint16", 4, 20), "whu-ohs": ("int16", 8, 16)}
"""Type of pixels; sides in px of what has one value, and of what has one class: archives are small."""
KEPT_FREE = 6 * 1024**3
SPECTRA = {
    "vegetation": ((0.4, 0.04), (0.55, 0.08), (0.67, 0.04), (0.75, 0.34), (0.95, 0.38), (1.6, 0.18), (2.2, 0.08)),
    "water": ((0.4, 0.08), (0.55, 0.07), (0.67, 0.04), (0.75, 0.02), (0.95, 0.015), (1.6, 0.008), (2.2, 0.005)),
    "built": ((0.4, 0.12), (0.67, 0.17), (0.95, 0.22), (1.6, 0.25), (2.2, 0.23)),
    "bare": ((0.4, 0.09), (0.67, 0.22), (0.95, 0.29), (1.6, 0.38), (2.2, 0.34)),
    "other": ((0.4, 0.06), (0.55, 0.1), (0.67, 0.1), (0.75, 0.2), (0.95, 0.25), (1.6, 0.24), (2.2, 0.15)),
}  # fmt: skip
"""Reflectance by wavelength (um): what plants, water, towns and soils look like, roughly."""


class Chip(NamedTuple):
    """One chip: a number of its own, domain, names in the archive, CRS and upper left corner."""

    number: int
    domain: str
    image: str
    label: str
    crs: str
    corner: tuple[float, float]


def dfc2020(benchmark: Benchmark, copernicus: bool) -> Iterator[Chip]:
    """6,114 chips side by side around the middle of each city."""
    number = 0
    for city, domain in enumerate(benchmark.domains):
        assert domain.lon_lat is not None
        assert domain.chips is not None
        crs, east, north = utm(*domain.lon_lat)
        for place in range(domain.chips):
            corner = (east + 2560 * (place % 38 - 19), north - 2560 * (place // 38 - 19))
            image = f"{domain.season}/image/s2_{domain.id}/ROIs0000_{domain.season}_s2_{domain.id}_p{place}.tif"
            label = dfc_label_path(image)
            if copernicus:
                stem = f"ROIs0000_{'validation' if number < 986 else 'test'}_{{}}_{city}_p{place}.tif"
                image, label = (f"dfc2020_s1s2/{kind}/{stem.format(kind)}" for kind in ("s2", "dfc"))
            yield Chip(number, domain.id, image, label, crs, corner)
            number += 1


def mts12(benchmark: Benchmark) -> Iterator[Chip]:
    """936 tiles of the grid that meets Slovenia, numbered column by column."""
    index = tile_index(benchmark)
    assert index is not None
    tiles = index.frame.sort_values(["xmin", "ymin"]).reset_index(drop=True)
    missing, folds = {16, 52, 53, 76}, {"north": ["train"] * 509 + ["val"] * 130, "south": ["test"] * 297}
    missing.add(next(number for number in tiles.index[tiles["domain"] == "south"] if number > 76))
    for number, tile in tiles[~tiles.index.isin(missing)].iterrows():
        col, row = int(tile["xmin"] - 370_000) // 5000, int(tile["ymin"] - 5_025_000) // 5000
        fold, stem = folds[tile["domain"]].pop(0), f"eopatch_id_{number}_col_{col}_row_{row}"
        yield Chip(int(str(number)), tile["domain"], f"image/{fold}/{stem}.tif", f"label/{fold}/{stem}_label.mat",
                   tile["crs"], (tile["xmin"], tile["ymax"]))  # fmt: skip


def whu_ohs(benchmark: Benchmark) -> Iterator[Chip]:
    """2,914 chips, divided among the cities of each side as evenly as possible."""
    number = 0
    for side in ("source", "target"):
        cities = getattr(benchmark, side)
        for city, name in enumerate(cities):
            lon_lat = benchmark.domain(name).lon_lat
            assert lon_lat is not None
            crs, east, north = utm(*lon_lat)
            for place in range(len(range(city, benchmark.expected[side], len(cities)))):
                corner = (east + 4800 * (place % 14), north - 4800 * (place // 14))  # neighbours share 32 px
                stem = f"{name}_O{place // 14}_{place % 14}.tif"
                image, label = (f"transfer-STall/{side}/{kind}/{stem}" for kind in ("image", "label"))
                yield Chip(number, name, image, label, crs, corner)
                number += 1


def content(benchmark: Benchmark, shape: tuple[str, int, int], deflate: bool, chip: Chip) -> tuple[Chip, bytes, bytes]:
    """The files of a chip: image and label."""
    dtype, cell, patch = shape
    rng = np.random.default_rng(chip.number)
    side, classes = benchmark.chip_size, benchmark.labels.classes
    where = [domain.id for domain in benchmark.domains].index(chip.domain)
    shares = np.random.default_rng(where).dirichlet(np.ones(len(classes))) + 0.02
    drawn = rng.choice(len(classes), (-(-side // patch), -(-side // patch)), p=shares / shares.sum())
    waves = np.array([band.wavelength for band in benchmark.sensor.bands])
    table = np.stack([np.interp(waves, *zip(*SPECTRA[cover.kind], strict=True)) for cover in classes])
    table *= 1 + 0.02 * np.arange(len(classes))[:, None]  # classes of a kind differ
    table = table * (1 + 0.05 * np.cos(waves + where)) + 0.01 / (0.5 + waves) ** 4  # haze, and a light of its own
    table[:, (waves > 1.34) & (waves < 1.41)] = 0.002
    cells = drawn.repeat(patch // cell, axis=0).repeat(patch // cell, axis=1)[: side // cell, : side // cell]
    values = 10_000 * table[cells].transpose(2, 0, 1) * rng.uniform(0.9, 1.1, cells.shape)
    values = (values + rng.uniform(0, 16, values.shape)).astype(dtype).repeat(cell, axis=1).repeat(cell, axis=2)
    raw = np.array([cover.raw[0] for cover in classes], dtype=np.uint8)[cells].repeat(cell, 0).repeat(cell, 1)
    if not chip.label.endswith(".mat"):
        return chip, geotiff(values, chip, deflate), geotiff(raw[None], chip, deflate)
    with tempfile.TemporaryFile() as file:
        savemat(file, {"label": raw}, do_compression=deflate)
        file.seek(0)
        return chip, geotiff(values, chip, deflate), file.read()


def geotiff(layers: np.ndarray[Any, Any], chip: Chip, deflate: bool) -> bytes:
    """A GeoTIFF as rasterio writes it."""
    place = rasterio.Affine(10, 0, chip.corner[0], 0, -10, chip.corner[1])
    more = {"compress": "deflate", "zlevel": 6, "interleave": "band"} if deflate else {}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", count=len(layers), height=layers.shape[1], width=layers.shape[2],
                         dtype=layers.dtype, crs=chip.crs, transform=place, **more) as file:  # fmt: skip
            file.write(layers)
        return bytes(memory.getbuffer())


def write_archive(path: Path, chips: list[Chip], make: Callable[[Chip], Any], deflate: bool) -> int:
    """Write the published archive; the bytes that its files have."""
    size = 0
    kind = zipfile.ZIP_STORED if deflate else zipfile.ZIP_DEFLATED
    with Pool(os.cpu_count()) as pool, zipfile.ZipFile(path, "w", kind, compresslevel=1) as file:
        for chip, image, label in pool.imap(make, chips, chunksize=4):
            for name, data in ((chip.image, image), (chip.label, label)):
                file.writestr(name, data)
                size += len(data)
    return size


def first_batch(benchmark: Benchmark, root: Path) -> dict[str, Any]:
    """Seconds until the index is open, data are split and the first batch is there; how many chips are packed."""
    begun = time.perf_counter()
    index, track, _ = open_index(benchmark, DataSource("files", root, ""), own=False)
    opened = time.perf_counter()
    settings = LoaderSettings(224, 224, 8, 0)
    source = SourceData(benchmark, index, make_split(benchmark, index, 0), settings, 0)
    batch = next(iter(source.train_loader(1, True, "first")))
    assert batch["image"].shape == (8, len(benchmark.sensor.bands), 224, 224), batch["image"].shape
    return {"track": track, "packed": len(index.packed.places), "index": round(opened - begun, 2),
            "batch": round(time.perf_counter() - opened, 2)}  # fmt: skip


class Way:
    """The commands on one data root, each held against what it has to say."""

    def __init__(self, work: Path, hub: str) -> None:
        self.root, self.cache = work / "data", work / "cache"
        self.environment = os.environ | {"STBENCH_CACHE": str(self.cache), "HF_ENDPOINT": hub}
        for name in ("STBENCH_PACKED", "STBENCH_DATA", "HF_TOKEN"):
            self.environment.pop(name, None)
        self.rows: list[dict[str, Any]] = []

    def step(self, name: str, *words: str, says: str, code: int = 0, root: Path | None = None) -> str:
        """Run ``stbench data ...``; what it said, which has to match ``says``."""
        command = [str(Path(sys.executable).with_name("stbench")), "data", *words, "--data-root",
                   str(root or self.root)]  # fmt: skip
        used, out = run_measured(command, self.environment)
        self.note(name, used, out)
        assert used.code == code, f"{name}: exit code {used.code}, expected {code}:\n{out}"
        assert re.search(says, out), f"{name}: does not say {says!r}:\n{out}"
        return out

    def note(self, name: str, used: Used, out: str) -> None:
        """Keep and print what a step took."""
        disk = size_of(self.root) + (size_of(self.cache) if self.cache.exists() else 0)
        row = {"step": name, "wall": round(used.wall, 1), "cpu": round(used.cpu, 1),
               "peak_mib": round(used.peak / MEBIBYTE), "disk_gb": round(disk / 1e9, 2)}  # fmt: skip
        self.rows.append(row)
        print(json.dumps(row), *(f"  {line}" for line in out.splitlines()), sep="\n", flush=True)


def link_some(root: Path, target: Path, chips: list[Chip]) -> None:
    """A tree of links to the files of some chips."""
    names = {Path(name).name for chip in chips for name in (chip.image, chip.label)}
    for path in root.rglob("*"):
        if path.name in names:
            (target / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.relative_to(root))


def prepare(wanted: argparse.Namespace, benchmark: Benchmark, work: Path) -> tuple[list[Chip], Path]:
    """The chips that there are, and their archive.

    Raises:
        SystemExit: If there is no room for all that follows.
    """
    makers = {"dfc2020": functools.partial(dfc2020, copernicus=wanted.copernicus), "mts12": mts12, "whu-ohs": whu_ohs}
    chips = list(makers[wanted.dataset](benchmark))
    assert len(chips) == sum(benchmark.expected.values()), len(chips)
    size = benchmark.chip_size**2 * (2 * len(benchmark.sensor.bands) + 1)
    packed = len(chips[:: wanted.pack_every])
    need = int(size * (len(chips) * (0.1 if wanted.deflate else 1.15) + packed))
    if shutil.disk_usage(work).free < need + KEPT_FREE:
        sys.exit(f"{work}: about {need / 1e9:.0f} GB are needed, and {KEPT_FREE / 1e9:.0f} more are left free")
    archive, begun = wanted.archive or work / f"{wanted.dataset}.zip", time.perf_counter()
    if archive.exists():
        return chips, archive
    make = functools.partial(content, benchmark, SHAPES[wanted.dataset], wanted.deflate)
    size = write_archive(archive, chips, make, wanted.deflate)
    print(f"{len(chips)} chips in {archive.stat().st_size / 1e9:.2f} GB, {size / 1e9:.2f} GB unpacked; made in "
          f"{time.perf_counter() - begun:.0f} s", flush=True)  # fmt: skip
    return chips, archive


@contextmanager
def hub(repo: str, name: str, archive: Path) -> Iterator[str]:
    """Serve an archive as the only file of a repository; the address."""
    for slow in ("sum_of", "blob_of"):  # of a content that does not change, and is not to count as time of the command
        setattr(servers, slow, functools.cache(getattr(servers, slow)))
    with archive.open("rb") as stream:
        content: Any = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))  # cut without a copy
    servers.sum_of(content), servers.blob_of(content)
    with servers.serving(servers.Site(repos={repo: {name: content}})) as site:
        yield site.address


def go(wanted: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Go the way of a user, from an archive that is served to packed chips."""
    name = {"dfc2020": "dfc2020-spring", "mts12": "mts12-n2s", "whu-ohs": "whuohs-s2t"}[wanted.dataset]
    benchmark = builtin_benchmarks()[name]
    chips, archive = prepare(wanted, benchmark, work)
    count = len(chips)
    repo = COPERNICUS if wanted.copernicus else REPO
    get = ("get", wanted.dataset, "--accept-terms", *(("--from", f"hf:{repo}") if wanted.copernicus else ()))
    with hub(repo, f"{wanted.dataset}.zip", archive) as address:
        way = Way(work, address)
        way.step("get", *get, says=rf"complete \({count} chips\)")
        way.step("get again", *get, says="nothing to do")
    if archive != wanted.archive:
        archive.unlink()
    sound = rf"{name}: sound; {count} chips; records name them"
    out = way.step("verify", "verify", name, says=sound)
    for domain in benchmark.domains:
        line = rf"^{domain.id} +{sum(chip.domain == domain.id for chip in chips)} +{domain.chips or 'not known'} "
        assert re.search(line + ".*rules hold", out, re.MULTILINE), domain.id
    assert not re.search("^(fault|broken|warning)", out, re.MULTILINE), out
    way.step("verify again", "verify", name, says=sound)
    root = way.root
    if wanted.pack_every > 1:
        way.step("pack of all", "pack", name, says="there is no room for the packed chips", code=2)
        root, chips = work / "some", chips[:: wanted.pack_every]
        count = len(chips)
        link_some(way.root, root, chips)
    way.step("pack", "pack", name, says=rf"{name}: {count} chips packed .*, 0 were before", root=root)
    way.step("pack again", "pack", name, says=rf"{name}: 0 chips packed .*, {count} were before", root=root)
    if wanted.pack_every == 1:
        os.environ["STBENCH_CACHE"] = str(way.cache)
        found = first_batch(benchmark, root)
        assert (found["packed"], found["track"]) == (count, "reproduced"), found
        way.rows.append(found)
        print(json.dumps(found), flush=True)
    same = "packed chips are those of the files, bit for bit"
    way.step("pack --verify", "pack", name, "--verify", says=same, root=root)
    return way.rows


def main() -> None:
    """Write, serve, measure, remove."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=tuple(SHAPES))
    parser.add_argument("--copernicus", action="store_true", help="DFC2020 as Copernicus-Bench ships it")
    parser.add_argument("--deflate", action="store_true", help="deflate within the GeoTIFFs, in place of the archive")
    parser.add_argument("--pack-every", type=int, default=1, metavar="N",
                        help="the pack of all has to be refused for want of room; pack each N-th chip")  # fmt: skip
    parser.add_argument("--work", type=Path, help="folder for all of it; default: a temporary one")
    parser.add_argument("--archive", type=Path, help="the archive, made if it is not there, and left there")
    parser.add_argument("--out", type=Path, help="all numbers as JSON")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stbench-true-", dir=wanted.work) as folder:
        rows = go(wanted, Path(folder))
    if wanted.out is not None:
        wanted.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
