"""Loaders of windows, and who reads for them: threads or processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.data.rasters import ChipCollection
from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.windows import SlidingWindows
from spectral_tl_bench.endings import how_ended
from spectral_tl_bench.errors import DataError, UserError
from spectral_tl_bench.storage import make_room_for_sockets


@dataclass(frozen=True)
class LoaderSettings:
    """How chips are read; of these only window, stride and batch size can change a result.

    Attributes:
        window: Side of training and evaluation windows in pixels.
        stride: Step of evaluation windows in pixels.
        batch_size: Windows per training step.
        workers: Readers: threads or processes, see ``Readers``.
        eval_batch_size: Windows per forward pass in evaluation.
        pinned: Whether batches lie in memory from which a GPU fetches them while it computes, with integers as the
            files have them: see ``on_device``.
        rules: How pixels reach a module, as the protocol says.
    """

    window: int
    stride: int
    batch_size: int
    workers: int = 0
    eval_batch_size: int = 32
    pinned: bool = False
    rules: PixelRules = field(default_factory=PixelRules)

    @property
    def windows(self) -> SlidingWindows:
        """Which windows there are, and what becomes of them."""
        return self.rules.windows.at(self.window)


class Readers(DataLoader[Any]):
    """A loader of windows, whose readers are threads where all chips are packed and windows are taken as they are.

    Else they are processes, which live as long as the loader does, and share the chips that they keep. Either way, what
    the user can mend is raised as it is.

    Args:
        settings: How many readers, and where their batches lie.
        **more: Of ``DataLoader``.
    """

    def __init__(self, collection: ChipCollection, settings: LoaderSettings, **more: Any) -> None:
        as_they_are = type(settings.windows).prepare is SlidingWindows.prepare  # nobody else looks at single windows
        packed = all(len(dataset.packed.places) == len(dataset) for dataset in collection.datasets)
        by_threads = packed and as_they_are
        self.threads = min(settings.workers, available_cores()) if by_threads else 0  # more are in each other's way
        processes = 0 if by_threads else settings.workers
        if processes:
            make_room_for_sockets()
            collection.share_caches()
        dataset: Dataset[Any] = collection.as_stored() if as_they_are else collection
        if processes:
            dataset, more["collate_fn"] = _Batches(dataset, more["collate_fn"]), _as_it_is
        super().__init__(
            dataset, num_workers=processes, persistent_workers=processes > 0, pin_memory=settings.pinned, **more
        )

    def __iter__(self) -> Any:
        """Batches, from the first one on."""
        if self.threads or (self.persistent_workers and self._iterator is not None):
            # As loaders do whose processes begin anew: random numbers must not depend on how chips are read.
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        if self.threads:
            return in_threads(self, self.threads)
        batches = super().__iter__()
        return _raised(batches) if self.num_workers else batches


class _Batches(Dataset[Any]):
    """Batches for reader processes to fetch: what the user can mend is handed over, and raised by ``_raised``.

    PyTorch would raise it as text, with the traceback of the reader process.
    """

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitems__(self, keys: Sequence[Any]) -> Any:
        try:
            return self.collate([self.dataset[key] for key in keys])
        except UserError as error:
            return error


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


def _as_it_is(batch: Any) -> Any:
    return batch


def _raised(batches: Any) -> Iterator[Any]:
    """What PyTorch's iterator over processes gives, and as errors for people what the processes ended of."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            wait([process.sentinel for process in batches._workers], timeout=1)  # a pipe is closed before they are gone
            codes = [process.exitcode for process in batches._workers if process.exitcode]
            if not codes:
                raise
            raise DataError(
                f"a process that reads batches was {how_ended(min(codes))}: there were {len(batches._workers)}",
                fix="more memory, or fewer --workers; packed chips need no such processes (`stbench data pack`)",
            ) from error
        if isinstance(batch, UserError):
            raise batch
        yield batch
