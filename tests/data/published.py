"""Small files in the formats, folders and names in which the data sets of the further tracks are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from scipy.io import savemat

COLOURS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], dtype=np.uint8
)
"""Of classes 1 to 6 of the ISPRS."""
UTM = rasterio.Affine(0.05, 0, 366_676.25, 0, -0.05, 5_806_744.75)


def write_tif(path: Path, values: np.ndarray, **facts: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **facts
    ) as file:
        file.write(values)
    return path


def colours_of(classes: np.ndarray) -> np.ndarray:
    """(3, H, W) of classes 1 to 6."""
    return np.moveaxis(COLOURS[classes - 1], -1, 0)


def write_isprs(root: Path, tiles: int = 2, areas: int = 2, size: tuple[int, int] = (70, 45)) -> dict[str, Any]:
    """Potsdam as RGBIR with labels in colours, Vaihingen as infrared, red, green; as unpacked from their archives.

    Returns:
        (image, classes) by scene.
    """
    rng, truth = np.random.default_rng(3), {}
    for number in range(tiles):
        name, image = f"top_potsdam_2_{10 + number}", rng.integers(0, 256, (4, *size), dtype=np.uint8)
        classes = rng.integers(1, 7, size)
        place = {"crs": "EPSG:32633", "transform": UTM @ rasterio.Affine.translation(number * size[1], 0)}
        write_tif(root / "4_Ortho_RGBIR" / f"{name}_RGBIR.tif", image, **place)
        write_tif(root / "5_Labels_all" / f"{name}_label.tif", colours_of(classes), photometric="RGB")
        truth[f"potsdam-2_{10 + number}"] = image, classes
    for area in range(1, areas + 1):
        name, image = f"top_mosaic_09cm_area{area}.tif", rng.integers(0, 256, (3, *size[::-1]), dtype=np.uint8)
        classes = rng.integers(1, 7, size[::-1])
        write_tif(root / "ISPRS_semantic_labeling_Vaihingen" / "top" / name, image, photometric="RGB")
        write_tif(root / "ground_truth_COMPLETE" / name, colours_of(classes), photometric="RGB")
        truth[f"vaihingen-area{area}"] = image, classes
    return truth


def write_loveda(root: Path, each: int = 3, size: int = 32) -> None:
    """``{Train,Val}/{Urban,Rural}/{images_png,masks_png}/NUMBER.png``, and ``Test`` without masks."""
    rng, number = np.random.default_rng(4), 0
    for fold in ("Train", "Val", "Test"):
        for scene in ("Rural", "Urban"):
            folder = root / fold / scene
            for part in ("images_png", "masks_png")[: 1 if fold == "Test" else 2]:
                (folder / part).mkdir(parents=True)
            for _ in range(each):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
                    folder / "images_png" / f"{number}.png"
                )
                if fold != "Test":
                    Image.fromarray(rng.integers(0, 8, (size, size), dtype=np.uint8)).save(
                        folder / "masks_png" / f"{number}.png"
                    )
                number += 1


def save_73(path: Path, variables: dict[str, np.ndarray]) -> None:
    """As MATLAB's ``save -v7.3``: HDF5 behind 512 bytes of its own, axes the other way round."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            file.create_dataset(name, data=values.T).attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def cube(height: int, width: int, bands: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A scene with a spectrum for each class, and its sparse label; double, as MATLAB has numbers."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes + 1, (height // 5 + 1, width // 5 + 1)).repeat(5, 0).repeat(5, 1)[:height, :width]
    spectra = np.random.default_rng(99).uniform(100, 4000, (classes + 1, bands))
    image = np.round(spectra[label] + rng.normal(0, 20, (height, width, bands)))
    label = np.where(rng.random((height, width)) < 0.5, 0, label)
    return image.astype(np.float64), label.astype(np.float64)


CUBES = {
    "houston-13to18": (("Houston13", "Houston13_7gt", 48), ("Houston18", "Houston18_7gt", 48), 7),
    "hyrank-d2l": (("Dioni", "Dioni_gt_out68", 176), ("Loukia", "Loukia_gt_out68", 176), 12),
    "pavia-u2c": (("paviaU", "paviaU_7gt", 103), ("paviaC", "paviaC_7gt", 102), 7),
}


def write_cubes(root: Path, name: str, save: Any = savemat, size: tuple[int, int] = (40, 70)) -> dict[str, Any]:
    """The MATLAB files of a cross-scene data set.

    Returns:
        (image, label) by the name of the image's file.
    """
    root.mkdir(parents=True, exist_ok=True)
    *scenes, classes = CUBES[name]
    truth = {}
    for seed, (image, label, bands) in enumerate(scenes):
        truth[image] = cube(*size, bands, classes, seed)
        save(root / f"{image}.mat", {"ori_data": truth[image][0]})
        save(root / f"{label}.mat", {"map": truth[image][1]})
    return truth
