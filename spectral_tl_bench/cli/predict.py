"""``stbench predict``: maps of scenes, with trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectral_tl_bench.console import ACCELERATORS, one_of, say
from spectral_tl_bench.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("predict")(predict)


def predict(
    model: Annotated[
        Path,
        typer.Argument(help="selected.safetensors of a run, its record, their folder, or how its fingerprint begins."),
    ],
    scenes: Annotated[
        list[Path], typer.Argument(metavar="SCENE...", help="GeoTIFFs, VRTs, other rasters, or folders.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the maps.")] = Path("maps"),
    bands: Annotated[
        str, typer.Option(help="Numbers of the scenes' bands in the benchmark's order, as 3,2,1; default: by name.")
    ] = "",
    scale: Annotated[float | None, typer.Option(help="Unit: reflectance = value * scale + offset.")] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale.")] = None,
    trust_unit: Annotated[
        bool, typer.Option("--trust-unit", help="Do not compare values with those of the training chips.")
    ] = False,
    stride: Annotated[int | None, typer.Option(min=1, help="Step between windows in pixels.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows that are predicted together.")] = 8,
    backbone_weights: Annotated[
        Path | None, typer.Option(help="Pretrained weights of the backbone, where the run read them from a file.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probabilities.")] = False,
    entropy: Annotated[bool, typer.Option("--entropy", help="Also write how undecided the model is, 0 to 1.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace maps that are there.")] = False,
) -> None:
    """Map scenes: a cloud-optimised GeoTIFF of classes each, and a picture with a legend."""
    one_of("--accelerator", accelerator, ACCELERATORS)
    numbers = [part.strip() for part in bands.split(",") if part.strip()]
    if not all(number.isdigit() for number in numbers):
        raise UserError(f"--bands is {bands!r}", expected="numbers with commas, as 3,2,1")
    from spectral_tl_bench.maps.model import load_model
    from spectral_tl_bench.maps.predict import MapOptions, SceneOptions
    from spectral_tl_bench.maps.predict import predict as map_all
    from spectral_tl_bench.training.hardware import Hardware

    loaded = load_model(model, backbone_weights=backbone_weights)
    hardware = Hardware(accelerator=accelerator)
    say(f"{loaded.title}; windows of {loaded.window} px, {len(loaded.classes)} classes; device: {hardware.name}")
    map_all(
        loaded.to(hardware.device), scenes, out,
        scene_options=SceneOptions(tuple(map(int, numbers)), scale, offset, trust_unit),
        options=MapOptions(stride, batch_size, probabilities, entropy, overwrite), say=say,
    )  # fmt: skip
