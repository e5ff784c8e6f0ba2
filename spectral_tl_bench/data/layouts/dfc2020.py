"""DFC2020 as its authors publish it, by season or by fold, and as Copernicus-Bench ships it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts.base import ChipFiles, refuse
from spectral_tl_bench.data.layouts.folders import FolderLayout, check_pairs, rasters_in, relative
from spectral_tl_bench.errors import DataError

SEASONS = ("spring", "summer", "autumn", "winter")
FOLDS = ("trainset", "testset")
COPERNICUS = "dfc2020_s1s2"
_NAME = re.compile(r"^ROIs\d+_(?P<season>[a-z]+)_s2_(?P<city>[A-Za-z]+)_p\d+$")


_COPERNICUS = re.compile(r"^ROIs\d+_[a-z]+_s2_(?P<ground>\d+)_p\d+$")


class Dfc2020(FolderLayout):
    """``{season or fold}/image/s2_{City}/ROIs0000_{season}_s2_{City}_p{n}.tif``; the domain is the city.

    Or ``dfc2020_s1s2/s2/ROIs0000_test_s2_0_p{n}.tif``, as Copernicus-Bench ships it: there the name tells no domain.
    """

    domains_by = "name"
    types = ("uint16", "int16")
    marks = (*(f"{name}/image" for name in (*SEASONS, *FOLDS)), f"{COPERNICUS}/dfc", "dfc")
    other_sizes = MappingProxyType({
        96: "this is the copy of GFM-Bench, cut again with overlap and divided anew: its chips share ground across any "
        "split, and it has no domains",
    })  # fmt: skip

    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """The chips of all seasons; of both folds where there are no folders by season."""
        if (copernicus := self.mark(base)) is not None and copernicus.name == "dfc":
            return _copernicus(copernicus.parent, base)
        seasons = [name for name in SEASONS if (base / name / "image").is_dir()]
        label_paths, labels, domains = {}, set(), {}
        known = {domain.id: domain.season for domain in benchmark.domains}
        for name in seasons or [name for name in FOLDS if (base / name / "image").is_dir()]:
            for city in sorted(path for path in (base / name / "image").iterdir() if path.is_dir()):
                for image in rasters_in(city):
                    match = _NAME.match(image.stem)
                    if not match or known.get(match["city"], match["season"]) != match["season"]:
                        refuse(DataError(
                            f"the file name {image.name!r} is not one of {benchmark.dataset}",
                            where=image,
                            expected="ROIs0000_{season}_s2_{City}_p{n}.tif with the city's own season",
                        ))  # fmt: skip
                        continue
                    path = relative(image, base)
                    label_paths[path], domains[path] = dfc_label_path(path), match["city"]
            label_folder = base / name / "label"
            if label_folder.is_dir():
                for city in sorted(path for path in label_folder.iterdir() if path.is_dir()):
                    labels |= {relative(label, base) for label in rasters_in(city)}
        check_pairs(label_paths, labels, base)
        return [ChipFiles(PurePosixPath(i).stem, domains[i], "", i, label) for i, label in label_paths.items()]


def _copernicus(folder: Path, base: Path) -> list[ChipFiles]:
    """All chips below ``s2`` and ``dfc``, without their domains; radar beside them is passed over."""
    images = []
    for image in rasters_in(folder / "s2") if (folder / "s2").is_dir() else []:
        if _COPERNICUS.match(image.stem):
            images.append(image)
            continue
        refuse(DataError(
            f"the file name {image.name!r} is not one of Copernicus-Bench", where=image,
            expected="ROIs0000_{fold}_s2_{number}_p{n}.tif",
        ))  # fmt: skip
    labels = {image: folder / "dfc" / image.name.replace("_s2_", "_dfc_", 1) for image in images}
    check_pairs(
        {relative(image, base): relative(label, base) for image, label in labels.items()},
        [relative(label, base) for label in rasters_in(folder / "dfc")], base,
    )  # fmt: skip
    return [
        ChipFiles(image.stem, "", "", relative(image, base), relative(label, base)) for image, label in labels.items()
    ]


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
