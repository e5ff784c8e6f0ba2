"""LoveDA as its authors publish it."""

from __future__ import annotations

from pathlib import Path

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.layouts.base import ChipFiles
from spectral_tl_bench.data.layouts.folders import FolderLayout, check_pairs, relative

FOLDS = ("Train", "Val")
"""The authors keep the labels of the third, ``Test``, to themselves."""
SCENES = {"Urban": "urban", "Rural": "rural"}


class LoveDa(FolderLayout):
    """``{Train,Val}/{Urban,Rural}/{images_png,masks_png}/NUMBER.png``; the domain is the folder, the site the fold."""

    sites = True
    domains_by = "folder"
    marks = tuple(f"{fold}/{scene}/images_png" for fold in FOLDS for scene in SCENES)

    def chips(self, base: Path, benchmark: Benchmark) -> list[ChipFiles]:
        """The labelled chips of both folds."""
        del benchmark
        label_paths, labels, found = {}, [], []
        for fold in FOLDS:
            for scene, domain in SCENES.items():
                images, masks = (_pictures(base / fold / scene / name) for name in ("images_png", "masks_png"))
                labels += [relative(mask, base) for mask in masks]
                for image in images:
                    label = relative(base / fold / scene / "masks_png" / image.name, base)
                    label_paths[relative(image, base)] = label
                    found.append(ChipFiles(f"{fold}-{scene}-{image.stem}", domain, fold, relative(image, base), label))
        check_pairs(label_paths, labels, base)
        return found


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.png")) if folder.is_dir() else []
