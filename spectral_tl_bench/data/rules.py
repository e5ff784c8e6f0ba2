"""How pixels reach a module: what a protocol decides about them, as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.data.transforms import FlipsAndTurns
from spectral_tl_bench.data.windows import SlidingWindows


@dataclass(frozen=True)
class PixelRules:
    """Normalisation, augmentation and windows.

    Attributes:
        normalise: Makes of the source's statistics what comes before the module: (B, C, H, W) in the files' unit to
            the same shape.
        augment: Makes of a seed what happens to training windows, called as (images, masks or None, step); None for
            nothing.
        windows: Which windows are trained on and evaluated, and how their logits become one map.
    """

    normalise: Callable[[BandStatistics], nn.Module] = Normalise
    augment: Callable[[int], nn.Module | None] = FlipsAndTurns
    windows: SlidingWindows = field(default_factory=SlidingWindows)
