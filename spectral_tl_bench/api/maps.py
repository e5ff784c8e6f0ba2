"""Maps of scenes, with the arguments of ``stbench predict``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spectral_tl_bench import console
from spectral_tl_bench.console import ACCELERATORS, one_of
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.maps import predict as maps
from spectral_tl_bench.maps.model import LoadedModel, load_model
from spectral_tl_bench.maps.predict import MapOptions, SceneMap
from spectral_tl_bench.maps.scene import SceneOptions
from spectral_tl_bench.training.hardware import Hardware


def predict(
    model: LoadedModel | Path | str, scenes: Path | str | Sequence[Path | str], out: Path | str = "maps", *,
    bands: Sequence[int] = (), scale: float | None = None, offset: float | None = None, trust_unit: bool = False,
    stride: int | None = None, batch_size: int = 8, backbone_weights: Path | str | None = None,
    accelerator: str = "auto", probabilities: bool = False, entropy: bool = False, overwrite: bool = False,
    say: Callable[[str], None] = console.say,
) -> list[SceneMap]:  # fmt: skip
    """Map scenes with a trained network; leaves a cloud-optimised GeoTIFF and a picture for each.

    Args:
        model: What ``load_model`` gives, which computes where it is, or what it takes.
        scenes: GeoTIFFs, VRTs, other rasters, or folders of them.
        out: Folder for the maps: ``NAME.tif`` on the grid of the scene, and what belongs to it.
        bands: Numbers of the scenes' bands, from 1, in the benchmark's order; by default by name or wavelength.
        scale: Reflectance = stored value * scale + offset; by default as the file says, else the benchmark's unit.
        offset: See ``scale``.
        trust_unit: Do not compare values with those of the training chips.
        stride: Step between windows in pixels; by default that of the protocol's test.
        batch_size: Windows that are predicted together.
        backbone_weights: Of a model that is named by its path, as of ``load_model``.
        accelerator: auto, cpu or gpu, for a model that is named by its path.
        probabilities: Also write the probability of every class.
        entropy: Also write how undecided the model is, 0 to 1.
        overwrite: Replace maps that are there.
        say: Prints a line.

    Returns:
        For each scene: its file, the map, and the share of every class.

    Raises:
        UserError: If the model or a scene cannot be used, or a map is there already.
    """
    one_of("--accelerator", accelerator, ACCELERATORS)
    if not isinstance(model, LoadedModel):
        model = load_model(model, backbone_weights=backbone_weights).to(Hardware(accelerator=accelerator).device)
    elif backbone_weights is not None or accelerator != "auto":
        raise UserError("backbone_weights and accelerator are for a model that is named by its path",
                        expected="load_model(path, backbone_weights=...).to(device)")  # fmt: skip
    return maps.predict(
        model, [scenes] if isinstance(scenes, str | Path) else scenes, out,
        scene_options=SceneOptions(tuple(bands), scale, offset, trust_unit),
        options=MapOptions(stride, batch_size, probabilities, entropy, overwrite), say=say,
    )  # fmt: skip
