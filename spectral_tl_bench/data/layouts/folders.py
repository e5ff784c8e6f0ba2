"""Datasets that are recognised by their folders, and what their readers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts.base import Layout, refuse
from spectral_tl_bench.errors import DataError

RASTER_SUFFIXES = (".tif", ".tiff", ".TIF", ".TIFF")


class FolderLayout(Layout):
    """A dataset in the folders in which its authors publish it."""

    published = True
    marks: ClassVar[tuple[str, ...]]
    """Folders, relative to the dataset's own, each of which shows that it is there."""
    types: ClassVar[tuple[str, ...]] = ()
    """Types that published pixels may have, as NumPy names them; empty where that is not known."""

    folders: Annotated[tuple[str, ...], Field(min_length=1, description="names of the dataset's folder to try")]

    def wanted(self) -> str:
        """The folders by which the dataset is recognised."""
        return " or ".join(self.marks)

    def base(self, root: Path, benchmark: Benchmark) -> Path:
        """The dataset's own folder: the data root, or one below it."""
        looked = []
        for base in (root, *(root / name for name in self.folders)):
            if self.mark(base) is not None:
                return base
            looked += [str((base / mark).relative_to(root)) for mark in self.marks]
        entries = sorted(entry.name for entry in root.iterdir())
        shown = ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if len(entries) > 12 else "")
        raise DataError(
            f"no {benchmark.dataset} data for {benchmark.id} was found",
            where=root,
            expected="one of these folders: " + ", ".join(looked),
            fix=f"the root holds: {shown or 'nothing'}; point --data-root at the folder that holds the dataset",
        )

    def mark(self, base: Path) -> Path | None:
        """The first folder below ``base`` that shows the dataset."""
        return next((base / mark for mark in self.marks if (base / mark).is_dir()), None)


def rasters_in(folder: Path) -> list[Path]:
    """The GeoTIFFs of a folder, sorted; hidden files are passed over."""
    return sorted(path for path in folder.iterdir() if path.suffix in RASTER_SUFFIXES and not path.name.startswith("."))


def relative(path: Path, base: Path) -> str:
    """A path below ``base`` as ``ChipFiles`` has it."""
    return path.relative_to(base).as_posix()


def check_pairs(label_paths: Mapping[str, str], labels: Iterable[str], base: Path) -> None:
    """Refuse images without a label and labels without an image; examples of either are named.

    Args:
        label_paths: Where the label has to be, by image; relative to ``base``.
        base: The dataset's own folder.

    Raises:
        DataError: If there are any.
    """
    have_labels = set(labels)
    bare = sorted(image for image, label in label_paths.items() if label not in have_labels)
    if bare:
        refuse(DataError(
            f"{len(bare)} of {len(label_paths)} images have no label, for example {bare[0]}",
            where=base,
            expected=f"its label at {label_paths[bare[0]]}",
            fix="add the missing labels, or move the images away",
        ))  # fmt: skip
    orphans = sorted(have_labels - set(label_paths.values()))
    if orphans:
        refuse(DataError(
            f"{len(orphans)} of {len(have_labels)} labels have no image, for example {orphans[0]}",
            where=base,
            expected="an image of the same name",
            fix="add the missing images, or move the labels away",
        ))  # fmt: skip
