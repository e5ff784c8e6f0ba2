"""SWAD: the mean of all weights between the first rest of the source-validation loss and its rise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from spectral_tl_bench.objectives.base import Average, Averager, Objective


@dataclass(frozen=True)
class Valley:
    """A range of validations, first and last included, counted from 0.

    Attributes:
        start: The first.
        end: The last so far.
        closed: Whether the loss has risen since, so that the end is final.
        limit: The loss above which it has.
    """

    start: int
    end: int
    closed: bool
    limit: float


def find_valley(losses: Sequence[float], start_patience: int, end_patience: int, tolerance: float) -> Valley | None:
    """Algorithm 1 of SWAD.

    The valley starts at the first loss that none of the next ``start_patience - 1`` is below; the limit is the mean of
    these losses times ``tolerance``. It ends before the first ``end_patience`` losses in a row that all lie above.

    Args:
        losses: Loss of every validation so far.
        start_patience: N_s.
        end_patience: N_e.
        tolerance: r.

    Returns:
        The valley; None where none has started.
    """
    valley: Valley | None = None
    for now in range(len(losses)):
        if valley is None:
            first = now - start_patience + 1
            recent = losses[max(0, first) : now + 1]
            if first >= 0 and losses[first] == min(recent):
                valley = Valley(first, now, False, tolerance * sum(recent) / start_patience)
        elif now + 1 >= end_patience and min(losses[now - end_patience + 1 : now + 1]) > valley.limit:
            # The window begins with the start at the earliest, which lies below the limit unless r is below 1.
            return Valley(valley.start, max(valley.start, now - end_patience), True, valley.limit)
    return None if valley is None else Valley(valley.start, len(losses) - 1, False, valley.limit)


class Swad(Objective):
    """Averages the weights of every step of the last stage over a valley of the source-validation loss.

    Algorithm 1 of the paper: the valley is found from the cross-entropy on source validation. It is computed
    ``validations`` times in the stage, evenly spread and once per step at most, whatever the protocol's own rhythm is,
    by which checkpoints are selected: the authors validate 30 to 100 times a run. That costs as many passes over the
    source-validation chips, until the valley is over. Between validations every step counts. As in the authors' code
    the average begins with the steps that lead to the first validation of the valley, and where no valley is found it
    is that of the steps before the last validation.

    The average is the selected checkpoint. N_s = 3, N_e = 6; r = 1.3 is that of the authors' code, which sets 1.2 for
    VLCS.
    """

    numerics_version = 2

    reference: ClassVar[str] = "Cha et al., SWAD, NeurIPS 2021, Algorithm 1"
    source_code: ClassVar[str] = "khanrc/swad, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "Losses above the limit at the very end of training, fewer than N_e of them, stay in the average, as in "
        "Algorithm 1; the authors' code leaves them out.",
        "Steps are averaged, whatever the distance between two validations; the authors' code gives each stretch "
        "between two validations the same weight.",
        "The loss is the mean over labelled pixels of all windows, and not over images of several domains alike.",
        "Batch statistics of the average are computed again on 100 source training batches at most; the authors' code "
        "takes 500.",
    )
    later: ClassVar[Mapping[str, Any]] = {"validations": 0}

    start_patience: int = Field(3, ge=1, description="N_s, validations without a lower loss that start the average")
    end_patience: int = Field(6, ge=1, description="N_e, validations above the limit that end it")
    tolerance: float = Field(1.3, ge=1, description="r, the limit in multiples of the mean loss at the start")
    validations: int = Field(
        50, ge=0, description="times that the loss on source validation is computed, once per step at most; 0: with "
        "the protocol's validations alone",
    )  # fmt: skip

    def average(self, folder: Path) -> Averager:
        """The averager."""
        return ValleyAverager(self, folder)


class ValleyAverager:
    """Keeps the mean weights between each two validations in files, and joins those that lie in the valley for sure.

    So there are N_s or N_e files and one more, however long the valley is.

    Args:
        folder: For the files.
    """

    def __init__(self, objective: Swad, folder: Path) -> None:
        self.objective, self.folder = objective, folder
        self._mean: dict[str, Tensor] = {}
        self._count = 0
        self._losses: list[float] = []
        self._steps: list[tuple[int, int]] = []  # last step of each segment, and how many steps it holds
        self._joined = 0  # segments from the start of the valley on that are in the sum
        self._closed = False

    @property
    def validations(self) -> int:
        """How often the loss is wanted in a stage; 0 for at the protocol's validations."""
        return self.objective.validations

    @property
    def finished(self) -> bool:
        """Whether the valley is over."""
        return self._closed

    def after_step(self, step: int, weights: dict[str, Tensor]) -> None:
        """Update the running mean of this segment."""
        del step
        if self._closed:
            return
        self._count += 1
        for name, value in weights.items():
            if self._count == 1:
                self._mean[name] = value.detach().float().clone()
            else:
                mean = self._mean[name].to(value.device)  # from a checkpoint it comes on the CPU
                self._mean[name] = mean.add_((value.detach().float() - mean) / self._count)

    def after_validation(self, step: int, loss: float) -> None:
        """End a segment; forget those that no valley can reach any more."""
        if self._closed or not self._count:
            return
        torch.save({name: value.cpu() for name, value in self._mean.items()}, self._file(len(self._losses)))
        self._losses.append(loss)
        self._steps.append((step, self._count))
        self._count = 0
        valley = self._valley()
        oldest = len(self._losses) - self.objective.start_patience if valley is None else valley.start
        for number in range(oldest):
            self._file(number).unlink(missing_ok=True)
        if valley is not None:
            self._closed = valley.closed
            # The next validation can close the valley, and it then ends N_e before.
            self._join(valley, valley.end if valley.closed else len(self._losses) - self.objective.end_patience)

    def _join(self, valley: Valley, last: int) -> None:
        """Add segments up to the ``last`` to the sum, and forget them."""
        for number in range(valley.start + self._joined, last + 1):
            torch.save(self._sum(valley.start, number), self._total(number))  # beside the one before
            self._joined += 1
            for old in (self._file(number), self._total(number - 1)):
                old.unlink(missing_ok=True)

    def _sum(self, start: int, end: int) -> dict[str, Tensor]:
        """The sum of the weights of all steps in some segments, the first and last included."""
        total: dict[str, Tensor] = {}
        if self._joined:
            total = torch.load(self._total(start + self._joined - 1), map_location="cpu", weights_only=True)
        for number in range(start + self._joined, end + 1):
            for name, value in torch.load(self._file(number), map_location="cpu", weights_only=True).items():
                scaled = self._steps[number][1] * value
                total[name] = total[name] + scaled if name in total else scaled
        return total

    def result(self) -> Average | None:
        """The mean over all steps in the valley."""
        if not self._losses:
            return None
        valley, last = self._valley(), len(self._losses) - 1
        start, end = (last, last) if valley is None else (valley.start, valley.end)
        steps = sum(count for _, count in self._steps[start : end + 1])
        mean = {name: value / steps for name, value in self._sum(start, end).items()}
        facts: dict[str, Any] = {
            "valley": valley is not None,
            "first_step": self._steps[start][0] - self._steps[start][1] + 1,
            "last_step": self._steps[end][0],
            "validation_loss": [round(loss, 6) for loss in self._losses],
        }
        return Average(mean, self._steps[end][0], facts)

    def state(self) -> dict[str, Any]:
        """What is remembered, apart from the files."""
        kept = {"count": self._count, "losses": self._losses, "steps": self._steps, "closed": self._closed,
                "joined": self._joined}  # fmt: skip
        return {**kept, "mean": self._mean if self._count else {}}

    def restore(self, state: dict[str, Any]) -> None:
        """The other way."""
        self._count, self._losses, self._mean = state["count"], list(state["losses"]), dict(state["mean"])
        self._steps, self._closed = [(int(last), int(count)) for last, count in state["steps"]], state["closed"]
        self._joined = int(state["joined"])

    def _valley(self) -> Valley | None:
        options = self.objective
        return find_valley(self._losses, options.start_patience, options.end_patience, options.tolerance)

    def _file(self, number: int) -> Path:
        return self.folder / f"segment-{number}.pt"

    def _total(self, number: int) -> Path:
        return self.folder / f"total-{number}.pt"
