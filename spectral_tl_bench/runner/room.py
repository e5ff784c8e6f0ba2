"""How much room results take, and whether it is there before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from torch import nn

from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.methods.adapters_io import drawn
from spectral_tl_bench.results.store import RECORD_FILE, record_folder
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.storage.output import LEAST_ROOM, check_folder, check_folders

OUT = "--out"
PLAIN_ROOM = 2**20
"""Bytes of a record and its pictures."""
COUNT_BYTES = 2
"""Bytes that one number of a confusion matrix takes in the evidence; most are 0, and it is compressed."""


def bytes_of_result(cell: Cell, split: SplitTable) -> int:
    """About how many bytes the results of a cell take, without its weights."""
    chips, classes = len(split.chips("target")), len(cell.opened.benchmark.labels.names)
    return PLAIN_ROOM + (3 if cell.oracle else 2) * chips * classes**2 * COUNT_BYTES


def bytes_of_weights(module: nn.Module, changeable: Collection[str]) -> int:
    """How many bytes the weights take that are stored with a result.

    Args:
        changeable: Names of the weights that are not those of the pretrained backbone.
    """
    names = {*changeable, *drawn(module)}
    return sum(value.numel() * value.element_size() for name, value in module.state_dict().items() if name in names)


def check_places(cells: Sequence[Cell], out: Path, at_least: int = 0) -> None:
    """Refuse to begin where the results of some cells cannot be stored.

    Args:
        out: Root of the record store.
        at_least: Bytes that they take, as far as finished ones tell; without, weights are not counted.

    Raises:
        StorageError: If a folder of a cell cannot be written, or there is no room for all that has not run before.
    """
    folders = [record_folder(out, cell.opened.benchmark.id, cell.method_name, cell.fingerprint()) for cell in cells]
    missing = [one for one in zip(cells, folders, strict=True) if not (one[1] / RECORD_FILE).is_file()]
    check_folders((folder for _, folder in missing), OUT)
    room = sum(bytes_of_result(cell, cell.split()) for cell, _ in missing)
    check_folder(out, OUT, max(room, at_least, LEAST_ROOM) if room else 0)
