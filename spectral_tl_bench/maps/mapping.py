"""The class of every pixel of a scene: windows that overlap, blended as in the protocol, a strip at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectral_tl_bench.data.grid import grid
from spectral_tl_bench.data.windows import blend_weights
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.maps.model import LoadedModel
from spectral_tl_bench.maps.scene import Scene


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
