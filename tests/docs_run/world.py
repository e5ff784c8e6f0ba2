"""The things that pages name, made small: data, weights, checkpoints, scenes, a cluster's programs, a checkout."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import torch
import yaml
from safetensors.torch import save_file
from shared import REPOSITORY
from smaller import SIZES

from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.sample import ensure_sample, write_dfc2020, write_mts12, write_whu_ohs
from tests.conftest import Own
from tests.data.published import CUBES, write_cubes, write_tif
from tests.spectralx.write_release import write as write_checkpoint

PROGRAMS = {
    "sbatch": "echo Submitted batch job 77", "srun": "exit 0", "sacct": "exit 0",
    "squeue": "for job in 0 1 2 3 4 5; do echo \"77_$job|PENDING\"; done",
}  # fmt: skip
"""In place of SLURM's; tests/slurm has a real one."""


@dataclass
class Place:
    """A page's own folder, and how its commands are called there."""

    folder: Path
    trees: Path
    call: Callable[..., str]
    environment: dict[str, str] = field(default_factory=dict)

    def __truediv__(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_trees(root: Path) -> Path:
    """A data root with the three data sets in chips of 32 px."""
    write_whu_ohs(root / "WHU-OHS", chip=32, chips_per_city=3)
    write_whu_ohs(root / "WHU-OHS", layout="official", chip=32, chips_per_city=2)
    write_dfc2020(root / "DFC2020", chip=32, chips_per_city=6)
    write_mts12(root / "MTS12", chip=32, north=12, south=8)
    return root


def data(name: str, *sets: str) -> Callable[[Place], None]:
    """A data root of a page's own, with some of the data sets, or all."""

    def make(place: Place) -> None:
        for one in sets or ("WHU-OHS", "DFC2020", "MTS12"):
            shutil.copytree(place.trees / one, place / name / one)

    return make


def own_benchmark(place: Place) -> None:
    """``my-benchmark.yaml`` with its chips beside it."""
    own = Own(place.folder)
    own.fill()
    own.definition |= {"id": "my-benchmark", "sensor": {**own.definition["sensor"], "bands": RGB, "gsd": 30}}
    own.write_definition()
    own.yaml.rename(place / "my-benchmark.yaml")


RGB = [{"name": name, "wavelength": micrometres} for name, micrometres in
       (("blue", 0.49), ("green", 0.56), ("red", 0.66))]  # fmt: skip


def valleys(place: Place) -> None:
    """The benchmark of docs/bring-a-benchmark.md, as the page has it, and its chips below ``FOLDER``."""
    page = (REPOSITORY / "docs" / "bring-a-benchmark.md").read_text(encoding="utf-8")
    text = next(part for part in page.split("```yaml\n") if part.startswith("id: my-valleys")).partition("```")[0]
    (place / "my-valleys.yaml").write_text(text.replace("chip_size: 256", "chip_size: 32"), encoding="utf-8")
    rng, rows = np.random.default_rng(5), []
    for valley, number in ((valley, number) for valley in ("north", "south") for number in range(6)):
        name, corner = f"{valley}-{number}.tif", (400_000 + 5_000 * number, 5_100_000 - 90_000 * (valley == "south"))
        facts = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, corner[0], 0, -10, corner[1])}
        write_tif(place / f"VALLEYS/image/{name}", rng.integers(100, 4000, (3, 32, 32)).astype("uint16"), **facts)
        write_tif(place / f"VALLEYS/label/{name}", rng.integers(0, 4, (1, 32, 32)).astype("uint8"), **facts)
        rows.append({"file": name, "valley": valley, "site": f"{valley}-{number}"})
    with (place / "VALLEYS/chips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def images_and_labels(place: Place) -> None:
    """``FOLDER`` with images and labels in two subfolders, their bands named."""
    rng = np.random.default_rng(6)
    for part, number in ((part, number) for part in ("east", "west") for number in range(4)):
        path = place / f"FOLDER/{part}/{part}{number}_image.tif"
        corner = 500_000 + 3_000 * number + 60_000 * (part == "west")
        facts = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, corner, 0, -10, 5_000_000)}
        write_tif(path, rng.integers(100, 4000, (3, 32, 32)).astype("uint16"), **facts)
        with rasterio.open(path, "r+") as file:
            for band, (name, micrometres) in enumerate((("B02", 0.49), ("B03", 0.56), ("B04", 0.665)), start=1):
                file.set_band_description(band, name)
                file.update_tags(band, wavelength=str(micrometres))
        label = path.with_name(path.name.replace("image", "gt"))
        write_tif(label, rng.integers(1, 4, (1, 32, 32)).astype("uint8"), **facts)


def weights(path: str, backbone: str, bands: Sequence[float] = (0.665, 0.56, 0.49)) -> Callable[[Place], None]:
    """A file with all tensors of a backbone in the sizes that commands are given here."""

    def make(place: Place) -> None:
        chosen = get_backbone(backbone, "none", **({} if backbone == "galileo-nano" else SIZES))
        state = (
            chosen.for_sensor(tuple(bands), 10.0)
            .build(len(bands), 28 if backbone.startswith("dino") else 32)
            .state_dict()
        )
        if path.endswith(".safetensors"):
            save_file({name: value.contiguous().clone() for name, value in state.items()}, place / path)
        else:
            torch.save({"model": state}, place / path)

    return make


def dofa(place: Place) -> None:
    """``dofa.pth`` as TorchGeo's DOFA names its tensors."""
    from torchgeo.models.dofa import DOFA

    small = DOFA(img_size=64, embed_dim=SIZES["width"], depth=SIZES["depth"], num_heads=SIZES["heads"], num_classes=0)
    torch.save(small.state_dict(), place / "dofa.pth")


def cubes(place: Place) -> None:
    """The files of Pavia below ``FOLDER``, and the other two of their track cut already."""
    for name in CUBES:
        folder = place / ("FOLDER" if name.startswith("pavia") else f"other/{name}")
        write_cubes(folder, name, size=(130, 70))
        if not name.startswith("pavia"):
            place.call(f"stbench data cut {name} --from {folder} --data-root data/rs")


def checkpoint(path: str, stage: int, family: str) -> Callable[[Place], None]:
    """A checkpoint as the release writes it, under the name that a page has."""

    def make(place: Place) -> None:
        write_checkpoint(place.folder, stage, family).replace(place / path)

    return make


def scene(place: Place) -> None:
    """A chip of the target as a scene."""
    chips = sorted((ensure_sample() / "MTS12/image/test").glob("*.tif"))
    shutil.copy(chips[0], place / "SCENE.tif")


def hls_chips(place: Place) -> None:
    """``CHIPS``: a few in the bands, classes, regions and table of the HLS WorldCover chips."""
    definition = yaml.safe_load((REPOSITORY / "docs/examples/hls-worldcover-m2w.yaml").read_text(encoding="utf-8"))
    rng, rows = np.random.default_rng(8), []
    for region, number in ((region, number) for region in ("M", "W") for number in range(4)):
        name = f"{region}{number}.tif"
        write_tif(place / f"CHIPS/image/{name}", rng.integers(100, 4000, (7, 128, 128)).astype("uint16"))
        classes = rng.integers(1, 1 + len(definition["labels"]["classes"]), (16, 16)).repeat(8, 0).repeat(8, 1)
        write_tif(place / f"CHIPS/label/{name}", classes[None].astype("uint8"))
        rows.append({"file": name, "region": region, "site": f"{region}{number}"})
    with (place / "CHIPS/chips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def checkout(*parts: str) -> Callable[[Place], None]:
    """Parts of the repository, under git."""

    def make(place: Place) -> None:
        for part in parts:
            source, target = REPOSITORY / part, place / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        (place / "leaderboard/results").mkdir(parents=True, exist_ok=True)
        (place / ".gitignore").write_text("/runs/\n/more/\n/DATA/\n/data/\n/my-method/\n")
        identity = "-c user.name=n -c user.email=e@example.org"
        git = f"git init -q -b main && git add -A && git {identity} commit -q -m start"
        subprocess.run(["sh", "-ec", git], cwd=place.folder, check=True, capture_output=True)

    return make


def profiles(place: Place) -> None:
    """``gpu.toml`` and ``cpu.yaml`` of docs/cluster.md, as the page has them."""
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    settings = Path(place.environment["XDG_CONFIG_HOME"]) / "stbench"
    settings.mkdir(parents=True)
    for kind, name in (("toml", "gpu.toml"), ("yaml", "cpu.yaml")):
        (settings / name).write_text(page.partition(f"```{kind}\n")[2].partition("```")[0], encoding="utf-8")


def then(*lines: str) -> Callable[[Place], None]:
    """What somebody has done before the page begins."""

    def make(place: Place) -> None:
        for line in lines:
            place.call(line)

    return make
