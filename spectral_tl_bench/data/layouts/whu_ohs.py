"""WHU-OHS as its authors publish it: for transfer between cities, and whole."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts.base import ChipFiles, refuse
from spectral_tl_bench.data.layouts.folders import FolderLayout, check_pairs, rasters_in, relative
from spectral_tl_bench.errors import DataError

FOLDS = ("tr", "val", "ts")
_PREFIX = re.compile(r"^([ST][1-8])_")


class WhuOhsTransfer(FolderLayout):
    """``{source,target}/{image,label}/[{tr,val,ts}/]NAME.tif``; the domain is the prefix of the name."""

    domains_by = "name"
    types = ("int16", "uint16")
    marks = ("transfer-STall/source", "source", "transfer-STall/target", "target")

    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """The chips of both sides, with or without the folder ``transfer-STall`` around them."""
        top = (self.mark(base) or base / "source").parent
        chips = []
        for side in ("source", "target"):
            if not (top / side).is_dir():
                refuse(DataError(
                    f"only one half of {benchmark.dataset} is here", where=top / side, expected="source/ and target/"
                ))  # fmt: skip
                continue
            for stem, image, label in read_side(top / side, base):
                prefix = _PREFIX.match(stem)
                if not prefix:
                    refuse(DataError(
                        f"the name {stem!r} does not say its city",
                        where=base / image,
                        expected="S1_ .. S8_ or T1_ .. T8_ in front",
                    ))  # fmt: skip
                    continue
                chips.append(ChipFiles(stem, prefix.group(1), "", image, label))
        return chips


class WhuOhsOfficial(FolderLayout):
    """``{tr,val,ts}/{image,label}/NAME.tif``: the dataset without a gap, one domain."""

    domains_by = "folder"
    types = ("int16", "uint16")
    marks = ("tr", "ts", "val")

    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """The chips of all folds."""
        domain = benchmark.source[0]
        return [
            ChipFiles(f"{fold}-{stem}", domain, "", image, label)
            for fold in FOLDS
            if (base / fold).is_dir()
            for stem, image, label in read_side(base / fold, base)
        ]


def read_side(folder: Path, base: Path) -> list[tuple[str, str, str]]:
    """(stem, image, label) of one ``{image,label}`` folder, flat or with a ``{tr,val,ts}`` level below.

    Raises:
        DataError: If one of the two folders is missing, or an image or a label has no counterpart.
    """
    for name in ("image", "label"):
        if not (folder / name).is_dir():
            refuse(DataError(
                "a folder is missing", where=folder / name, expected=f"{folder.name}/{{image,label}}/NAME.tif"
            ))  # fmt: skip
    label_paths, labels = {}, set()
    for level in (".", *FOLDS):
        image_folder, label_folder = folder / "image" / level, folder / "label" / level
        if image_folder.is_dir():
            for image in rasters_in(image_folder):
                label_paths[relative(image, base)] = relative(label_folder / image.name, base)
        if label_folder.is_dir():
            labels |= {relative(label, base) for label in rasters_in(label_folder)}
    check_pairs(label_paths, labels, base)
    return [(PurePosixPath(image).stem, image, label) for image, label in label_paths.items()]
