"""Scenes as they are published, larger than a chip: finding image and label of each, and reading windows of both."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from spectral_tl_bench.benchmarks import Benchmark, Scenes
from spectral_tl_bench.data.labels import whole_numbers
from spectral_tl_bench.data.matlab import read_variable
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import file_digest

MATLAB = (".mat",)
_STRANGE = re.compile(r"[^A-Za-z0-9._-]")
CHANNELS = 3
"""Of a label in colours."""


@dataclass(frozen=True)
class SceneFiles:
    """Image and label of one scene.

    Attributes:
        name: Unique within the benchmark: the domain, and what the name of the file adds to it.
        rule: Where in the benchmark it is described.
    """

    name: str
    rule: Scenes
    image: Path
    label: Path


class Part(Protocol):
    """An open image or label.

    Attributes:
        shape: (bands, rows, columns).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """The values of a window, (bands, rows, columns)."""

    def measured(self, window: Window) -> np.ndarray[Any, Any]:
        """Where the file's mask hides nothing, bool (rows, columns)."""

    def place(self, window: Window) -> dict[str, Any]:
        """What a GeoTIFF of the window says of its place and its nodata value, as ``rasterio.open`` takes it."""


class RasterPart:
    """An image or label in a raster.

    Args:
        wanted: The highest band that is wanted: up to there even what is called alpha is data, as a fourth band of
            aerial images often is.
    """

    def __init__(self, source: Any, wanted: int) -> None:
        self.source = source
        kinds = list(enumerate(source.colorinterp, 1))
        self.bands = [number for number, kind in kinds if number <= wanted or kind is not ColorInterp.alpha]
        self.shape = (len(self.bands), source.height, source.width)
        self.dtype = np.dtype(source.dtypes[0])
        flags = source.mask_flag_enums[0]
        self.masked = MaskFlags.per_dataset in flags and (
            MaskFlags.alpha not in flags or len(self.bands) < source.count
        )

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """The values of a window, (bands, rows, columns)."""
        return np.asarray(self.source.read(self.bands, window=window))

    def measured(self, window: Window) -> np.ndarray[Any, Any]:
        """Where an alpha band or a mask beside or in the file hides nothing, bool (rows, columns)."""
        if self.masked:
            return np.asarray(self.source.read_masks(1, window=window)) > 0
        return np.ones((int(window.height), int(window.width)), dtype=bool)

    def place(self, window: Window) -> dict[str, Any]:
        """CRS, transform and nodata value of a window."""
        facts: dict[str, Any] = {"nodata": self.source.nodata} if self.source.nodata is not None else {}
        if self.source.crs is not None and not self.source.transform.is_identity:
            facts |= {"crs": self.source.crs, "transform": self.source.window_transform(window)}
        return facts


class ArrayPart:
    """An image or label that MATLAB has written: (rows, columns, bands) or (rows, columns)."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = np.moveaxis(values, -1, 0) if values.ndim == CHANNELS else values[None]
        self.shape = (int(self.values.shape[0]), int(self.values.shape[1]), int(self.values.shape[2]))
        self.dtype = self.values.dtype

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """The values of a window, (bands, rows, columns)."""
        return self.values[(slice(None), *window.toslices())]

    def measured(self, window: Window) -> np.ndarray[Any, Any]:
        """True everywhere: there is no mask."""
        return np.ones((int(window.height), int(window.width)), dtype=bool)

    def place(self, window: Window) -> dict[str, Any]:
        """Nothing: MATLAB cubes do not say where they lie."""
        del window
        return {}


def find_scenes(benchmark: Benchmark, folder: Path, allow_partial: bool = False) -> list[SceneFiles]:
    """The scenes of a benchmark in a folder and all below it; nothing is opened.

    Args:
        benchmark: A benchmark with ``cut``.
        folder: Where the published files are, in whatever folders.
        allow_partial: Whether scenes may be missing, and images without a label are passed over.

    Returns:
        The scenes, sorted by name.

    Raises:
        DataError: If a domain has no scene, fewer than were published, or an image has no label or two.
    """
    assert benchmark.cut is not None  # noqa: S101 - callers ask
    paths = sorted(_files(folder))
    return [one for rule in benchmark.cut.scenes for one in _scenes_of(rule, folder, paths, allow_partial)]


def _scenes_of(rule: Scenes, folder: Path, paths: list[str], allow_partial: bool) -> list[SceneFiles]:
    """The scenes of one domain."""
    images: dict[str, list[str]] = {}
    for path in paths:
        if match := rule.matcher(rule.image).match(path):
            images.setdefault(match["scene"], []).append(path)
    all_images = {path for same in images.values() for path in same}
    found, bare = [], []
    for scene, same in sorted(images.items()):
        name = f"{rule.domain}-{scene}" if scene else rule.domain
        if _STRANGE.search(name):
            raise DataError(
                f"the scene is called {name!r}", where=folder / same[0], expected="letters, digits, '.', '_' and '-'",
                fix="rename image and label",
            )  # fmt: skip
        image = _one([folder / path for path in same], "image", name)
        wanted = rule.matcher(rule.filled(rule.label, scene))
        labels = [folder / path for path in paths if path not in all_images and wanted.match(path)]
        if labels:
            found.append(SceneFiles(name, rule, image, _one(labels, "label", name)))
        else:
            bare.append((image, rule.filled(rule.label, scene)))
    if not images:
        raise DataError(
            f"no image of {rule.domain} was found", where=folder, expected=f"files whose path ends like {rule.image}",
            fix="unpack the archives first, and give the folder that holds them to --from",
        )  # fmt: skip
    if rule.count and len(images) != rule.count and not allow_partial:
        raise DataError(
            f"{len(images)} scenes of {rule.domain}, published are {rule.count}", where=folder,
            fix="complete them, or add --allow-partial",
        )  # fmt: skip
    if bare and not (found and allow_partial):
        raise DataError(
            f"{len(bare)} of {len(images)} images of {rule.domain} have no label", where=bare[0][0],
            expected=f"a file whose path ends with {bare[0][1]}",
            fix="add the labels" + (", or leave such images out with --allow-partial" if found else ""),
        )  # fmt: skip
    return found


@contextmanager
def opened(benchmark: Benchmark, files: SceneFiles) -> Iterator[tuple[Part, Part]]:
    """Image and label of a scene, held against each other and the benchmark.

    Raises:
        DataError: If one cannot be read, or they differ in size, bands or kind from what the benchmark says.
    """
    assert benchmark.cut is not None  # noqa: S101 - callers ask
    channels, rule = CHANNELS if benchmark.cut.colours else 1, files.rule
    wanted = max(rule.bands or (len(benchmark.sensor.bands),))
    with (
        _part(files.image, rule.image_variable, 3, wanted, lossless=False) as image,
        _part(files.label, rule.label_variable, 3 if benchmark.cut.colours else 2, channels, lossless=True) as label,
    ):
        if image.shape[1:] != label.shape[1:]:
            sizes = ["x".join(map(str, part.shape[1:])) for part in (image, label)]
            raise DataError(
                f"the image is {sizes[0]} px, its label {sizes[1]} (rows x columns)", where=files.image,
                expected="one size; a cube has the axes rows, columns, bands",
            )  # fmt: skip
        if label.shape[0] != channels:
            what = "a picture in colours, of three bands" if benchmark.cut.colours else "one band"
            raise DataError(f"the label has {label.shape[0]} bands", where=files.label, expected=what)
        if image.dtype.kind not in "iuf":
            raise DataError(f"the image holds {image.dtype}", where=files.image, expected="integers or floats")
        if benchmark.cut.colours and label.dtype != np.uint8:
            raise DataError(f"the label holds {label.dtype}", where=files.label, expected="colours of 8 bits")
        bands_of(benchmark, files, image)
        yield image, label


def bands_of(benchmark: Benchmark, files: SceneFiles, image: Part) -> list[int]:
    """Which bands of an image are taken, counted from 0.

    Raises:
        DataError: If it does not have them.
    """
    wanted, have, rule = len(benchmark.sensor.bands), image.shape[0], files.rule
    in_order = rule.bands is None or list(rule.bands) == sorted(rule.bands)
    if have == wanted and in_order:  # somebody has taken them already
        return list(range(have))
    if rule.bands is None or max(rule.bands) > have:
        expected = f"{wanted} bands" if in_order else ""
        if rule.bands:
            taken = "some" if in_order else ", ".join(map(str, rule.bands))
            expected += f"{', or ' if in_order else ''}at least {max(rule.bands)}, of which {taken} are taken"
        raise DataError(f"the image has {have} bands", where=files.image, expected=expected)
    return [band - 1 for band in rule.bands]


def raw_label(
    benchmark: Benchmark, files: SceneFiles, values: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], int]:
    """Raw label values of a window (rows, columns), and how many of its pixels have a colour that nothing names.

    Args:
        files: For messages.
        values: As read, (1 or 3, rows, columns).

    Raises:
        DataError: If they are no whole numbers.
    """
    cut, labels = benchmark.cut, benchmark.labels
    assert cut is not None  # noqa: S101 - callers ask
    if not cut.colours:
        return whole_numbers(values[0], files.label), 0
    red, green, blue = values.astype(np.uint32)
    packed = red << 16 | green << 8 | blue
    raw = np.full(packed.shape, labels.void[0], dtype=np.int64)
    known = np.zeros(packed.shape, dtype=bool)
    for colour, value in (
        *((cover.colour, cover.raw[0]) for cover in labels.classes), *((c, labels.void[0]) for c in cut.void_colours)
    ):  # fmt: skip
        here = packed == int(colour[1:], 16)
        raw[here], known = value, known | here
    return raw, int((~known).sum())


@contextmanager
def _part(path: Path, variable: str, dimensions: int, wanted: int, *, lossless: bool) -> Iterator[Part]:
    if path.suffix.lower() in MATLAB:
        yield ArrayPart(read_variable(path, variable, dimensions))
        return
    with open_raster(path, lossless=lossless) as source:
        yield RasterPart(source, wanted)


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it; hidden ones are passed over, links to folders not followed."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield (Path(base) / name).relative_to(folder).as_posix()


def _one(paths: list[Path], what: str, name: str) -> Path:
    """The first of several copies of one file."""
    if len(paths) > 1 and len({file_digest(path) for path in paths}) > 1:
        raise DataError(
            f"{len(paths)} files could be the {what} of {name}, and they differ", where=paths[0],
            expected=f"one; another is {paths[1]}", fix="move the wrong ones out of the folder",
        )  # fmt: skip
    return paths[0]
