"""The protocol ``strict``, this suite's default; docs/protocol.md tells what it is for."""

from __future__ import annotations

from spectral_tl_bench.data.normalisation import Normalise
from spectral_tl_bench.data.rules import PixelRules
from spectral_tl_bench.data.transforms import FlipsAndTurns
from spectral_tl_bench.data.windows import SlidingWindows
from spectral_tl_bench.evaluation.metrics import MeanIoU
from spectral_tl_bench.methods.base import Budget
from spectral_tl_bench.methods.budget import BY_RECIPE
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.training.selection import BestOnSource

STRICT = Protocol(
    name="strict",
    about="selection on source validation, native resolution, every labelled pixel counts",
    pixels=PixelRules(Normalise, FlipsAndTurns, SlidingWindows()),
    metric=MeanIoU(),
    selection=BestOnSource(MeanIoU()),
    budgets={
        # Published settings (SpectralX, ISPRS J. 239, 2026): AdamW 1e-4, constant, batch 32, 25,000 + 45,000 steps.
        "paper": (Budget(), 20),
        # Sized for a laptop: eight benchmarks and both stages in under three minutes on two cores.
        "small": (Budget(steps=60, pretrain_steps=20, batch_size=8, schedule="cosine", **BY_RECIPE), 3),
    },
    usual_budget="paper",
    window=224,
    small_window=64,
)
