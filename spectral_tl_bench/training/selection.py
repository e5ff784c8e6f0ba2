"""Which checkpoint counts: the one that does best on validation chips of the source."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.evaluation.metrics import MeanIoU


@dataclass(frozen=True)
class BestOnSource:
    """The checkpoint with the highest value on source validation; of equal ones the first.

    Attributes:
        metric: What is compared.
    """

    name: ClassVar[str] = "source-validation mIoU"
    numerics_version: ClassVar[int] = 1

    metric: MeanIoU = field(default_factory=MeanIoU)

    def value(self, matrix: NDArray[np.integer[Any]]) -> float:
        """The value of a checkpoint; 0 where there is nothing to measure.

        Args:
            matrix: Confusion matrix (K, K) of all validation chips.
        """
        value = self.metric.value(matrix)
        return value if math.isfinite(value) else 0.0
