"""A cell as far as source validation: built and trained, and no further.

Nothing here, nor in what it imports, opens the target: ``runner.test`` does, and cannot be reached from here.
"""

from __future__ import annotations

import gc

from spectral_tl_bench.runner.build import Workplace, build
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.train import train
from spectral_tl_bench.storage import scratch


class DivergedError(Exception):
    """Training ended in weights that are no numbers."""


def source_value(cell: Cell, workplace: Workplace) -> float:
    """Train a cell, and give the source-validation mIoU of its selected checkpoint.

    Args:
        cell: What is trained; its oracle would be chosen on the target, so it is not asked for one.

    Raises:
        ValueError: If it asks for an oracle, for images of the target, or to be selected on it.
        DivergedError: If the selected weights are not finite.
    """
    if cell.oracle or cell.method.target_images or cell.protocol.selection.on_target:
        raise ValueError("a trial must not see the target")
    try:
        built = build(cell, cell.split(), workplace)
        with scratch() as folder:
            trained = train(built, folder)
            _, weights = trained.selected
            if any(value.is_floating_point() and not bool(value.isfinite().all()) for value in weights.values()):
                raise DivergedError("the selected weights are not finite")
            return trained.selected_value
    finally:
        gc.collect()  # as in runner.cell: Lightning's trainers hold their modules in cycles
