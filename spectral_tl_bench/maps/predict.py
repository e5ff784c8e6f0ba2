"""``stbench predict``: scenes in, maps out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.console import clock, user_path
from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.windows import blend_weights
from spectral_tl_bench.errors import DataError, UserError
from spectral_tl_bench.maps.model import LoadedModel, load_model
from spectral_tl_bench.maps.scene import Scene, SceneOptions, open_scene
from spectral_tl_bench.maps.writing import Layers, colour, preview, write_names
from spectral_tl_bench.storage.output import check_folder
from spectral_tl_bench.storage.signs import unfinished

ENDINGS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".dat", ".bsq")
"""Of files in a folder of scenes; a file that is named may have any."""
INTERVAL = 10.0
"""Seconds between lines about progress."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class MapOptions:
    """How maps are made.

    Attributes:
        stride: Step between windows in pixels; by default that of the protocol's test.
        batch_size: Windows that go through the network together.
        probabilities: Also write the probability of every class.
        entropy: Also write how undecided the model is: 0 to 1, the entropy of the probabilities over its maximum.
        overwrite: Replace maps that are there.
    """

    stride: int | None = None
    batch_size: int = 8
    probabilities: bool = False
    entropy: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class SceneMap:
    """A finished map.

    Attributes:
        scene: The scene's file.
        path: The map; class names, preview, probabilities and entropy are beside it.
        shares: Of the mapped area, by class.
    """

    scene: Path
    path: Path
    shares: dict[str, float]


class MappedLines(NamedTuple):
    """Finished lines of a scene.

    Attributes:
        line: The first one.
        classes: uint8 (n, W).
        missing: bool (n, W), where the scene measures nothing.
        logits: float32 (K, n, W), blended; 0 where the scene measures nothing in all of a window.
    """

    line: int
    classes: np.ndarray
    missing: np.ndarray
    logits: Tensor


@torch.inference_mode()
def map_scene(
    model: LoadedModel, scene: Scene, *, stride: int | None = None, batch_size: int = 8
) -> Iterator[MappedLines]:
    """Predict a scene, from its upper lines to its lower ones.

    Windows are those of the protocol's test: the last of a row or column is moved inwards. A scene that is smaller
    than a window is filled up with the mean of the training chips at its right and lower side. Sums are in the order
    of the protocol's test, so that a benchmark's chip gets the classes that it has there.

    Memory: the logits and pixels of one row of windows, whatever the height of the scene.

    Args:
        stride: Step between windows in pixels, at most the window; by default that of the protocol's test.
        batch_size: Windows that go through the network together.

    Yields:
        Lines, each once, in order.

    Raises:
        DataError: If the pixels cannot be read, or the network's logits are not numbers.
    """
    window, stride = model.window, model.stride if stride is None else stride
    height, width = max(scene.height, window), max(scene.width, window)
    lines, columns = grid(height, window, stride), grid(width, window, stride)
    device = next((value.device for value in model.module.parameters()), torch.device("cpu"))
    blend, weight = blend_weights(window).to(device), torch.zeros(window, width, device=device)
    sums = torch.zeros(len(model.classes), window, width, device=device)
    fill = torch.from_numpy(model.statistics.mean).float()[:, None, None]
    for line, following in zip(lines, [*lines[1:], height], strict=True):
        pixels, missing = _padded(scene, line, window, width, fill)
        used = [column for column in columns if not missing[:, column : column + window].all()]
        for start in range(0, len(used), batch_size):
            batch = used[start : start + batch_size]
            images = torch.stack([pixels[:, :, column : column + window] for column in batch]).to(device)
            for column, logits in zip(batch, model(images).float(), strict=True):
                sums[:, :, column : column + window] += logits * blend
                weight[:, column : column + window] += blend
        done = following - line
        yield _finished(scene, line, done, sums, weight, missing)
        sums, weight = _moved_up(sums, done), _moved_up(weight, done)


def _padded(scene: Scene, line: int, window: int, width: int, fill: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (C, window, width) with the mean where nothing is measured, and bool (window, width) where that is so."""
    strip = scene.strip(line, min(window, scene.height - line))
    height, there = strip.missing.shape
    missing = torch.ones(window, width, dtype=torch.bool)
    missing[:height, :there] = torch.from_numpy(strip.missing)
    pixels = fill.repeat(1, window, width)
    pixels[:, :height, :there] = torch.where(missing[:height, :there], fill, torch.from_numpy(strip.pixels))
    return pixels, missing


def _finished(scene: Scene, line: int, done: int, sums: Tensor, weight: Tensor, missing: Tensor) -> MappedLines:
    count, width = min(done, scene.height - line), scene.width
    logits = sums[:, :count, :width]
    if bool(logits.isnan().any()):
        raise DataError(
            "the model's logits hold NaN", where=f"{scene.path}, lines {line} to {line + count}",
            fix="the training has diverged, or the scene's values are far from those of the training chips",
        )  # fmt: skip
    blended = (logits / weight[:count, :width].clamp(min=1e-12)).cpu()
    classes = logits.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return MappedLines(line, classes, missing[:count, :width].numpy(), blended)


def _moved_up(values: Tensor, lines: int) -> Tensor:
    """Values (..., H, W) without their first lines, and with zeros behind them."""
    moved = torch.zeros_like(values)
    moved[..., : values.shape[-2] - lines, :] = values[..., lines:, :]
    return moved


def predict(
    model: LoadedModel | Path | str,
    scenes: Sequence[Path | str],
    out: Path | str,
    *,
    scene_options: SceneOptions | None = None,
    options: MapOptions | None = None,
    say: Say = lambda _: None,
) -> list[SceneMap]:
    """Map scenes with a trained network.

    Args:
        model: The network, or what ``load_model`` takes.
        scenes: Files, or folders whose rasters are scenes.
        out: Folder for the maps: ``NAME.tif``, a cloud-optimised GeoTIFF on the grid of the scene.
        scene_options: What is to be known about the scenes.
        options: How maps are made.
        say: Prints a line.

    Raises:
        UserError: If a model or a scene cannot be used, or a map is there already.
    """
    model = model if isinstance(model, LoadedModel) else load_model(model)
    scene_options, options = scene_options or SceneOptions(), options or MapOptions()
    if options.stride is not None and not 1 <= options.stride <= model.window:
        raise UserError(f"--stride {options.stride} leaves gaps or is none",
                        expected=f"1 to {model.window}, the side of the model's windows")  # fmt: skip
    folder = user_path(out)
    targets = _targets([user_path(scene) for scene in scenes], folder, options.overwrite)
    check_folder(folder, "--out")
    for path in targets:  # all of them, before hours go into the first
        with open_scene(path, model.benchmark, scene_options) as scene:
            if not scene_options.trust_unit:
                scene.check_unit(model.statistics)
    maps = []
    with unfinished(folder / "maps") as temporary:
        for number, (path, target) in enumerate(targets.items(), start=1):
            with open_scene(path, model.benchmark, scene_options) as scene:
                say(f"[{number}/{len(targets)}] {path}: {scene.height} x {scene.width} px, bands {scene.matched}")
                shares = _map(model, scene, target, temporary, options, say)
            write_names(target, model.classes)
            preview(target, model.benchmark, f"{path.name}: {model.title}", shares)
            maps.append(SceneMap(path, target, shares))
            most = [name for name in sorted(shares, key=lambda name: -shares[name])[:4] if shares[name] >= 0.0005]
            told = ", ".join(f"{name} {100 * shares[name]:.1f} %" for name in most)
            say(f"{target}: {told or 'nothing in the scene is measured'}")
    return maps


def _targets(scenes: Sequence[Path], folder: Path, overwrite: bool) -> dict[Path, Path]:
    """Where the map of each scene goes."""
    files: list[Path] = []
    for scene in scenes:
        if not scene.exists():
            raise DataError("the scene is missing", where=scene, expected="a GeoTIFF, VRT or other raster, or a folder")
        inside = sorted(path for path in scene.iterdir() if path.suffix.lower() in ENDINGS) if scene.is_dir() else []
        if scene.is_dir() and not inside:
            raise DataError("the folder has no scenes", where=scene, expected=f"files *{', *'.join(ENDINGS)}")
        files += inside or [scene]
    files = list(dict.fromkeys(files))
    targets = {path: folder / f"{path.stem}.tif" for path in files}
    names = Counter(target.name for target in targets.values())
    for path, target in targets.items():
        if names[target.name] > 1:
            raise UserError(f"{names[target.name]} scenes would have the map {target.name}", where=path,
                            fix="map them into folders of their own")  # fmt: skip
        if target.exists() and path.exists() and target.samefile(path):
            raise UserError("the map would replace its scene", where=path, fix="another --out")
        if target.exists() and not overwrite:
            raise UserError("there is a map already", where=target, fix="--overwrite, or another --out")
    return targets


def _map(
    model: LoadedModel, scene: Scene, target: Path, temporary: Path, options: MapOptions, say: Say
) -> dict[str, float]:
    """Write the map of one scene; return the share of every class."""
    classes = Layers(temporary, scene.source, 1, "uint8", VOID)
    colour(classes, model.benchmark)
    classes.file.update_tags(
        STBENCH_METHOD=model.method, STBENCH_BENCHMARK=model.benchmark.id, STBENCH_RUN=model.fingerprint,
        STBENCH_TRAINED_ON="synthetic sample" if model.track == "sample" else model.track,
    )  # fmt: skip
    more = {}
    if options.probabilities:
        more["probabilities"] = Layers(temporary, scene.source, len(model.classes), "float32", -1.0)
        for number, name in enumerate(model.classes, start=1):
            more["probabilities"].file.set_band_description(number, name)
    if options.entropy:
        more["entropy"] = Layers(temporary, scene.source, 1, "float32", -1.0)
    counts, started = np.zeros(256, dtype=np.int64), time.monotonic()
    told = started
    for part in map_scene(model, scene, stride=options.stride, batch_size=options.batch_size):
        shown = np.where(part.missing, VOID, part.classes).astype(np.uint8)
        counts += np.bincount(shown.ravel(), minlength=256)
        classes.write(part.line, shown[None])
        if more:
            _write_more(more, part.line, part.logits.softmax(dim=0), part.missing)
        done = (part.line + len(shown)) / scene.height
        if time.monotonic() - told >= INTERVAL:
            told = time.monotonic()
            say(f"{scene.path.name}: {100 * done:.0f} %, {clock((told - started) * (1 - done) / done)} left")
    for name, layers in more.items():
        layers.finish(target.with_name(f"{target.stem}-{name}.tif"), "average")
    classes.finish(target, "nearest")
    area = max(1, int(counts[: len(model.classes)].sum()))
    return {name: float(counts[number] / area) for number, name in enumerate(model.classes)}


def _write_more(more: dict[str, Layers], line: int, probabilities: torch.Tensor, missing: np.ndarray) -> None:
    values = {"probabilities": probabilities}
    if "entropy" in more:
        entropy = torch.special.entr(probabilities).sum(dim=0, keepdim=True)
        values["entropy"] = entropy / np.log(probabilities.shape[0])
    for name, layers in more.items():
        layers.write(line, np.where(missing, -1.0, values[name].numpy()).astype(np.float32))
