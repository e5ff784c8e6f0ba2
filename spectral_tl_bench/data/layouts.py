"""Where a dataset's files are: readers for the published folder layouts and for a user's own table.

Every reader turns a data root into a list of ``ChipFiles``. No file is opened here except a user's table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spectral_tl_bench.benchmarks import Benchmark, PublishedLayout, TableLayout
from spectral_tl_bench.errors import DataError, nearest

RASTER_SUFFIXES = (".tif", ".tiff", ".TIF", ".TIFF")

MTS12_ORIGIN = (370_000.0, 5_025_000.0)
MTS12_TILE = 5_000.0
MTS12_CRS = "EPSG:32633"
MTS12_FIRST_NORTHERN_ROW = 12


@dataclass(frozen=True)
class ChipFiles:
    """One chip before it is opened.

    Attributes:
        chip: Name, unique within the benchmark.
        domain: Id of its domain.
        site: Place it must not be separated from, where the layout knows one.
        image: Path relative to the root.
        label: Path relative to the root.
        footprint: (crs, xmin, ymin, xmax, ymax) where the name alone tells it.
    """

    chip: str
    domain: str
    site: str
    image: str
    label: str
    footprint: tuple[str, float, float, float, float] | None = None


def find_chips(benchmark: Benchmark, root: Path) -> tuple[Path, list[ChipFiles]]:
    """Find the chips of a benchmark's domains below a data root.

    Args:
        benchmark: The benchmark.
        root: Data root, or the dataset's own folder.

    Returns:
        The folder that the relative paths start from, and the chips sorted by name.

    Raises:
        DataError: If nothing or only a part was found; the message lists what was looked for.
    """
    layout = benchmark.layout
    if not root.is_dir():
        raise DataError(
            "the data root does not exist" if not root.exists() else "the data root is not a folder",
            where=root,
            expected=f"a folder that holds {_wanted(layout)}",
            fix="check --data-root and STBENCH_DATA, or leave both out to run on the bundled synthetic sample",
        )
    if isinstance(layout, TableLayout):
        base, chips = root, _read_table(layout, root)
    else:
        base, chips = _find_published(layout, root, benchmark)
    wanted = {*benchmark.source, *benchmark.target}
    found = Counter(chip.domain for chip in chips)
    for side in ("source", "target"):
        missing = [name for name in getattr(benchmark, side) if not found[name]]
        if missing:
            state = "empty" if len(missing) == len(getattr(benchmark, side)) else "incomplete"
            present = ", ".join(f"{name} ({count})" for name, count in sorted(found.items())) or "none"
            raise DataError(
                f"the {side} of {benchmark.id} is {state}: no chip of domain {', '.join(missing)}",
                where=base,
                expected=f"chips of the domains {', '.join(getattr(benchmark, side))}",
                fix=f"found only: {present}; complete the data, or check the domain names",
            )
    chips = [chip for chip in chips if chip.domain in wanted]
    twice = [name for name, count in Counter(chip.chip for chip in chips).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} chip names occur more than once, for example {twice[0]!r}",
            where=base,
            expected="one file per chip name",
            fix="remove the copies: a chip that is counted twice weighs twice",
        )
    return base, sorted(chips, key=lambda chip: chip.chip)


def _wanted(layout: PublishedLayout | TableLayout) -> str:
    if isinstance(layout, TableLayout):
        return layout.table
    return " or ".join(_PROBES[layout.kind][0])


def _find_published(layout: PublishedLayout, root: Path, benchmark: Benchmark) -> tuple[Path, list[ChipFiles]]:
    probes, reader = _PROBES[layout.kind]
    bases = [root, *(root / name for name in layout.folders)]
    looked = []
    for base in bases:
        for probe in probes:
            looked.append(str((base / probe).relative_to(root)))
            if (base / probe).is_dir():
                return base, reader(base / probe, base, benchmark)
    entries = sorted(entry.name for entry in root.iterdir())
    shown = ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if len(entries) > 12 else "")
    raise DataError(
        f"no {benchmark.dataset} data for {benchmark.id} was found",
        where=root,
        expected="one of these folders: " + ", ".join(looked),
        fix=f"the root holds: {shown or 'nothing'}; point --data-root at the folder that holds the dataset",
    )


def _rasters(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in RASTER_SUFFIXES and not path.name.startswith("."))


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix()


def _check_pairs(images: Iterable[str], labels: Iterable[str], base: Path, pairs: dict[str, str]) -> None:
    """Every image needs its label and every label its image; names examples of either."""
    have_labels, have_images = set(labels), set(images)
    bare = sorted(image for image in have_images if pairs[image] not in have_labels)
    if bare:
        raise DataError(
            f"{len(bare)} of {len(have_images)} images have no label, for example {bare[0]}",
            where=base,
            expected=f"its label at {pairs[bare[0]]}",
            fix="add the missing labels, or move the images away",
        )
    orphans = sorted(have_labels - set(pairs.values()))
    if orphans:
        raise DataError(
            f"{len(orphans)} of {len(have_labels)} labels have no image, for example {orphans[0]}",
            where=base,
            expected="an image of the same name",
            fix="add the missing images, or move the labels away",
        )


# ---------------------------------------------------------------------------------------------- WHU-OHS

_WHU_PREFIX = re.compile(r"^([ST][1-8])_")


def _whu_side(folder: Path, base: Path) -> list[tuple[str, str, str]]:
    """(stem, image, label) of one ``{image,label}`` folder, flat or with a ``{tr,val,ts}`` level below."""
    for name in ("image", "label"):
        if not (folder / name).is_dir():
            raise DataError(
                "a folder is missing", where=folder / name, expected=f"{folder.name}/{{image,label}}/NAME.tif"
            )
    images, labels = {}, set()
    for level in (".", "tr", "val", "ts"):
        image_folder, label_folder = folder / "image" / level, folder / "label" / level
        if image_folder.is_dir():
            for image in _rasters(image_folder):
                images[_relative(image, base)] = _relative(label_folder / image.name, base)
        if label_folder.is_dir():
            labels |= {_relative(label, base) for label in _rasters(label_folder)}
    _check_pairs(images, labels, base, images)
    return [(PurePosixPath(image).stem, image, label) for image, label in images.items()]


def _whu_transfer(folder: Path, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
    """``{source,target}/{image,label}/[{tr,val,ts}/]NAME.tif``; the domain is the prefix of the name."""
    chips = []
    for side in ("source", "target"):
        if not (folder.parent / side).is_dir():
            raise DataError(
                f"only one half of {benchmark.dataset} is here",
                where=folder.parent / side,
                expected="source/ and target/",
            )
        for stem, image, label in _whu_side(folder.parent / side, base):
            prefix = _WHU_PREFIX.match(stem)
            if not prefix:
                raise DataError(
                    f"the name {stem!r} does not say its city",
                    where=base / image,
                    expected="S1_ .. S8_ or T1_ .. T8_ in front",
                )
            chips.append(ChipFiles(stem, prefix.group(1), "", image, label))
    return chips


def _whu_official(folder: Path, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
    """``{tr,val,ts}/{image,label}/NAME.tif``: the dataset without a gap, one domain."""
    domain = benchmark.source[0]
    return [
        ChipFiles(f"{fold}-{stem}", domain, "", image, label)
        for fold in ("tr", "val", "ts")
        if (folder.parent / fold).is_dir()
        for stem, image, label in _whu_side(folder.parent / fold, base)
    ]


# ---------------------------------------------------------------------------------------------- DFC2020

_DFC_NAME = re.compile(r"^ROIs\d+_(?P<season>[a-z]+)_s2_(?P<city>[A-Za-z]+)_p\d+$")
_DFC_SEASONS = ("spring", "summer", "autumn", "winter")
_DFC_FOLDS = ("trainset", "testset")


def dfc_label_path(image: str) -> str:
    """The label of a DFC2020 image, both relative to the dataset folder.

    Only parts of the relative path are replaced, never text in the whole path: a user's own folder may well be
    called ``image`` or ``s2``.
    """
    parts = list(PurePosixPath(image).parts)
    parts[-3] = "label"
    parts[-2] = parts[-2].replace("s2_", "dfc_", 1)
    parts[-1] = parts[-1].replace("_s2_", "_dfc_", 1)
    return str(PurePosixPath(*parts))


def _dfc2020(folder: Path, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
    """``{season or fold}/image/s2_{City}/ROIs0000_{season}_s2_{City}_p{n}.tif``; the domain is the city."""
    base_folder = folder.parent.parent
    seasons = [name for name in _DFC_SEASONS if (base_folder / name / "image").is_dir()]
    folders = seasons or [name for name in _DFC_FOLDS if (base_folder / name / "image").is_dir()]
    images, labels, domains = {}, set(), {}
    known = {domain.id: domain.season for domain in benchmark.domains}
    for name in folders:
        for city in sorted(path for path in (base_folder / name / "image").iterdir() if path.is_dir()):
            for image in _rasters(city):
                match = _DFC_NAME.match(image.stem)
                if not match or known.get(match["city"], match["season"]) != match["season"]:
                    raise DataError(
                        f"the file name {image.name!r} is not one of {benchmark.dataset}",
                        where=image,
                        expected="ROIs0000_{season}_s2_{City}_p{n}.tif with the city's own season",
                    )
                relative = _relative(image, base)
                images[relative], domains[relative] = dfc_label_path(relative), match["city"]
        label_folder = base_folder / name / "label"
        if label_folder.is_dir():
            for city in sorted(path for path in label_folder.iterdir() if path.is_dir()):
                labels |= {_relative(label, base) for label in _rasters(city)}
    _check_pairs(images, labels, base, images)
    return [ChipFiles(PurePosixPath(i).stem, domains[i], "", i, label) for i, label in images.items()]


# ---------------------------------------------------------------------------------------------- MTS12

_MTS_NAME = re.compile(r"^eopatch_id_(?P<id>\d+)_col_(?P<col>\d+)_row_(?P<row>\d+)$")


def mts12_footprint(col: int, row: int) -> tuple[str, float, float, float, float]:
    """The exact ground footprint of an MTS12 chip, known from its name alone.

    The chips are a 5 km grid in EPSG:32633 (UTM 33N): chip (col, row) starts at x = 370000 + 5000 col and
    y = 5025000 + 5000 row.

    Returns:
        (crs, xmin, ymin, xmax, ymax), metres.
    """
    xmin, ymin = MTS12_ORIGIN[0] + MTS12_TILE * col, MTS12_ORIGIN[1] + MTS12_TILE * row
    return MTS12_CRS, xmin, ymin, xmin + MTS12_TILE, ymin + MTS12_TILE


def mts12_domain(row: int) -> str:
    """``south`` for rows 0 to 11 of the grid, ``north`` above."""
    return "north" if row >= MTS12_FIRST_NORTHERN_ROW else "south"


def _mts12(folder: Path, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
    """``image/{train,val,test}/eopatch_*.tif`` and ``label/{fold}/{stem}_label.mat``."""
    top = folder.parent.parent
    images, labels, found = {}, set(), {}
    for fold in ("train", "val", "test"):
        if (top / "image" / fold).is_dir():
            for image in _rasters(top / "image" / fold):
                match = _MTS_NAME.match(image.stem)
                if not match:
                    raise DataError(
                        f"the file name {image.name!r} is not one of {benchmark.dataset}",
                        where=image,
                        expected="eopatch_id_{id}_col_{c}_row_{r}.tif",
                    )
                relative = _relative(image, base)
                images[relative] = _relative(top / "label" / fold / f"{image.stem}_label.mat", base)
                found[relative] = (int(match["col"]), int(match["row"]))
        if (top / "label" / fold).is_dir():
            labels |= {_relative(label, base) for label in sorted((top / "label" / fold).glob("[!.]*.mat"))}
    _check_pairs(images, labels, base, images)
    return [
        ChipFiles(PurePosixPath(i).stem, mts12_domain(found[i][1]), "", i, label, mts12_footprint(*found[i]))
        for i, label in images.items()
    ]


_Reader = Callable[[Path, Path, Benchmark], list[ChipFiles]]

_PROBES: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "whu-ohs-transfer": (("transfer-STall/source", "source", "transfer-STall/target", "target"), _whu_transfer),
    "whu-ohs-official": (("tr", "ts", "val"), _whu_official),
    "dfc2020": (tuple(f"{name}/image" for name in (*_DFC_SEASONS, *_DFC_FOLDS)), _dfc2020),
    "mts12": (("image/train", "image/val", "image/test"), _mts12),
}


# ---------------------------------------------------------------------------------------------- own tables

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def _read_table(layout: TableLayout, root: Path) -> list[ChipFiles]:
    """A user's table: one row per chip, paths filled in from its columns."""
    import pandas as pd

    path = root / layout.table
    try:
        if path.suffix in (".parquet", ".geoparquet", ".pq"):
            table = pd.read_parquet(path)
        else:  # a domain may well be called NA; only an empty cell is empty
            table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise DataError(
            "the table of chips is missing", where=path, fix="check layout.table and the data root"
        ) from None
    except Exception as error:  # pandas and pyarrow raise a dozen kinds for a file that is not what it says
        raise DataError(f"the table of chips cannot be read: {error}", where=path) from None
    columns = {str(column) for column in table.columns}
    needed = {"chip": layout.chip, "domain": layout.domain, "site": layout.site}
    for template in ("image", "label"):
        needed |= {f"{template} {{{name}}}": name for name in _PLACEHOLDER.findall(getattr(layout, template))}
    for key, column in needed.items():
        if column not in columns:
            raise DataError(
                f"the table has no column {column!r}, which layout.{key} names",
                where=path,
                expected=nearest(column, columns),
            )
    if table.empty:
        raise DataError("the table of chips is empty", where=path)
    used = sorted(set(needed.values()))
    blank = table[used].isna().any(axis=1)
    if blank.any():
        row = int(blank.to_numpy().argmax())
        raise DataError(
            f"row {row + 2} of the table has an empty cell", where=path, expected=f"values in {', '.join(used)}"
        )
    return [
        ChipFiles(
            chip=str(record[layout.chip]).removesuffix(".tif"),
            domain=str(record[layout.domain]),
            site=str(record[layout.site]),
            image=_fill(layout.image, record, path),
            label=_fill(layout.label, record, path),
        )
        for record in table[used].to_dict("records")
    ]


def _fill(template: str, record: dict[Any, Any], table: Path) -> str:
    """A path from a template; refuses one that would leave the data root."""
    text = _PLACEHOLDER.sub(lambda match: str(record[match.group(1)]), template)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise DataError(
            f"the table leads outside the data root: {text!r}",
            where=table,
            expected="paths below the data root, without ..",
        )
    return str(path)
