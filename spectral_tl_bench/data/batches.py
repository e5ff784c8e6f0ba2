"""From windows to batches: stacked, handed over, and on the device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, get_worker_info

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.readers import LoaderSettings
from spectral_tl_bench.data.samplers import Remaining
from spectral_tl_bench.data.shares import BatchParts, Share

IMAGES = ("image", "target_image")
"""What of a batch is pixels."""
_SHARED = "_new_shared_fd_cpu"
"""What PyTorch's own hand-over between processes calls; no promise of theirs."""


def stacked(images: Sequence[Tensor | np.ndarray[Any, Any]], integers: bool = False) -> Tensor:
    """Images (C, H, W) of windows as (B, C, H, W), float32, or with ``integers`` of the type that all have."""
    arrays = [image if isinstance(image, np.ndarray) else image.numpy() for image in images]
    kinds = {array.dtype for array in arrays}
    return _stacked(arrays, arrays[0].dtype if integers and len(kinds) == 1 else np.dtype(np.float32))


def stacked_masks(masks: Sequence[Tensor]) -> Tensor:
    """Classes (H, W) of windows as (B, H, W)."""
    return _stacked([mask.numpy() for mask in masks], np.dtype(np.int64))


def _stacked(arrays: Sequence[np.ndarray[Any, Any]], dtype: np.dtype[Any]) -> Tensor:
    """Arrays of one shape as one tensor, in a reader process in memory that is handed over as it is."""
    if get_worker_info() is None or not (hasattr(os, "memfd_create") and hasattr(torch.UntypedStorage, _SHARED)):
        # NumPy's memory comes in large pages: twice as fast. torch.stack has threads of its own.
        return torch.from_numpy(np.stack(arrays, dtype=dtype))
    # A file in memory takes its pages at once when it is written to; mapped, it would take each by a fault of its own.
    with open(os.memfd_create("stbench-batch"), "wb") as file:  # noqa: PTH123
        for array in arrays:
            file.write(np.ascontiguousarray(array, dtype).data)
        file.flush()
        memory = getattr(torch.UntypedStorage, _SHARED)(file.fileno(), file.tell())
    return torch.from_numpy(np.empty(0, dtype)).set_(memory).view(len(arrays), *arrays[0].shape)


def on_device(images: Any, device: torch.device | str) -> Any:
    """Images of a batch, or features of them, where they are computed with: integers become float32 there."""
    images = images.to(device, non_blocking=True)
    return images.float() if isinstance(images, Tensor) and not images.is_floating_point() else images


class Collate:
    """Stacks windows into a batch; without ``labelled`` no label is in it. It can be pickled, for reader processes."""

    def __init__(self, domains: Sequence[str], labelled: bool, settings: LoaderSettings) -> None:
        self.domains, self.labelled, self.settings = list(domains), labelled, settings

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch."""
        samples = [self.settings.windows.prepare(sample) for sample in samples]
        batch = {
            "image": stacked([sample["image"] for sample in samples], self.settings.pinned),
            "domain": torch.tensor([self.domains.index(sample["domain"]) for sample in samples]),
        }
        if self.labelled:
            batch["mask"] = stacked_masks([sample["mask"] for sample in samples])
        return batch


class CollateImages:
    """Stacks the pixels of windows, and where it is asked for, notes in which chip they belong. No label is in it."""

    def __init__(self, settings: LoaderSettings, places: tuple[str, ...] = ()) -> None:
        self.settings, self.places = settings, places

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch."""
        images = [self.settings.windows.prepare(sample)["image"] for sample in samples]
        return {
            "image": stacked(images, self.settings.pinned),
            **{name: [sample[name] for sample in samples] for name in self.places},
        }


class CollateOnce(Collate):
    """Collates windows that lie side by side; what an earlier window of the chip has held is void.

    The last window of a line or column is moved inwards, so that it ends with the chip.
    """

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch."""
        batch = super().__call__(samples)
        for mask, sample in zip(batch.get("mask", ()), samples, strict=False):
            for start, lines in ((sample["line"], mask), (sample["column"], mask.T)):
                beyond = start % len(lines)
                lines[: len(lines) - beyond if beyond else 0] = VOID
        return batch


def training_batches(sampler: Sampler[Any], batch_size: int, share: Share, done: int = 0) -> dict[str, Any]:
    """How a loader makes training batches: whole ones, or a process's share of each, without those that are done."""
    sampler = Remaining(sampler, done * batch_size)
    if share.size == 1:
        return {"sampler": sampler, "batch_size": batch_size, "drop_last": True}
    return {"batch_sampler": BatchParts(sampler, batch_size, share)}


class WithTargetImages:
    """Batches of source windows, each with a batch of target windows as ``target_image``."""

    def __init__(self, source: DataLoader[dict[str, Tensor]], target: DataLoader[dict[str, Tensor]]) -> None:
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch, other in zip(self.source, self.target, strict=True):
            yield {**batch, "target_image": other["image"]}
