"""Pictures of what a stage without labels has learned: a few source windows, column by column, as PNG."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from spectral_tl_bench.data.loaders import SourceData
from spectral_tl_bench.data.pictures import compositions
from spectral_tl_bench.files import atomic_path, seed_from
from spectral_tl_bench.methods.base import Pictures

ROWS = 4
TILE = 128
"""Windows are enlarged, in whole steps, to at least this side in pixels."""
GAP, CAPTION = 4, 16


def picture_steps(steps: int, times: int = 4) -> tuple[int, ...]:
    """The steps after which pictures are drawn: ``times`` spread over the training, and the last."""
    return tuple(sorted({max(1, steps * part // (times + 1)) for part in range(1, times + 1)} | {steps}))


def draw_grid(columns: dict[str, Tensor], wavelengths: Sequence[float]) -> Image.Image:
    """One picture: a row per window, a column per title and composition.

    Colours are stretched from the 2nd to the 98th percentile of each row's first column, the three bands together and
    all columns of the row alike, so that they can be compared by eye.

    Args:
        columns: Images (B, C, H, W) by title, in the files' unit; the first ones are the input.
        wavelengths: Centre wavelengths in micrometres, one per band.
    """
    tiles: list[tuple[str, list[NDArray[np.uint8]]]] = []
    first = next(iter(columns.values()))
    for composition, bands in compositions(wavelengths).items():
        # A single band is shown in grey.
        shown = [bands[index % len(bands)] for index in range(3)]
        low, high = np.percentile(first[:, shown].float().cpu().numpy(), (2, 98), axis=(1, 2, 3), keepdims=True)
        for title, images in columns.items():
            pixels = (images[:, shown].float().cpu().numpy() - low) / np.maximum(high - low, 1e-6)
            bytes_ = (np.nan_to_num(pixels).clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
            tiles.append((f"{title}, {composition}", list(bytes_)))
    side = first.shape[-1] * max(1, -(-TILE // first.shape[-1]))
    step = side + GAP
    sheet = Image.new("RGB", (GAP + step * len(tiles), CAPTION + step * len(first)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (title, rows) in enumerate(tiles):
        left = GAP + column * step
        pen.text((left, 2), title, fill="black")
        for row, pixels in enumerate(rows):
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (left, CAPTION + row * step))
    return sheet


@dataclass(frozen=True)
class Album:
    """What to draw, and where it goes.

    Attributes:
        folder: Gets ``step-000250.png`` and so on.
        draw: The method's part.
        wavelengths: Centre wavelengths in micrometres, one per band.
    """

    folder: Path
    draw: Pictures
    wavelengths: tuple[float, ...]


def fixed_windows(source: SourceData, rows: int = ROWS) -> Tensor:
    """A few training windows (B, C, H, W) in the files' unit; the same for a given order seed."""
    seed = seed_from("windows", source.order_seed, "pictures")
    windows = source.settings.windows
    sampler = windows.training(source.collection, source.settings.window, 4 * rows, seed, balanced=False)
    samples = [windows.prepare(source.collection[query]) for query in sampler]
    chips = [sample["chip"] for sample in samples]
    # One window of each chip first: a small source would show the same place again and again.
    order = sorted(range(len(samples)), key=lambda number: chips.index(chips[number]) != number)
    return torch.stack([samples[number]["image"] for number in order[:rows]])


class PictureBook(Callback):
    """Draws pictures at some steps, and leaves training as if it had not.

    Args:
        album: What to draw, and where it goes.
        windows: Training windows (B, C, H, W) in the files' unit.
        steps: The steps after which to draw.
    """

    def __init__(self, album: Album, windows: Tensor, steps: Iterable[int]) -> None:
        self.album, self.windows, self.steps = album, windows, frozenset(steps)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Draw when the time has come."""
        if trainer.global_step in self.steps:
            images = pl_module.normalise(self.windows.to(pl_module.device))
            drawn = look(pl_module.module, self.album.draw, images)
            # A normalisation that cannot be undone is shown as it is: pictures are stretched for the eye anyway.
            undo = getattr(pl_module.normalise, "undo", lambda shown: shown)
            columns = {title: undo(shown) for title, shown in drawn.items()}
            with (
                contextlib.suppress(OSError),  # a picture for which there is no room is no reason to end the training
                atomic_path(self.album.folder / f"step-{trainer.global_step:06d}.png") as temporary,
            ):
                draw_grid(columns, self.album.wavelengths).save(temporary)


def look(module: nn.Module, draw: Pictures, images: Tensor) -> dict[str, Tensor]:
    """The method's pictures in evaluation mode; modes and random state are afterwards as they were."""
    modes = {child: child.training for child in module.modules()}
    devices = [images.device] if images.is_cuda else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            module.eval()
            return {title: picture.detach() for title, picture in draw(module, images).items()}
    finally:
        for child, mode in modes.items():
            child.training = mode
