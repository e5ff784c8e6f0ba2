"""A run on images, as one on kept features looks: nothing is cut in two, nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from spectral_tl_bench.data.loaders import EvaluationData, SourceData
from spectral_tl_bench.features.kept import Cost


@dataclass(frozen=True)
class ImageRun:
    """A method's run on images; stands where ``FeatureRun`` stands for kept features.

    Args:
        module: What the method built.
        images: Training windows and validation chips.
    """

    module: nn.Module
    images: SourceData
    training: Cost = field(default_factory=Cost)
    testing: Cost = field(default_factory=Cost)

    def source(self) -> tuple[nn.Module, SourceData]:
        """What is trained, and the data it trains on."""
        return self.module, self.images

    def target(self, data: EvaluationData) -> EvaluationData:
        """Target chips as the trained module wants them."""
        return data

    def facts(self) -> dict[str, Any]:
        """What the record says about it: nothing."""
        return {}
