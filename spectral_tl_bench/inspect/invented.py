"""A task without data, for looking at a method before there are any."""

from __future__ import annotations

from collections.abc import Sequence

from spectral_tl_bench.methods.base import Backbone, Budget, Task

NO_BENCHMARK = "none"


def invented_task(
    backbone: Backbone,
    *,
    bands: int,
    classes: int,
    window: int,
    budget: Budget,
    benchmark: str = NO_BENCHMARK,
    domains: Sequence[str] = ("source",),
) -> Task:
    """What a method is told, with bands spread evenly from 0.45 to 2.2 um at a ground sampling distance of 10 m.

    Args:
        backbone: The backbone, not yet fitted to the bands.
        window: Side of windows in pixels.
        benchmark: Name in the place of a benchmark's id; seeds may come from it.
        domains: Names of the source domains.
    """
    wavelengths = tuple(0.45 + 1.75 * number / max(1, bands - 1) for number in range(bands))
    return Task(
        benchmark=benchmark,
        bands=tuple(f"band {number + 1}" for number in range(bands)),
        wavelengths=wavelengths,
        gsd=10.0,
        classes=tuple(f"class {number + 1}" for number in range(classes)),
        domains=tuple(domains),
        window=window,
        budget=budget,
        backbone=backbone.for_sensor(wavelengths, 10.0),
    )
