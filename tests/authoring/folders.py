"""Folders of images and labels, as people have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

SIDE = 16
SPECTRA = np.array([[300, 500, 400], [400, 700, 2400], [1200, 1500, 2000]])

Places = Callable[[str, int], tuple[str, str]]
"""Paths of image and label of a chip from its domain and number."""


def write_chips(
    folder: Path, places: Places, domains: tuple[str, ...] = ("north", "south"), chips: int = 4, *,
    crs: str | None = "EPSG:32633", step: float = 2_000.0, dtype: str = "uint16", side: int = SIDE,
    descriptions: tuple[str, ...] = ("green", "red", "nir"), tags: Callable[[int], dict[str, str]] = lambda _: {},
    nodata: float | None = None, label: dict[str, Any] | None = None, gsd: float = 10.0,
) -> Path:  # fmt: skip
    """Chips of three classes, 1 to 3, each domain a row of places on the ground."""
    label = dict(label or {})
    for row, domain in enumerate(domains):
        for number in range(chips):
            rng = np.random.default_rng([row, number])
            truth = rng.integers(0, 3, (side // 4, side // 4)).repeat(4, axis=0).repeat(4, axis=1)
            image = SPECTRA[truth].transpose(2, 0, 1) + rng.integers(-40, 40, (3, side, side))
            image = image / 10_000 if dtype.startswith("float") else image // 10 if dtype == "uint8" else image
            ground: dict[str, Any] = {}
            if crs is not None:
                corner = (500_000 + step * number, 5_000_000 + 100_000 * row)
                ground = {"crs": crs, "transform": rasterio.Affine(gsd, 0, corner[0], 0, -gsd, corner[1])}
            of_image, of_label = (folder / path for path in places(domain, number))
            values = (truth + 1).astype(label.get("dtype", "uint8"))
            change = label.get("change")
            _write(of_image, image.astype(dtype), ground, nodata, descriptions, tags)
            _write(of_label, (change(values) if change else values)[None], ground, label.get("nodata"),
                   colours=label.get("colours"))  # fmt: skip
    return folder


def _write(
    path: Path, values: np.ndarray, ground: dict[str, Any], nodata: float | None, descriptions: tuple[str, ...] = (),
    tags: Callable[[int], dict[str, str]] = lambda _: {}, colours: dict[int, tuple[int, int, int]] | None = None,
) -> None:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    with rasterio.open(
        path, "w", driver=driver, count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype,
        nodata=nodata, **ground,
    ) as file:  # fmt: skip
        file.write(values)
        for band, text in enumerate(descriptions, 1):
            file.set_band_description(band, text)
        for band in range(1, len(values) + 1):
            if tags(band):
                file.update_tags(band, **tags(band))
        if colours is not None:
            file.write_colormap(1, colours)


def in_two_folders(domain: str, number: int) -> tuple[str, str]:
    """images/DOMAIN_N.tif, labels/DOMAIN_N.tif."""
    return f"images/{domain}_{number:02d}.tif", f"labels/{domain}_{number:02d}.tif"


def in_a_folder_for_each_domain(domain: str, number: int) -> tuple[str, str]:
    """DOMAIN/image/N.tif, DOMAIN/label/N.tif."""
    return f"{domain}/image/{number}.tif", f"{domain}/label/{number}.tif"


def side_by_side(domain: str, number: int) -> tuple[str, str]:
    """DOMAIN/N_image.tif, DOMAIN/N_gt.tif."""
    return f"{domain}/{number}_image.tif", f"{domain}/{number}_gt.tif"


def in_camel_case(domain: str, number: int) -> tuple[str, str]:
    """DOMAIN-NImage.tif, DOMAIN-NMask.tif in one folder."""
    return f"{domain}-{number}Image.tif", f"{domain}-{number}Mask.tif"


def by_content(domain: str, number: int) -> tuple[str, str]:
    """a/DOMAIN_N.tif, b/DOMAIN_N.tif: nothing says which is which."""
    return f"a/{domain}_{number}.tif", f"b/{domain}_{number}.tif"


def by_numbers(domain: str, number: int) -> tuple[str, str]:
    """DOMAIN/s2/scene_1007.tif, DOMAIN/labels/truth1007.png."""
    at = 1000 * (1 + (domain == "south")) + number
    return f"{domain}/s2/scene_{at}.tif", f"{domain}/labels/truth{at}.png"
