"""What can be seen in a folder of images and labels: pairs, bands, sizes, values. Nothing is guessed here."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from spectral_tl_bench.data.labels import whole_numbers
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.data.unmeasured import data_bands, unmeasured
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.maps.scene import wavelength_of

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".png")
LABEL_WORDS = frozenset(
    {"label", "labels", "lbl", "mask", "masks", "gt", "truth", "groundtruth", "annotation", "annotations", "lc",
     "landcover", "lulc", "classes", "segmentation"}
)  # fmt: skip
IMAGE_WORDS = frozenset({"image", "images", "img", "imgs", "scene", "scenes", "s2", "data", "input", "inputs"})
_WORDS = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9]+")
_SHOWN = 5


@dataclass(frozen=True)
class Chip:
    """An image and its label, as paths below the folder.

    Attributes:
        name: Unique.
        parts: What is left of the image's path without words for images: folders, then the name.
    """

    name: str
    image: str
    label: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What the files of a folder say.

    Attributes:
        chips: Pairs, sorted by name.
        bands: Names of the bands, empty where a file does not say; ``wavelengths`` in micrometres, likewise None.
        wavelengths: See ``bands``.
        size: (height, width) of the images.
        gsd: Side of a pixel in metres; None where files do not say where they lie.
        crs: CRS of each chip, as ``EPSG:32633`` or WKT; empty where it has none.
        scale: What the files' tags say; None where they say nothing.
        highest: 99th percentile of a sample of the measured values.
        holes: Whether an image has values that are no measurement.
        values: Label pixels by value.
        hidden: Label values that the files call nodata.
        colours: Colour by label value, where the files have a table of them.
        only: Label values of each chip.
        notes: What was left out, in words.
    """

    folder: Path
    chips: tuple[Chip, ...]
    bands: tuple[str, ...]
    wavelengths: tuple[float | None, ...]
    dtype: str
    size: tuple[int, int]
    gsd: float | None
    crs: tuple[str, ...]
    scale: float | None
    highest: float
    holes: bool
    values: Mapping[int, int]
    hidden: frozenset[int]
    colours: Mapping[int, str]
    only: tuple[frozenset[int], ...]
    notes: tuple[str, ...] = ()


def look_into(
    folder: Path, images: str = "", labels: str = "", *, drop_unpaired: bool = False, size: int | None = None
) -> Seen:
    """Pair images and labels, and read what they say.

    Args:
        images: Glob for the images, relative to the folder; by default told by names, or by content.
        labels: Likewise for the labels.
        drop_unpaired: Leave out what has no partner.
        size: Leave out images of another side than this.

    Raises:
        DataError: If there are no pairs, a file has no partner or cannot be read, or images contradict each other.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder)
    chips, notes = _pairs(folder, *_roles(folder, images, labels), drop_unpaired)
    facts = [_image_facts(folder, chip.image) for chip in chips]
    if size is not None:
        keep = [number for number, fact in enumerate(facts) if fact.size == (size, size)]
        notes += [f"{len(chips) - len(keep)} images that are not {size}x{size} px are left out"]
        chips, facts = [chips[number] for number in keep], [facts[number] for number in keep]
        if not chips:
            raise DataError(f"no image has {size}x{size} px", where=folder)
    _check_alike(folder, chips, facts)
    first = facts[0]
    counts: Counter[int] = Counter()
    hidden: set[int] = set()
    colours: dict[int, str] = {}
    only = []
    for chip in chips:
        values, void, table = _label_facts(folder, chip.label)
        counts.update(values)
        hidden |= void
        colours = {**table, **colours}
        only.append(frozenset(values))
    return Seen(
        folder, tuple(chips), first.bands, first.wavelengths, first.dtype, first.size, first.gsd,
        tuple(fact.crs for fact in facts), first.scale, float(np.median([fact.highest for fact in facts])),
        any(fact.holes for fact in facts), dict(sorted(counts.items())), frozenset(hidden), colours, tuple(only),
        tuple(notes),
    )  # fmt: skip


def words_of(text: str) -> list[str]:
    """The words and numbers of a name, in lower case."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)
    return [part.lower() for part in _WORDS.findall(spaced) if part.isalnum()]


def _files(folder: Path) -> list[str]:
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(where).relative_to(folder)
        found += [(inside / name).as_posix() for name in sorted(names)
                  if name.lower().endswith(SUFFIXES) and not name.startswith(".")]  # fmt: skip
    return found


def _roles(folder: Path, images: str, labels: str) -> tuple[list[str], list[str]]:
    """Which files are images, and which labels."""
    every = _files(folder)
    if not every:
        raise DataError("there are no images here", where=folder, expected=f"files in {', '.join(SUFFIXES)}")
    if labels or images:
        chosen_labels = [file for file in every if labels and _matches(file, labels)]
        chosen = [file for file in every if (_matches(file, images) if images else file not in chosen_labels)]
        if images and not labels:
            chosen_labels = [file for file in every if file not in chosen]
        return [file for file in chosen if file not in chosen_labels], chosen_labels
    named = [
        file for file in every if LABEL_WORDS & {word for part in PurePosixPath(file).parts for word in words_of(part)}
    ]
    if not named:  # then the content has to tell: one band of few whole numbers is a label
        named = [file for file in every if _looks_like_label(folder / file)]
    return [file for file in every if file not in set(named)], named


def _matches(file: str, pattern: str) -> bool:
    return PurePosixPath(file).match(pattern)


def _looks_like_label(path: Path) -> bool:
    with open_raster(path) as source:
        return source.count == 1 and np.dtype(source.dtypes[0]).kind in "iub"


def _bare(name: str) -> str:
    """A name without the words that say what kind of file it is."""
    pieces = _WORDS.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    kept = [piece for piece in pieces if piece.lower() not in LABEL_WORDS | IMAGE_WORDS]
    return re.sub(r"[^A-Za-z0-9]+", "_", "".join(kept)).strip("_")


def _parts(file: str) -> tuple[str, ...]:
    path = PurePosixPath(file)
    return tuple(filter(None, map(_bare, (*path.parts[:-1], path.stem))))


_KEYS: tuple[Callable[[str], tuple[str, ...]], ...] = (
    _parts,
    lambda file: _parts(file)[-1:],
    lambda file: (PurePosixPath(file).stem,),
    lambda file: tuple(re.findall(r"[0-9]+", PurePosixPath(file).stem)),
)
"""By what a pair may be known, the most telling first."""


def _pairs(folder: Path, images: list[str], labels: list[str], drop: bool) -> tuple[list[Chip], list[str]]:
    if not images or not labels:
        raise DataError(
            f"{len(images)} images and {len(labels)} labels were found", where=folder,
            expected="names or folders that say which are labels (label, mask, gt, ...)",
            fix='say which: --images "img/*.tif" --labels "map/*.tif"',
        )  # fmt: skip
    best: tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], str]] = ({}, {})
    for key in _KEYS:
        sides = ({key(file): file for file in images}, {key(file): file for file in labels})
        unique = len(sides[0]) == len(images) and len(sides[1]) == len(labels)
        if unique and len(sides[0].keys() & sides[1].keys()) > len(best[0].keys() & best[1].keys()):
            best = sides
    both = sorted(best[0].keys() & best[1].keys())
    if not both:
        raise DataError(
            "no image and label have a name in common", where=folder,
            expected=f"such as a_1_image.tif and a_1_label.tif; here are {images[0]} and {labels[0]}",
        )  # fmt: skip
    alone = [best[0][key] for key in sorted(best[0].keys() - best[1].keys())]
    spare = [best[1][key] for key in sorted(best[1].keys() - best[0].keys())]
    notes = []
    for files, kind, other in ((alone, "images", "label"), (spare, "labels", "image")):
        if not files:
            continue
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        if not drop:
            raise DataError(
                f"{len(files)} {kind} have no {other}: {', '.join(files[:_SHOWN])}{more}", where=folder,
                fix="add what is missing, or leave them out with --drop-unpaired",
            )  # fmt: skip
        notes.append(f"{len(files)} {kind} without {other} are left out")
    names = _unique_names([_parts(best[0][key]) or key for key in both])
    return [
        Chip(name, best[0][key], best[1][key], _parts(best[0][key])) for name, key in zip(names, both, strict=True)
    ], notes


def _unique_names(parts: Sequence[tuple[str, ...]]) -> list[str]:
    last = [part[-1] for part in parts]
    return last if len(set(last)) == len(last) else ["-".join(part) for part in parts]


@dataclass(frozen=True)
class _Image:
    bands: tuple[str, ...]
    wavelengths: tuple[float | None, ...]
    dtype: str
    size: tuple[int, int]
    gsd: float | None
    crs: str
    scale: float | None
    highest: float
    holes: bool

    @property
    def count(self) -> int:
        return len(self.bands)


def _image_facts(folder: Path, file: str) -> _Image:
    with open_raster(folder / file) as source:
        bands = data_bands(source, source.count - 1)  # without an alpha band
        pixels = source.read(bands)
        holes = unmeasured(source, bands, pixels, None).values
        measured = pixels[~holes] if holes is not None else pixels
        scale = float(source.scales[0]) if set(source.scales) != {1.0} else None
        epsg = source.crs.to_epsg() if source.crs else None
        return _Image(
            tuple((source.descriptions[band - 1] or "").strip() for band in bands),
            tuple(wavelength_of(source, band) for band in bands), source.dtypes[0], (source.height, source.width),
            _pixel_metres(source), f"EPSG:{epsg}" if epsg else source.crs.to_wkt() if source.crs else "", scale,
            float(np.percentile(measured, 99)) if measured.size else 0.0, holes is not None,
        )  # fmt: skip


def _pixel_metres(source) -> float | None:  # type: ignore[no-untyped-def]  # rasterio has no types
    """Side of a pixel on the ground."""
    if not source.crs:
        return None
    across = abs(source.transform.a) or abs(source.transform.b)
    if source.crs.is_geographic:
        latitude = source.transform.f + source.transform.e * source.height / 2
        return float(f"{across * 111_320 * max(0.05, np.cos(np.radians(latitude))):.3g}")
    return float(f"{across * source.crs.linear_units_factor[1]:.4g}")


def _check_alike(folder: Path, chips: Sequence[Chip], facts: Sequence[_Image]) -> None:
    """Images of one benchmark have the same bands and size."""
    order = "one number and order of bands in all files"
    for attribute, what, fix in (
        ("size", "sizes in pixels (height, width)", "keep one side with --size 256, or cut larger scenes into chips: "
         "`stbench data cut` (docs/bring-a-benchmark.md)"),
        ("dtype", "types of pixels", "convert them to one type"),
        ("count", "numbers of bands", order),
        ("bands", "names of bands", order),
        ("wavelengths", "wavelengths", order),
    ):  # fmt: skip
        values = [getattr(fact, attribute) for fact in facts]
        counts = Counter(values).most_common()
        if len(counts) > 1:
            listed = "; ".join(f"{value}: {count} images" for value, count in counts[:_SHOWN])
            odd = chips[next(number for number, value in enumerate(values) if value != counts[0][0])]
            raise DataError(f"the images have {len(counts)} {what}: {listed}", where=folder / odd.image, fix=fix)


def _label_facts(folder: Path, file: str) -> tuple[dict[int, int], set[int], dict[int, str]]:
    """Pixels by value, values that are nodata, colours by value."""
    path = folder / file
    with open_raster(path, lossless=True) as source:
        if source.count != 1:
            raise DataError(
                f"the label has {source.count} bands", where=path, expected="one band of class numbers",
                fix="labels that are pictures in colours: write the YAML by hand, with `colours: true` for `data cut`",
            )  # fmt: skip
        values, counts = np.unique(whole_numbers(source.read(1), path), return_counts=True)
        if len(values) > 256:
            raise DataError(f"the label holds {len(values)} values", where=path, expected="class numbers, 255 at most")
        void = {int(source.nodata)} if source.nodata is not None and float(source.nodata).is_integer() else set()
        return dict(zip(values.tolist(), counts.tolist(), strict=True)), void, dict(_colours(source))


def _colours(source) -> Iterator[tuple[int, str]]:  # type: ignore[no-untyped-def]
    try:
        table = source.colormap(1)
    except ValueError:
        return
    for value, (red, green, blue, _) in table.items():
        if (red, green, blue) != (0, 0, 0):
            yield int(value), f"#{red:02x}{green:02x}{blue:02x}"
