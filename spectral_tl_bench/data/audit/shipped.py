"""The ground of the suite's own benchmarks, as far as it is known without their data."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from spectral_tl_bench.benchmarks import Benchmark, splits_folder
from spectral_tl_bench.data.audit.facts import Ground
from spectral_tl_bench.data.audit.ground import compare_ground, nearest
from spectral_tl_bench.data.distances import footprints
from spectral_tl_bench.data.ground import BOX
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.layouts.mts12 import CRS, ORIGIN, TILE, mts12_footprint

OUTLINES = "domains.geojson"
MTS12 = "MTS12"


@functools.cache
def _shapes(path: Path) -> dict[tuple[str, str], shapely.Geometry]:
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    return {
        (one["properties"]["dataset"], one["properties"]["domain"]): shapely.geometry.shape(one["geometry"])
        for one in features
    }


def shapes(benchmark: Benchmark) -> dict[str, shapely.Geometry]:
    """What ``domains.geojson`` has of the domains of a benchmark: outlines or centres, in degrees."""
    known = _shapes(splits_folder() / OUTLINES)
    names = dict.fromkeys([*benchmark.source, *benchmark.target])
    return {name: known[benchmark.dataset, name] for name in names if (benchmark.dataset, name) in known}


def tile_index(benchmark: Benchmark) -> ChipIndex | None:
    """The tiles of MTS12's grid as a chip index with places and nothing else; None for any other dataset.

    A tile belongs to every domain in whose outline its middle lies: one that lies in both is there twice.
    """
    if benchmark.dataset != MTS12:
        return None
    rows = [row for domain, shape in shapes(benchmark).items() for row in _tiles(domain, shape)]
    frame = pd.DataFrame(rows, columns=["chip", "domain", "crs", *BOX]).set_index("chip")
    frame["site"], classes = "", [1] * len(benchmark.labels.classes)
    frame["class_counts"] = pd.Series([classes] * len(frame), index=frame.index, dtype=object)
    return ChipIndex(Path(), frame, {}, ())


def _tiles(domain: str, outline: shapely.Geometry) -> Iterator[tuple[object, ...]]:
    import pyproj

    into = pyproj.Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform
    x, y = into(*shapely.get_coordinates(outline).T)
    plane = shapely.set_coordinates(outline, np.stack([x, y], axis=1))
    columns, rows = ((values - start) / TILE for values, start in zip((x, y), ORIGIN, strict=True))
    for column in range(int(columns.min()) - 1, int(columns.max()) + 2):
        for row in range(int(rows.min()) - 1, int(rows.max()) + 2):
            place = mts12_footprint(column, row)
            if plane.contains(shapely.Point(place[1] + TILE / 2, place[2] + TILE / 2)):
                yield f"{domain} col {column} row {row}", domain, *place


def domain_ground(benchmark: Benchmark) -> Ground:
    """How far the domains of source and target are apart, where only their centres are known.

    Two centres that are nearer than the side of a chip are taken for one place, which is then on both sides.
    """
    if benchmark.in_domain:
        return Ground(unknown="source and target are the same domains, cut by place: that needs the data", exact=False)
    known = shapes(benchmark)
    missing = [name for name in (*benchmark.source, *benchmark.target) if name not in known]
    if missing:
        return Ground(unknown=f"{OUTLINES} has no place for {', '.join(missing)}", exact=False)
    side = benchmark.chip_size * benchmark.sensor.gsd
    one, other = (_around(benchmark, names, side) for names in (benchmark.source, benchmark.target))
    found = compare_ground(one, other, "domains")
    apart, partner = nearest(footprints(other), footprints(one))
    closest = int(apart.argmin())
    return found.model_copy(update={
        "exact": False, "nearest_pair": (one.index[partner[closest]], other.index[closest]),
    })  # fmt: skip


def _around(benchmark: Benchmark, names: tuple[str, ...], side: float) -> pd.DataFrame:
    """A chip around the middle of each domain, as rows of a chip index."""
    rows = []
    for name in names:
        middle = shapes(benchmark)[name].centroid
        high = side / 111_320.0
        wide = high / max(0.05, float(np.cos(np.radians(middle.y))))
        rows.append(("EPSG:4326", middle.x - wide / 2, middle.y - high / 2, middle.x + wide / 2, middle.y + high / 2))
    return pd.DataFrame(rows, columns=["crs", *BOX], index=pd.Index(names))
