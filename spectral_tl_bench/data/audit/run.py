"""An audit from beginning to end: the ground, then every chip, then what the two sides have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.audit.alike import find_copies
from spectral_tl_bench.data.audit.chips import CELLS, PLANES, Look, look_at_chips, pixels_per_chip
from spectral_tl_bench.data.audit.facts import GAP, NULL, Audit, Basis, Copies, Ground, Pixels
from spectral_tl_bench.data.audit.ground import compare_ground, shared_faults
from spectral_tl_bench.data.audit.shifts import compare_bands, compare_classes, compare_priors, shift_by_shares
from spectral_tl_bench.data.audit.shipped import domain_ground, tile_index
from spectral_tl_bench.data.audit.told import tell_apart
from spectral_tl_bench.data.ground import blocks
from spectral_tl_bench.data.index import ChipIndex, index_usable
from spectral_tl_bench.data.source import DataSource, track_of
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import DataError

PROGRESS = 5.0
"""Seconds between two lines on how far the reading is."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Sides:
    """Who is compared with whom: rows of a chip index.

    Attributes:
        role: Role of each chip, by name.
        pairs: Rows of both sides, by the name of the pair.
        problem: Why there is no validation; empty where there is one.
    """

    role: pd.Series
    pairs: dict[str, tuple[pd.DataFrame, pd.DataFrame]]
    problem: str = ""


def sides_of(benchmark: Benchmark, index: ChipIndex, seed: int) -> Sides:
    """Cut as a run does; where nothing can be cut off, all of the source is training."""
    frame, problem = index.frame, ""
    try:
        role = make_split(benchmark, index, seed).role.reindex(frame.index)
    except DataError as error:
        if benchmark.in_domain:
            raise
        problem = error.what
        role = pd.Series(np.where(frame["domain"].isin(benchmark.target), "target", "train"), frame.index)
    # Between the parts of an in-domain reference lie chips that are neither; with a gap, they are of the source.
    source = role.isin(["train", "validation"]) if benchmark.in_domain else role != "target"
    pairs = {GAP: (frame[source], frame[role == "target"])}
    pairs[NULL] = (frame[role == "train"], frame[role == "validation"])
    return Sides(role, pairs, problem)


def audit_definition(benchmark: Benchmark, seed: int = 0) -> Audit:
    """What is known of a benchmark of the suite without its data: where its tiles or domains lie."""
    index = tile_index(benchmark)
    if index is None:
        ground, chips = {GAP: domain_ground(benchmark)}, {}
    else:
        sides = sides_of(benchmark, index, seed)
        ground = {name: compare_ground(*pair, "tiles") for name, pair in sides.pairs.items()}
        chips = _counted(sides)
    notes = () if index is None else ("Tiles of the grid that the outlines in domains.geojson hold.",)
    return _audit(benchmark, "definition", seed, ground, chips, notes=notes)


def audit_data(
    benchmark: Benchmark, source: DataSource, own: bool, *, seed: int = 0, geometry: bool = False,
    workers: int | None = None, say: Callable[[str], None] = lambda _: None,
) -> tuple[Audit, ChipIndex]:  # fmt: skip
    """Measure what separates the two sides of a benchmark.

    Args:
        benchmark: The benchmark.
        source: Where its chips are.
        own: Whether the benchmark is the user's own.
        seed: Of the cut into training and validation.
        geometry: Whether to leave it at where the chips lie, and what their labels count.
        workers: Readers; by default one per core.
        say: Told how far the reading is.

    Returns:
        What was found, and the index of the chips that could be read.

    Raises:
        DataError: If nothing can be looked at, or the chips contradict the benchmark.
    """
    index, broken = index_usable(benchmark, source.root, trusted=source.trusted, domains=source.domains)
    track, deviations = track_of(benchmark, source, own, index)
    sides = sides_of(benchmark, index, seed)
    ground = {name: compare_ground(*pair) for name, pair in sides.pairs.items()}
    names = benchmark.labels.names
    priors = {
        name: compare_priors(
            names, _class_pixels(one, len(names)), _class_pixels(other, len(names)), (_area(one), _area(other))
        )
        for name, (one, other) in sides.pairs.items()
    }
    pixels = None
    if not geometry:
        pixels, unread = _pixels(benchmark, index, sides, workers, say)
        broken |= unread
    notes = [*index.notes, *deviations, *([f"no validation: {sides.problem}"] if sides.problem else [])]
    found = _audit(
        benchmark, track, seed, ground, _counted(sides), notes=tuple(notes), broken=broken,
        manifest=index.manifest, unit=index.unit, priors=priors, pixels=pixels,
    )  # fmt: skip
    return found, index


def _audit(
    benchmark: Benchmark, basis: Basis, seed: int, ground: dict[str, Ground], chips: dict[str, int], **more: Any
) -> Audit:
    sensor, classes = benchmark.sensor, benchmark.labels.classes
    sides = {GAP: "source and target", NULL: "training and validation"}
    faults = [fault for name, words in sides.items() if name in ground for fault in shared_faults(ground[name], words)]
    pixels: Pixels | None = more.get("pixels")
    if pixels is not None and (copies := pixels.copies[GAP]).exact:
        first = copies.worst[0]
        faults.append(f"source and target share {copies.exact} chips, pixel for pixel: {first.one} is {first.other}")
    about = {
        "benchmark": benchmark.id, "title": benchmark.title, "benchmark_version": benchmark.version,
        "about": tuple(benchmark.notes), "basis": basis, "seed": seed, "unit": sensor.unit,
        "scale": sensor.scale, "band_names": sensor.band_names, "wavelengths": tuple(sensor.wavelengths),
        "class_names": benchmark.labels.names, "class_colours": tuple(cover.colour for cover in classes),
        "chips": dict(sorted(chips.items())), "ground": ground,
        "faults": tuple(faults),
    }  # fmt: skip
    return Audit(**(about | more))


def _counted(sides: Sides) -> dict[str, int]:
    return {str(role): int(count) for role, count in sides.role.value_counts().items()}


def _area(frame: pd.DataFrame) -> float:
    return float((frame["height"] * frame["width"]).sum())


def _class_pixels(frame: pd.DataFrame, classes: int) -> Array:
    return np.sum(frame["class_counts"].tolist(), axis=0) if len(frame) else np.zeros(classes, dtype=np.int64)


def _pixels(
    benchmark: Benchmark, index: ChipIndex, sides: Sides, workers: int | None, say: Callable[[str], None]
) -> tuple[Pixels, dict[str, str]]:
    chips = sorted({str(chip) for pair in sides.pairs.values() for side in pair for chip in side.index})
    seen, broken = _Seen(benchmark, sides), {}
    last = time.monotonic()

    def told(number: int) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS:
            last = time.monotonic()
            say(f"{benchmark.id}: read {number} of {len(chips)} chips")

    for look in look_at_chips(benchmark, index, chips, workers, told):
        if look.problem:
            broken[look.chip] = look.problem
        else:
            seen.add(look)
    per_chip = pixels_per_chip(len(chips))
    return seen.compared(per_chip), broken


class _Seen:
    """What was read so far: for each chip little, and sums by side."""

    def __init__(self, benchmark: Benchmark, sides: Sides) -> None:
        self.benchmark, self.sides = benchmark, sides
        self.looks: dict[str, Look] = {}
        shape = (len(benchmark.labels.classes), len(benchmark.sensor.bands))
        self.sums = [[np.zeros(shape) for _ in range(3)] for _ in range(2)]
        self.members = [set(side.index) for side in sides.pairs[GAP]]

    def add(self, look: Look) -> None:
        """Add a chip."""
        for total, members in zip(self.sums, self.members, strict=True):
            if look.chip in members:
                for whole, part in zip(total, (look.counts, look.sums, look.squares), strict=True):
                    np.add(whole, np.asarray(part), out=whole)
        self.looks[look.chip] = look._replace(counts=None, sums=None, squares=None)

    def compared(self, per_chip: int) -> Pixels:
        """Hold the sides against each other."""
        pairs = {name: tuple(self._side(frame) for frame in pair) for name, pair in self.sides.pairs.items()}
        one, other = pairs[GAP]
        labelled = [_class_pixels(frame, len(self.sums[0][0])) for frame in self.sides.pairs[GAP]]
        bands = {name: compare_bands(*(side.pixels for side in pair)) for name, pair in pairs.items()}
        by_shares = shift_by_shares((labelled[0], labelled[1]), self.sums[0][0], self.sums[0][1])
        return Pixels(
            per_chip=per_chip,
            source=len(one.pixels),
            target=len(other.pixels),
            copies={name: _copies(*pair) for name, pair in pairs.items()},
            bands=tuple(
                shift and shift.model_copy(update={"by_shares": None if np.isnan(value) else float(value)})
                for shift, value in zip(bands[GAP], by_shares, strict=True)
            ),
            null_bands=bands[NULL],
            classes=compare_classes(
                self.benchmark.labels.names, (labelled[0], labelled[1]),
                (self.sums[0][0], self.sums[0][1], self.sums[0][2]), tuple(self.sums[1]),
            ),
            told={
                name: tell_apart(
                    (here.pixels, there.pixels), (here.chip, there.chip), (here.place, there.place)
                )
                for name, (here, there) in pairs.items()
            },
        )  # fmt: skip

    def _side(self, frame: pd.DataFrame) -> _Side:
        names = sorted(str(chip) for chip in frame.index if chip in self.looks)
        block = blocks(frame[frame["site"] == ""], self.benchmark.split.block)
        looks = [self.looks[name] for name in names]
        pixels = [look.pixels for look in looks if look.pixels is not None]
        counts = [len(part) for part in pixels]
        place = [str(frame.loc[name, "site"]) or block.get(name, name) for name in names]
        bands = len(self.benchmark.sensor.bands)
        return _Side(
            names,
            np.concatenate(pixels) if pixels else np.zeros((0, bands), dtype=np.float32),
            np.repeat(np.arange(len(names)), counts),
            np.repeat(np.array(place, dtype=object), counts),
            np.array([look.signature for look in looks], dtype=np.float32).reshape(len(names), PLANES * CELLS**2),
            [look.pixel_hash for look in looks],
        )


@dataclass(frozen=True, eq=False)
class _Side:
    """One side: its chips, and by pixel the values, the number of the chip and the name of the place."""

    names: list[str]
    pixels: Array
    chip: Array
    place: Array
    signatures: Array
    hashes: list[str]


def _copies(one: _Side, other: _Side) -> Copies:
    if not one.names or not other.names:
        return Copies(exact=0, near=0)
    return find_copies(one.names, other.names, (one.signatures, other.signatures), (one.hashes, other.hashes))
