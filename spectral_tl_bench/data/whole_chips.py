"""Whole chips, scaled and resized, as the authors' release reads them: for the protocols that follow it."""

# ruff: noqa: ARG002 - what windows are asked that whole chips need not know
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Sampler

from spectral_tl_bench.data.normalisation import scale_chip
from spectral_tl_bench.data.rasters import ChipCollection, GeoQuery
from spectral_tl_bench.data.windows import ChipStitcher, SlidingWindows

LARGEST = 1024
"""The largest side that chips are resized to, in pixels: more is a slip, and what may be submitted ends there."""


class ChipsInOrder(Sampler[tuple[int, GeoQuery]]):
    """Every chip of a collection once, each as one query of all its pixels, whatever its size."""

    def __init__(self, collection: ChipCollection) -> None:
        self.queries = [(dataset, _whole(collection, dataset, number)) for dataset, number, _ in collection.chips()]

    def __iter__(self) -> Iterator[tuple[int, GeoQuery]]:
        """Yield (dataset number, query)."""
        yield from self.queries

    def __len__(self) -> int:
        return len(self.queries)


class ShuffledChips(ChipsInOrder):
    """Whole chips in random order: none comes again before all have come; the same for ever with a seed.

    Args:
        length: How many chips are drawn.
        balanced: Whether each domain comes equally often. Of D chips in a row one is then of each of the D domains,
            and no chip of a domain comes again before all of it have come.
    """

    def __init__(self, collection: ChipCollection, length: int, seed: int, balanced: bool = False) -> None:
        super().__init__(collection)
        self.length, self.seed = length, seed
        domains = [row["domain"] if balanced else "" for _, _, row in collection.chips()]
        self.groups = [[n for n, one in enumerate(domains) if one == name] for name in sorted(set(domains))]

    def __iter__(self) -> Iterator[tuple[int, GeoQuery]]:
        """Yield (dataset number, query)."""
        generator = torch.Generator().manual_seed(self.seed)
        left: list[list[int]] = [[] for _ in self.groups]
        order: list[int] = []
        for _ in range(self.length):
            order = order or torch.randperm(len(self.groups), generator=generator).tolist()
            turn = order.pop()
            if not left[turn]:
                group = self.groups[turn]
                left[turn] = [group[n] for n in torch.randperm(len(group), generator=generator).tolist()]
            yield self.queries[left[turn].pop()]

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class WholeChips(SlidingWindows):
    """Each chip as one window: scaled by its own values, then resized, its label too. It is measured at that size.

    Chips that are no squares become squares; those that are smaller than the window are enlarged.

    Attributes:
        side: Side of the window in pixels.
    """

    name: ClassVar[str] = "whole chips, resized"
    numerics_version: ClassVar[int] = 1
    overlaps: ClassVar[bool] = False
    keeps_unit: ClassVar[bool] = False

    side: int = 224

    def at(self, window: int) -> WholeChips:
        """The same for another side."""
        return replace(self, side=window)

    def training(
        self, collection: ChipCollection, window: int, length: int, seed: int, balanced: bool
    ) -> ShuffledChips:
        """Chips in random order; see ``ShuffledChips``."""
        return ShuffledChips(collection, length, seed, balanced)

    def evaluation(self, collection: ChipCollection, window: int, stride: int) -> ChipsInOrder:
        """Every chip once."""
        return ChipsInOrder(collection)

    def sweep(self, collection: ChipCollection, window: int) -> ChipsInOrder:
        """Every chip once."""
        return ChipsInOrder(collection)

    def largest(self, chip_size: int) -> int:
        """Chips of any size can be resized to this many pixels."""
        return LARGEST

    def count(self, height: int, width: int, window: int, stride: int) -> int:
        """One window is a chip."""
        return 1

    def prepare(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Scale the image by its own range (``scale_chip``), then resize it bilinearly, and the label to the nearest.

        Args:
            sample: A whole chip: ``image`` (C, H, W) in the files' unit, ``mask`` (H, W), ``invalid`` (H, W).

        Returns:
            The sample with ``image`` (C, side, side), ``mask`` and ``invalid`` (side, side).
        """
        image = scale_chip(sample["image"], sample["invalid"])
        if image.shape[-2:] != (self.side, self.side):
            size = (self.side, self.side)
            image = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        return {**sample, "image": image, "mask": self._nearest(sample["mask"]),
                "invalid": self._nearest(sample["invalid"])}  # fmt: skip

    def _nearest(self, values: Tensor) -> Tensor:
        if values.shape == (self.side, self.side):
            return values
        resized = functional.interpolate(values[None, None].float(), (self.side, self.side), mode="nearest")
        return resized[0, 0].to(values.dtype)

    def stitcher(
        self, num_classes: int, height: int, width: int, window: int, device: torch.device | str
    ) -> ChipStitcher:
        """What takes the logits of the one window that a chip is."""
        return ChipStitcher(num_classes, window, window, window, device=device)


def _whole(collection: ChipCollection, dataset: int, number: int) -> GeoQuery:
    """The query of all pixels of a chip."""
    chips = collection.datasets[dataset]
    row, (xres, yres) = chips.chip_rows()[number], chips.res
    x, y = row["xmin"], row["ymax"]
    return slice(x, x + row["width"] * xres), slice(y - row["height"] * yres, y), chips.slot(number)
