"""Seeds from names: what is meant to be paired shares one, and nothing else does."""

from __future__ import annotations

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.objectives.registry import split_objectives


def order_seed(benchmark: str, seed: int) -> int:
    """Seed of the data order: the same windows for all methods of a benchmark and seed."""
    return seed_from("order", benchmark, seed)


def weight_seed(benchmark: str, method: str, seed: int) -> int:
    """Seed of the weights that a method draws, and of its training.

    It is the same with objectives and without, so that these are compared in pairs.
    """
    return seed_from("weights", benchmark, split_objectives(method)[0], seed)
