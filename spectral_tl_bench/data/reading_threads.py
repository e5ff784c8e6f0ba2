"""Batches that threads fetch: for chips of which a window is hardly more than a copy of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

AHEAD = 2
"""Batches per thread that wait or are being fetched, as with reader processes."""


def in_threads(loader: DataLoader[Any], threads: int) -> Iterator[Any]:
    """The batches of a loader, in its order.

    While NumPy copies memory, other threads run; and nothing has to be handed from process to process. An error is
    raised as it is, where its batch would come. Whoever stops early leaves no thread behind.

    Args:
        loader: What is read, in which order, and how windows become a batch; it has no processes.
        threads: How many batches are fetched at a time.
    """
    dataset, collate = loader.dataset, loader.collate_fn
    keys = iter(loader.batch_sampler)  # type: ignore[arg-type]  # there is one, unless no batches are made
    pinned = loader.pin_memory and torch.accelerator.is_available()

    def fetch(some: Any) -> Any:
        batch = collate([dataset[key] for key in some])
        return pin_memory(batch) if pinned else batch

    pool = ThreadPoolExecutor(threads, "reader", *((torch.accelerator.set_device_index, _device()) if pinned else ()))
    try:
        ahead = deque(pool.submit(fetch, some) for some in islice(keys, AHEAD * threads))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(fetch, some) for some in islice(keys, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _device() -> tuple[int]:
    """The one of this thread; a new thread has the first, on which another process may compute."""
    return (torch.accelerator.current_device_index(),)
