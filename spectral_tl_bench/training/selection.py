"""Which checkpoint counts, on which chips it is measured, and what the value of a validation is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.evaluation.metrics import MeanIoU, released_history

Matrix = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class BestOnSource:
    """The checkpoint with the highest value on source validation; of equal ones the first.

    Attributes:
        metric: What is compared.
    """

    name: ClassVar[str] = "source-validation mIoU"
    numerics_version: ClassVar[int] = 1
    on_target: ClassVar[bool] = False
    """Whether validation reads the target's labels: a leak, which nobody gets without asking for it."""
    takes_last: ClassVar[bool] = False
    """Whether each validated checkpoint replaces the one before, whatever its value."""
    never_resets: ClassVar[bool] = False
    """Whether a validation counts the ones before once more, and a look at the untrained module."""

    metric: MeanIoU = field(default_factory=MeanIoU)

    def value(self, matrix: Matrix, before: Sequence[Matrix] = ()) -> float:  # noqa: ARG002
        """The value of a checkpoint; 0 where there is nothing to measure.

        Args:
            matrix: Confusion matrix (K, K) of all validation chips.
            before: Those of the passes before it, where the rule never resets them.
        """
        return _finite(self.metric.value(matrix))


@dataclass(frozen=True)
class LastOnTarget(BestOnSource):
    """What the authors' release does: validates on the target's labels, and the checkpoint is always the last one.

    The value is what the release prints: its metric, over all validations so far and the pass over the first chips that
    it makes before training. It chooses nothing.
    """

    name: ClassVar[str] = "target mIoU as the release prints it"
    numerics_version: ClassVar[int] = 1
    on_target: ClassVar[bool] = True
    takes_last: ClassVar[bool] = True
    never_resets: ClassVar[bool] = True

    def value(self, matrix: Matrix, before: Sequence[Matrix] = ()) -> float:
        """What the release prints after a validation; 0 where there is nothing to measure."""
        # The release has its void class in row and column 0; a prediction of ours is never void.
        passes = [np.pad(one, ((1, 0), (1, 0))) for one in (*before, matrix)]
        return _finite(released_history(passes)[-1].miou)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
