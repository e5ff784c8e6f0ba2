"""Which part of every batch, and which chips, this process has where several processes train one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as processes
from torch import Tensor
from torch.utils.data import Sampler

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """The part of one of several processes; by default, of the only one.

    Attributes:
        rank: Number of the process; 0 writes the result.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    def part(self, length: int) -> slice:
        """The positions in a batch of some length; parts differ by one at most, and all together are the batch."""
        return slice(length * self.rank // self.size, length * (self.rank + 1) // self.size)

    def chips(self, chips: Sequence[Item]) -> list[Item]:
        """Every so-manieth chip; no chip is in two shares."""
        return list(chips)[self.rank :: self.size]


WHOLE = Share()
"""The share of the only process."""


def mine() -> Share:
    """The share of this process."""
    if not (processes.is_available() and processes.is_initialized()):
        return WHOLE
    return Share(processes.get_rank(), processes.get_world_size())


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes; the tensor itself where there is one."""
    if mine().size > 1:
        values = values.clone()
        processes.all_reduce(values)
    return values


def agreed(value: Any) -> Any:
    """What the first process says; every process must ask."""
    if mine().size == 1:
        return value
    box = [value]
    processes.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def spread(tensors: Sequence[Tensor]) -> None:
    """Give all processes the first one's tensors, in place."""
    for tensor in tensors if mine().size > 1 else ():
        whole = tensor.detach().contiguous()
        processes.broadcast(whole, src=0)
        with torch.no_grad():
            tensor.copy_(whole)


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order, in the first one; nothing in the others."""
    share = mine()
    if share.size == 1:
        return [value]
    box: list[Any] | None = [None] * share.size if share.rank == 0 else None
    processes.gather_object(value, box, dst=0)
    return box or []


class BatchParts(Sampler[list[Any]]):
    """This process's part of every batch that one process alone would see, in the same order.

    Args:
        sampler: The windows of all batches.
        batch_size: Windows of a whole batch.
        share: Whose part.
    """

    def __init__(self, sampler: Sampler[Any], batch_size: int, share: Share) -> None:
        self.sampler, self.batch_size, self.share = sampler, batch_size, share

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield lists of windows."""
        batch: list[Any] = []
        for window in self.sampler:
            batch.append(window)
            if len(batch) == self.batch_size:
                yield batch[self.share.part(self.batch_size)]
                batch = []

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size  # type: ignore[arg-type]
