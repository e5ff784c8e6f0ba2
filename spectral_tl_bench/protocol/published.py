"""The protocols ``published`` and ``as-published``: the settings of the authors' release; see docs/protocol.md."""

from __future__ import annotations

from dataclasses import replace

from spectral_tl_bench.data.normalisation import ScaledByChip
from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.transforms import FlipsAndRotations
from spectral_tl_bench.data.whole_chips import WholeChips
from spectral_tl_bench.evaluation.metrics import MeanIoU
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.methods.budget import BY_RECIPE
from spectral_tl_bench.protocol import names
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.training.selection import BestOnSource, LastOnTarget

PUBLISHED = Protocol(
    name="published",
    about="chips and training as in the authors' release, selection on source validation",
    pixels=PixelRules(ScaledByChip, FlipsAndRotations, WholeChips()),
    metric=MeanIoU(),
    selection=BestOnSource(MeanIoU()),
    budgets={
        # SpectralX, ISPRS J. 239, 2026: AdamW 1e-4, constant, batch 32, 25,000 + 45,000 steps.
        "paper": (Budget(), 20),
        "small": (Budget(steps=60, pretrain_steps=20, batch_size=8, **BY_RECIPE), 3),
    },
    usual_budget="paper",
    window=224,
    small_window=64,
    options={"reading": "released", "decoder": "upernet"},
)

AS_PUBLISHED = replace(
    PUBLISHED,
    name=names.AS_PUBLISHED,
    about="the same, validated on the labels of the target, as in the release; only by --as-published",
    selection=LastOnTarget(),
)
